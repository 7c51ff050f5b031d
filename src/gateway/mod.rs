//! The gateway: what every transport calls. It validates, authorises, finds the session and asks it.
//!
//! HTTP and WebSocket handlers hold nothing but a [`Gateway`]; all rules are behind it, so that every transport
//! follows the same ones.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    error::{ApiError, Code},
    ids::{ChoiceId, MessageId, SessionId, SessionKey, TurnId},
    protocol::{
        Choice, ChoiceAnswer, CreateSession, Message, PatchSession, ResolvedBy, SendMessage, Snapshot, Turn, TurnState,
    },
    store::{Page, Paged, SessionFilter},
};

mod stub_subscription;
pub use stub_subscription::{Item, Subscription};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user; `local` in open mode.
    pub user: String,
    /// What the credentials allow.
    pub scopes: Vec<Scope>,
}

/// What credentials allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To see.
    Read,
    /// To send and change.
    Write,
    /// To see and change everything.
    Admin,
    /// To post webhooks.
    Webhook,
}

impl Principal {
    /// The one caller of open mode.
    #[must_use]
    pub fn local() -> Self {
        Self { user: "local".into(), scopes: vec![Scope::Read, Scope::Write, Scope::Admin] }
    }

    /// True with scope `admin`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(&Scope::Admin)
    }
}

/// An `Idempotency-Key` with the request that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key, at most 256 characters; the gateway checks it.
    pub key: String,
    /// SHA-256 of the whole request, as hex.
    pub request_hash: String,
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its turn, or for a steered text the running turn.
    pub turn: Turn,
    /// Its place in line: 0 runs now or next.
    pub position: u32,
    /// True when the text was offered to the running turn.
    pub steered: bool,
    /// The `turn.queued` event of the turn: a stream after `seq - 1` shows it whole.
    pub seq: u64,
}

/// A turn that is over, with the final assistant text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finished {
    /// The turn.
    pub turn: Turn,
    /// The text of its last assistant message; empty when there is none.
    pub response: String,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the next event.
    Now,
    /// With the first event after this `seq`; 0 is the beginning.
    After(u64),
}

/// What a stream shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Prefixes of event types; empty is all. Control frames pass but for `session.state`, which needs a prefix of it.
    pub types: Vec<String>,
    /// Only this turn's events; the stream ends after its `turn.finished`, and has no control frames but
    /// `stream.gap` and `stream.end`.
    pub turn: Option<TurnId>,
    /// Whether `agent.raw` frames are wanted.
    pub raw: bool,
}

/// Which page of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventRange {
    /// The events after this `seq`, oldest first.
    After(u64),
    /// The events right before this `seq`, oldest first.
    Before(u64),
}

/// A page of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// The events' JSON as stored, oldest first.
    pub events: Vec<String>,
    /// The first `seq` of the page.
    pub first_seq: Option<u64>,
    /// The last `seq` of the page.
    pub last_seq: Option<u64>,
    /// True when there are more in that direction.
    pub has_more: bool,
}

/// Which part of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageRange {
    /// A page.
    Page(Page),
    /// The messages around one, oldest first.
    Around(MessageId, u32),
}

/// All that a client needs to draw a session and go on with the stream after `seq`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateView {
    /// The session.
    pub snapshot: Snapshot,
    /// The tail of the transcript, oldest first, then the running turn's messages so far.
    pub messages: Vec<Message>,
    /// The messages of `messages` that are not whole yet.
    pub partial: Vec<MessageId>,
    /// Tool calls without a result: the fields of `tool.started`.
    pub tools: Vec<Value>,
    /// Pending choices.
    pub choices: Vec<Choice>,
    /// The running turn.
    pub turn: Option<Turn>,
    /// The turns that wait, next first.
    pub queue: Vec<Turn>,
    /// All of this is valid for this event: subscribe after it.
    pub seq: u64,
}

/// How ready the server is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Readiness {
    /// True when it takes work.
    pub ready: bool,
    /// Sessions in memory.
    pub sessions: usize,
    /// `ok`, or what is wrong with the store.
    pub store: String,
    /// Agent id → `ok`, `probing`, or what is missing.
    pub agents: Map<String, Value>,
    /// Why it is not ready.
    pub reason: Option<String>,
}

/// What every transport calls; cheap to clone.
#[derive(Clone)]
pub struct Gateway;

macro_rules! later {
    () => {
        Err(ApiError::new(Code::Internal, "not yet"))
    };
}

#[allow(missing_docs, unused_variables, clippy::unused_async)]
impl Gateway {
    pub async fn create_session(
        &self,
        who: &Principal,
        body: CreateSession,
        once: Option<Idempotency>,
    ) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn sessions(
        &self,
        who: &Principal,
        filter: SessionFilter,
        page: Page,
    ) -> Result<Paged<Snapshot>, ApiError> {
        later!()
    }
    pub async fn snapshot(&self, who: &Principal, key: &SessionKey) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn patch_session(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: PatchSession,
    ) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn delete_session(&self, who: &Principal, key: &SessionKey, force: bool) -> Result<(), ApiError> {
        later!()
    }
    pub async fn state(&self, who: &Principal, key: &SessionKey, messages: u32) -> Result<StateView, ApiError> {
        later!()
    }
    pub async fn messages(
        &self,
        who: &Principal,
        key: &SessionKey,
        conversation: Option<SessionId>,
        range: MessageRange,
    ) -> Result<Paged<Message>, ApiError> {
        later!()
    }
    pub async fn message(&self, who: &Principal, key: &SessionKey, id: MessageId) -> Result<Message, ApiError> {
        later!()
    }
    pub async fn reset(&self, who: &Principal, key: &SessionKey) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn reload(&self, who: &Principal, key: &SessionKey) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn brief(&self, who: &Principal, key: &SessionKey) -> Result<Map<String, Value>, ApiError> {
        later!()
    }
    pub async fn put_brief(
        &self,
        who: &Principal,
        key: &SessionKey,
        brief: Map<String, Value>,
    ) -> Result<Map<String, Value>, ApiError> {
        later!()
    }
    pub async fn set_model(&self, who: &Principal, key: &SessionKey, id: String) -> Result<Snapshot, ApiError> {
        later!()
    }
    pub async fn set_mode(&self, who: &Principal, key: &SessionKey, id: String) -> Result<Snapshot, ApiError> {
        later!()
    }
    /// The slash commands that the agent offers now: the list as the agent gives it.
    pub async fn commands(&self, who: &Principal, key: &SessionKey) -> Result<Value, ApiError> {
        later!()
    }
    /// `source` is `api` or `ws`, for messages that name none.
    pub async fn send(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: SendMessage,
        source: &str,
        once: Option<Idempotency>,
    ) -> Result<Accepted, ApiError> {
        later!()
    }
    /// Waits until the turn is terminal; none when time is up first.
    pub async fn wait(
        &self,
        who: &Principal,
        key: &SessionKey,
        turn: TurnId,
        limit: Duration,
    ) -> Result<Option<Finished>, ApiError> {
        later!()
    }
    pub async fn turns(
        &self,
        who: &Principal,
        key: &SessionKey,
        state: Option<TurnState>,
        page: Page,
    ) -> Result<Paged<Turn>, ApiError> {
        later!()
    }
    pub async fn turn(&self, who: &Principal, key: &SessionKey, id: TurnId) -> Result<Turn, ApiError> {
        later!()
    }
    /// The turn as it is after the call: `cancelled` at once when it was queued, still running while it is being stopped.
    pub async fn cancel_turn(&self, who: &Principal, key: &SessionKey, id: TurnId) -> Result<Turn, ApiError> {
        later!()
    }
    pub async fn edit_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        text: String,
    ) -> Result<Turn, ApiError> {
        later!()
    }
    pub async fn move_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        before: Option<TurnId>,
    ) -> Result<Turn, ApiError> {
        later!()
    }
    pub async fn retry_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        once: Option<Idempotency>,
    ) -> Result<Accepted, ApiError> {
        later!()
    }
    /// The running turn that is being stopped; none when nothing runs.
    pub async fn abort(&self, who: &Principal, key: &SessionKey) -> Result<Option<TurnId>, ApiError> {
        later!()
    }
    /// How many queued turns were cancelled.
    pub async fn clear_queue(&self, who: &Principal, key: &SessionKey) -> Result<usize, ApiError> {
        later!()
    }
    /// Pending choices of one session, or of all that the caller may answer.
    pub async fn choices(&self, who: &Principal, key: Option<&SessionKey>) -> Result<Vec<Choice>, ApiError> {
        later!()
    }
    pub async fn answer(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: ChoiceId,
        answer: ChoiceAnswer,
        by: ResolvedBy,
    ) -> Result<(), ApiError> {
        later!()
    }
    /// Fails with `session_not_found` before anything is streamed.
    pub async fn subscribe(
        &self,
        who: &Principal,
        key: &SessionKey,
        from: From,
        filter: Filter,
    ) -> Result<Subscription, ApiError> {
        later!()
    }
    pub async fn events(
        &self,
        who: &Principal,
        key: &SessionKey,
        range: EventRange,
        limit: usize,
        types: &[String],
    ) -> Result<Events, ApiError> {
        later!()
    }
    /// The `data` of `GET /v1/agents`.
    pub async fn agents(&self, who: &Principal) -> Result<Vec<Value>, ApiError> {
        later!()
    }
    pub async fn refresh_agents(&self, who: &Principal) -> Result<Vec<Value>, ApiError> {
        later!()
    }
    pub async fn readiness(&self) -> Readiness {
        Readiness { ready: false, sessions: 0, store: "ok".into(), agents: Map::new(), reason: None }
    }
    /// True once the server has begun to stop.
    pub fn is_draining(&self) -> bool {
        false
    }
}
