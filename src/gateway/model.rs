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
            let models = self.deps.registry.models(&agent);
            let known: Vec<&str> = models.iter().filter_map(|model| model.get("id")?.as_str()).collect();
            // Agents with many providers call a model `provider/id`, and mostly know it by its id alone.
            let fits = |model: &&str| model == id || model.split_once('/').is_some_and(|(_, model)| model == id);
            if !known.iter().any(fits) && (agent == "echo" || !known.is_empty()) {
                let message = format!("{agent} has no model {id:?}");
                return Err(ApiError::new(Code::ModelNotFound, message).with("models", known));
            }
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
}
