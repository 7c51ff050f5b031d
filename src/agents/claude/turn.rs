//! A turn: from its prompt, over steering and cancelling, to its outcome.

use serde_json::{Value, json};

use super::{
    content,
    course::{Course, News, Over},
    driver::{CallError, Driver},
    narrator::Narrator,
    outcome::{self, Judged},
    wire::{self, Lifecycle, text},
};
use crate::agents::{
    AgentEvent, Opened, Outcome, Prompt,
    program::{Stop, raw},
};

/// The running turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) course: Course,
    pub(super) narrator: Narrator,
    /// True once it was asked to stop.
    pub(super) cancelling: bool,
    /// Set when it is stopped because it cannot end well.
    pub(super) failing: Option<Outcome>,
    /// Texts for it that wait until the agent has said that it tells what becomes of them.
    held: Vec<(u64, String)>,
    /// The conversation so far that went with it.
    replay: Option<String>,
}

impl Turn {
    fn new(uuid: String, replay: Option<String>) -> Self {
        Self {
            course: Course::new(uuid),
            narrator: Narrator::default(),
            cancelling: false,
            failing: None,
            held: Vec::new(),
            replay,
        }
    }
}

fn uuid() -> String {
    uuid::Uuid::now_v7().to_string()
}

impl Driver {
    /// Begins a turn.
    pub(super) async fn prompt(&mut self, prompt: Prompt) -> Result<(), Stop> {
        let model = prompt.model.clone().or_else(|| self.spec.model.clone());
        let mode = prompt.mode.clone().or_else(|| self.spec.mode.clone());
        let failed = match self.apply(model, mode, &prompt.permission_mode).await {
            Ok(()) => None,
            Err(CallError::Stop(stop)) => {
                // The prompt was taken, so its end is owed.
                self.turn = Some(Turn::new(String::new(), None));
                return Err(stop);
            }
            Err(CallError::Unfit(code, message)) => Some((code, message)),
            Err(CallError::Refused(error)) => Some(("agent_error", error)),
            Err(CallError::Timeout) => Some(("agent_timeout", "it did not answer a change of its settings".to_owned())),
        };
        if let Some((code, message)) = failed {
            self.turn = Some(Turn::new(String::new(), None));
            let message = format!("agent `{}`: {message}", self.program.name);
            self.emit(AgentEvent::Ended(Outcome::failed(code, message))).await?;
            self.turn = None;
            return Ok(());
        }
        // A command is one only where nothing stands before it.
        let replay = self.replay.take_if(|_| !content::is_command(&prompt.text));
        let (blocks, faults) = content::blocks(&prompt.text, &prompt.attachments, replay.as_deref());
        let uuid = uuid();
        self.lines.send(&wire::user(&uuid, &blocks, false));
        self.turn = Some(Turn::new(uuid, replay));
        self.host.emit_all(faults).await
    }

    /// Offers a text to the running turn. Without one it is not taken, and the session makes a turn out of it.
    pub(super) fn steer(&mut self, id: u64, text: String) {
        match self.turn.as_mut().filter(|turn| !turn.cancelling && turn.failing.is_none()) {
            Some(turn) if self.signs => {
                let uuid = uuid();
                self.lines.send(&wire::user(&uuid, &json!([{"type": "text", "text": text}]), true));
                turn.course.offer(id, uuid);
            }
            Some(turn) => turn.held.push((id, text)),
            None => log::debug!(id; "there is no turn to steer"),
        }
    }

    /// Asks the agent to stop. The turn ends with the agent's result.
    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        if turn.cancelling {
            return Ok(());
        }
        turn.cancelling = true;
        self.withdraw().await?;
        self.interrupt();
        Ok(())
    }

    /// Stops what runs, and takes back the texts that wait: they would run as turns that nobody asked for.
    pub(super) fn interrupt(&mut self) {
        self.ask(&json!({"subtype": "interrupt", "cancel_queued": true}));
    }

    /// The agent says how far a line of ours is.
    pub(super) async fn lifecycle(&mut self, uuid: &str, state: Lifecycle) -> Result<(), Stop> {
        self.signs = true;
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let News { steered, fault, over } = turn.course.lifecycle(uuid, state);
        let held = std::mem::take(&mut turn.held);
        for (id, text) in held {
            self.steer(id, text);
        }
        if let Some(error) = fault {
            self.emit(AgentEvent::Fault { code: error.code, message: error.message }).await?;
        }
        if let Some(id) = steered {
            if let Some(turn) = &mut self.turn {
                turn.narrator.steered();
            }
            self.emit(AgentEvent::Steered { id }).await?;
        }
        match over {
            Some(over) => self.end_turn(over).await,
            None => Ok(()),
        }
    }

    /// A turn of the agent's is over: of a prompt of ours, or one of its own.
    pub(super) async fn result(&mut self, result: &Value) -> Result<(), Stop> {
        self.meter.result(result);
        if !self.host.is_open() {
            let errors = result.get("errors").and_then(Value::as_array).into_iter().flatten();
            let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
            self.last_words = Some(errors.join("; ")).filter(|errors| !errors.is_empty());
            return Ok(());
        }
        self.conversation_is(text(result, "session_id")).await?;
        let signs = self.signs;
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.course.owns(result, signs)) else {
            return self.emit(raw(result)).await;
        };
        let judged = Judged {
            agent: &self.program.name,
            login: self.program.login_hint(),
            cancelling: turn.cancelling,
            refused: turn.narrator.refused.as_deref(),
        };
        let outcome = outcome::outcome(result, judged);
        let words = turn.narrator.finish(result).filter(|_| matches!(outcome, Outcome::Completed { .. }));
        let stopping = turn.cancelling || turn.failing.is_some();
        let over = turn.course.result(outcome, stopping);
        self.host.emit_all(words).await?;
        match over {
            Some(over) => self.end_turn(over).await,
            None => Ok(()),
        }
    }

    /// The conversation goes on under another id, as after `/clear`: the next start must resume that one.
    async fn conversation_is(&mut self, id: &str) -> Result<(), Stop> {
        if id.is_empty() || id == self.session_id {
            return Ok(());
        }
        id.clone_into(&mut self.session_id);
        self.emit(AgentEvent::Opened(Opened { native_id: Some(id.to_owned()), ..Opened::default() })).await
    }

    /// The turn is over.
    async fn end_turn(&mut self, over: Over) -> Result<(), Stop> {
        // While `turn` is set the end is owed; it is taken only right before the end is sent.
        self.withdraw().await?;
        let usage = self.meter.finish();
        self.emit(AgentEvent::Usage(usage)).await?;
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let outcome = match over {
            _ if turn.failing.is_some() && !turn.cancelling => turn.failing.take().unwrap_or(Outcome::Cancelled),
            Over::Result(outcome) => outcome,
            Over::Silent(Lifecycle::Completed) => Outcome::Completed { reason: None },
            Over::Silent(_) if turn.cancelling => Outcome::Cancelled,
            Over::Silent(_) => {
                let message = format!("agent `{}` dropped the message without an answer", self.program.name);
                Outcome::failed("agent_error", message)
            }
        };
        if !matches!(outcome, Outcome::Completed { .. }) {
            // Nobody knows whether it was taken in; twice is better than never.
            self.replay = turn.replay.take().or(self.replay.take());
        }
        self.emit(AgentEvent::Ended(outcome)).await?;
        self.turn = None;
        Ok(())
    }
}
