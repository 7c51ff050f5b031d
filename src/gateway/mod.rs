//! The gateway: what every transport calls. It validates, authorises, finds the session and asks it.
//!
//! HTTP and WebSocket handlers hold nothing but a [`Gateway`]; all rules are behind it, so that every transport
//! follows the same ones. Rules that depend on a session's state are the session's own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::Addr;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    access::Access,
    directory::Directory,
    error::{ApiError, Code},
    ids::{MessageId, SessionKey, TurnId},
    protocol::{Choice, Message, OpenTool, Snapshot, Turn},
    session::{
        Deps, Effective, SessionActor, SessionHandle, Undelivered,
        command::{Command, Done},
        messages::{Execute, GetView, View},
    },
    store::Page,
    supervisor::{Count, Find, Supervisor},
    webhooks::inbound::Routes,
};

mod accounts;
mod audit;
mod authority;
mod calls;
mod feed;
mod handover;
mod model;
mod operate;
mod quota;
mod rejoin;
mod removal;
mod responses;
mod retention;
mod sessions;
mod streams;
mod turns;
mod validate;
mod webhook_endpoints;
mod webhooks;

pub use self::{
    accounts::LoggedIn,
    calls::{Asked, Calling},
    feed::FeedRange,
    handover::merge_feedback,
    operate::{SettingChange, SettingsView},
    rejoin::TurnPlace,
    responses::no_previous,
    turns::Behind,
};
pub use crate::{
    access::{Lease, Principal, Scope},
    feed::{Cursor, FeedStart, FeedSubscription},
    session::command::After,
    session::{Item, Subscription},
};

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
    /// The `turn.queued` event of the turn: a stream after `seq - 1` shows it whole. For a steered text the next event
    /// of the session: a stream after `seq - 1` shows all that comes of it.
    pub seq: u64,
}

/// A turn that is over, with the final assistant text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "FinishedTurn")]
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

/// A page of a log, with cursors of type `C`.
#[derive(Debug, Clone, PartialEq)]
pub struct Events<C = u64> {
    /// The events' JSON as stored, oldest first.
    pub events: Vec<String>,
    /// The cursor of the first event.
    pub first: Option<C>,
    /// The cursor of the last event.
    pub last: Option<C>,
    /// True when there are more in that direction.
    pub has_more: bool,
    /// What was pruned between them, where that was asked for, as the first and the last of each stretch; only of pages of
    /// one session.
    pub gaps: Vec<(u64, u64)>,
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "SessionState")]
pub struct StateView {
    /// The session.
    pub snapshot: Snapshot,
    /// The tail of the transcript, oldest first, then the running turn's messages so far.
    pub messages: Vec<Message>,
    /// The messages of `messages` that are not whole yet.
    pub partial: Vec<MessageId>,
    /// Tool calls without a result.
    pub tools: Vec<OpenTool>,
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Readiness {
    /// True when it takes work.
    pub ready: bool,
    /// Sessions in memory.
    pub sessions: usize,
    /// `ok`, or what is wrong with the store.
    pub store: String,
    /// Agent id → `ok`, `probing`, or what is missing.
    pub agents: Map<String, Value>,
    /// The first of `reasons`.
    pub reason: Option<String>,
    /// All that keeps it from being ready; and, while it is ready, what an operator should look after: that the database
    /// is over its budget.
    pub reasons: Vec<String>,
}

/// What every transport calls; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    supervisor: Addr<Supervisor>,
    directory: Directory,
    deps: Arc<Deps>,
    draining: Arc<AtomicBool>,
    settings: Arc<Mutex<operate::Settings>>,
    making: Making,
    access: Arc<Access>,
    calls: calls::Calls,
    routes: Arc<Routes>,
    upkeep: Arc<retention::Upkeep>,
}

/// Locks by scope and `Idempotency-Key`.
type Making = Arc<Mutex<HashMap<(String, String), Weak<tokio::sync::Mutex<()>>>>>;

/// How often a session is looked for again when its actor left memory at the very moment of a call.
const FIND_ATTEMPTS: usize = 5;

impl Gateway {
    /// A gateway to the sessions of a supervisor.
    #[must_use]
    pub fn new(
        supervisor: Addr<Supervisor>,
        directory: Directory,
        deps: Arc<Deps>,
        access: Arc<Access>,
        routes: Arc<Routes>,
    ) -> Self {
        let settings = Arc::new(Mutex::new(operate::Settings::new(deps.config().config.clone())));
        Self {
            supervisor,
            directory,
            deps,
            draining: Arc::default(),
            settings,
            making: Arc::default(),
            access,
            calls: Arc::default(),
            routes,
            upkeep: Arc::default(),
        }
    }

    /// Who may call.
    #[must_use]
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// From now on nothing new is taken.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// True once the server has begun to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The configuration now.
    #[must_use]
    pub fn config(&self) -> Arc<Effective> {
        self.deps.config()
    }

    fn refuse_while_draining(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::new(Code::ShuttingDown, "the server is stopping; try again in a moment"));
        }
        Ok(())
    }

    async fn find(&self, key: &SessionKey, create: bool, open: bool) -> Result<Option<SessionHandle>, ApiError> {
        if let Some(session) = self.directory.get(key) {
            return Ok(Some(session));
        }
        let find = Find { key: key.clone(), create, open };
        let limit = self.deps.config().session.call_timeout.0;
        match tokio::time::timeout(limit, self.supervisor.send(find)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_gone)) => Err(ApiError::new(Code::ShuttingDown, "the server is stopping; try again in a moment")),
            Err(_late) => Err(too_slow()),
        }
    }

    /// Sends a message to the actor of a session, opening it if need be. None when there is no such session.
    async fn ask<M>(&self, key: &SessionKey, create: bool, message: M) -> Result<Option<M::Result>, ApiError>
    where
        M: actix::Message + Clone + Send + 'static,
        M::Result: Send,
        SessionActor: actix::Handler<M>,
    {
        let reached = self.reach(key, create, message).await?;
        Ok(reached.map(|(_, answer)| answer))
    }

    /// The same, with the session that has answered.
    ///
    /// An actor that has left memory meanwhile is looked for again: it leaves only when nothing it has taken is
    /// undone, and a message that it did not take is handed back. A message that a crash may have cut off is not
    /// sent twice.
    async fn reach<M>(
        &self,
        key: &SessionKey,
        create: bool,
        message: M,
    ) -> Result<Option<(SessionHandle, M::Result)>, ApiError>
    where
        M: actix::Message + Clone + Send + 'static,
        M::Result: Send,
        SessionActor: actix::Handler<M>,
    {
        for _ in 0..FIND_ATTEMPTS {
            let Some(session) = self.find(key, create, true).await? else { return Ok(None) };
            let limit = self.deps.config().session.call_timeout.0;
            match tokio::time::timeout(limit, session.send(message.clone())).await {
                Ok(Ok(answer)) => return Ok(Some((session, answer))),
                // The supervisor hears of its end in a moment.
                Ok(Err(Undelivered::Gone)) => tokio::task::yield_now().await,
                Ok(Err(Undelivered::Failed)) => {
                    let message = "the session failed inside; whether the call took effect is not known";
                    return Err(ApiError::new(Code::Internal, message));
                }
                Err(_late) => return Err(too_slow()),
            }
        }
        Err(too_slow())
    }

    /// Has a command decided and committed. The session itself looks whether the caller may.
    async fn execute(
        &self,
        who: &Principal,
        key: &SessionKey,
        create: bool,
        command: Command,
    ) -> Result<Done, ApiError> {
        self.refuse_while_draining()?;
        if self.deps.store.is_full() {
            // At once: who waits with the others only makes them wait longer.
            let message = "Too many writes wait for the database; try again in a moment.";
            return Err(ApiError::new(Code::StoreUnavailable, message));
        }
        let done = self.ask(key, create, Execute(Arc::new(who.clone()), command)).await?;
        match done {
            // In the same words whether it is not there or not to be seen.
            None => Err(session_not_found(key)),
            Some(Err(error)) if error.code == Code::SessionNotFound => Err(session_not_found(key)),
            Some(done) => done,
        }
    }

    /// The state of a live session at its last commit; none when it is not live.
    async fn view(&self, key: &SessionKey) -> Result<Option<View>, ApiError> {
        let Some(session) = self.find(key, false, false).await? else { return Ok(None) };
        let limit = self.deps.config().session.call_timeout.0;
        match tokio::time::timeout(limit, session.send(GetView)).await {
            Ok(Ok(view)) => Ok(view),
            // It left memory just now: the store has it.
            Ok(Err(_gone)) => Ok(None),
            Err(_late) => Err(too_slow()),
        }
    }

    /// How ready the server is.
    pub async fn readiness(&self) -> Readiness {
        let (sessions, recovered) = self.supervisor.send(Count).await.unwrap_or((0, false));
        let store = self.deps.store.health().await.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        let agents = self.deps.registry.readiness().into_iter().map(|(name, state)| (name, state.into())).collect();
        let stopping = self.is_draining().then(|| "the server is stopping".to_owned());
        let broken = (store != "ok").then(|| store.clone());
        let recovering = (!recovered).then(|| "sessions are being taken up again".to_owned());
        let mut reasons: Vec<String> = [stopping, broken, recovering].into_iter().flatten().collect();
        let ready = reasons.is_empty();
        reasons.extend(self.upkeep.over());
        Readiness { ready, sessions, store, agents, reason: reasons.first().cloned(), reasons }
    }

    /// The `data` of `GET /v1/agents`.
    ///
    /// # Errors
    /// None so far.
    pub async fn agents(&self, _who: &Principal) -> Result<Vec<Value>, ApiError> {
        Ok(self.deps.registry.list())
    }

    /// Looks for all agents anew.
    ///
    /// # Errors
    /// None so far.
    pub async fn refresh_agents(&self, who: &Principal) -> Result<Vec<Value>, ApiError> {
        self.deps.registry.refresh(Arc::clone(&self.deps.ledger)).await;
        self.note_server(who, "agents.refresh", Value::Null);
        self.agents(who).await
    }
}

fn too_slow() -> ApiError {
    ApiError::new(Code::Overloaded, "the session did not answer in time; whether the call took effect is not known")
}

fn session_not_found(key: &SessionKey) -> ApiError {
    ApiError::new(Code::SessionNotFound, "there is no session of that key").with("key", key.as_str())
}

/// Metadata as it would be after a change.
///
/// # Errors
/// `metadata_too_large`.
pub fn check_metadata(metadata: &Map<String, Value>) -> Result<(), ApiError> {
    validate::metadata(metadata)
}

/// The same `Idempotency-Key` came with another request.
#[must_use]
pub fn key_reused() -> ApiError {
    ApiError::new(Code::IdempotencyKeyReused, "this Idempotency-Key came with another request; use a new one")
}
