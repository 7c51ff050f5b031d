//! Bodies that clients send. Unknown fields are refused, so that a typo is an error and not a surprise.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{budget::SetBudget, session::Visibility, turn::Policy};
use crate::ids::{SessionKey, TurnId};

/// A file that comes with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its name; used for show, never as a path unsanitised.
    #[schemars(length(max = 200), regex(pattern = NOT_BLANK))]
    pub name: String,
    /// Its media type, as in `image/png`.
    #[schemars(length(max = 200), regex(pattern = "/"))]
    pub media_type: String,
    /// Its content in standard base64 with padding.
    #[schemars(length(min = 4), regex(pattern = BASE64), extend("contentEncoding" = "base64"))]
    pub content_base64: String,
}

/// A character that trimming leaves: exactly those that are no white space of Unicode, which `\S` is in no dialect.
pub const NOT_BLANK: &str = r"[^\t\n\u000b\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]";

/// Padding is there, and the bits under it are zero.
const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)$";

/// The body of `POST /v1/sessions/{key}/messages` and of the WebSocket `send`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("allOf" = [{"anyOf": [
    {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "pattern": NOT_BLANK}}},
    {"type": "object", "required": ["attachments"], "properties": {"attachments": {"minItems": 1}}},
]}]))]
pub struct SendMessage {
    /// The message: 1 to 1 048 576 characters after trimming, or none where there is an attachment.
    #[schemars(length(max = 1_048_576))]
    pub text: Option<String>,
    /// Files.
    #[schemars(length(max = 64))]
    pub attachments: Vec<Attachment>,
    /// What to do when the session is busy; `enqueue` when left out.
    pub policy: Policy,
    /// Another agent for this turn.
    pub agent: Option<String>,
    /// Another model for this turn.
    #[schemars(length(max = 200))]
    pub model: Option<String>,
    /// Another mode for this turn.
    #[schemars(length(max = 200))]
    pub mode: Option<String>,
    /// Another permission mode for this turn.
    #[schemars(extend("enum" = ["default", "accept_edits", "plan", "dont_ask", "bypass", null]))]
    pub permission_mode: Option<String>,
    /// Who sends it; `api` or `ws` when left out.
    #[schemars(length(max = 200))]
    pub source: Option<String>,
    /// The client's own id for the message, up to 64 characters; comes back in the turn and its user message.
    #[schemars(length(max = 64))]
    pub client_id: Option<String>,
    /// Opaque; comes back in the turn.
    pub metadata: Map<String, Value>,
}

/// The body of `POST /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSession {
    /// The key; generated when left out.
    #[schemars(with = "Option<SessionKey>")]
    pub key: Option<String>,
    /// A title of at most 200 characters.
    #[schemars(length(max = 200))]
    pub title: Option<String>,
    /// The agent; the configured default when left out.
    pub agent: Option<String>,
    /// The model; the agent's default when left out.
    #[schemars(length(max = 200))]
    pub model: Option<String>,
    /// The agent's mode.
    #[schemars(length(max = 200))]
    pub mode: Option<String>,
    /// `default`, `accept_edits`, `plan`, `dont_ask` or `bypass`.
    #[schemars(extend("enum" = ["default", "accept_edits", "plan", "dont_ask", "bypass", null]))]
    pub permission_mode: Option<String>,
    /// A name for the way it is set up; opaque so far.
    #[schemars(length(max = 200))]
    pub profile: Option<String>,
    /// The project to work in.
    pub project_id: Option<String>,
    /// Who else may see it.
    pub visibility: Option<Visibility>,
    /// The organisation, for visibility `org`.
    pub org_id: Option<String>,
    /// The client's own data: an object of at most 16 KiB as JSON.
    pub metadata: Option<Map<String, Value>>,
}

/// The body of `PATCH /v1/sessions/{key}`: what is left out stays; null clears where a field may be null.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchSession {
    /// A title of at most 200 characters; empty is `untitled`.
    #[schemars(length(max = 200))]
    pub title: Option<String>,
    /// Merged into what is there; a null value removes its key.
    pub metadata: Option<Map<String, Value>>,
    /// Who else may see it.
    pub visibility: Option<Visibility>,
    /// The organisation, for visibility `org`.
    #[serde(deserialize_with = "present")]
    pub org_id: Option<Option<String>>,
    /// True to archive, false to bring it back.
    pub archived: Option<bool>,
    /// Another agent.
    pub agent: Option<String>,
    /// Another model, or null for the agent's default.
    #[serde(deserialize_with = "present")]
    #[schemars(length(max = 200))]
    pub model: Option<Option<String>>,
    /// Another mode, or null for the agent's default.
    #[serde(deserialize_with = "present")]
    #[schemars(length(max = 200))]
    pub mode: Option<Option<String>>,
    /// Another permission mode.
    #[schemars(extend("enum" = ["default", "accept_edits", "plan", "dont_ask", "bypass", null]))]
    pub permission_mode: Option<String>,
    /// The brief: partial replace by strings, `""` clears.
    #[schemars(schema_with = "brief_change_or_null")]
    pub brief: Option<Map<String, Value>>,
    /// Other bounds for tokens and cost than the configured ones; raising one lets a stopped session go on.
    pub budget: Option<SetBudget>,
}

/// The body of `POST /v1/sessions/{key}/continue`: who goes on, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["text"], "allOf" = [{"anyOf": [
    {"type": "object", "required": ["agent"], "properties": {"agent": {"type": "string"}}},
    {"type": "object", "required": ["profile"], "properties": {"profile": {"type": "string"}}},
]}]))]
pub struct ContinueSession {
    /// The profile that goes on; it, or an agent, has to be named.
    pub profile: Option<String>,
    /// The agent that goes on.
    pub agent: Option<String>,
    /// What it is to do: 1 to 1 048 576 characters after trimming.
    #[schemars(length(max = 1_048_576), regex(pattern = NOT_BLANK))]
    pub text: String,
}

/// The body of `PUT /v1/sessions/{key}/feedback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["rating"], "additionalProperties" = false))]
pub struct Feedback {
    /// Good or bad.
    pub rating: Rating,
    /// Why, in at most 4 000 characters.
    #[schemars(length(max = 4_000))]
    #[serde(default)]
    pub comment: Option<String>,
    /// The turn that it is about; the whole session when left out.
    #[serde(default)]
    pub turn_id: Option<TurnId>,
}

/// Good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// Good.
    Up,
    /// Bad.
    Down,
}

/// Tells a null from an absent field: `Some(None)` is null.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// A change of a brief. What is no text leaves its field as it is; a change without any text is none.
pub fn brief_change(_: &mut SchemaGenerator) -> Schema {
    let one = |name: &str| serde_json::json!({"type": "object", "required": [name], "properties": {name: {"type": "string"}}});
    json_schema!({
        "type": "object",
        "properties": {
            "goal": {"description": "What it is for; `\"\"` clears."},
            "done": {"description": "What is done; `\"\"` clears."},
            "open": {"description": "What is left; `\"\"` clears."},
            "clarifications": {"description": "What was asked and answered; `\"\"` clears."},
        },
        "additionalProperties": false,
        "allOf": [{"anyOf": [one("goal"), one("done"), one("open"), one("clarifications")]}],
    })
}

fn brief_change_or_null(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The brief: partial replace by strings, `\"\"` clears.",
        "anyOf": [brief_change(generator), {"type": "null"}],
    })
}
