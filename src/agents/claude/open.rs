//! From a process to a conversation: resume the agent's own stored one, or begin a new one whose id is chosen here, with
//! the transcript for its first prompt.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    driver::{CallError, Driver},
    settings::{self, Settings},
    usage::Meter,
};
use crate::{
    agents::{
        Opened, Outcome,
        program::{JsonLines, Program, STDERR_IN_MESSAGE, Stop},
    },
    protocol::event::Resumed,
};

/// What makes the program speak the protocol.
const PROTOCOL: [&str; 9] = [
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-prompt-tool",
    "stdio",
];

/// The id of the conversation that a process begins or resumes, and the arguments that make it do so.
pub(super) fn arguments(program: &Program, resume: Option<&str>) -> (String, Vec<String>) {
    let mut args: Vec<String> = PROTOCOL.iter().map(|&arg| arg.to_owned()).collect();
    let id = resume.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    let flag = if resume.is_some() { "--resume" } else { "--session-id" };
    // As one word: an id out of the store is never taken for an option.
    args.push(format!("{flag}={id}"));
    // What a message asks for is set later: a name that is given here is taken for one that is on offer.
    if let Some(model) = &program.config.model {
        args.push(format!("--model={model}"));
    }
    (id, args)
}

impl Driver {
    /// Opens the conversation and tells that it is open.
    ///
    /// A stored conversation that cannot be resumed, because the agent does not know it, dies or hangs over it, must not
    /// poison the session: then a new one begins, and gets the transcript.
    pub(super) async fn open(&mut self, resuming: bool) -> Result<(), Stop> {
        let deadline = Instant::now() + self.program.limits.open_timeout.0;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut resumed = if resuming { Resumed::Native } else { Resumed::New };
        // Half of the time, so that what comes after a failure has the other half.
        let initialized = match self.initialize(if resuming { left() / 2 } else { left() }).await {
            Ok(initialized) => initialized,
            Err(CallError::Stop(Stop::Killed)) => return Err(Stop::Killed),
            Err(error) if resuming => {
                resumed = Resumed::New;
                self.begin_anew(&error).await?;
                self.initialize(left()).await.map_err(|error| self.not_opened(error))?
            }
            Err(error) => return Err(self.not_opened(error)),
        };
        self.meter = Meter::new(resumed == Resumed::New);
        self.settings = Settings::read(&initialized);

        let mut fault = None;
        if resumed == Resumed::New {
            (self.replay, fault) = self.host.read_transcript(&self.spec, left()).await?;
            if self.replay.is_some() {
                resumed = Resumed::Replayed;
            }
        }
        self.settle_model(resumed).await?;
        // What is wrong with the settings is said by the prompt that asks for them, which may ask for others.
        let (mode, permission_mode) = (self.spec.mode.clone(), self.spec.permission_mode.clone());
        if let Err(CallError::Stop(stop)) = self.apply_mode(mode, &permission_mode).await {
            return Err(stop);
        }
        let opened = Opened {
            resumed: Some(resumed),
            native_id: Some(self.session_id.clone()),
            model: self.settings.model.clone(),
            models: self.settings.models(),
        };
        self.host.emit_opened(opened).await?;
        self.emit(settings::commands(initialized.get("commands"))).await?;
        self.emit_mode().await?;
        self.host.emit_all(fault).await
    }

    async fn initialize(&mut self, limit: Duration) -> Result<Value, CallError> {
        self.call(&json!({"subtype": "initialize", "hooks": null}), limit).await
    }

    /// Puts a process with a new conversation in the place of the one that could not resume.
    async fn begin_anew(&mut self, error: &CallError) -> Result<(), Stop> {
        let (id, args) = arguments(&self.program, None);
        let fresh = JsonLines::new(self.program.start(args, &self.spec)?);
        let old = std::mem::replace(&mut self.lines, fresh);
        let native_id = std::mem::replace(&mut self.session_id, id);
        let stopped = old.process.stop(STDERR_IN_MESSAGE).await;
        let said = self.last_words.take().unwrap_or_else(|| format!("{error:?}"));
        log::warn!(
            agent = self.program.name.as_str(), session = self.spec.session.as_str(), native_id;
            "agent cannot resume its conversation, a new one gets the transcript: {said}; it {}", stopped.describe()
        );
        Ok(())
    }

    /// Brings the model into force that the session asks for. What is wrong with it is said by the prompt that asks for it,
    /// which may ask for another.
    async fn settle_model(&mut self, resumed: Resumed) -> Result<(), Stop> {
        let configured = self.program.config.model.clone();
        self.applied.came_back = resumed == Resumed::Native && configured.is_none();
        self.applied.model.clone_from(&configured);
        let asked = self.spec.model.clone().or(configured);
        match self.apply_model(asked).await {
            Err(CallError::Stop(stop)) => return Err(stop),
            // One that does not take it stays with its model, rather than to fail all turns.
            Err(CallError::Refused(_) | CallError::Timeout) => self.applied.came_back = false,
            Err(CallError::Unfit(..)) | Ok(()) => {}
        }
        if self.settings.model.is_none() {
            self.settings.model = self.settings.resolve(self.applied.model.as_deref());
        }
        Ok(())
    }

    fn not_opened(&mut self, error: CallError) -> Stop {
        let name = &self.program.name;
        let said = self.last_words.take();
        Stop::Failed(match error {
            CallError::Stop(Stop::Dead) if said.is_some() => {
                Outcome::failed("agent_error", format!("agent `{name}`: {}", said.unwrap_or_default()))
            }
            CallError::Stop(stop) => return stop,
            CallError::Timeout => {
                let limit = self.program.limits.open_timeout;
                Outcome::failed("agent_timeout", format!("agent `{name}` did not answer initialize within {limit}"))
            }
            CallError::Unfit(code, message) => Outcome::failed(code, message),
            CallError::Refused(error) => {
                Outcome::failed("agent_error", format!("agent `{name}` refused initialize: {error}"))
            }
        })
    }
}
