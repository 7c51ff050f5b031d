//! How long things are kept: `[events]`, `[sessions]`, `[retention]`. In all of them 0 is for ever.

use serde::{Deserialize, Serialize};

use super::Duration;

/// `[events]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// How long the log keeps the progress of a turn (`message.delta`, `tool.delta`, `tool.updated`) after its end; 0 is
    /// for ever. A turn that is not finished keeps all of its events.
    pub keep_deltas: Duration,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { keep_deltas: Duration::secs(7 * 24 * 3600) }
    }
}

/// `[sessions]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// How long an archived session is kept that nobody touches; 0 is for ever.
    pub keep: Duration,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { keep: Duration::secs(0) }
    }
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How often what is too old is looked for.
    pub interval: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { interval: Duration::mins(10) }
    }
}
