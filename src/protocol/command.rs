//! Bodies that clients send. Unknown fields are refused, so that a typo is an error and not a surprise.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{session::Visibility, turn::Policy};
use crate::ids::TurnId;

/// A file that comes with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its name; used for show, never as a path unsanitised.
    pub name: String,
    /// Its media type, as in `image/png`.
    pub media_type: String,
    /// Its content in base64.
    pub content_base64: String,
}

/// The body of `POST /v1/sessions/{key}/messages` and of the WebSocket `send`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendMessage {
    /// The message: 1 to 1 048 576 characters after trimming, or none where there is an attachment.
    pub text: Option<String>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// What to do when the session is busy.
    pub policy: Policy,
    /// Another agent for this turn.
    pub agent: Option<String>,
    /// Another model for this turn.
    pub model: Option<String>,
    /// Another mode for this turn.
    pub mode: Option<String>,
    /// Another permission mode for this turn.
    pub permission_mode: Option<String>,
    /// Who sends it; `api` or `ws` when left out.
    pub source: Option<String>,
    /// The client's own id for the message, up to 64 characters; comes back in the turn and its user message.
    pub client_id: Option<String>,
    /// Opaque; comes back in the turn.
    pub metadata: Map<String, Value>,
}

/// The body of `POST /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSession {
    /// The key; generated when left out.
    pub key: Option<String>,
    /// A title of at most 200 characters.
    pub title: Option<String>,
    /// The agent; the configured default when left out.
    pub agent: Option<String>,
    /// The model; the agent's default when left out.
    pub model: Option<String>,
    /// The agent's mode.
    pub mode: Option<String>,
    /// `default`, `accept_edits`, `plan`, `dont_ask` or `bypass`.
    pub permission_mode: Option<String>,
    /// A name for the way it is set up; opaque so far.
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
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchSession {
    /// A title of at most 200 characters; empty is `untitled`.
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
    pub model: Option<Option<String>>,
    /// Another mode, or null for the agent's default.
    #[serde(deserialize_with = "present")]
    pub mode: Option<Option<String>>,
    /// Another permission mode.
    pub permission_mode: Option<String>,
    /// The brief: partial replace by strings, `""` clears.
    pub brief: Option<Map<String, Value>>,
}

/// The body of `POST /v1/sessions/{key}/continue`: who goes on, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContinueSession {
    /// The profile that goes on.
    pub profile: Option<String>,
    /// The agent that goes on.
    pub agent: Option<String>,
    /// What it is to do.
    pub text: String,
}

/// The body of `PUT /v1/sessions/{key}/feedback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// Good or bad.
    pub rating: Rating,
    /// Why, in at most 4 000 characters.
    #[serde(default)]
    pub comment: Option<String>,
    /// The turn that it is about; the whole session when left out.
    #[serde(default)]
    pub turn_id: Option<TurnId>,
}

/// Good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// Good.
    Up,
    /// Bad.
    Down,
}

/// Tells a null from an absent field: `Some(None)` is null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
