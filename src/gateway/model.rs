//! What a session's agent works with from the next turn on: its model and its mode.

use super::{Gateway, Principal};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{PatchSession, Snapshot},
};

impl Gateway {
    /// Uses another model from the next turn on; none is the agent's default.
    ///
    /// # Errors
    /// `session_not_found`; `model_not_found` when the agent has told its models and this is none of them.
    pub async fn set_model(&self, who: &Principal, key: &SessionKey, id: Option<String>) -> Result<Snapshot, ApiError> {
        self.may_write(who, key).await?;
        if let Some(id) = &id {
            let agent = self.snapshot(who, key).await?.agent;
            self.check_model(&agent, id)?;
        }
        let body = PatchSession { model: Some(id), ..PatchSession::default() };
        self.patch_session(who, key, body).await
    }

    /// Goes into another mode from the next turn on; none is the agent's default.
    ///
    /// # Errors
    /// `session_not_found`; `model_not_found` when the modes of the agent are known and this is none of them.
    pub async fn set_mode(&self, who: &Principal, key: &SessionKey, id: Option<String>) -> Result<Snapshot, ApiError> {
        self.may_write(who, key).await?;
        if let Some(id) = &id {
            let agent = self.snapshot(who, key).await?.agent;
            let modes = self.deps.registry.modes(&agent);
            if let Some(modes) = modes.filter(|modes| !modes.iter().any(|mode| mode.id == *id)) {
                let message = format!("{agent} has no mode {id:?}");
                let known: Vec<String> = modes.into_iter().map(|mode| mode.id).collect();
                return Err(ApiError::new(Code::ModelNotFound, message).with("modes", known));
            }
        }
        let body = PatchSession { mode: Some(id), ..PatchSession::default() };
        self.patch_session(who, key, body).await
    }

    /// Fails when the agent has told its models and this is none of them.
    fn check_model(&self, agent: &str, id: &str) -> Result<(), ApiError> {
        let models = self.deps.registry.models(agent);
        let known: Vec<&str> = models.iter().filter_map(|model| model.get("id")?.as_str()).collect();
        // Agents with many providers call a model `provider/id`, and mostly know it by its id alone.
        let fits = |model: &&str| *model == id || model.split_once('/').is_some_and(|(_, model)| model == id);
        if !known.iter().any(fits) && (agent == "echo" || !known.is_empty()) {
            let message = format!("{agent} has no model {id:?}");
            return Err(ApiError::new(Code::ModelNotFound, message).with("models", known));
        }
        Ok(())
    }

    /// The agent and its model that a name stands for: `agent`, or `agent/model`.
    ///
    /// # Errors
    /// `model_not_found`.
    pub fn named_model(&self, name: &str) -> Result<(String, Option<String>), ApiError> {
        let known = |agent: &str| self.deps.registry.capabilities(agent).is_some();
        if known(name) {
            return Ok((name.to_owned(), None));
        }
        if let Some((agent, model)) = name.split_once('/').filter(|(agent, model)| known(agent) && !model.is_empty()) {
            self.check_model(agent, model)?;
            return Ok((agent.to_owned(), Some(model.to_owned())));
        }
        let message = format!("there is no model {name:?}; it is an agent's id, or agent/model: see GET /v1/models");
        Err(ApiError::new(Code::ModelNotFound, message).with("models", self.named_models()))
    }

    /// The names that [`Gateway::named_model`] knows, of the agents that could run now.
    #[must_use]
    pub fn named_models(&self) -> Vec<String> {
        let found = self.deps.registry.found();
        let there = self.deps.registry.names().filter(|name| match found.get(*name) {
            Some(probe) => probe.available,
            // Not looked for yet.
            None => self.deps.registry.concerns(name, None),
        });
        let names = there.flat_map(|agent| {
            let models = self.deps.registry.models(agent);
            let of_agent: Vec<String> = models
                .iter()
                .filter_map(|model| model.get("id")?.as_str())
                .map(|model| format!("{agent}/{model}"))
                .collect();
            std::iter::once(agent.to_owned()).chain(of_agent)
        });
        names.collect()
    }
}
