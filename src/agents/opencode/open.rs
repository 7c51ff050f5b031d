//! From a server to a conversation: the stored one, or a new one with the transcript for its first prompt.

use std::time::Instant;

use serde_json::{Value, json};

use super::{api::CALL_LIMIT, driver::Driver, settings::Settings};
use crate::{
    agents::{Opened, program::Stop},
    protocol::event::Resumed,
};

impl Driver {
    /// Opens the conversation and tells that it is open.
    ///
    /// A stored conversation that cannot be found must not poison the session: then a new one begins, and gets the transcript.
    pub(super) async fn open(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        let native_id = self.spec.native_id.take().filter(|_| self.program.config.native_resume);
        let found = match native_id {
            Some(id) => self.find(id).await?,
            None => false,
        };
        if !found {
            self.create().await?;
        }
        self.lease.listen(&self.session_id);
        self.read_settings().await?;
        let mut faults = Vec::new();
        let mut resumed = if found { Resumed::Native } else { Resumed::New };
        if !found {
            let (replay, fault) = self.host.read_transcript(&self.spec, CALL_LIMIT).await?;
            self.replay = replay;
            faults.extend(fault);
            if self.replay.is_some() {
                resumed = Resumed::Replayed;
            }
        }
        let asked = self.spec.model.as_deref().filter(|model| !model.is_empty());
        // What is wrong with the settings is said by the prompt that asks for them, which may ask for others.
        let model = self.settings.model_for(asked, None).ok().map(|model| model.id());
        let opened = Opened {
            resumed: Some(resumed),
            native_id: Some(self.session_id.clone()),
            model: model.or_else(|| self.settings.default_model()),
            models: self.settings.models(),
        };
        self.host.emit_opened(opened).await?;
        let (mode, configured) = (self.spec.mode.as_deref(), self.program.config.mode.as_deref());
        self.mode = self.settings.mode_for(mode, configured, &self.spec.permission_mode).unwrap_or_default();
        self.emit(self.settings.mode_event(self.mode.as_deref())).await?;
        self.emit(self.settings.commands_event()).await?;
        log::debug!(session = self.spec.session.as_str(), duration_ms = started.elapsed().as_millis(); "opencode session is open");
        self.emit_all(faults).await
    }

    /// Whether the server has this conversation; it is used then. A turn that still runs in it is not ours, and is stopped.
    async fn find(&mut self, id: String) -> Result<bool, Stop> {
        // Only what looks like an id may become a part of an address.
        let plausible = id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let (api, folder) = (self.api.clone(), self.folder.clone());
        let path = format!("/session/{id}");
        let answer = if plausible { Some(self.wait(api.get(&path, Some(&folder), CALL_LIMIT)).await?) } else { None };
        let error = match answer {
            Some(Ok(found)) if found.get("id").and_then(Value::as_str) == Some(id.as_str()) => {
                self.session_id = id;
                self.stop_other_turn().await?;
                return Ok(true);
            }
            Some(Ok(_)) => "the answer is of another".to_owned(),
            Some(Err(error)) => error.message,
            None => "its id is none".to_owned(),
        };
        log::warn!(
            agent = self.program.name.as_str(), session = self.spec.session.as_str(), native_id = id.as_str();
            "agent has not this conversation any more, a new one gets the transcript: {error}"
        );
        Ok(false)
    }

    async fn stop_other_turn(&mut self) -> Result<(), Stop> {
        let status = self.status();
        let status = self.wait(status).await?;
        let busy = status.is_ok_and(|status| status.get("type").and_then(Value::as_str) != Some("idle"));
        if busy {
            let (api, folder) = (self.api.clone(), self.folder.clone());
            let path = format!("/session/{}/abort", self.session_id);
            let aborted = self.wait(api.post(&path, &folder, &json!({}), Some(CALL_LIMIT))).await?;
            log::info!(session = self.spec.session.as_str(), aborted = aborted.is_ok(); "a turn of before was still running");
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Stop> {
        // With a title of ours the server does not ask a model for one.
        let body = json!({"title": self.spec.session.as_str()});
        let (api, folder) = (self.api.clone(), self.folder.clone());
        let name = self.program.name.clone();
        match self.wait(api.post("/session", &folder, &body, Some(CALL_LIMIT))).await? {
            Ok(session) => match session.get("id").and_then(Value::as_str) {
                Some(id) => {
                    self.session_id = id.to_owned();
                    Ok(())
                }
                None => Err(Stop::failed("agent_error", format!("agent `{name}` gave its conversation no id"))),
            },
            Err(error) => {
                Err(Stop::failed("agent_error", format!("agent `{name}` opens no conversation: {}", error.message)))
            }
        }
    }

    /// Asks what the server offers in this folder.
    async fn read_settings(&mut self) -> Result<(), Stop> {
        let (api, folder) = (self.api.clone(), self.folder.clone());
        let ask = |path: &'static str| {
            let (api, folder) = (api.clone(), folder.clone());
            async move { api.get(path, Some(&folder), CALL_LIMIT).await }
        };
        let all = async { tokio::try_join!(ask("/config"), ask("/config/providers"), ask("/agent"), ask("/command")) };
        let (config, providers, agents, commands) = self.wait(all).await?.map_err(|error| {
            let name = &self.program.name;
            Stop::failed("agent_error", format!("agent `{name}` does not tell its settings: {}", error.message))
        })?;
        let configured = self.program.config.model.as_deref();
        self.settings = Settings::read(&config, &providers, &agents, &commands, configured);
        Ok(())
    }
}
