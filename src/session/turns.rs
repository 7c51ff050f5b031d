//! The way of a turn: accepted, started, asked to stop, settled. Decisions on a [`Draft`]; pure.

use std::sync::Arc;

use serde_json::Value;

use super::{
    command::Enqueue,
    draft::{Draft, Effect, Ending, ended, first_chars, user_message},
    env::Env,
    state::{PendingEnd, Running, State, Stop},
    steering::prompt,
};
use crate::{
    agents::Answer,
    error::{ApiError, Code},
    gateway::{Accepted, Finished},
    ids::TurnId,
    protocol::{
        AgentStatus, EventBody, Message, Part, Policy, ResolvedBy, Turn, TurnError, TurnState, Usage, event::Resumed,
        turn::AttachmentInfo,
    },
    store::{BudgetScope, ChoiceWrite, TurnRecord},
};

/// The fault of a decision that meets no session; the gateway answers 404 before that.
pub(super) fn no_session() -> ApiError {
    ApiError::new(Code::SessionNotFound, "there is no session of that key")
}

/// Where in the queue a turn goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Where it would be, had it waited since it was accepted.
    InOrder,
}

impl Draft {
    /// Accepts a message, as its policy says.
    ///
    /// # Errors
    /// `session_archived`, `session_busy`, `queue_full`, `budget_exceeded`.
    pub fn enqueue(&mut self, env: &mut Env<'_>, message: &Enqueue) -> Result<Accepted, ApiError> {
        if self.state.as_ref().is_none_or(|state| !state.record.snapshot.archived) {
            self.check_budget(env, &message.user)?;
        }
        if self.state.is_none() {
            let mut record = env.new_session(self.key(), &message.user);
            if let Some(agent) = &message.agent {
                record.snapshot.agent.clone_from(agent);
            }
            self.create(env, record);
        }
        let Some(state) = &self.state else { return Err(no_session()) };
        if state.record.snapshot.archived {
            return Err(ApiError::new(Code::SessionArchived, "the session is archived; PATCH archived to false first"));
        }
        if message.after.is_some_and(|after| !state.ends_with(after)) {
            let message = "the conversation has gone on since; continue after its last response";
            return Err(ApiError::new(Code::PreviousResponseNotLast, message));
        }
        if message.policy == Policy::Reject && state.busy() {
            return Err(ApiError::new(Code::SessionBusy, "a turn runs or waits, and the policy is to be refused then"));
        }
        let waits = state.queue.len() + state.running.as_ref().map_or(0, |running| running.steers.len());
        if waits >= env.settings.max_queue && message.policy != Policy::Replace && state.running.is_some() {
            return Err(ApiError::new(Code::QueueFull, format!("{waits} turns wait already"))
                .with("depth", waits)
                .with("limit", env.settings.max_queue));
        }
        if state.record.snapshot.message_count == 0 && !state.busy() {
            self.tell_before(env, &message.before);
        }
        let Some(state) = &self.state else { return Err(no_session()) };
        let steer = message.policy == Policy::Steer && self.can_steer(env, message);
        let record = new_turn(env, state, message);
        if steer {
            return self.offer(env, message, record);
        }
        match message.policy {
            Policy::Replace => self.drop_queued(env, "replaced"),
            Policy::Interrupt => self.request_stop(TurnState::Cancelled, "interrupt"),
            Policy::Enqueue | Policy::Steer | Policy::Reject => {}
        }
        let place = if message.policy == Policy::Interrupt { Place::First } else { Place::Last };
        let (id, seq) = self.admit(env, record, place, true)?;
        if let Some(once) = &message.once {
            self.remember(env.now, once, format!(r#"{{"turn":"{id}"}}"#));
        }
        self.pump(env);
        let Some(state) = &self.state else { return Err(no_session()) };
        let turn = state.turn(id).ok_or_else(|| ApiError::new(Code::Internal, "the turn ended while it was accepted"));
        let position = state.position(id).unwrap_or(0);
        Ok(Accepted { turn: turn.or_else(|error| self.settled(id).ok_or(error))?, position, steered: false, seq })
    }

    /// Begins the transcript with what was said elsewhere. The content of files is not kept: it belongs to turns.
    fn tell_before(&mut self, env: &mut Env<'_>, before: &[Message]) {
        if !before.is_empty() {
            self.forget_prewarmed();
        }
        for message in before {
            let mut message = Message { id: env.message_id(), created_at: env.now, ..message.clone() };
            for part in &mut message.parts {
                if let Part::File { content_base64, .. } = part {
                    *content_base64 = None;
                }
            }
            self.add_message(env.now, message);
        }
    }

    /// A turn that ended within this very draft, as when its agent is not configured any more.
    fn settled(&self, id: TurnId) -> Option<Turn> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Finished(finished) if finished.turn.id == id => Some(finished.turn.clone()),
            _ => None,
        })
    }

    /// Puts a turn into the queue and tells of it.
    pub(super) fn admit(
        &mut self,
        env: &mut Env<'_>,
        mut record: TurnRecord,
        place: Place,
        new: bool,
    ) -> Result<(TurnId, u64), ApiError> {
        record.first_seq = self.last_seq() + 1;
        record.steers = None;
        let Some(state) = &mut self.state else { return Err(no_session()) };
        let (turn, changed) = match place {
            Place::First => (state.queue.push_front(record), Vec::new()),
            Place::Last => (state.queue.push_back(record), Vec::new()),
            Place::InOrder => state.queue.push_in_order(record),
        };
        let id = turn.turn.id;
        let position = state.position(id).unwrap_or(0);
        self.put_turn(&turn, new);
        changed.iter().for_each(|other| self.put_turn(other, false));
        let view = Turn { position: Some(position), ..turn.turn.clone() };
        let seq = self.emit(env.now, Some(id), EventBody::TurnQueued { turn: Box::new(view), position });
        let now = env.now;
        self.touch_row(now, |record| record.snapshot.last_active_at = now);
        Ok((id, seq))
    }

    /// Settles all queued turns as cancelled.
    pub fn drop_queued(&mut self, env: &mut Env<'_>, reason: &str) {
        let dropped = self.state.as_mut().map(|state| state.queue.drain()).unwrap_or_default();
        for turn in dropped {
            self.settle(env, &turn, &Ending::because(TurnState::Cancelled, reason), Usage::default(), String::new());
        }
    }

    /// Asks for the running turn to be stopped; the first one who asks decides what it becomes.
    pub fn request_stop(&mut self, state: TurnState, reason: &str) {
        let Some(running) = self.running() else { return };
        if running.stop.is_some() {
            return;
        }
        running.stop = Some(Stop { state, reason: reason.to_owned() });
        let starting = running.turn.turn.state == TurnState::Starting;
        let asked = running.redirecting;
        let held = running.held;
        self.visible = true;
        if !asked {
            // An agent that has not got the prompt yet has nothing to stop.
            self.effects.push(if starting || held { Effect::KillAgent } else { Effect::CancelAgent });
        }
    }

    /// Starts what can start: an end that waits, or else the next turn.
    pub fn pump(&mut self, env: &mut Env<'_>) {
        loop {
            let waits = self.state.as_ref().is_some_and(|state| state.running.is_none() && !state.queue.is_empty());
            let out = waits && self.out_of_budget(env).is_some();
            let Some(state) = &mut self.state else { return };
            if state.running.is_some() {
                return;
            }
            match state.pending_end.take() {
                Some(PendingEnd::Reset) => self.begin_conversation(env),
                Some(PendingEnd::Delete) => return self.end_session(env),
                // At a used-up budget turns wait until it is raised.
                None if state.draining || out => return,
                None => {
                    let Some(turn) = state.queue.pop() else { return };
                    self.launch(env, turn);
                }
            }
        }
    }

    /// Takes a turn out of the queue. It waits where as many turns run as may, over all sessions.
    fn launch(&mut self, env: &mut Env<'_>, mut turn: Arc<TurnRecord>) {
        let Some(state) = &mut self.state else { return };
        let agent = turn.turn.agent.clone();
        if (env.agents)(&agent).is_none() {
            let error = TurnError {
                code: Code::AgentUnavailable.as_str().into(),
                message: format!(
                    "no agent {agent:?} is configured any more; PATCH the session's agent, or configure it"
                ),
            };
            let ending = Ending { state: TurnState::Failed, reason: None, error: Some(error) };
            return self.settle(env, &turn, &ending, Usage::default(), String::new());
        }
        let record = Arc::make_mut(&mut turn);
        record.turn.state = TurnState::Starting;
        // A reset may have come between: a turn belongs to the conversation in which it runs.
        record.conversation = state.record.snapshot.id;
        state.running = Some(Running::new(Arc::clone(&turn)));
        if (env.admit)() {
            return self.admitted(env);
        }
        self.put_turn(&turn, false);
        self.touch_row(env.now, |_| {});
        self.effects.push(Effect::AwaitAdmission);
    }

    /// The turn that is starting may run: to a warm agent at once, else its agent is opened first.
    pub fn admitted(&mut self, env: &mut Env<'_>) {
        let Some(state) = &mut self.state else { return };
        let Some(running) = state.running.as_ref().filter(|running| running.stop.is_none()) else { return };
        if running.turn.turn.state != TurnState::Starting {
            return;
        }
        let turn = Arc::clone(&running.turn);
        let agent = turn.turn.agent.clone();
        let capabilities = (env.agents)(&agent).unwrap_or_default();
        if state.warm.is_some() && !(env.keep)() {
            // A session with a long queue must not keep the others out: it waits in line for a place, like them.
            state.warm = None;
            self.effects.push(Effect::CloseAgent);
        }
        let warm = state.warm.as_mut().filter(|warm| warm.agent == agent);
        if !capabilities.stateless && warm.is_none() {
            self.put_turn(&turn, false);
            self.touch_row(env.now, |_| {});
            return self.effects.push(Effect::OpenAgent(agent));
        }
        if let Some(opened) = warm.and_then(|warm| warm.unused.take()) {
            self.keep_native_id(&agent, opened.native_id);
            return self.begin(env, false, opened.resumed, opened.model);
        }
        let cold = capabilities.stateless && !state.warmed_up;
        let resumed = cold.then(|| {
            let fresh = state.record.snapshot.message_count == 0 || !capabilities.replay;
            if fresh { Resumed::New } else { Resumed::Replayed }
        });
        self.begin(env, cold, resumed, None);
    }

    /// The agent is ready: the turn runs from here. Written before the agent gets the prompt, so that no crash can make it
    /// run twice; and on the disk, unless nobody was told of the turn yet.
    pub(super) fn begin(&mut self, env: &mut Env<'_>, cold: bool, resumed: Option<Resumed>, model: Option<String>) {
        let now = env.now;
        let Some(state) = &mut self.state else { return };
        let model = state.running.as_ref().and_then(|running| running.turn.turn.model.clone()).or(model);
        state.warmed_up = true;
        // What this agent does now the others do not know: they begin anew, and get the transcript.
        if let Some(running) = &state.running {
            let agent = running.turn.turn.agent.clone();
            let conversation = state.record.snapshot.id;
            let strangers: Vec<String> = state.native_ids.keys().filter(|name| **name != agent).cloned().collect();
            for name in strangers {
                Arc::make_mut(&mut state.native_ids).remove(&name);
                self.native_ids.push((conversation, name, None));
            }
        }
        let Some(running) = &mut state.running else { return };
        let turn = Arc::make_mut(&mut running.turn);
        turn.turn.state = TurnState::Running;
        turn.turn.started_at = Some(now);
        let agent = turn.turn.agent.clone();
        let turn = Arc::clone(&running.turn);
        let id = turn.turn.id;
        self.put_turn(&turn, false);
        self.emit(now, Some(id), EventBody::TurnStarted { agent, model, cold_start: cold, resumed });
        let message = user_message(env.message_id(), &turn, id, now);
        self.add_message(now, message);
        self.touch_row(now, |record| {
            record.snapshot.agent_status = AgentStatus::Working;
            record.snapshot.last_active_at = now;
        });
        if !self.may_prompt(env, id) {
            return;
        }
        if let Some(prompt) = self.state.as_ref().and_then(prompt) {
            self.effects.push(Effect::Prompt(Box::new(prompt)));
        }
        self.offer_again(env);
    }

    /// The running turn has ended: settles its tools, questions, message and offered texts, then goes on.
    pub(super) fn finish(&mut self, env: &mut Env<'_>, ending: &Ending) {
        self.settle_tools(env, &format!("the turn ended first: {}", ending.state.as_str()));
        self.settle_choices(env, ResolvedBy::TurnEnded);
        self.close_message(env);
        self.count_usage(env);
        let Some(state) = &mut self.state else { return };
        let Some(running) = state.running.take() else { return };
        if (env.agents)(&running.turn.turn.agent).is_some_and(|agent| agent.per_turn) {
            // Its process goes with the turn; the next one must get one of its own.
            state.warm = None;
        }
        let usage = running.usage;
        self.settle(env, &running.turn, ending, usage, running.last_text.to_string());
        self.effects.push(Effect::AgentRests);
        let now = env.now;
        self.touch_row(now, |record| {
            record.snapshot.usage = record.snapshot.usage.plus(usage);
            record.snapshot.last_active_at = now;
            let failed = ending.state == TurnState::Failed;
            record.snapshot.agent_status = if failed { AgentStatus::Error } else { AgentStatus::Idle };
        });
        // What the agent did not take becomes turns of their own, in the order in which all were accepted.
        let ends = self.state.as_ref().and_then(|state| state.pending_end);
        for (_, text) in running.steers {
            let Ok((id, _)) = self.admit(env, (*text).clone(), Place::InOrder, false) else { return };
            // Texts for a conversation that ends here end with it.
            if let Some(end) = ends
                && let Some(turn) = self.state.as_mut().and_then(|state| state.queue.remove(id))
            {
                let ending = Ending::because(TurnState::Cancelled, end.reason());
                self.settle(env, &turn, &ending, Usage::default(), String::new());
            }
        }
        self.pump(env);
    }

    /// Gives a turn its terminal state and tells of it.
    pub(super) fn settle(
        &mut self,
        env: &mut Env<'_>,
        turn: &Arc<TurnRecord>,
        ending: &Ending,
        usage: Usage,
        response: String,
    ) {
        let summary = Some(first_chars(&response, 500)).filter(|text| !text.is_empty());
        let view = ended(turn, ending, usage, summary.clone(), env.now);
        let mut record = (**turn).clone();
        record.turn = view.clone();
        self.put_turn(&Arc::new(record), false);
        let body = EventBody::TurnFinished {
            state: ending.state,
            reason: ending.reason.clone(),
            error: ending.error.clone(),
            usage,
            summary,
        };
        self.emit(env.now, Some(view.id), body);
        self.touch_row(env.now, |_| {});
        self.effects.push(Effect::Finished(Box::new(Finished { turn: view, response })));
    }

    /// Ends tool calls without a result.
    pub(super) fn settle_tools(&mut self, env: &Env<'_>, why: &str) {
        let Some(running) = self.running() else { return };
        let id = running.turn.turn.id;
        let Some(message) = &mut running.message else { return };
        let open: Vec<String> = message.open_tools().map(|tool| tool.call.call_id.clone()).collect();
        for call_id in open {
            self.end_tool(env.now, id, call_id, Value::String(why.to_owned()), true);
        }
    }

    /// Ends questions that nobody will answer any more.
    pub(super) fn settle_choices(&mut self, env: &Env<'_>, by: ResolvedBy) {
        let Some(running) = self.running() else { return };
        let id = running.turn.turn.id;
        for pending in std::mem::take(&mut running.choices) {
            self.resolve(env, id, pending, serde_json::json!({ "cancelled": true }), Answer::Cancelled, by);
        }
    }

    /// Settles one question: the agent is told, the clients are told, the row is written.
    pub(super) fn resolve(
        &mut self,
        env: &Env<'_>,
        turn: TurnId,
        pending: super::state::PendingChoice,
        outcome: Value,
        answer: Answer,
        by: ResolvedBy,
    ) {
        let choice_id = pending.choice.id;
        let source = match by {
            ResolvedBy::Api => "api",
            ResolvedBy::Ws => "ws",
            ResolvedBy::Timeout => "timeout",
            ResolvedBy::TurnEnded => "turn_ended",
            ResolvedBy::Rule => "rule",
        };
        self.choices.push(ChoiceWrite::Resolve {
            id: choice_id,
            outcome: outcome.clone(),
            source: source.into(),
            at: env.now,
        });
        self.emit(env.now, Some(turn), EventBody::ChoiceResolved { choice_id, outcome, source: by });
        self.visible = true;
        if pending.ask_id != super::budget::ASK_ID {
            self.effects.push(Effect::Answer(pending.ask_id, answer));
        }
    }

    fn begin_conversation(&mut self, env: &mut Env<'_>) {
        let Some(state) = &self.state else { return };
        let mut record = (*state.record).clone();
        let previous = record.snapshot.id;
        record.snapshot.id = env.session_id();
        record.snapshot.created_at = env.now;
        record.snapshot.updated_at = env.now;
        record.snapshot.last_active_at = env.now;
        record.snapshot.message_count = 0;
        record.snapshot.last_message_preview = None;
        record.snapshot.usage = Usage::default();
        record.snapshot.agent_status = AgentStatus::Idle;
        record.feedback = Value::Null;
        // Bounds of its own stay; what was told and answered was about the old conversation.
        record.budget.marks.retain(|mark| mark.scope == BudgetScope::UserDay);
        let changed = [("id", record.snapshot.id), ("previous_id", previous)];
        let changed = changed.into_iter().map(|(name, id)| (name.to_owned(), id.to_string().into())).collect();
        let made = record.snapshot.id;
        self.emit(env.now, None, EventBody::SessionReset { changed });
        self.replace(record);
        // Only now: a crash before it must leave the call to be made again.
        if let Some(once) = self.state.as_mut().and_then(|state| state.reset_call.take()) {
            self.remember(env.now, &once, format!(r#"{{"reset":"{made}"}}"#));
        }
        self.effects.extend([Effect::CloseAgent, Effect::ResetDone]);
    }

    fn end_session(&mut self, env: &mut Env<'_>) {
        // Accepted while the delete waited: told how it ended, like all the others.
        self.drop_queued(env, "session_deleted");
        let Some(id) = self.state.as_ref().map(State::id) else { return };
        let changed = [("id".to_owned(), Value::String(id.to_string()))].into_iter().collect();
        self.emit(env.now, None, EventBody::SessionDeleted { changed });
        self.delete();
        self.effects.extend([Effect::CloseAgent, Effect::ForgetWorkspace, Effect::Deleted]);
    }
}

fn new_turn(env: &mut Env<'_>, state: &State, message: &Enqueue) -> TurnRecord {
    let session = &state.record.snapshot;
    let agent = message.agent.clone().unwrap_or_else(|| session.agent.clone());
    // The session's model belongs to the session's agent; another agent starts with its own default.
    let default_model = if agent == session.agent { session.model.clone() } else { None };
    let attachments = message.attachments.iter().map(|file| AttachmentInfo {
        name: file.name.clone(),
        media_type: file.media_type.clone(),
        bytes: decoded_length(&file.content_base64),
    });
    TurnRecord {
        turn: Turn {
            id: env.turn_id(),
            session: session.key.clone(),
            state: TurnState::Queued,
            source: message.source.clone(),
            client_id: message.client_id.clone(),
            text: message.text.clone(),
            attachments: attachments.collect(),
            metadata: message.metadata.clone(),
            agent,
            model: message.model.clone().or(default_model),
            position: None,
            attempt: message.attempt,
            created_at: env.now,
            started_at: None,
            finished_at: None,
            error: None,
            reason: None,
            summary: None,
            usage: Usage::default(),
            continued_from: message.continued_from,
        },
        conversation: session.id,
        rank: 0,
        mode: message.mode.clone(),
        permission_mode: message.permission_mode.clone(),
        attachments: Arc::clone(&message.attachments),
        first_seq: 0,
        steers: None,
    }
}

/// Bytes that a base64 text stands for, without decoding it.
fn decoded_length(base64: &str) -> u64 {
    let digits = base64.trim_end_matches('=').len();
    u64::try_from(digits.saturating_mul(3) / 4).unwrap_or(u64::MAX)
}
