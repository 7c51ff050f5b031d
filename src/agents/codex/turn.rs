//! A turn: from the settings that its prompt asks for, over answers, steering and cancelling, to its outcome.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    driver::{CallError, Driver},
    failure,
    input::{input, text_item},
    open::LISTS,
    settings::{InForce, Wanted},
};
use crate::agents::{
    AgentEvent, Answer, Outcome, Prompt,
    program::{RpcError, Stop},
};

/// How long commands may take to end that the agent was told to end.
const END_OF_COMMANDS: Duration = Duration::from_secs(5);

/// The running turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The request that began it.
    request: u64,
    /// True once the agent has said yes to it.
    accepted: bool,
    /// The agent's id of it, once that is known.
    pub(super) id: Option<String>,
    /// True once the agent works on it: before, it can neither be interrupted nor steered.
    started: bool,
    /// True once it was asked to stop.
    pub(super) cancelling: bool,
    /// True once a decision was made that ends it.
    rejected: bool,
    /// True while the agent tries again to reach the model.
    pub(super) retrying: bool,
    /// The conversation so far that went with it.
    replay: Option<String>,
    pub(super) steers: Vec<Steer>,
    /// How it ended in the agent; what is left to do, [`Driver::settle`] does.
    ended: Option<Outcome>,
}

/// A text for the running turn.
#[derive(Debug)]
pub(super) struct Steer {
    id: u64,
    text: String,
    /// Its request, once it was sent.
    request: Option<u64>,
}

impl Turn {
    /// True when the agent has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

impl Driver {
    /// Begins a turn.
    pub(super) async fn prompt(&mut self, prompt: Prompt) -> Result<(), Stop> {
        // From here on its end is owed.
        self.turn = Some(Turn::default());
        self.texts.clear();
        self.tools.clear();
        self.meter.begin();
        if let Some(skills) = self.skills_request.take_if(|_| prompt.text.starts_with(['/', '$']))
            && let Some(Ok(list)) = self.gather(&[skills], LISTS).await?.remove(&skills)
        {
            self.skills_are(&list).await?;
        }
        let wanted = match self.wanted(&prompt) {
            Ok(wanted) => wanted,
            Err((code, message)) => {
                let message = format!("agent `{}`: {message}", self.program.name);
                self.over(Outcome::failed(code, message));
                return Ok(());
            }
        };
        let compact = prompt.text.trim() == "/compact" && prompt.attachments.is_empty() && self.replay.is_none();
        if compact {
            let request = self.connection.request("thread/compact/start", &json!({"threadId": self.thread}));
            self.turn = Some(Turn { request, ..Turn::default() });
            return Ok(());
        }
        let replay = self.replay.take();
        let (input, faults) = input(&prompt.text, &prompt.attachments, replay.as_deref(), &self.skills);
        let mut params = self.in_force.overrides(&wanted, &self.own);
        params.insert("threadId".into(), self.thread.as_str().into());
        params.insert("clientUserMessageId".into(), self.message_id("prompt").into());
        params.insert("input".into(), input.into());
        let request = self.connection.request("turn/start", &Value::Object(params));
        self.turn = Some(Turn { request, replay, ..Turn::default() });
        self.emit_all(faults).await
    }

    /// What a prompt is to run with; else a code of the error table, and what there is, for a person.
    fn wanted(&self, prompt: &Prompt) -> Result<Wanted, (&'static str, String)> {
        let config = &self.program.config;
        let mode = prompt.mode.as_ref().or(self.spec.mode.as_ref()).or(config.mode.as_ref());
        if let Some(mode) = mode {
            self.knows_mode(mode).map_err(|message| ("model_not_found", message))?;
        }
        let permission_mode = prompt.permission_mode.as_str();
        let plan = permission_mode == "plan" && self.knows_mode("plan").is_ok();
        let mode = mode.map_or(if plan { "plan" } else { "default" }, String::as_str).to_owned();
        let Some(policy) = self.own.policy(permission_mode, config.allow_bypass) else {
            let message = format!("permission mode `bypass` needs agents.{}.allow_bypass", self.program.name);
            return Err(("invalid_permission_mode", message));
        };
        let model = prompt.model.as_ref().or(self.spec.model.as_ref());
        if let Some(model) = model {
            self.knows_model(model).map_err(|message| ("model_not_found", message))?;
        }
        Ok(Wanted { model: model.or(self.base_model.as_ref()).cloned(), mode, policy })
    }

    /// The error is for a person and lists what there is.
    pub(super) fn knows_mode(&self, mode: &str) -> Result<(), String> {
        let ids = || self.modes.iter().filter_map(|mode| mode.get("id")?.as_str());
        if ids().any(|id| id == mode) {
            return Ok(());
        }
        let offered: Vec<String> = ids().map(|id| format!("`{id}`")).collect();
        Err(format!("there is no mode `{mode}`; the agent offers {}", listed(&offered)))
    }

    /// Only OpenAI's own list is complete; what another provider has, that provider says.
    fn knows_model(&self, model: &str) -> Result<(), String> {
        let ids = || self.models.iter().filter_map(|model| model.get("model")?.as_str());
        let own = self.base_model.as_deref() == Some(model);
        if own || !self.models_are_all || self.models.is_empty() || ids().any(|id| id == model) {
            return Ok(());
        }
        let offered: Vec<String> = ids().map(|id| format!("`{id}`")).collect();
        Err(format!("there is no model `{model}`; the agent offers {}", listed(&offered)))
    }

    /// A name for a message of ours, by which it is known again.
    fn message_id(&self, what: &str) -> String {
        format!("greenroom-{}-{what}", self.instance)
    }

    /// Takes the answer to a request that belongs to the turn.
    pub(super) async fn turn_response(&mut self, id: u64, result: Result<Value, RpcError>) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if turn.request == id {
            match result {
                Ok(result) => {
                    let begun = result.get("turn").and_then(|turn| turn.get("id")?.as_str()).map(str::to_owned);
                    turn.accepted = true;
                    turn.id = begun.or(turn.id.take());
                    // It can have been told before this answer.
                    if turn.id.is_some() && turn.id == self.active {
                        self.turn_started();
                    }
                }
                Err(error) => {
                    // What of it came into force is not known.
                    self.in_force = InForce::default();
                    let outcome = failure::refused(&self.program.name, &error);
                    self.over(outcome);
                }
            }
            return Ok(());
        }
        let Some(at) = turn.steers.iter().position(|steer| steer.request == Some(id)) else { return Ok(()) };
        match result {
            // It shows as a user message once the model gets it. Until then an interruption drops it, and then it is
            // the session's again.
            Ok(_) if self.echoes => Ok(()),
            Ok(_) => self.steered(at).await,
            Err(error) => {
                log::debug!(agent = self.program.name.as_str(); "agent did not take a text: {}", error.text());
                turn.steers.remove(at);
                Ok(())
            }
        }
    }

    /// A turn has begun in the agent, ours or one of its own.
    pub(super) fn turn_began(&mut self, id: Option<String>) {
        self.active = id;
        let Some(turn) = &mut self.turn else { return };
        // A compaction is accepted without an id.
        if turn.accepted && turn.id.is_none() {
            turn.id.clone_from(&self.active);
        }
        if turn.id.is_some() && turn.id == self.active {
            self.turn_started();
        }
    }

    /// The agent works on the turn: what had to wait for that is sent.
    fn turn_started(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        if std::mem::replace(&mut turn.started, true) {
            return;
        }
        if turn.cancelling {
            return self.interrupt();
        }
        self.send_steers();
    }

    /// Gives a text to the running turn.
    pub(super) fn steer(&mut self, id: u64, text: String) {
        // Without a turn, or when it is over, the session makes a turn of its own out of it.
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.cancelling && !turn.is_over()) else { return };
        turn.steers.push(Steer { id, text, request: None });
        if turn.started {
            self.send_steers();
        }
    }

    fn send_steers(&mut self) {
        let prefix = self.message_id("steer");
        let Some(turn) = &mut self.turn else { return };
        for steer in turn.steers.iter_mut().filter(|steer| steer.request.is_none()) {
            let params = json!({
                "threadId": self.thread, "expectedTurnId": turn.id, "input": [text_item(&steer.text)],
                "clientUserMessageId": format!("{prefix}-{}", steer.id),
            });
            steer.request = Some(self.connection.request("turn/steer", &params));
        }
    }

    /// A message of the user is part of the turn: a text that was given to it was taken.
    pub(super) async fn user_message(&mut self, item: &Value) -> Result<(), Stop> {
        let Some(name) = item.get("clientId").and_then(Value::as_str) else { return Ok(()) };
        let Some(rest) = name.strip_prefix(&self.message_id("")) else { return Ok(()) };
        self.echoes = true;
        let Some(id) = rest.strip_prefix("steer-").and_then(|id| id.parse::<u64>().ok()) else { return Ok(()) };
        let at = self.turn.as_ref().and_then(|turn| turn.steers.iter().position(|steer| steer.id == id));
        match at {
            Some(at) => self.steered(at).await,
            None => Ok(()),
        }
    }

    async fn steered(&mut self, at: usize) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let id = turn.steers.remove(at).id;
        self.texts.interrupted();
        self.emit(AgentEvent::Steered { id }).await
    }

    /// Passes an answer on. One that comes too late is dropped: the question is settled.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) {
        let Some(reply) = self.pending.answer(ask_id, answer) else {
            log::debug!(ask_id; "answer to a question that nobody asks any more");
            return;
        };
        if let (Some(turn), true) = (&mut self.turn, reply.ends_turn) {
            turn.rejected = true;
        }
        self.connection.reply(&reply.request, &reply.result);
    }

    /// Asks the agent to stop. Its open questions it takes back by itself; an answer that says no would let it go on
    /// for a moment.
    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.cancelling && !turn.is_over()) else { return Ok(()) };
        turn.cancelling = true;
        if turn.started {
            self.interrupt();
        }
        self.withdraw().await
    }

    fn interrupt(&mut self) {
        let turn = self.turn.as_ref().and_then(|turn| turn.id.as_deref());
        // A refusal says that the turn is over, which is told as well.
        self.connection.request("turn/interrupt", &json!({"threadId": self.thread, "turnId": turn}));
    }

    /// Takes back all questions.
    async fn withdraw(&mut self) -> Result<(), Stop> {
        for ask_id in self.pending.take_all() {
            self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        Ok(())
    }

    /// Notes how the turn has ended in the agent.
    fn over(&mut self, outcome: Outcome) {
        if let Some(turn) = &mut self.turn {
            turn.ended.get_or_insert(outcome);
        }
    }

    /// The agent says that the turn is over: `turn` of `turn/completed`.
    pub(super) fn turn_completed(&mut self, completed: &Value) {
        let Some(turn) = &self.turn else { return };
        let outcome = outcome(&self.program.name, turn, completed);
        self.over(outcome);
    }

    /// Ends the turn that the agent has ended. Never from within [`Driver::input`].
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        self.withdraw().await?;
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let Some(outcome) = turn.ended.clone() else { return Ok(()) };
        if matches!(outcome, Outcome::Failed(_)) {
            // Nobody knows whether it was taken in; twice is better than never.
            self.replay = turn.replay.take();
        }
        if outcome == Outcome::Cancelled {
            self.end_commands().await?;
        }
        self.emit(AgentEvent::Ended(outcome)).await?;
        self.turn = None;
        Ok(())
    }

    /// Ends what an interrupted turn has left running: codex lets its commands run on. Those of earlier turns, as a
    /// server that was started on purpose, stay.
    async fn end_commands(&mut self) -> Result<(), Stop> {
        let running = self.tools.running_commands();
        if running.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + END_OF_COMMANDS;
        let left = || deadline.saturating_duration_since(Instant::now());
        let thread = json!({"threadId": self.thread});
        let list = match self.call("thread/backgroundTerminals/list", &thread, left()).await {
            Ok(list) => list,
            Err(CallError::Stop(stop)) => return Err(stop),
            Err(CallError::Refused(_) | CallError::Timeout) => return Err(unstoppable()),
        };
        let terminals = list.get("data").and_then(Value::as_array).into_iter().flatten();
        let field = |terminal: &Value, name: &str| terminal.get(name).and_then(Value::as_str).map(str::to_owned);
        let ours = terminals.filter_map(|terminal| {
            let item = field(terminal, "itemId").filter(|item| running.contains(item))?;
            Some((item, field(terminal, "processId")?))
        });
        for (item, process) in ours {
            let params = json!({"threadId": self.thread, "processId": process});
            let ended = match self.call("thread/backgroundTerminals/terminate", &params, left()).await {
                Ok(ended) => ended.get("terminated").and_then(Value::as_bool) == Some(true),
                Err(CallError::Stop(stop)) => return Err(stop),
                Err(CallError::Refused(_) | CallError::Timeout) => return Err(unstoppable()),
            };
            // One that ended by itself meanwhile is told as well, or was.
            while ended && self.tools.running_commands().contains(&item) {
                if left().is_zero() {
                    return Err(unstoppable());
                }
                self.gather(&[], left().min(Duration::from_millis(20))).await?;
            }
        }
        Ok(())
    }
}

/// Then the whole process has to go: a turn is not over while its commands run.
fn unstoppable() -> Stop {
    Stop::failed("agent_error", "a command of the interrupted turn did not end")
}

fn listed(offered: &[String]) -> String {
    if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
}

fn outcome(agent: &str, turn: &Turn, completed: &Value) -> Outcome {
    match completed.get("status").and_then(Value::as_str) {
        Some("interrupted") if turn.rejected && !turn.cancelling => {
            Outcome::Completed { reason: Some("rejected".into()) }
        }
        Some("interrupted") => Outcome::Cancelled,
        Some("failed") if turn.cancelling => Outcome::Cancelled,
        Some("failed") => failure::outcome(agent, completed.get("error").unwrap_or(&Value::Null)),
        _ => Outcome::Completed { reason: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_turn_is_told_from_a_refused_and_a_failed_one() {
        let ended = |cancelling, rejected, status: &str| {
            let turn = Turn { cancelling, rejected, ..Turn::default() };
            outcome("a", &turn, &json!({"status": status, "error": {"message": "boom"}}))
        };
        let completed = |reason: Option<&str>| Outcome::Completed { reason: reason.map(str::to_owned) };
        assert_eq!(ended(true, true, "interrupted"), Outcome::Cancelled);
        assert_eq!(ended(false, true, "interrupted"), completed(Some("rejected")));
        assert_eq!(ended(false, false, "interrupted"), Outcome::Cancelled);
        assert_eq!(ended(true, false, "completed"), completed(None));
        assert_eq!(ended(true, false, "failed"), Outcome::Cancelled);
        assert_eq!(ended(false, false, "failed"), Outcome::failed("agent_error", "agent `a`: boom"));
    }
}
