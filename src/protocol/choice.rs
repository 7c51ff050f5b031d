//! Choices: questions that an agent waits on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ids::{ChoiceId, SessionKey, TurnId},
    timestamp::Timestamp,
};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceKind {
    /// May the agent use this tool?
    Permission,
    /// A question to the user.
    Question,
}

/// What choosing a permission option means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptionKind {
    /// Yes, this time.
    AllowOnce,
    /// Yes, and do not ask again for the same.
    AllowAlways,
    /// No, this time.
    RejectOnce,
    /// No, and do not ask again for the same.
    RejectAlways,
}

impl OptionKind {
    /// True for the two that allow.
    #[must_use]
    pub const fn allows(self) -> bool {
        matches!(self, Self::AllowOnce | Self::AllowAlways)
    }
}

/// One answer that a permission can get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceOption {
    /// The agent's own id of the option.
    pub id: String,
    /// The agent's own words.
    pub label: String,
    /// What it means.
    pub kind: OptionKind,
}

/// One ready-made answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuestionOption {
    /// The answer in short; what is sent back.
    pub label: String,
    /// What it means.
    #[serde(default)]
    pub description: Option<String>,
}

/// One question to the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Its id: the key in `answers`.
    pub id: String,
    /// The question.
    pub question: String,
    /// A short title.
    #[serde(default)]
    pub header: Option<String>,
    /// True when several options may be chosen.
    #[serde(default)]
    pub multi: bool,
    /// Ready-made answers; free text is allowed beside them.
    #[serde(default)]
    pub options: Vec<QuestionOption>,
}

/// A question that an agent waits on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// Its id.
    pub id: ChoiceId,
    /// The key of its session.
    pub session: SessionKey,
    /// The turn that waits.
    pub turn_id: TurnId,
    /// Permission or question.
    pub kind: ChoiceKind,
    /// One line for a person.
    pub title: String,
    /// The tool that asks for permission.
    pub tool: Option<String>,
    /// What the tool would do, in short: the command, the path, the address.
    pub input_summary: Option<String>,
    /// The answers that a permission can get.
    pub options: Vec<ChoiceOption>,
    /// The questions; null for a permission.
    pub questions: Option<Vec<Question>>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it is decided by `choice.on_timeout`.
    pub expires_at: Timestamp,
}

/// Who decided a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// A call over HTTP.
    Api,
    /// A WebSocket frame.
    Ws,
    /// Nobody in time.
    Timeout,
    /// The turn ended, or the agent withdrew the question.
    TurnEnded,
    /// A stored rule (an earlier `allow_always` or `reject_always`).
    Rule,
}

/// The body of an answer, as sent by a client.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = [{"oneOf": [
    {"type": "object", "required": ["allow"], "properties": {"allow": {"type": "boolean"}}},
    {"type": "object", "required": ["option_id"], "properties": {"option_id": {"type": "string"}}},
    {"type": "object", "required": ["answers"], "properties": {"answers": {"type": "object"}}},
]}]))]
pub struct ChoiceAnswer {
    /// Permission: yes or no, this time.
    #[serde(default)]
    pub allow: Option<bool>,
    /// Permission: one of the options.
    #[serde(default)]
    pub option_id: Option<String>,
    /// Question: an answer (a text, or a list of texts where `multi`) for each question id.
    #[serde(default)]
    pub answers: Option<Map<String, Value>>,
    /// The question is turned down, as if its time were up. Doors whose protocol has such an answer say so; it is on no wire.
    #[serde(skip)]
    pub declined: bool,
}

impl ChoiceAnswer {
    /// True for a plain no to a permission.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.allow == Some(false) && self.option_id.is_none() && self.answers.is_none()
    }
}
