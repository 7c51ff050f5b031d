//! From a process to a conversation: `initialize`, then load the agent's own stored one, or a new one with the
//! transcript for its first prompt.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    content::Accepts,
    driver::{CallError, Driver},
    profile::Profile,
    settings::Settings,
    turn::is_about_credentials,
    updates::Conversation,
    usage::Meter,
};
use crate::{
    agents::{Opened, Outcome, program::Stop},
    protocol::event::Resumed,
};

/// The one version of the protocol that is spoken here.
const VERSION: u64 = 1;

impl Driver {
    /// Opens the conversation and tells that it is open.
    ///
    /// A stored conversation that cannot be loaded, because the agent refuses, dies or hangs over it, must not poison the
    /// session: then a new one begins, and gets the transcript.
    pub(super) async fn open(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.program.limits.open_timeout.0;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut initialized = match self.initialize(left()).await {
            // Two first processes of one agent may fall over each other's half-made files: opencode does.
            Err(Stop::Dead) => {
                self.respawn().await?;
                self.initialize(left()).await?
            }
            other => other?,
        };
        self.profile = Profile::of(&initialized);
        let mut resumed = Resumed::New;
        let way_back = self.profile.way_back(&initialized).filter(|_| self.program.config.native_resume);
        let loaded = match self.spec.native_id.take().zip(way_back) {
            // Half of the time, so that what comes after a failure has the other half.
            Some((native_id, method)) => self.load(method, &native_id, left() / 2).await?,
            None => None,
        };
        let result = match loaded {
            Some(Ok(result)) => {
                resumed = Resumed::Native;
                result
            }
            Some(Err(respawn)) => {
                if respawn {
                    self.respawn().await?;
                    initialized = self.initialize(left()).await?;
                }
                self.new_session(left()).await?
            }
            None => self.new_session(left()).await?,
        };
        self.accepts = Accepts::read(&initialized);
        self.conversation.settings = Settings::read(&result);

        let mut faults = Vec::new();
        if resumed == Resumed::New {
            let (replay, fault) = self.host.read_transcript(&self.spec, left()).await?;
            self.replay = replay;
            faults.extend(fault);
            if self.replay.is_some() {
                resumed = Resumed::Replayed;
            }
        }
        // What is wrong with the settings is said by the prompt that asks for them, which may ask for others.
        let (model, mode) = (self.spec.model.clone(), self.spec.mode.clone());
        let permission_mode = self.spec.permission_mode.clone();
        if let Err(CallError::Stop(stop)) = self.apply(model, mode, &permission_mode).await {
            return Err(stop);
        }
        let settings = &self.conversation.settings;
        let opened = Opened {
            resumed: Some(resumed),
            native_id: Some(self.session_id.clone()),
            model: settings.model.as_ref().and_then(|model| model.current.clone()),
            models: settings.models(),
        };
        self.host.emit_opened(opened).await?;
        self.emit_mode().await?;
        self.emit_all(faults).await
    }

    async fn initialize(&mut self, limit: Duration) -> Result<Value, Stop> {
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false,
                "elicitation": {"form": {}}},
            "clientInfo": {"name": "greenroom", "title": "Greenroom", "version": env!("CARGO_PKG_VERSION")},
        });
        let result = self.call("initialize", &params, limit).await;
        let result = result.map_err(|error| self.not_opened("initialize", error))?;
        match result.get("protocolVersion").and_then(Value::as_u64) {
            Some(VERSION) => Ok(result),
            other => {
                let other = other.map_or_else(|| "none".to_owned(), |version| version.to_string());
                let message =
                    format!("agent `{}` speaks protocol version {other}, and this server {VERSION}", self.program.name);
                Err(Stop::Failed(Outcome::failed("agent_unavailable", message)))
            }
        }
    }

    /// Loads a stored conversation: its result, or whether the process must be replaced after the failure. What the agent
    /// replays meanwhile is old and is dropped; commands, modes and the cost so far are kept.
    async fn load(
        &mut self,
        method: &str,
        native_id: &str,
        limit: Duration,
    ) -> Result<Option<Result<Value, bool>>, Stop> {
        self.session_id = native_id.to_owned();
        self.conversation = Conversation { meter: Meter::new(false), ..Conversation::default() };
        let params = json!({"sessionId": native_id, "cwd": self.spec.cwd, "mcpServers": []});
        let started = Instant::now();
        let (error, respawn) = match self.call(method, &params, limit).await {
            Ok(result) => return Ok(Some(Ok(result))),
            Err(CallError::Refused(error)) => (error.text(), false),
            Err(CallError::Unfit(_, message)) => (message, false),
            Err(CallError::Timeout) => ("no answer in time".to_owned(), true),
            Err(CallError::Stop(Stop::Dead)) => ("it died".to_owned(), true),
            Err(CallError::Stop(stop)) => return Err(stop),
        };
        log::warn!(
            agent = self.program.name.as_str(), session = self.spec.session.as_str(), native_id,
            duration_ms = started.elapsed().as_millis();
            "agent cannot load its conversation, a new one gets the transcript: {error}"
        );
        self.session_id.clear();
        Ok(Some(Err(respawn)))
    }

    async fn new_session(&mut self, limit: Duration) -> Result<Value, Stop> {
        self.conversation = Conversation { meter: Meter::new(true), ..Conversation::default() };
        let params = json!({"cwd": self.spec.cwd, "mcpServers": []});
        let result = self.call("session/new", &params, limit).await;
        let result = result.map_err(|error| self.not_opened("session/new", error))?;
        match result.get("sessionId").and_then(Value::as_str) {
            Some(id) => {
                self.session_id = id.to_owned();
                Ok(result)
            }
            None => {
                let message = format!("agent `{}` gave its conversation no id", self.program.name);
                Err(Stop::Failed(Outcome::failed("agent_error", message)))
            }
        }
    }

    fn not_opened(&self, what: &str, error: CallError) -> Stop {
        let name = &self.program.name;
        Stop::Failed(match error {
            CallError::Stop(stop) => return stop,
            CallError::Timeout => {
                let limit = self.program.limits.open_timeout;
                Outcome::failed("agent_timeout", format!("agent `{name}` did not answer {what} within {limit}"))
            }
            CallError::Refused(error) if is_about_credentials(&error) => {
                let login = self.program.login_hint();
                let message = format!("agent `{name}` has no credentials: {login} ({})", error.text());
                Outcome::failed("agent_unavailable", message)
            }
            CallError::Unfit(code, message) => Outcome::failed(code, message),
            CallError::Refused(error) => {
                Outcome::failed("agent_error", format!("agent `{name}` refused {what}: {}", error.text()))
            }
        })
    }
}
