//! A turn: one accepted message and all the work the agent does for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{SessionKey, TurnId},
    timestamp::Timestamp,
};

/// Where a turn stands. A terminal state never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Accepted, waits for its place.
    Queued,
    /// Its agent is being started.
    Starting,
    /// The agent works on it.
    Running,
    /// The agent waits for an answer to a choice.
    AwaitingChoice,
    /// The agent finished it.
    Completed,
    /// The agent, or its start, failed.
    Failed,
    /// Somebody asked to stop it, and it has stopped.
    Cancelled,
    /// The server stopped or died under it.
    Interrupted,
}

impl TurnState {
    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::AwaitingChoice => "awaiting_choice",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "queued" => Self::Queued,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "awaiting_choice" => Self::AwaitingChoice,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "interrupted" => Self::Interrupted,
            _ => return None,
        })
    }

    /// True when the turn is over for ever.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Interrupted)
    }
}

/// What to do with a message when the session is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Wait in line.
    #[default]
    Enqueue,
    /// Give it to the running turn at the agent's next safe point; wait in line when nothing runs.
    Steer,
    /// Stop the running turn, then run this next.
    Interrupt,
    /// Refuse with `session_busy`.
    Reject,
    /// Drop the queued turns and wait in line.
    Replace,
}

/// Tokens and cost of one turn, or summed over a session.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// Tokens that the model wrote, reasoning included.
    pub output_tokens: u64,
    /// Of the input: read from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Of the output: reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
    /// US dollars, where the agent tells.
    pub cost_usd: Option<f64>,
    /// Tokens in the context window after this, where known.
    pub context_used: Option<u64>,
    /// Size of the context window in tokens, where known.
    pub context_max: Option<u64>,
}

impl Usage {
    /// Adds a turn to a sum: counts add up, the context figures are the latest known.
    #[must_use]
    pub fn plus(self, turn: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(turn.input_tokens),
            output_tokens: self.output_tokens.saturating_add(turn.output_tokens),
            cached_tokens: self.cached_tokens.saturating_add(turn.cached_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(turn.reasoning_tokens),
            cost_usd: match (self.cost_usd, turn.cost_usd) {
                (Some(a), Some(b)) => Some(usd(a + b)),
                (a, b) => a.or(b).map(usd),
            },
            context_used: turn.context_used.or(self.context_used),
            context_max: turn.context_max.or(self.context_max),
        }
    }
}

/// An amount of US dollars without noise: sums and differences of prices like 0.000351 pick it up in the last digits, and
/// nobody charges less than a billionth.
fn usd(amount: f64) -> f64 {
    (amount * 1e9).round() / 1e9
}

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TurnError {
    /// A code of the error table, such as `agent_error` or `agent_unavailable`.
    pub code: String,
    /// What happened and what to do, for a person.
    pub message: String,
}

/// A turn as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// The key of its session.
    pub session: SessionKey,
    /// Where it stands.
    pub state: TurnState,
    /// Who sent it: `api`, `ws`, `webhook:…`, or what the client said.
    pub source: String,
    /// The client's own id for the message, up to 64 characters.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The message, trimmed.
    pub text: String,
    /// The files that came with it, without their content.
    #[serde(default)]
    pub attachments: Vec<AttachmentInfo>,
    /// What the client attached to the message; opaque.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The agent that runs it.
    pub agent: String,
    /// The model asked for; null is the agent's default.
    pub model: Option<String>,
    /// Place in line, 0 is next; null once it has started.
    pub position: Option<u32>,
    /// 1 at first; a retry of the same message counts on.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the agent got it.
    pub started_at: Option<Timestamp>,
    /// When it reached its terminal state.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<TurnError>,
    /// Why it ended, where the state alone does not say: `server_restart`, `session_reset`, `interrupt`, …
    pub reason: Option<String>,
    /// The first 500 characters of the final text.
    pub summary: Option<String>,
    /// Tokens and cost.
    pub usage: Usage,
    /// The turn that this one repeats or continues.
    pub continued_from: Option<TurnId>,
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttachmentInfo {
    /// Its name, as the client gave it.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_told_without_noise_and_comes_back_as_it_was() {
        let cost = |amount| Usage { cost_usd: Some(amount), ..Usage::default() };
        let told = Usage::default().plus(cost(0.001_851_000_000_000_000_2));
        assert_eq!(told.cost_usd, Some(0.001_851));
        assert_eq!(told.plus(cost(0.1)).plus(cost(0.2)).cost_usd, Some(0.301_851));
        // A number that is read in the fast way comes back as another one.
        for amount in [0.001_871_000_000_000_000_3, 0.001_871_000_000_000_000_5, 1.1e-9] {
            let text = serde_json::to_string(&cost(amount)).unwrap();
            assert_eq!(serde_json::from_str::<Usage>(&text).unwrap().cost_usd, Some(amount), "{text}");
        }
    }
}
