//! What calls answer where it is not the thing itself: small objects around turns, sessions and the server.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{message::ToolStatus, turn::Turn};
use crate::ids::TurnId;

/// An accepted message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AcceptedTurn<'a> {
    /// Its turn; for a steered text the running turn.
    pub turn: &'a Turn,
    /// Its place in line, 0 runs now or next.
    pub position: u32,
    /// True when the text was offered to the running turn; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub steered: bool,
}

/// A turn that was asked to stop.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoppedTurn<'a> {
    /// The turn as it is now.
    pub turn: &'a Turn,
}

/// What an abort did.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Aborted {
    /// False when nothing ran.
    pub ok: bool,
    /// The turn that is being stopped; left out when nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
}

/// Queued turns that were cancelled.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Cleared {
    /// How many.
    pub cancelled: usize,
}

/// It is done, and there is nothing to tell.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Acknowledged {
    /// Always true.
    pub ok: bool,
}

/// Is the process up?
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Health {
    /// Always true.
    pub ok: bool,
    /// True when it takes work.
    pub ready: bool,
}

/// Where a session stands in the client's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Brief {
    /// What it is for.
    pub goal: String,
    /// What is done.
    pub done: String,
    /// What is left.
    pub open: String,
    /// What was asked and answered.
    pub clarifications: String,
}

impl Brief {
    /// The brief as it is stored: what was never set is empty.
    #[must_use]
    pub fn of(stored: &Map<String, Value>) -> Self {
        let text = |name: &str| stored.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { goal: text("goal"), done: text("done"), open: text("open"), clarifications: text("clarifications") }
    }
}

/// A tool call without a result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OpenTool {
    /// The agent's id of the call.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// One line for a person.
    pub title: Option<String>,
    /// The sort of work: `read`, `edit`, `execute`, …
    pub kind: Option<String>,
    /// What it is called with, as far as known.
    pub input: Value,
    /// The command, path, query or address, in short.
    pub input_summary: Option<String>,
    /// How far it is.
    pub status: ToolStatus,
    /// What came back so far.
    pub output: Value,
}
