//! Models and modes into force: what a prompt asks for, else the session, else the configuration.

use serde_json::{Value, json};

use super::{
    driver::{CallError, Driver},
    settings::{self, BYPASS, DEFAULT},
    wire::text,
};
use crate::agents::{AgentEvent, program::Stop};

/// The settings that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) model: Option<String>,
    /// True while a conversation that was resumed may run its last model instead.
    pub(super) came_back: bool,
    /// The mode and the permission mode; none before the first were applied.
    mode: Option<(Option<String>, String)>,
}

/// A change of the mode whose answer comes while a turn may run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ModeRequest {
    id: String,
    mode: String,
}

impl Driver {
    /// Brings the settings into force that are asked for, else configured. What was asked for before and is asked for
    /// again is left alone: the agent may have gone on to another mode since, as after a plan was accepted.
    pub(super) async fn apply(
        &mut self,
        model: Option<String>,
        mode: Option<String>,
        permission_mode: &str,
    ) -> Result<(), CallError> {
        let model = model.or_else(|| self.program.config.model.clone());
        self.apply_model(model).await?;
        self.apply_mode(mode, permission_mode).await
    }

    /// Brings this model into force, or the agent's default; nothing where it is.
    pub(super) async fn apply_model(&mut self, model: Option<String>) -> Result<(), CallError> {
        if model != self.applied.model || self.applied.came_back {
            self.change_model(model.as_deref()).await?;
            (self.applied.model, self.applied.came_back) = (model, false);
        }
        Ok(())
    }

    async fn change_model(&mut self, model: Option<&str>) -> Result<(), CallError> {
        let configured = self.program.config.model.as_deref();
        if let Some(id) = model {
            let fits = self.settings.check_model(id, configured);
            fits.map_err(|message| CallError::Unfit("model_not_found", message))?;
        }
        let request = json!({"subtype": "set_model", "model": model});
        let answer = self.call(&request, self.program.call_timeout()).await?;
        // It answers with the model that it really runs, which may be another one.
        let resolved = Some(text(&answer, "model").to_owned()).filter(|model| !model.is_empty());
        let resolved = resolved.or_else(|| self.settings.resolve(model));
        if let Some(news) = self.settings.model_is(&resolved.unwrap_or_default(), model) {
            self.status(news).await.map_err(CallError::Stop)?;
        }
        Ok(())
    }

    /// The agent says, at the begin of a turn, which model runs.
    pub(super) async fn model_is(&mut self, model: &str) -> Result<(), Stop> {
        match self.settings.model_is(model, self.applied.model.as_deref()) {
            Some(news) => self.status(news).await,
            None => Ok(()),
        }
    }

    /// A mode that is asked for by its id goes before a permission mode.
    pub(super) async fn apply_mode(&mut self, mode: Option<String>, permission_mode: &str) -> Result<(), CallError> {
        let wanted = (mode.or_else(|| self.program.config.mode.clone()), permission_mode.to_owned());
        if self.applied.mode.as_ref() == Some(&wanted) {
            return Ok(());
        }
        match &wanted.0 {
            Some(id) => {
                settings::check_mode(id, &self.program.name, self.program.config.allow_bypass)
                    .map_err(|message| CallError::Unfit("model_not_found", message))?;
                self.go_into(id).await?;
            }
            None => self.apply_permission_mode(permission_mode).await?,
        }
        self.applied.mode = Some(wanted);
        self.emit_mode().await.map_err(CallError::Stop)
    }

    /// Where the agent refuses a permission mode that allows more than its default, it stays in its default and says so;
    /// `plan` allows less, so there the turn must not run.
    async fn apply_permission_mode(&mut self, permission_mode: &str) -> Result<(), CallError> {
        let invalid = |message| CallError::Unfit("invalid_permission_mode", message);
        if permission_mode == "bypass" && !self.program.config.allow_bypass {
            let name = &self.program.name;
            return Err(invalid(format!("permission mode `bypass` needs agents.{name}.allow_bypass")));
        }
        let Some(id) = settings::for_permission_mode(permission_mode) else {
            return Err(invalid(format!("there is no permission mode `{permission_mode}`")));
        };
        let refusal = match self.go_into(id).await {
            Err(CallError::Refused(error)) => error,
            done => return done,
        };
        let message = format!("the agent refused permission mode `{permission_mode}`: {refusal}");
        if permission_mode == "plan" {
            return Err(invalid(message));
        }
        self.go_into(DEFAULT).await?;
        let message = format!("{message}; it stays in its default");
        let fault = AgentEvent::Fault { code: "invalid_permission_mode".into(), message };
        self.emit(fault).await.map_err(CallError::Stop)
    }

    /// Goes into a mode and waits for it. Where the agent does not go into [`BYPASS`], its questions are granted here.
    async fn go_into(&mut self, id: &str) -> Result<(), CallError> {
        let limit = self.program.call_timeout();
        let request = |mode: &str| json!({"subtype": "set_permission_mode", "mode": mode});
        let answer = self.call(&request(id), limit).await;
        let (mode, grants) = match answer {
            Err(CallError::Refused(_)) if id == BYPASS => {
                self.call(&request(DEFAULT), limit).await?;
                (DEFAULT, true)
            }
            Ok(_) => (id, false),
            Err(error) => return Err(error),
        };
        mode.clone_into(&mut self.settings.mode);
        self.settings.grants = grants;
        Ok(())
    }

    /// Goes into a mode now, also in the middle of a turn; the answer is awaited in the loop.
    pub(super) async fn set_mode(&mut self, mode: String) -> Result<(), Stop> {
        if let Err(message) = settings::check_mode(&mode, &self.program.name, self.program.config.allow_bypass) {
            return self.emit(AgentEvent::Fault { code: "model_not_found".into(), message }).await;
        }
        let id = self.ask(&json!({"subtype": "set_permission_mode", "mode": mode}));
        self.mode_request = Some(ModeRequest { id, mode: mode.clone() });
        self.spec.mode = Some(mode);
        Ok(())
    }

    /// The answer to a request that nobody waits for: to [`Driver::set_mode`], or to a call that was given up.
    pub(super) async fn mode_answered(&mut self, id: &str, result: Result<Value, String>) -> Result<(), Stop> {
        let Some(request) = self.mode_request.take_if(|request| request.id == id) else { return Ok(()) };
        match result {
            Ok(_) => {
                self.settings.mode = request.mode;
                self.settings.grants = false;
            }
            Err(_) if request.mode == BYPASS => {
                // Its answer is news of the mode, as any other.
                self.ask(&json!({"subtype": "set_permission_mode", "mode": DEFAULT}));
                DEFAULT.clone_into(&mut self.settings.mode);
                self.settings.grants = true;
            }
            Err(error) => {
                let message = format!("the agent refused the mode `{}`: {error}", request.mode);
                return self.emit(AgentEvent::Fault { code: "agent_error".into(), message }).await;
            }
        }
        if let (Some((applied, _)), Some(mode)) = (&mut self.applied.mode, &self.spec.mode) {
            *applied = Some(mode.clone());
        }
        self.emit_mode().await
    }

    /// The agent says which mode it is in; it may have gone there by itself.
    pub(super) async fn mode_is(&mut self, mode: &str) -> Result<(), Stop> {
        if mode.is_empty() || self.settings.mode == mode || self.mode_request.is_some() {
            return Ok(());
        }
        mode.clone_into(&mut self.settings.mode);
        self.emit_mode().await
    }

    pub(super) async fn emit_mode(&mut self) -> Result<(), Stop> {
        let event = self.settings.mode_event(self.program.config.allow_bypass);
        self.emit(event).await
    }
}
