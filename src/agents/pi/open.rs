//! From a process to a conversation, and from one process to the next on the same conversation.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{
    driver::{CallError, Driver},
    models::Settings,
};
use crate::{
    agents::{
        AgentEvent, Opened,
        program::{JsonLines, STDERR_IN_MESSAGE, Stop},
    },
    protocol::event::Resumed,
};

/// How long pi may take to end by itself once its stdin is closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

impl Driver {
    /// Opens the conversation and tells that it is open.
    ///
    /// pi ends at once over a model that it does not have, and might over a conversation that it cannot read. Neither may
    /// keep a session from starting: the conversation gets a model by default then, and at last begins anew with the
    /// transcript. That a model is missing is said by the prompt that asks for it.
    pub(super) async fn open(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.program.limits.open_timeout.0;
        let left = || deadline.saturating_duration_since(Instant::now());
        let stored = !self.file.is_empty();
        let state = match self.call("get_state", Map::new(), left() / 2).await {
            Ok(state) => state,
            Err(error) => {
                self.log_failure(self.not_opened(error)?);
                self.settings = Settings { read_only: self.settings.read_only, ..Settings::default() };
                self.respawn().await?;
                match self.call("get_state", Map::new(), left() / 2).await {
                    Ok(state) => state,
                    Err(error) => {
                        let stop = self.not_opened(error)?;
                        if !stored {
                            return Err(stop);
                        }
                        self.log_failure(stop);
                        self.file.clear();
                        self.respawn().await?;
                        self.state(left()).await?
                    }
                }
            }
        };
        let loaded = stored && self.has_loaded(&state);
        self.take_state(&state);
        let offered = self.ask("get_available_models", left()).await?;
        self.models.offer(&offered);
        if self.models.current.is_none() {
            let name = &self.program.name;
            let message = format!("agent `{name}` has no credentials for any model: {}", self.program.login_hint());
            return Err(Stop::failed("agent_unavailable", message));
        }
        if self.settings.model.as_ref().is_some_and(|model| self.models.find(model).is_err()) {
            // It makes one up by that name, to be refused by the provider later.
            self.restart(Settings { model: None, ..self.settings.clone() }).await?;
        }
        let commands = self.ask("get_commands", left()).await?;
        let mut faults = None;
        if !loaded {
            (self.replay, faults) = self.host.read_transcript(&self.spec, left()).await?;
        }
        if self.settings.model.is_none() {
            self.initial.clone_from(&self.models.current);
        }
        let resumed = match (loaded, &self.replay) {
            (true, _) => Resumed::Native,
            (false, Some(_)) => Resumed::Replayed,
            (false, None) => Resumed::New,
        };
        let opened = Opened {
            resumed: Some(resumed),
            native_id: Some(self.file.clone()).filter(|file| !file.is_empty()),
            model: self.models.current.clone(),
            models: self.models.told(),
        };
        self.host.emit_opened(opened).await?;
        let commands = commands.get("commands").cloned().unwrap_or_else(|| json!([]));
        self.host.emit(AgentEvent::Commands(commands)).await?;
        self.host.emit_all(self.models.mode_event()).await?;
        self.host.emit_all(faults).await
    }

    /// Another process with other settings on the same conversation.
    pub(super) async fn restart(&mut self, settings: Settings) -> Result<(), Stop> {
        self.settings = settings;
        self.respawn().await?;
        let limit = self.program.call_timeout();
        let state = self.state(limit).await?;
        let had = std::path::Path::new(&self.file).is_file();
        if had && !self.has_loaded(&state) {
            let (replay, fault) = self.host.read_transcript(&self.spec, limit).await?;
            self.replay = replay;
            self.host.emit_all(fault).await?;
        }
        self.take_state(&state);
        self.host.emit_all(self.models.mode_event()).await
    }

    /// Ends the process and starts another one with the present settings, on the present file.
    async fn respawn(&mut self) -> Result<(), Stop> {
        self.lines.process.finish(CLOSE_PATIENCE).await;
        let file = Some(self.file.as_str()).filter(|file| !file.is_empty());
        let fresh = JsonLines::new(self.program.start(self.settings.arguments(file), &self.spec)?);
        let old = std::mem::replace(&mut self.lines, fresh);
        old.process.stop(STDERR_IN_MESSAGE).await;
        Ok(())
    }

    /// pi's state; without it, it cannot be used.
    pub(super) async fn state(&mut self, limit: Duration) -> Result<Value, Stop> {
        self.ask("get_state", limit).await
    }

    async fn ask(&mut self, kind: &str, limit: Duration) -> Result<Value, Stop> {
        match self.call(kind, Map::new(), limit).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.not_opened(error)?),
        }
    }

    fn has_loaded(&self, state: &Value) -> bool {
        let same = state.get("sessionFile").and_then(Value::as_str) == Some(self.file.as_str());
        same && state.get("messageCount").and_then(Value::as_u64).unwrap_or(0) > 0
    }

    fn take_state(&mut self, state: &Value) {
        self.models.state(state);
        if let Some(file) = state.get("sessionFile").and_then(Value::as_str) {
            self.file = file.to_owned();
        }
    }

    /// What a failure of a call means for a start.
    ///
    /// # Errors
    /// The kill, which is no failure.
    fn not_opened(&self, error: CallError) -> Result<Stop, Stop> {
        let name = &self.program.name;
        Ok(match error {
            CallError::Stop(Stop::Dead) => {
                Stop::failed("agent_unavailable", format!("agent `{name}` ended while it started"))
            }
            CallError::Stop(stop) => return Err(stop),
            CallError::Timeout => {
                let limit = self.program.limits.open_timeout;
                Stop::failed("agent_timeout", format!("agent `{name}` did not start within {limit}"))
            }
            CallError::Refused(error) => Stop::failed("agent_error", format!("agent `{name}` cannot be used: {error}")),
        })
    }

    fn log_failure(&self, stop: Stop) {
        let stderr = self.lines.process.stderr(STDERR_IN_MESSAGE);
        log::warn!(
            agent = self.program.name.as_str(), session = self.spec.session.as_str(), stop:? = stop, stderr;
            "agent is started anew"
        );
    }
}
