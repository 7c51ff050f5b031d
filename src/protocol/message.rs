//! The transcript: messages made of parts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{MessageId, TurnId},
    timestamp::Timestamp,
};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person or program that sent the message.
    User,
    /// The agent.
    Assistant,
    /// A tool, apart from the assistant's message.
    Tool,
    /// Greenroom itself, as in a hand-over.
    System,
}

impl Role {
    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::System => "system",
        }
    }
}

/// How far a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// Announced, not yet begun; it may wait for a permission.
    Pending,
    /// At work.
    Running,
    /// Finished well.
    Completed,
    /// Finished badly, refused, or cut off.
    Failed,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text for the reader.
    Text {
        /// The text.
        text: String,
    },
    /// What the model thought.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A call of a tool with what came back.
    ToolCall {
        /// The agent's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// One line for a person.
        title: Option<String>,
        /// The sort of work: `read`, `edit`, `execute`, …
        kind: Option<String>,
        /// What it was called with.
        input: Value,
        /// What came back; null while it runs.
        output: Value,
        /// True when it failed.
        is_error: bool,
        /// How far it is.
        status: ToolStatus,
    },
    /// A file.
    File {
        /// Its name.
        name: String,
        /// Its media type.
        media_type: String,
        /// Its size in bytes.
        bytes: u64,
        /// Its content in base64; null where it is kept elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_base64: Option<String>,
    },
}

/// An entry of the transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Who speaks.
    pub role: Role,
    /// What it is made of, in order.
    pub parts: Vec<Part>,
    /// The turn it belongs to.
    pub turn_id: Option<TurnId>,
    /// The agent that wrote it.
    #[serde(default)]
    pub agent: Option<String>,
    /// The client's own id, on the user message that it came with.
    #[serde(default)]
    pub client_id: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
}

impl Message {
    /// The final assistant text among the messages of a turn, in their order; empty when there is none.
    #[must_use]
    pub fn response(messages: &[Self]) -> String {
        let texts = messages.iter().rev().filter(|message| message.role == Role::Assistant).map(Self::text);
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// All text parts joined, in order.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}
