//! Outbound webhooks: endpoints that are told of events, and what was delivered to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeliveryId, EndpointId, SessionKey},
    timestamp::Timestamp,
};

/// A type of an event, or the beginning of one.
const TYPE: &str = "^[a-z_.]{1,64}$";
/// The key of a session, or the beginning of one with a `*` behind.
const KEYS: &str = r"^([A-Za-z0-9._:@-]{1,200}\*?|\*)$";

/// The body of `POST /v1/webhook-endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEndpoint {
    /// Where deliveries are posted to: `https`, or `http` to addresses that the configuration allows.
    #[schemars(length(min = 1, max = 2048), extend("format" = "uri", "examples" = ["https://hooks.example.com/greenroom"]))]
    pub url: String,
    /// Which events: types or prefixes of types, such as `turn.finished`, `turn.` or `choice.requested`.
    #[schemars(length(min = 1, max = 50), inner(regex(pattern = TYPE)), extend("examples" = [["turn.finished", "choice."]]))]
    pub types: Vec<String>,
    /// Of which sessions: keys, or beginnings of keys with a `*` behind; all that the owner may see when left out.
    #[schemars(length(min = 1, max = 100), inner(regex(pattern = KEYS)), extend("examples" = [["web:*"]]))]
    pub sessions: Option<Vec<String>>,
    /// What it is for: at most 200 characters.
    #[schemars(length(max = 200))]
    pub description: Option<String>,
}

/// The body of `PATCH /v1/webhook-endpoints/{id}`: what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchEndpoint {
    /// Where deliveries are posted to.
    #[schemars(length(min = 1, max = 2048), extend("format" = "uri"))]
    pub url: Option<String>,
    /// Which events.
    #[schemars(length(min = 1, max = 50), inner(regex(pattern = TYPE)))]
    pub types: Option<Vec<String>>,
    /// Of which sessions; null is all that the owner may see.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<Vec<String>>", extend("items" = {"type": "string", "pattern": KEYS}, "minItems" = 1, "maxItems" = 100))]
    pub sessions: Option<Option<Vec<String>>>,
    /// What it is for; null takes it away.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<String>", extend("maxLength" = 200))]
    pub description: Option<Option<String>>,
}

/// Tells null from left out.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// An endpoint, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Its name in the configuration; null for one that was made by a call.
    pub name: Option<String>,
    /// Whose it is: it is told of what this user may see. Null for the operator's, which is told of everything.
    pub owner: Option<String>,
    /// Where deliveries are posted to.
    pub url: String,
    /// Which events.
    pub types: Vec<String>,
    /// Of which sessions; null is all that the owner may see.
    pub sessions: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
    /// False while nothing is delivered to it, and nothing new is kept for it.
    pub enabled: bool,
    /// Why it is not enabled: `gone` (it answered 410), `failing` (deliveries were given up), `not_configured`.
    pub disabled_reason: Option<String>,
    /// Deliveries that wait.
    pub backlog: u64,
    /// Events that it was not told of, because too many deliveries waited.
    pub dropped: u64,
    /// The last attempt that failed; null when there was none.
    pub last_error: Option<LastError>,
    /// When a delivery last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// Until when deliveries are signed with the secret before the last rotation, too.
    pub old_secret_until: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A failure, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What went wrong.
    pub message: String,
}

/// An endpoint with its new secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NewEndpoint {
    #[serde(flatten)]
    #[schemars(flatten)]
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The secret, `whsec_…`: no other answer has it. Null where the call was made before.
    pub secret: Option<String>,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its first or its next attempt.
    Pending,
    /// The receiver has taken it.
    Delivered,
    /// It was given up.
    Failed,
}

/// A delivery of one event to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Delivery {
    /// The `webhook-id`, the same over all attempts.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: EndpointId,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: String,
    /// The session of the event; null for a test.
    pub session: Option<SessionKey>,
    /// The number of the event in its session; null for a test.
    pub seq: Option<u64>,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, if those before it are done by then; null when it is not.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was last tried.
    pub last_attempt_at: Option<Timestamp>,
    /// The HTTP status of the last answer; null when there was none.
    pub last_status: Option<u16>,
    /// What went wrong at the last attempt; null when nothing did.
    pub last_error: Option<String>,
    /// When the event happened.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub finished_at: Option<Timestamp>,
}
