//! `[callers]`: what each caller may use up, and how long a login lasts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Duration;

/// `[callers]`: limits of every user, with `[callers.users.NAME]` and `[callers.tokens.ID]` beside them. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallersConfig {
    /// Requests a second, in the long run.
    pub requests_per_second: u32,
    /// Requests at once; 0 is as many as in a second.
    pub burst: u32,
    /// Sessions of one user with a turn that runs or waits.
    pub max_turns: u32,
    /// Streams that one user has open: SSE and WebSockets.
    pub max_streams: u32,
    /// Sessions of one user that are not archived.
    pub max_sessions: u32,
    /// Wrong credentials a minute from one address, and as many at once. Right ones always count.
    pub wrong_credentials: u32,
    /// How long a browser stays logged in.
    pub login_lifetime: Duration,
    /// Other limits for a user, by its name.
    pub users: BTreeMap<String, CallerLimits<Option<u32>>>,
    /// Other limits for a token, by its id; they win over its user's.
    pub tokens: BTreeMap<String, CallerLimits<Option<u32>>>,
}

impl Default for CallersConfig {
    fn default() -> Self {
        Self {
            requests_per_second: 0,
            burst: 0,
            max_turns: 0,
            max_streams: 0,
            max_sessions: 0,
            wrong_credentials: 10,
            login_lifetime: Duration::mins(7 * 24 * 60),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }
}

/// The limits of one caller: as numbers, or as what of them is set apart from everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallerLimits<T: Default> {
    /// Requests a second, in the long run.
    pub requests_per_second: T,
    /// Requests at once.
    pub burst: T,
    /// Sessions with a turn that runs or waits.
    pub max_turns: T,
    /// Streams that are open.
    pub max_streams: T,
    /// Sessions that are not archived.
    pub max_sessions: T,
}
