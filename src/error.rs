//! THE table of error codes: name, type, status. What clients can get, in one place.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::store::StoreError;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident, $name:literal, $kind:literal, $status:literal;)*) => {
        /// An error code of the wire. Codes are never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The `code` on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// When it is answered, for a person.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The `type` on the wire.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$variant => $kind,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the form that this call takes.
    InvalidJson, "invalid_json", "invalid_request_error", 400;
    /// A query parameter or header has a value that this call does not take.
    InvalidParameter, "invalid_parameter", "invalid_request_error", 400;
    /// A session key, or another id in a path or body, is malformed.
    InvalidId, "invalid_id", "invalid_request_error", 400;
    /// `limit` is not a whole number from 1 to the maximum.
    InvalidLimit, "invalid_limit", "invalid_request_error", 400;
    /// `after`, `before`, `around` or `Last-Event-ID` is no cursor.
    InvalidCursor, "invalid_cursor", "invalid_request_error", 400;
    /// A field asks for what an agent cannot do; `param` names it.
    UnsupportedParameter, "unsupported_parameter", "invalid_request_error", 400;
    /// `previous_response_id` names no response.
    PreviousResponseNotFound, "previous_response_not_found", "invalid_request_error", 400;
    /// Neither text nor attachment.
    MissingText, "missing_text", "invalid_request_error", 400;
    /// An attachment's content is not base64, or its name is empty or too long.
    InvalidAttachment, "invalid_attachment", "invalid_request_error", 400;
    /// A title has more than 200 characters.
    TitleTooLong, "title_too_long", "invalid_request_error", 400;
    /// Metadata has more than 16 KiB as JSON.
    MetadataTooLarge, "metadata_too_large", "invalid_request_error", 400;
    /// An `Idempotency-Key` has more than 256 characters, or none.
    IdempotencyKeyTooLong, "idempotency_key_too_long", "invalid_request_error", 400;
    /// An answer does not fit its choice.
    InvalidChoicePayload, "invalid_choice_payload", "invalid_request_error", 400;
    /// No such permission mode, or one that the configuration does not allow.
    InvalidPermissionMode, "invalid_permission_mode", "invalid_request_error", 400;
    /// No agent of that name is configured.
    UnknownAgent, "unknown_agent", "invalid_request_error", 400;
    /// The setting is read at the start only, and cannot change while the server runs.
    SettingNotMutable, "setting_not_mutable", "invalid_request_error", 400;
    /// A webhook may not be sent to this address; the message says why.
    UrlNotAllowed, "url_not_allowed", "invalid_request_error", 400;
    /// The primary session cannot be deleted.
    PrimarySession, "primary_session", "invalid_request_error", 400;
    /// Credentials are needed and none came.
    MissingCredentials, "missing_credentials", "authentication_error", 401;
    /// The credentials are wrong, expired or revoked.
    InvalidCredentials, "invalid_credentials", "authentication_error", 401;
    /// The signature or secret of a webhook is wrong, or the webhook too old.
    InvalidSignature, "invalid_signature", "authentication_error", 401;
    /// Visible, but somebody else's.
    NotSessionOwner, "not_session_owner", "permission_error", 403;
    /// The credentials lack a scope.
    MissingScope, "missing_scope", "permission_error", 403;
    /// The `Origin` is neither the server's own nor a configured one.
    OriginNotAllowed, "origin_not_allowed", "permission_error", 403;
    /// The `Host` is neither a loopback name nor a configured one.
    HostNotAllowed, "host_not_allowed", "permission_error", 403;
    /// A webhook addresses a session that its route does not reach, or its route acts for a user who may not.
    SessionNotAllowed, "session_not_allowed", "permission_error", 403;
    /// No such session, or not visible to the caller.
    SessionNotFound, "session_not_found", "not_found_error", 404;
    /// No such turn in this session.
    TurnNotFound, "turn_not_found", "not_found_error", 404;
    /// No such message in this session.
    MessageNotFound, "message_not_found", "not_found_error", 404;
    /// No such choice in this session.
    ChoiceNotFound, "choice_not_found", "not_found_error", 404;
    /// No such response.
    ResponseNotFound, "response_not_found", "not_found_error", 404;
    /// No such token of the caller.
    TokenNotFound, "token_not_found", "not_found_error", 404;
    /// No such webhook endpoint of the caller.
    EndpointNotFound, "endpoint_not_found", "not_found_error", 404;
    /// No such delivery to this webhook endpoint.
    DeliveryNotFound, "delivery_not_found", "not_found_error", 404;
    /// No such path.
    RouteNotFound, "route_not_found", "not_found_error", 404;
    /// The agent does not offer that model or mode.
    ModelNotFound, "model_not_found", "not_found_error", 404;
    /// The path exists, not with this method.
    MethodNotAllowed, "method_not_allowed", "invalid_request_error", 405;
    /// A turn runs or waits.
    SessionBusy, "session_busy", "conflict_error", 409;
    /// The session is archived.
    SessionArchived, "session_archived", "conflict_error", 409;
    /// The client stopped in the middle of its request.
    RequestTimeout, "request_timeout", "invalid_request_error", 408;
    /// The key has a session already.
    SessionExists, "session_exists", "conflict_error", 409;
    /// The same `Idempotency-Key` came with another request.
    IdempotencyKeyReused, "idempotency_key_reused", "conflict_error", 409;
    /// The conversation has gone on since the response that `previous_response_id` names.
    PreviousResponseNotLast, "previous_response_not_last", "conflict_error", 409;
    /// The turn is over.
    TurnNotCancellable, "turn_not_cancellable", "conflict_error", 409;
    /// The turn does not wait any more.
    TurnNotQueued, "turn_not_queued", "conflict_error", 409;
    /// Only a failed, cancelled or interrupted turn can be tried again.
    TurnNotRetryable, "turn_not_retryable", "conflict_error", 409;
    /// The choice is settled.
    ChoiceAlreadyResolved, "choice_already_resolved", "conflict_error", 409;
    /// The webhook endpoint is disabled; enable it first.
    EndpointDisabled, "endpoint_disabled", "conflict_error", 409;
    /// The webhook endpoint comes from the configuration, and is changed there.
    EndpointConfigured, "endpoint_configured", "conflict_error", 409;
    /// The body is larger than the limit.
    BodyTooLarge, "body_too_large", "invalid_request_error", 413;
    /// The text has more than 1 048 576 characters.
    ContentTooLarge, "content_too_large", "invalid_request_error", 413;
    /// A body must be `application/json`.
    UnsupportedMediaType, "unsupported_media_type", "invalid_request_error", 415;
    /// A WebSocket must speak version 13; `Sec-WebSocket-Version` says so.
    UpgradeRequired, "upgrade_required", "invalid_request_error", 426;
    /// The queue of the session is full.
    QueueFull, "queue_full", "rate_limit_error", 429;
    /// The caller has used up one of its limits.
    RateLimited, "rate_limited", "rate_limit_error", 429;
    /// A budget of tokens or US dollars is used up; the message says how to go on.
    BudgetExceeded, "budget_exceeded", "rate_limit_error", 429;
    /// Too many streams follow the session.
    TooManySubscribers, "too_many_subscribers", "rate_limit_error", 429;
    /// Too many sessions are live, or the caller has too many.
    TooManySessions, "too_many_sessions", "rate_limit_error", 429;
    /// The caller has too many webhook endpoints.
    TooManyEndpoints, "too_many_endpoints", "rate_limit_error", 429;
    /// A fault of ours; the log has it under the request id.
    Internal, "internal", "internal_error", 500;
    /// What is stored of the session cannot be read. It can be deleted with `?force=true`, which needs none of it.
    SessionUnreadable, "session_unreadable", "internal_error", 500;
    /// The agent failed.
    AgentError, "agent_error", "agent_error", 502;
    /// The agent cannot be started: the message says what to do.
    AgentUnavailable, "agent_unavailable", "agent_error", 503;
    /// The database cannot be written or read now.
    StoreUnavailable, "store_unavailable", "overloaded_error", 503;
    /// The server is stopping.
    ShuttingDown, "shutting_down", "overloaded_error", 503;
    /// The server did not answer in time inside; nothing is known to have been done.
    Overloaded, "overloaded", "overloaded_error", 503;
    /// The agent did not answer in time.
    AgentTimeout, "agent_timeout", "agent_error", 504;
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The code.
    pub code: Code,
    /// What happened and what to do, for a person. Never the inner text of a 500.
    pub message: String,
    /// More fields for the error object, such as `limit` or `depth`.
    pub details: Map<String, Value>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error with a message for a person.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = match code {
            Code::QueueFull
            | Code::RateLimited
            | Code::BudgetExceeded
            | Code::TooManySubscribers
            | Code::TooManySessions
            | Code::TooManyEndpoints
            | Code::StoreUnavailable
            | Code::Overloaded => Some(1),
            Code::ShuttingDown => Some(5),
            _ => None,
        };
        Self { code, message: message.into(), details: Map::new(), retry_after }
    }

    /// Adds a field to the error object.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.details.insert(name.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// The error object of the envelope.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Value {
        let mut error = Map::new();
        error.insert("type".into(), self.code.kind().into());
        error.insert("code".into(), self.code.as_str().into());
        error.insert("message".into(), self.message.clone().into());
        error.insert("request_id".into(), request_id.into());
        error.extend(self.details.clone());
        Value::Object(error)
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<StoreError> for ApiError {
    /// The cause goes to the log, once and here, and not to the client.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                log::warn!(cause; "the store is not available");
                Self::new(Code::StoreUnavailable, "The database is not available now; try again.")
            }
            StoreError::Corrupt(cause) | StoreError::Setup(cause) => {
                log::error!(cause; "the store failed");
                Self::new(Code::Internal, "Something went wrong inside; the server's log says what.")
            }
        }
    }
}
