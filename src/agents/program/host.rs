//! The session's side of an adapter: what it tells, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Program,
    replay::{REPLAY_LIMIT, replay},
};
use crate::agents::{
    AgentEvent, OpenSpec, Opened, Outcome,
    process::{Process, readable},
};

/// How long an agent may take to end by itself after its stdin was closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the last event waits for a session that does not read.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The most of stderr in a message for a person, in bytes; all that is kept goes to the log.
pub const STDERR_IN_MESSAGE: usize = 4000;
/// Lines that are no messages are logged this many times for each agent, and shown up to this many bytes.
const NOISE_LOGGED: u32 = 20;
const NOISE_SHOWN: usize = 1000;
/// Events that wait for `Opened`.
const MAX_EARLY: usize = 32;
/// A raw message is shown whole up to this many bytes.
const RAW_LIMIT: usize = 64 * 1024;

/// Why an adapter's loop is over.
#[derive(Debug)]
pub enum Stop {
    /// Somebody asked for the kill, or dropped the session's side.
    Killed,
    /// The process has ended, or closed its stdout.
    Dead,
    /// The session lets it go in order.
    Closed,
    /// It cannot go on.
    Failed(Outcome),
}

impl Stop {
    /// It cannot go on: a code of the error table, and a message for a person.
    #[must_use]
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Outcome::failed(code, message))
    }
}

/// The way to the session. Drop it only when the agent is gone: the end of the channel tells the session so.
#[derive(Debug)]
pub struct Host {
    events: mpsc::Sender<AgentEvent>,
    /// Fires when the agent must be stopped by force.
    pub killed: CancellationToken,
    /// False until `Opened` was sent; events before it wait in `early`.
    opened: bool,
    early: Vec<AgentEvent>,
    /// True until the agent tells something of its turn.
    silent: bool,
    /// Lines that were no messages.
    noise: u32,
}

impl Host {
    /// Talks to the session through this channel.
    #[must_use]
    pub fn new(events: mpsc::Sender<AgentEvent>, killed: CancellationToken) -> Self {
        Self { events, killed, opened: false, early: Vec::new(), silent: true, noise: 0 }
    }

    /// True once `Opened` was sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened
    }

    /// Tells the session; waits while it is busy. Before `Opened` an event waits for it, all but the mode, which is
    /// told right after `Opened` in any case.
    ///
    /// # Errors
    /// [`Stop::Killed`] when the kill comes meanwhile, or nobody listens.
    pub async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        if !self.opened {
            if self.early.len() < MAX_EARLY && !matches!(event, AgentEvent::Mode { .. }) {
                self.early.push(event);
            }
            return Ok(());
        }
        let first = std::mem::replace(&mut self.silent, matches!(event, AgentEvent::Ended(_)));
        tokio::select! {
            biased;
            () = self.killed.cancelled() => return Err(Stop::Killed),
            sent = self.events.send(event) => sent.map_err(|_closed| Stop::Killed)?,
        }
        if first {
            // The session works on the same thread, and somebody waits for the first token: it has it before more is read.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// [`Host::emit`] for each.
    ///
    /// # Errors
    /// As [`Host::emit`].
    pub async fn emit_all(&mut self, events: impl IntoIterator<Item = AgentEvent>) -> Result<(), Stop> {
        for event in events {
            self.emit(event).await?;
        }
        Ok(())
    }

    /// Sends `Opened`, which must be the first, and then what waited for it.
    ///
    /// # Errors
    /// As [`Host::emit`].
    pub async fn emit_opened(&mut self, opened: Opened) -> Result<(), Stop> {
        self.opened = true;
        self.emit(AgentEvent::Opened(opened)).await?;
        let early = std::mem::take(&mut self.early);
        self.emit_all(early).await
    }

    /// A line that is no message: goes to the log a few times, and to those who want everything raw.
    ///
    /// # Errors
    /// As [`Host::emit`].
    pub async fn noise(&mut self, program: &Program, line: &str) -> Result<(), Stop> {
        let text = readable(line, NOISE_SHOWN);
        if self.noise < NOISE_LOGGED {
            self.noise += 1;
            log::debug!(agent = program.name.as_str(), line = text.as_str(); "agent wrote a line that is no message");
        }
        self.emit(AgentEvent::Raw(json!({ "line": text }))).await
    }

    /// A line beyond the limit, which was not read.
    ///
    /// # Errors
    /// As [`Host::emit`].
    pub async fn too_long(&mut self, program: &Program) -> Result<(), Stop> {
        let message = format!("agent `{}` wrote a line over {}", program.name, program.limits.max_line);
        self.emit(AgentEvent::Fault { code: "line_too_long".into(), message }).await
    }

    /// The conversation so far as text for the first prompt of a new conversation, where there is one; a fault when it
    /// cannot be read in time.
    ///
    /// # Errors
    /// [`Stop::Killed`] when the kill comes meanwhile.
    pub async fn read_transcript(
        &self,
        spec: &OpenSpec,
        limit: Duration,
    ) -> Result<(Option<String>, Option<AgentEvent>), Stop> {
        let loaded = tokio::select! {
            biased;
            () = self.killed.cancelled() => return Err(Stop::Killed),
            loaded = timeout(limit, spec.transcript.load()) => loaded,
        };
        let error = match loaded {
            Ok(Ok(messages)) => return Ok((replay(&messages, REPLAY_LIMIT), None)),
            Ok(Err(error)) => error,
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        log::warn!(session = spec.session.as_str(); "transcript cannot be read for a replay: {error}");
        let message = "the agent could not be given the conversation so far".to_owned();
        Ok((None, Some(AgentEvent::Fault { code: "replay_failed".into(), message })))
    }

    /// There is no process: says why in place of `Opened`.
    pub async fn end_unstarted(self, stop: Stop) {
        if let Stop::Failed(outcome) = stop {
            self.say_ended(&outcome, 1).await;
        }
    }

    /// Says how the prompts that are owed an end have ended, where the process belongs to others as well and is not this
    /// session's to end. `prompts` as in [`Host::end`].
    pub async fn end_shared(self, outcome: &Outcome, prompts: usize) {
        let owed = self.owed(prompts);
        self.say_ended(outcome, owed).await;
    }

    /// An agent that never opened owes an end for its start.
    fn owed(&self, prompts: usize) -> usize {
        if self.opened { prompts } else { prompts.max(1) }
    }

    /// Says how prompts that are owed an end have ended.
    async fn say_ended(&self, outcome: &Outcome, owed: usize) {
        if self.opened
            && owed > 0
            && !matches!(timeout(LAST_WORD, self.events.send(AgentEvent::Leaving)).await, Ok(Ok(())))
        {
            return;
        }
        for _ in 0..owed {
            let last = self.events.send(AgentEvent::Ended(outcome.clone()));
            // A session that was killed may not read any more; it sees the channel close.
            if !matches!(timeout(LAST_WORD, last).await, Ok(Ok(()))) {
                break;
            }
        }
    }

    /// Ends the process, then says how the prompts that are owed an end have ended, then lets the channel go.
    /// `prompts` counts those; an agent that never opened owes at least one, for its start. `cancelling` is true when the
    /// running turn was asked to stop.
    pub async fn end(self, program: &Program, mut process: Process, stop: Stop, prompts: usize, cancelling: bool) {
        if matches!(stop, Stop::Closed) {
            process.finish(CLOSE_PATIENCE).await;
        }
        let stopped = process.stop(STDERR_IN_MESSAGE).await;
        let name = &program.name;
        let outcome = match &stop {
            // It has stopped, and that is what was asked for, in whatever way it did.
            _ if cancelling => Outcome::Cancelled,
            Stop::Failed(Outcome::Failed(error)) => {
                let stderr =
                    if stopped.stderr.is_empty() { String::new() } else { format!("; stderr: {}", stopped.stderr) };
                Outcome::failed(&error.code, format!("{}{stderr}", error.message))
            }
            Stop::Failed(outcome) => outcome.clone(),
            Stop::Killed => Outcome::failed("agent_error", format!("agent `{name}` was stopped by force")),
            Stop::Closed => Outcome::failed("agent_error", format!("agent `{name}` was closed")),
            Stop::Dead => {
                let code = if self.opened { "agent_error" } else { "agent_unavailable" };
                Outcome::failed(code, format!("agent `{name}` {}", stopped.describe()))
            }
        };
        let owed = self.owed(prompts);
        if owed == 0 && matches!(stop, Stop::Dead) {
            log::warn!(agent = name.as_str(); "agent died between turns: it {}", stopped.describe());
        }
        self.say_ended(&outcome, owed).await;
    }
}

/// A message that is passed on as it is, unless it is very large.
#[must_use]
pub fn raw(message: &Value) -> AgentEvent {
    let text = message.to_string();
    if text.len() <= RAW_LIMIT {
        return AgentEvent::Raw(message.clone());
    }
    let begin: String = text.chars().take(1000).collect();
    AgentEvent::Raw(json!({"truncated": true, "bytes": text.len(), "begin": begin}))
}
