//! What an agent tells, turned into events, messages and questions. Decisions on a [`Draft`]; pure.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    draft::{Draft, Effect, Ending},
    env::Env,
    rope::Rope,
    state::{OpenMessage, OpenPart, OpenTool, PendingChoice, Warm},
};
use crate::{
    agents::{AgentEvent, Answer, Ask, Opened, Outcome, ToolCall, input_summary},
    error::Code,
    ids::TurnId,
    protocol::{
        Choice, ChoiceKind, EventBody, OptionKind, ResolvedBy, Role, ToolStatus, TurnError, TurnState, event::DeltaKind,
    },
    store::ChoiceWrite,
    timestamp::Timestamp,
};

/// Bytes of text and reasoning that one turn may have: more is an agent that does not end, and would be more than a
/// database takes in one row.
const MAX_SAID: usize = 64 << 20;

/// Why a turn failed that said more.
pub(super) const TOO_LARGE: &str = "answer_too_large";

impl Draft {
    /// Takes up one thing that the agent told.
    pub fn agent_event(&mut self, env: &mut Env<'_>, event: AgentEvent) {
        let now = env.now;
        let turn = self.running().map(|running| running.turn.turn.id);
        match event {
            AgentEvent::Opened(opened) => self.agent_opened(env, opened),
            AgentEvent::Ended(outcome) => self.agent_ended(env, outcome),
            AgentEvent::Leaving => self.agent_leaves(),
            AgentEvent::Commands(commands) => {
                // Clients count on a list.
                let commands = if commands.is_array() { commands } else { Value::Array(Vec::new()) };
                if let Some(state) = &mut self.state {
                    state.commands = commands.clone();
                }
                self.emit(now, turn, EventBody::AgentCommands { commands });
            }
            AgentEvent::Plan(entries) => drop(self.emit(now, turn, EventBody::AgentPlan { entries })),
            AgentEvent::Mode { mode, modes } => drop(self.emit(now, turn, EventBody::AgentMode { mode, modes })),
            AgentEvent::Status { status, reason } => {
                self.emit(now, turn, EventBody::AgentStatus { status, reason });
            }
            AgentEvent::Fault { code, message } => drop(self.emit(now, turn, EventBody::Error { code, message })),
            AgentEvent::Raw(value) => self.effects.push(Effect::Raw(turn, value)),
            // The rest belongs to a turn; without one it is late news of a turn that was settled already.
            within => {
                if let Some(turn) = turn {
                    self.turn_event(env, turn, within);
                }
            }
        }
    }

    fn turn_event(&mut self, env: &mut Env<'_>, turn: TurnId, event: AgentEvent) {
        let now = env.now;
        match event {
            AgentEvent::Delta { kind, text } => self.delta(env, turn, kind, text),
            AgentEvent::ToolStarted(call) => self.tool_started(env, turn, call),
            AgentEvent::ToolDelta { call_id, input_so_far } => {
                self.emit(now, Some(turn), EventBody::ToolDelta { call_id, input_so_far });
            }
            AgentEvent::ToolUpdated { call_id, status, output } => {
                self.know_tool(env, turn, &call_id);
                if let Some(tool) = self.open_tool(&call_id) {
                    tool.status = status;
                    tool.output.clone_from(&output);
                }
                self.emit(now, Some(turn), EventBody::ToolUpdated { call_id, status, output });
            }
            AgentEvent::ToolFinished { call_id, output, is_error } => {
                self.know_tool(env, turn, &call_id);
                self.end_tool(now, turn, call_id, output, is_error);
                self.at_tool_boundary(env);
            }
            AgentEvent::ChoiceAsked(ask) => self.ask(env, turn, ask),
            AgentEvent::ChoiceWithdrawn { ask_id } => {
                let Some(running) = self.running() else { return };
                let Some(at) = running.choices.iter().position(|pending| pending.ask_id == ask_id) else { return };
                let pending = running.choices.remove(at);
                let outcome = json!({ "cancelled": true });
                self.resolve(env, turn, pending, outcome, Answer::Cancelled, ResolvedBy::TurnEnded);
            }
            AgentEvent::Steered { id } => self.steered(env, turn, id),
            AgentEvent::Usage(usage) => self.used_more(env, turn, usage),
            AgentEvent::Progress { processed, total, cached, time_ms } => {
                let (todo, done) = (total.saturating_sub(cached), processed.saturating_sub(cached));
                let percent = done.saturating_mul(100).saturating_add(todo / 2).checked_div(todo).unwrap_or(0);
                let percent = u8::try_from(percent.min(100)).unwrap_or(100);
                self.emit(now, Some(turn), EventBody::AgentProgress { percent, processed, total, cached, time_ms });
            }
            AgentEvent::Opened(_)
            | AgentEvent::Ended(_)
            | AgentEvent::Leaving
            | AgentEvent::Commands(_)
            | AgentEvent::Plan(_)
            | AgentEvent::Mode { .. }
            | AgentEvent::Status { .. }
            | AgentEvent::Fault { .. }
            | AgentEvent::Raw(_) => {}
        }
    }

    fn agent_opened(&mut self, env: &mut Env<'_>, opened: Opened) {
        let Some(running) = self.running() else { return };
        let begins = running.turn.turn.state == TurnState::Starting;
        if begins && running.stop.is_some() {
            return;
        }
        let agent = running.turn.turn.agent.clone();
        self.keep_native_id(&agent, opened.native_id);
        // In a running turn it is only news of the conversation's id.
        if !begins {
            return;
        }
        if let Some(state) = &mut self.state {
            state.warm = Some(Warm { agent, unused: None });
        }
        self.begin(env, true, opened.resumed, opened.model);
    }

    /// Remembers the agent's own id of the conversation, for its next start.
    pub(super) fn keep_native_id(&mut self, agent: &str, id: Option<String>) {
        let Some(state) = &mut self.state else { return };
        let Some(id) = id.filter(|id| state.native_ids.get(agent) != Some(id)) else { return };
        Arc::make_mut(&mut state.native_ids).insert(agent.to_owned(), id.clone());
        let conversation = state.id();
        self.native_ids.push((conversation, agent.to_owned(), Some(id)));
    }

    fn agent_ended(&mut self, env: &mut Env<'_>, outcome: Outcome) {
        if self.fall_back(env, &outcome) {
            return;
        }
        let Some(running) = self.running() else { return };
        let waits = std::mem::take(&mut running.redirecting) && !running.steers.is_empty();
        if waits && outcome == Outcome::Cancelled && running.stop.is_none() {
            return self.go_on(env);
        }
        let cut = running.said > MAX_SAID;
        let ending = match (outcome, running.stop.take()) {
            // What it said is not all there.
            (Outcome::Completed { .. }, Some(stop)) if cut => Ending::because(stop.state, &stop.reason),
            // It finished before it heard that it should stop: that is what happened, so that is what is told.
            (Outcome::Completed { reason }, _) => Ending { state: TurnState::Completed, reason, error: None },
            (Outcome::Cancelled | Outcome::Failed(_), Some(stop)) => Ending::because(stop.state, &stop.reason),
            (Outcome::Cancelled, None) => Ending::because(TurnState::Cancelled, "agent_stopped"),
            (Outcome::Failed(error), None) => Ending { state: TurnState::Failed, reason: None, error: Some(error) },
        };
        self.finish(env, &ending);
    }

    /// No further turn is given to this agent process.
    fn agent_leaves(&mut self) {
        if let Some(state) = &mut self.state {
            state.warm = None;
            state.commands = Value::Array(Vec::new());
        }
    }

    /// The agent is gone. A turn that it had ends with it.
    pub fn agent_gone(&mut self, env: &mut Env<'_>, cause: &str) {
        self.agent_leaves();
        let Some(running) = self.running() else { return };
        let ending = match running.stop.take() {
            Some(stop) => Ending::because(stop.state, &stop.reason),
            None => Ending {
                state: TurnState::Failed,
                reason: None,
                error: Some(TurnError { code: Code::AgentError.as_str().into(), message: cause.to_owned() }),
            },
        };
        self.finish(env, &ending);
    }

    /// The agent has said nothing for too long: its turn fails once it has stopped.
    pub fn stalled(&mut self, env: &mut Env<'_>, limit: &str) {
        let Some(running) = self.running() else { return };
        if running.stop.is_some() || !running.choices.is_empty() {
            return;
        }
        let turn = running.turn.turn.id;
        let code = Code::AgentTimeout.as_str().to_owned();
        let message = format!("the agent said nothing for {limit}; it is being stopped");
        self.emit(env.now, Some(turn), EventBody::Error { code, message });
        self.request_stop(TurnState::Failed, "stalled");
    }

    fn delta(&mut self, env: &mut Env<'_>, turn: TurnId, kind: DeltaKind, delta: String) {
        if delta.is_empty() {
            return;
        }
        let Some(running) = self.running() else { return };
        running.said = running.said.saturating_add(delta.len());
        if running.said > MAX_SAID {
            // What it has said so far stays; what it says until it has stopped is dropped.
            if running.stop.is_none() {
                let code = Code::ContentTooLarge.as_str().to_owned();
                let message =
                    format!("the agent has said more than {MAX_SAID} bytes in this turn; it is being stopped");
                self.emit(env.now, Some(turn), EventBody::Error { code, message });
                self.request_stop(TurnState::Failed, TOO_LARGE);
            }
            return;
        }
        let message_id = self.open_message(env, turn);
        let Some(message) = self.running().and_then(|running| running.message.as_mut()) else { return };
        let goes_on = matches!(message.parts.last(), Some(OpenPart::Text(last, _)) if *last == kind);
        if !goes_on {
            message.parts.push(OpenPart::Text(kind, Rope::default()));
        }
        if let Some(OpenPart::Text(_, rope)) = message.parts.last_mut() {
            rope.push(&delta);
        }
        let part = u32::try_from(message.parts.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.emit(env.now, Some(turn), EventBody::MessageDelta { message_id, part, kind, delta });
    }

    fn open_message(&mut self, env: &mut Env<'_>, turn: TurnId) -> crate::ids::MessageId {
        if let Some(message) = self.running().and_then(|running| running.message.as_ref()) {
            return message.id;
        }
        let id = env.message_id();
        if let Some(running) = self.running() {
            running.message = Some(OpenMessage { id, created_at: env.now, parts: Vec::new() });
        }
        self.emit(env.now, Some(turn), EventBody::MessageStarted { message_id: id, role: Role::Assistant });
        id
    }

    /// Ends the assistant message that is being written, if there is one.
    pub(super) fn close_message(&mut self, env: &Env<'_>) {
        let Some(running) = self.running() else { return };
        let Some(message) = running.message.take() else { return };
        let message = message.message(&running.turn);
        let text = message.text();
        if !text.is_empty() {
            running.last_text = text.into();
        }
        self.complete_message(env.now, message);
    }

    pub(super) fn open_tool(&mut self, call_id: &str) -> Option<&mut OpenTool> {
        self.running()?.message.as_mut()?.tool_mut(call_id)
    }

    /// Announces a call, or tells the new details of one that was announced with too few.
    pub(super) fn tool_started(&mut self, env: &mut Env<'_>, turn: TurnId, call: ToolCall) {
        self.open_message(env, turn);
        let Some(message) = self.running().and_then(|running| running.message.as_mut()) else { return };
        let call = match message.tool_mut(&call.call_id) {
            Some(known) => {
                let merged = merge(&known.call, call);
                if merged == known.call {
                    return;
                }
                known.call = merged.clone();
                merged
            }
            None => {
                let tool = OpenTool { call: call.clone(), output: Value::Null, status: ToolStatus::Running };
                message.parts.push(OpenPart::Tool(Arc::new(tool)));
                call
            }
        };
        let input_summary = input_summary(&call.input);
        let ToolCall { call_id, name, title, kind, input } = call;
        self.emit(env.now, Some(turn), EventBody::ToolStarted { call_id, name, title, kind, input, input_summary });
    }

    /// A call that was never announced is announced now, so that clients never see news of an unknown one.
    fn know_tool(&mut self, env: &mut Env<'_>, turn: TurnId, call_id: &str) {
        if self.open_tool(call_id).is_none() {
            let call = ToolCall { call_id: call_id.to_owned(), name: "tool".into(), ..ToolCall::default() };
            self.tool_started(env, turn, call);
        }
    }

    pub(super) fn end_tool(&mut self, now: Timestamp, turn: TurnId, call_id: String, output: Value, is_error: bool) {
        if let Some(tool) = self.open_tool(&call_id) {
            tool.status = if is_error { ToolStatus::Failed } else { ToolStatus::Completed };
            tool.output.clone_from(&output);
        }
        self.emit(now, Some(turn), EventBody::ToolFinished { call_id, output, is_error });
    }

    /// The agent asks. A stored rule answers at once; the question and its answer are told all the same.
    fn ask(&mut self, env: &mut Env<'_>, turn: TurnId, ask: Ask) {
        let Some(state) = &self.state else { return };
        let Some(running) = &state.running else { return };
        if running.stop.is_some() || running.redirecting {
            return self.effects.push(Effect::Answer(ask.ask_id, Answer::Cancelled));
        }
        let agent = running.turn.turn.agent.as_str();
        let rule = state.rules.iter().find(|rule| {
            ask.kind == ChoiceKind::Permission
                && rule.agent == agent
                && Some(&rule.tool) == ask.tool.as_ref()
                && rule.input_summary == ask.input_summary
        });
        let by_rule =
            rule.and_then(|rule| option_for(&ask.options, rule.allow).map(|option| (option.id.clone(), option.kind)));
        let key = state.key().clone();
        let choice = Arc::new(Choice {
            id: env.choice_id(),
            session: key,
            turn_id: turn,
            kind: ask.kind,
            title: ask.title,
            tool: ask.tool,
            input_summary: ask.input_summary,
            options: ask.options,
            questions: (ask.kind == ChoiceKind::Question).then_some(ask.questions),
            created_at: env.now,
            expires_at: env.now.plus(env.settings.choice_timeout),
        });
        self.choices.push(ChoiceWrite::Insert { choice: Box::new((*choice).clone()), ask_id: ask.ask_id.clone() });
        self.emit(env.now, Some(turn), EventBody::ChoiceRequested { choice: Box::new((*choice).clone()) });
        self.touch_row(env.now, |_| {});
        let pending = PendingChoice { choice, ask_id: ask.ask_id };
        match by_rule {
            Some((id, kind)) => {
                let outcome = json!({ "option_id": id, "kind": kind });
                self.resolve(env, turn, pending, outcome, Answer::Option { id }, ResolvedBy::Rule);
            }
            None => {
                if let Some(running) = self.running() {
                    running.choices.push(pending);
                }
            }
        }
    }
}

/// What is known of a call after more was told: a field that came empty keeps its value.
fn merge(known: &ToolCall, news: ToolCall) -> ToolCall {
    let empty = news.input.is_null() || news.input.as_object().is_some_and(serde_json::Map::is_empty);
    ToolCall {
        call_id: known.call_id.clone(),
        name: if news.name.is_empty() { known.name.clone() } else { news.name },
        title: news.title.or_else(|| known.title.clone()),
        kind: news.kind.or_else(|| known.kind.clone()),
        input: if empty { known.input.clone() } else { news.input },
    }
}

/// The option that means yes or no: this time rather than always. Chosen by kind, never by id or place.
pub(super) fn option_for(
    options: &[crate::protocol::ChoiceOption],
    allow: bool,
) -> Option<&crate::protocol::ChoiceOption> {
    let [once, always] = if allow {
        [OptionKind::AllowOnce, OptionKind::AllowAlways]
    } else {
        [OptionKind::RejectOnce, OptionKind::RejectAlways]
    };
    let of = |kind| options.iter().find(move |option| option.kind == kind);
    of(once).or_else(|| of(always))
}
