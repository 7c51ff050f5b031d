//! From a process to a thread: `initialize`, then the stored thread, or a new one with the transcript for its first
//! prompt; and what is on offer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    driver::{CallError, Driver},
    failure,
    settings::{self, InForce, Own},
    usage::Meter,
};
use crate::{
    agents::{AgentEvent, Opened, Outcome, program::Stop},
    protocol::event::Resumed,
};

/// How long the lists of models, of modes or of skills are waited for: without them it works as well.
pub(super) const LISTS: Duration = Duration::from_secs(2);
/// The most pages of models that are read.
const MAX_PAGES: usize = 20;
/// How long to wait before a thread is asked for again that another process has not let go yet.
const WRITER_PAUSE: Duration = Duration::from_millis(200);

impl Driver {
    /// Opens the thread and tells that it is open.
    ///
    /// A stored thread that cannot be resumed, because codex refuses, dies or hangs over it, must not poison the session:
    /// then a new one begins, and gets the transcript.
    pub(super) async fn open(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.program.limits.open_timeout.0;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.initialize(left()).await?;
        let native_id = self.spec.native_id.take().filter(|_| self.program.config.native_resume);
        let mut resumed = Resumed::New;
        let result = match native_id {
            // Half of the time, so that what comes after a failure has the other half.
            Some(native_id) => self.resume(&native_id, left() / 2).await?,
            None => None,
        };
        let result = match result {
            Some(result) => {
                resumed = Resumed::Native;
                result
            }
            None => {
                let result = self.call("thread/start", &self.thread_params(), left()).await;
                result.map_err(|error| self.not_opened("thread/start", error))?
            }
        };
        self.thread = match result.get("thread").and_then(|thread| thread.get("id")?.as_str()) {
            Some(id) => id.to_owned(),
            None => {
                let message = format!("agent `{}` gave its conversation no id", self.program.name);
                return Err(Stop::failed("agent_error", message));
            }
        };
        if resumed == Resumed::New {
            // A resumed thread may have told its total by now.
            self.meter = Meter::new(true);
        }
        self.in_force = InForce::read(&result);
        self.models_are_all = result.get("modelProvider").and_then(Value::as_str) == Some("openai");
        self.read_lists(left().min(LISTS)).await?;
        self.base_model = self.base_model(resumed == Resumed::Native);

        let mut fault = None;
        if resumed == Resumed::New {
            (self.replay, fault) = self.host.read_transcript(&self.spec, left()).await?;
            if self.replay.is_some() {
                resumed = Resumed::Replayed;
            }
        }
        let shown: Vec<Value> =
            self.models.iter().filter(|model| model.get("hidden") != Some(&Value::Bool(true))).cloned().collect();
        let model = self.spec.model.clone().or_else(|| self.base_model.clone()).or_else(|| self.in_force.model.clone());
        // A name that only this session asks for is not on offer to others.
        let began_with = || self.base_model.clone().filter(|own| self.spec.model.as_ref() != Some(own));
        let own = self.configured_model().or_else(began_with);
        let opened = Opened {
            resumed: Some(resumed),
            native_id: Some(self.thread.clone()),
            models: settings::models(&shown, own.as_deref()),
            model,
        };
        self.host.emit_opened(opened).await?;
        self.emit_mode().await?;
        self.ask_skills();
        self.emit(AgentEvent::Commands(settings::commands(&self.skills))).await?;
        self.emit_all(fault).await
    }

    /// The model of turns that ask for none: as configured here, else in codex, else what the thread began with. A
    /// resumed thread stands where its last turn left it, so there codex's default goes before.
    fn base_model(&self, resumed: bool) -> Option<String> {
        let listed = || {
            let listed = settings::default_model(&self.models).filter(|_| resumed && self.models_are_all);
            listed.map(str::to_owned).or_else(|| self.in_force.model.clone())
        };
        self.configured_model().or_else(listed)
    }

    /// The model that is configured, here or in codex.
    fn configured_model(&self) -> Option<String> {
        self.program.config.model.clone().or_else(|| self.own.model.clone())
    }

    async fn initialize(&mut self, limit: Duration) -> Result<(), Stop> {
        let params = json!({
            "clientInfo": {"name": "greenroom", "title": "Greenroom", "version": env!("CARGO_PKG_VERSION")},
            "capabilities": {"experimentalApi": true},
        });
        let result = self.call("initialize", &params, limit).await;
        result.map_err(|error| self.not_opened("initialize", error))?;
        self.connection.notify("initialized", &Value::Null);
        let config = self.connection.request("config/read", &json!({"cwd": self.spec.cwd}));
        let account = self.connection.request("account/read", &json!({}));
        let mut answers = self.gather(&[config, account], limit).await?;
        let mut answer = |id| answers.remove(&id).and_then(Result::ok).unwrap_or_default();
        self.own = Own::read(answer(config).get("config").unwrap_or(&Value::Null));
        let account = answer(account);
        let needed = account.get("requiresOpenaiAuth").and_then(Value::as_bool) == Some(true);
        if needed && account.get("account").is_none_or(Value::is_null) {
            let message = format!("agent `{}` is not logged in: {}", self.program.name, failure::login());
            return Err(Stop::failed("agent_unavailable", message));
        }
        Ok(())
    }

    /// What a thread is started or resumed with.
    fn thread_params(&self) -> Value {
        let mut params = json!({"cwd": self.spec.cwd});
        let config = &self.program.config;
        let model = self.spec.model.as_ref().or(config.model.as_ref()).or(self.own.model.as_ref());
        // A permission mode that is not allowed fails the turn that asks for it.
        let policy = self.own.policy(&self.spec.permission_mode, config.allow_bypass);
        let policy = policy.or_else(|| self.own.policy("default", false));
        if let (Some(params), Some(policy)) = (params.as_object_mut(), policy) {
            params.insert("approvalPolicy".into(), policy.approval);
            params.insert("sandbox".into(), policy.sandbox.name().into());
            if let Some(model) = model {
                params.insert("model".into(), model.as_str().into());
            }
        }
        params
    }

    /// Resumes the stored thread. None is why not, which was logged; the process is fit for a new thread then.
    async fn resume(&mut self, native_id: &str, limit: Duration) -> Result<Option<Value>, Stop> {
        let started = Instant::now();
        let mut params = self.thread_params();
        if let Some(params) = params.as_object_mut() {
            params.insert("threadId".into(), native_id.into());
            params.insert("excludeTurns".into(), true.into());
        }
        self.meter = Meter::new(false);
        let (error, respawn) = loop {
            let left = limit.saturating_sub(started.elapsed());
            match self.call("thread/resume", &params, left).await {
                Ok(result) => return Ok(Some(result)),
                // The process that had it before is still on its way out.
                Err(CallError::Refused(error)) if error.text().contains("active writer") && left > WRITER_PAUSE => {
                    self.gather(&[], WRITER_PAUSE).await?;
                }
                Err(CallError::Refused(error)) => break (error.text(), false),
                Err(CallError::Timeout) => break ("no answer in time".to_owned(), true),
                Err(CallError::Stop(Stop::Dead)) => break ("it died".to_owned(), true),
                Err(CallError::Stop(stop)) => return Err(stop),
            }
        };
        log::warn!(
            agent = self.program.name.as_str(), session = self.spec.session.as_str(), native_id,
            duration_ms = started.elapsed().as_millis();
            "agent cannot resume its conversation, a new one gets the transcript: {error}"
        );
        if respawn {
            self.respawn().await?;
            self.initialize(limit).await?;
        }
        Ok(None)
    }

    /// Reads the models, in pages, and the modes. The skills take longer and come when they come.
    async fn read_lists(&mut self, limit: Duration) -> Result<(), Stop> {
        let deadline = Instant::now() + limit;
        let models = self.connection.request("model/list", &json!({"includeHidden": true}));
        let modes = self.connection.request("collaborationMode/list", &json!({}));
        let mut answers = self.gather(&[models, modes], limit).await?;
        let mut answer = |id| answers.remove(&id).and_then(Result::ok).unwrap_or_default();
        self.modes = settings::modes(&answer(modes));
        let mut page = answer(models);
        for _ in 0..MAX_PAGES {
            if let Some(data) = page.get_mut("data").and_then(Value::as_array_mut) {
                self.models.append(data);
            }
            let Some(cursor) = page.get("nextCursor").filter(|cursor| !cursor.is_null()) else { break };
            let params = json!({"includeHidden": true, "cursor": cursor});
            let left = deadline.saturating_duration_since(Instant::now());
            page = match self.call("model/list", &params, left).await {
                Ok(page) => page,
                Err(CallError::Stop(stop)) => return Err(stop),
                Err(_) => break,
            };
        }
        Ok(())
    }

    fn not_opened(&self, what: &str, error: CallError) -> Stop {
        let name = &self.program.name;
        Stop::Failed(match error {
            CallError::Stop(stop) => return stop,
            CallError::Timeout => {
                let limit = self.program.limits.open_timeout;
                Outcome::failed("agent_timeout", format!("agent `{name}` did not answer {what} within {limit}"))
            }
            CallError::Refused(error) if error.is_about_credentials() => {
                let message = format!("agent `{name}` has no credentials: {} ({})", failure::login(), error.text());
                Outcome::failed("agent_unavailable", message)
            }
            CallError::Refused(error) => {
                Outcome::failed("agent_error", format!("agent `{name}` refused {what}: {}", error.text()))
            }
        })
    }
}
