//! A turn: from the settings that its prompt asks for, over steering and cancelling, to its outcome.
//!
//! pi says that a run is over before it knows whether it will try again or shorten its memory first, so its word alone is
//! not the end: after it, pi is asked for its state, and the turn is over when that says that nothing goes on.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{
    driver::{CallError, Driver},
    events::{self, Ended},
    models::Settings,
};
use crate::agents::{
    AgentEvent, Outcome, Prompt,
    program::{Program, RpcError, Stop, keep_all, without_permissions},
};

/// The pause before pi is asked again whether it is done.
const RECHECK: Duration = Duration::from_millis(20);
/// How often a prompt that has begun no run is looked at before it is taken for done: a command of an extension.
const UNBEGUN: u32 = 3;

/// The running turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) events: events::Turn,
    /// True once it was asked to stop.
    pub(super) cancelling: bool,
    /// When to ask again whether it is done.
    pub(super) recheck: Option<Instant>,
    /// The id of the prompt, and whether it was taken.
    prompt: String,
    /// A run goes on; the model may be called several times in one.
    runs: bool,
    /// Runs that have begun.
    begun: u32,
    /// pi waits before it tries again.
    retries: bool,
    /// The question whether it is done.
    check: Option<String>,
    /// Times that it was idle without having begun.
    idle: u32,
    /// Texts that pi has, with the ids of the commands that brought them; oldest first.
    steers: VecDeque<(u64, String)>,
    /// How many of them wait in pi, as it said last.
    queued: usize,
    /// Texts that came while it was asked whether it is done.
    held: Vec<(u64, String)>,
    /// The conversation so far that went with it.
    replay: Option<String>,
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Driver {
    /// Begins a turn.
    pub(super) async fn prompt(&mut self, prompt: Prompt) -> Result<(), Stop> {
        // Its end is owed from here on.
        self.turn = Some(Turn::default());
        if let Err(outcome) = self.apply(&prompt).await? {
            return self.say_ended(outcome).await;
        }
        let takes_images = self.models.takes_images();
        let is_image = |kind: &str| takes_images && kind.starts_with("image/");
        let (images, files): (Vec<_>, Vec<_>) =
            prompt.attachments.iter().cloned().partition(|file| is_image(&file.media_type));
        let (named, faults) = keep_all(&self.spec.cwd, files).await;
        self.host.emit_all(faults).await?;
        let replay = self.replay.take();
        let text = [replay.as_deref().unwrap_or_default(), &prompt.text, &named].concat();
        let mut message = fields([("message", json!(text))]);
        if !images.is_empty() {
            let image = |file: &crate::protocol::Attachment| json!({"type": "image", "data": file.content_base64, "mimeType": file.media_type});
            message.insert("images".into(), images.iter().map(image).collect());
        }
        let id = self.request("prompt", message);
        self.turn = Some(Turn { prompt: id, replay, ..Turn::default() });
        Ok(())
    }

    /// Brings the settings into force that a prompt asks for, else the session, else the configuration. A change takes
    /// another process.
    async fn apply(&mut self, prompt: &Prompt) -> Result<Result<(), Outcome>, Stop> {
        let (config, name) = (&self.program.config, self.program.name.clone());
        let unfit = |message: String| Ok(Err(Outcome::failed("model_not_found", format!("agent `{name}`: {message}"))));
        let read_only = prompt.permission_mode == "plan";
        if !read_only {
            match without_permissions(&name, config.allow_bypass, &prompt.permission_mode) {
                Ok(fault) => self.host.emit_all(fault).await?,
                Err(outcome) => return Ok(Err(outcome)),
            }
        }
        let model = prompt.model.as_ref().or(self.spec.model.as_ref()).or(config.model.as_ref());
        let model = match model.map(|model| self.models.find(model)) {
            Some(Ok(model)) => Some(model),
            Some(Err(message)) => return unfit(message),
            None => self.initial.clone(),
        };
        let level = prompt.mode.as_ref().or(self.spec.mode.as_ref()).or(config.mode.as_ref()).cloned();
        if let Some(level) = &level
            && let Err(message) = self.models.check_level(level, model.as_deref())
        {
            return unfit(message);
        }
        let same_model = model.is_none() || model == self.models.current;
        let same_level = level.is_none() || level == self.settings.level || level == self.models.level;
        if !(same_model && same_level && read_only == self.settings.read_only) {
            self.restart(Settings { model, level, read_only }).await?;
        }
        Ok(Ok(()))
    }

    /// Offers a text to pi, which takes it at its next safe point.
    pub(super) fn steer(&mut self, number: u64, text: String) {
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.cancelling) else { return };
        if turn.runs && turn.check.is_none() {
            let id = self.request("steer", fields([("message", json!(text))]));
            if let Some(turn) = &mut self.turn {
                turn.steers.push_back((number, id));
            }
        } else {
            turn.held.push((number, text));
        }
    }

    fn send_held(&mut self) {
        let held = self.turn.as_mut().map(|turn| std::mem::take(&mut turn.held)).unwrap_or_default();
        held.into_iter().for_each(|(number, text)| self.steer(number, text));
    }

    /// Asks pi to stop. The turn ends once it has.
    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.cancelling) else { return Ok(()) };
        turn.cancelling = true;
        self.withdraw().await?;
        self.request("abort", Map::new());
        Ok(())
    }

    /// Takes back all questions of extensions.
    async fn withdraw(&mut self) -> Result<(), Stop> {
        for (ask_id, response) in self.dialogs.take_all() {
            self.lines.answer(&response);
            self.host.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        Ok(())
    }

    /// An event of the running turn.
    pub(super) async fn turn_event(&mut self, kind: &str, event: Map<String, Value>) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let flag = |name: &str| event.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut check = false;
        match kind {
            "agent_start" => {
                turn.begun += 1;
                (turn.runs, turn.retries) = (true, false);
                if turn.cancelling {
                    // It began after the first request to stop.
                    self.request("abort", Map::new());
                } else {
                    self.send_held();
                }
            }
            "agent_end" => {
                turn.runs = false;
                check = true;
            }
            "auto_retry_start" => turn.retries = true,
            "auto_retry_end" => {
                turn.retries = false;
                check = !flag("success");
            }
            "compaction_end" => check = !flag("willRetry"),
            "queue_update" => {
                let queued = event.get("steering").and_then(Value::as_array).map_or(0, Vec::len);
                let taken = turn.queued.saturating_sub(queued).min(turn.steers.len());
                turn.queued = queued;
                let steered = turn.steers.drain(..taken).map(|(id, _)| AgentEvent::Steered { id });
                self.host.emit_all(steered).await?;
            }
            _ => {}
        }
        let context = self.models.context();
        if let Some(turn) = &mut self.turn {
            let events = turn.events.event(kind, event, context);
            self.host.emit_all(events).await?;
        }
        if check {
            self.check();
        }
        Ok(())
    }

    /// Asks pi whether it is done.
    pub(super) fn check(&mut self) {
        let id = self.request("get_state", Map::new());
        if let Some(turn) = &mut self.turn {
            turn.check = Some(id);
            turn.recheck = None;
        }
    }

    /// pi has answered a command of the running turn.
    pub(super) async fn answered(&mut self, id: &str, answer: Result<Value, String>) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if turn.prompt == id {
            match answer {
                // Where it was a command of an extension, no event will tell of its end.
                Ok(_) => self.check(),
                Err(error) => {
                    self.replay = turn.replay.take();
                    let outcome = refused(&self.program, &error);
                    return self.say_ended(outcome).await;
                }
            }
        } else if turn.check.as_deref() == Some(id) {
            turn.check = None;
            match answer {
                Ok(state) => return self.checked(&state).await,
                Err(error) => {
                    return Err(Stop::failed("agent_error", format!("agent does not tell its state: {error}")));
                }
            }
        } else if answer.is_err() {
            // A text that it did not take becomes a turn of its own.
            turn.steers.retain(|(_, command)| command != id);
        }
        Ok(())
    }

    /// pi has told its state: either the turn goes on, or it is over.
    async fn checked(&mut self, state: &Value) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let flag = |name: &str| state.get(name).and_then(Value::as_bool).unwrap_or(false);
        let again = Some(Instant::now() + RECHECK);
        if turn.runs || turn.retries || flag("isCompacting") {
            // Its next event goes on from here.
            self.send_held();
            return Ok(());
        }
        if flag("isStreaming") {
            turn.recheck = again;
            return Ok(());
        }
        if turn.begun == 0 && turn.idle < UNBEGUN {
            turn.idle += 1;
            turn.recheck = again;
            return Ok(());
        }
        if state.get("pendingMessageCount").and_then(Value::as_u64).unwrap_or(0) > 0 {
            turn.steers.clear();
            self.forget_steers().await?;
        }
        self.withdraw().await?;
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let outcome = outcome(&self.program, &turn.events.last, turn.cancelling);
        if matches!(outcome, Outcome::Failed(_)) {
            // Nobody knows whether it was taken in; twice is better than never.
            self.replay = turn.replay.take();
        }
        self.say_ended(outcome).await
    }

    /// What pi has not taken it would take with the next prompt, though it becomes a turn of its own. Loading the
    /// conversation again makes it forget that.
    async fn forget_steers(&mut self) -> Result<(), Stop> {
        let limit = self.program.call_timeout();
        let before = self.models.current.clone();
        match self.call("switch_session", fields([("sessionPath", json!(self.file))]), limit).await {
            Ok(answer) if answer.get("cancelled") != Some(&Value::Bool(true)) => {
                let state = self.state(limit).await?;
                self.models.state(&state);
                if self.models.current == before {
                    return Ok(());
                }
            }
            Ok(_) | Err(CallError::Refused(_) | CallError::Timeout) => {}
            Err(CallError::Stop(stop)) => return Err(stop),
        }
        self.restart(self.settings.clone()).await
    }

    async fn say_ended(&mut self, outcome: Outcome) -> Result<(), Stop> {
        // While `turn` is set its end is owed.
        self.host.emit(AgentEvent::Ended(outcome)).await?;
        self.turn = None;
        Ok(())
    }
}

fn outcome(program: &Program, last: &Ended, cancelling: bool) -> Outcome {
    match last.reason.as_str() {
        "aborted" => Outcome::Cancelled,
        "error" | "" if cancelling => Outcome::Cancelled,
        "error" => {
            let error = last.error.clone().unwrap_or_else(|| "the model's provider failed".to_owned());
            let name = &program.name;
            if (RpcError { message: error.clone(), ..RpcError::default() }).is_about_credentials() {
                let message =
                    format!("agent `{name}`: the credentials were refused: {} ({error})", program.login_hint());
                return Outcome::failed("agent_error", message);
            }
            Outcome::failed("agent_error", format!("agent `{name}`: {error}"))
        }
        "length" => Outcome::Completed { reason: Some("max_tokens".into()) },
        _ => Outcome::Completed { reason: None },
    }
}

/// pi did not take a prompt; mostly for want of a key, about which it says more than fits.
fn refused(program: &Program, error: &str) -> Outcome {
    let name = &program.name;
    let first = error.lines().next().unwrap_or_default();
    if first.contains("API key") || first.contains("credentials") {
        let message = format!("agent `{name}` has no credentials: {} ({first})", program.login_hint());
        return Outcome::failed("agent_unavailable", message);
    }
    Outcome::failed("agent_error", format!("agent `{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AgentConfig, AgentLimits};

    #[test]
    fn a_turn_ends_as_its_last_message_did() {
        let config = AgentConfig { command: vec!["pi".into()], ..AgentConfig::default() };
        let program = Program { name: "p".into(), config, limits: AgentLimits::default() };
        let end = |reason: &str, error: Option<&str>, cancelling| {
            outcome(&program, &Ended { reason: reason.into(), error: error.map(str::to_owned) }, cancelling)
        };
        let completed = |reason: Option<&str>| Outcome::Completed { reason: reason.map(str::to_owned) };
        assert_eq!(end("stop", None, true), completed(None));
        assert_eq!(end("length", None, false), completed(Some("max_tokens")));
        assert_eq!((end("aborted", None, true), end("", None, true)), (Outcome::Cancelled, Outcome::Cancelled));
        assert_eq!(end("error", Some("boom"), true), Outcome::Cancelled);
        assert_eq!(end("error", Some("boom"), false), Outcome::failed("agent_error", "agent `p`: boom"));
        let Outcome::Failed(error) = end("error", Some("401 no"), false) else { panic!("must fail") };
        assert!(error.message.contains("refused: run `pi`") && error.message.contains("401 no"), "{}", error.message);
        let Outcome::Failed(error) = refused(&program, "No API key found.\nSee docs") else { panic!("must fail") };
        assert!(error.code == "agent_unavailable" && !error.message.contains("See docs"), "{}", error.message);
    }
}
