//! The conversation so far, read from the session for an agent that has none of its own to go on with.

use std::time::Duration;

use tokio::time::timeout;

use super::{Host, REPLAY_LIMIT, Stop, replay};
use crate::agents::{AgentEvent, OpenSpec};

/// What was read.
#[derive(Debug, Default)]
pub struct Past {
    /// The conversation as text, for the first prompt; none when there is nothing to tell.
    pub text: Option<String>,
    /// That it could not be read.
    pub fault: Option<AgentEvent>,
}

impl Past {
    /// Reads it within `limit`.
    ///
    /// # Errors
    /// [`Stop::Killed`] when the kill comes meanwhile.
    pub async fn read(host: &Host, spec: &OpenSpec, limit: Duration) -> Result<Self, Stop> {
        let loaded = tokio::select! {
            biased;
            () = host.killed.cancelled() => return Err(Stop::Killed),
            loaded = timeout(limit, spec.transcript.load()) => loaded,
        };
        let error = match loaded {
            Ok(Ok(messages)) => return Ok(Self { text: replay(&messages, REPLAY_LIMIT), fault: None }),
            Ok(Err(error)) => error,
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        log::warn!(session = spec.session.as_str(); "transcript cannot be read for a replay: {error}");
        let message = "the agent could not be given the conversation so far".to_owned();
        Ok(Self { text: None, fault: Some(AgentEvent::Fault { code: "replay_failed".into(), message }) })
    }
}
