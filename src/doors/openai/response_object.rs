//! A response as an object: what it is made of, while it grows and when it is whole. Pure.

use serde_json::{Map, Value, json};

use super::{
    ending::{Ending, error_object, incomplete, response_usage},
    response_id, suffix,
};
use crate::{
    ids::TurnId,
    protocol::{Message, Part, Role, TurnState, Usage, event::DeltaKind},
    timestamp::Timestamp,
};

/// What a response says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The turn that it is.
    pub turn: TurnId,
    /// When it was accepted.
    pub created: Timestamp,
    /// The model as it was asked for.
    pub model: String,
    /// What was said before all else.
    pub instructions: Option<String>,
    /// The response that it goes on from.
    pub previous: Option<String>,
    /// The key of its session; none where nothing is kept.
    pub session: Option<String>,
    /// The client's own data.
    pub metadata: Map<String, Value>,
    /// Asked for in the background.
    pub background: bool,
}

/// A piece of the output: neighbours of one kind make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Text, or reasoning.
    pub kind: DeltaKind,
    /// All of it so far.
    pub text: String,
}

/// Where a response stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Its turn waits.
    Queued,
    /// Its turn runs.
    InProgress,
    /// Its turn is over.
    Over(Ending, TurnState, Usage),
}

impl Standing {
    /// The `status`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Over(Ending::Done(reason), ..) if incomplete(reason.as_deref()).is_some() => "incomplete",
            Self::Over(Ending::Done(_), ..) => "completed",
            Self::Over(_, TurnState::Cancelled, _) => "cancelled",
            Self::Over(Ending::Failed(_), ..) => "failed",
        }
    }
}

impl About {
    /// The whole object.
    #[must_use]
    pub fn object(&self, standing: &Standing, output: &[Item]) -> Value {
        let over = matches!(standing, Standing::Over(..));
        let output: Vec<Value> = output.iter().enumerate().map(|(at, item)| self.item(at, item, over)).collect();
        let (error, reason, usage) = match standing {
            Standing::Over(Ending::Failed(error), _, usage) => {
                (error_object(error), Value::Null, response_usage(usage))
            }
            Standing::Over(Ending::Done(reason), _, usage) => {
                let reason = incomplete(reason.as_deref()).map(|reason| json!({"reason": reason}));
                (Value::Null, reason.unwrap_or_default(), response_usage(usage))
            }
            Standing::Queued | Standing::InProgress => Default::default(),
        };
        json!({
            "id": response_id(self.turn), "object": "response", "created_at": self.created.0.div_euclid(1_000_000),
            "status": standing.status(), "background": self.background, "error": error, "incomplete_details": reason,
            "instructions": self.instructions, "model": self.model, "output": output,
            "previous_response_id": self.previous, "conversation": self.session.as_ref().map(|key| json!({"id": key})),
            "store": self.session.is_some(), "metadata": self.metadata, "usage": usage,
            "max_output_tokens": null, "parallel_tool_calls": false, "temperature": null, "top_p": null,
            "tool_choice": "none", "tools": [], "reasoning": {"effort": null, "summary": null},
            "text": {"format": {"type": "text"}}, "truncation": "disabled", "user": null,
        })
    }

    /// The id of an item of the output.
    #[must_use]
    pub fn item_id(&self, at: usize, kind: DeltaKind) -> String {
        let prefix = if kind == DeltaKind::Text { "msg" } else { "rs" };
        format!("{prefix}_{}_{at}", suffix(self.turn))
    }

    /// An item of the output.
    #[must_use]
    pub fn item(&self, at: usize, item: &Item, over: bool) -> Value {
        let id = self.item_id(at, item.kind);
        let status = if over { "completed" } else { "in_progress" };
        let empty = item.text.is_empty();
        match item.kind {
            DeltaKind::Text => {
                let content = if empty && !over { json!([]) } else { json!([text_part(&item.text)]) };
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
            }
            DeltaKind::Reasoning => {
                let summary = if empty && !over { json!([]) } else { json!([summary_part(&item.text)]) };
                json!({"id": id, "type": "reasoning", "status": status, "summary": summary})
            }
        }
    }
}

/// A part of a message.
#[must_use]
pub fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// A part of what the agent thought.
#[must_use]
pub fn summary_part(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

/// The output that the stored messages of a turn stand for.
#[must_use]
pub fn output_of(messages: &[Message]) -> Vec<Item> {
    let mut output: Vec<Item> = Vec::new();
    let parts = messages.iter().filter(|message| message.role == Role::Assistant).flat_map(|message| &message.parts);
    for part in parts {
        let (kind, text) = match part {
            Part::Text { text } => (DeltaKind::Text, text),
            Part::Reasoning { text } => (DeltaKind::Reasoning, text),
            Part::ToolCall { .. } | Part::File { .. } => continue,
        };
        match output.last_mut().filter(|last| last.kind == kind) {
            Some(last) => last.text.push_str(text),
            None => output.push(Item { kind, text: text.clone() }),
        }
    }
    output
}
