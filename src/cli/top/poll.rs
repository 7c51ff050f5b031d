//! One look at the server over its public API.

use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::{metrics::Numbers, state::Look};
use crate::{
    cli::client::{Client, ClientError},
    protocol::Snapshot,
};

/// Why a look failed.
#[derive(Debug)]
pub enum Failed {
    /// It may work a moment later.
    Passing(String),
    /// It will not.
    ForGood(ClientError),
}

impl Failed {
    /// As an error of a command.
    pub fn into_error(self) -> ClientError {
        match self {
            Self::Passing(why) => ClientError::Protocol(why),
            Self::ForGood(error) => error,
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        if error.is_passing() { Self::Passing(error.to_string()) } else { Self::ForGood(error) }
    }
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

/// Asks for everything that is shown. With `busy_only`, of sessions only those with a turn that runs or waits.
///
/// # Errors
/// [`Failed`]. Numbers that the caller may not see are no error: they are left out.
pub async fn poll(client: &Client, busy_only: bool) -> Result<Look, Failed> {
    let path = |busy: bool| format!("/v1/sessions?limit=100{}", if busy { "&busy=true" } else { "" });
    let mut sessions: Vec<Snapshot> = client.get::<Page<Snapshot>>(&path(true)).await?.data;
    if !busy_only {
        let all = client.get::<Page<Snapshot>>(&path(false)).await?.data;
        sessions.retain(|busy| !all.iter().any(|session| session.key == busy.key));
        sessions.extend(all);
    }
    let agents = client.get::<Page<Value>>("/v1/agents").await?.data;
    let me: Value = client.get("/v1/me").await?;
    let health: Value = client.get("/health").await?;
    let numbers = match client.text("/metrics").await {
        Ok(text) => Some(Numbers::read(&text)),
        Err(ClientError::Api { status: 401 | 403 | 404, .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Look {
        at: Instant::now(),
        version: me.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
        ready: health.get("ready").and_then(Value::as_bool).unwrap_or(false),
        numbers,
        sessions,
        agents,
    })
}
