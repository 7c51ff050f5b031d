//! The messages of the session actor. Names are imperative; what the actor tells itself is in the past tense.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;

use super::{
    command::{Command, Done},
    outbox::Outbox,
    state::State,
};
use crate::{
    access::Principal,
    error::ApiError,
    gateway::Finished,
    ids::{SessionKey, TurnId},
    protocol::Snapshot,
};

/// Decide a command of a caller; the answer comes after the commit. The session itself decides whether the caller may, on
/// the state that the change is made on: nothing can come between.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Done, ApiError>")]
pub struct Execute(pub Arc<Principal>, pub Command);

/// Follow the session. One message: the snapshot, the cursor and the place in the live stream belong together.
#[derive(Debug, Message)]
#[rtype(result = "Joined")]
pub struct Join {
    /// The number of a subscriber that joins again.
    pub id: Option<u64>,
    /// Where its events go.
    pub outbox: Arc<Outbox>,
    /// Whether it wants the agent's own messages.
    pub raw: bool,
    /// Its cursor; none is now.
    pub after: Option<u64>,
    /// It goes live only when it has at most so many events to read.
    pub near: u64,
    /// Whether it begins to follow the session, not only one turn of it: it gets a snapshot.
    pub hello: bool,
}

/// The answer to [`Join`].
#[derive(Debug, actix::MessageResponse)]
pub struct Joined {
    /// The number of the subscriber.
    pub id: u64,
    /// The oldest event that is kept.
    pub oldest_seq: u64,
    /// The newest event; what comes after it goes into the outbox when `live`.
    pub last_seq: u64,
    /// False when it has too much to read first.
    pub live: bool,
    /// The session now.
    pub snapshot: Option<Box<Snapshot>>,
}

/// Stop following.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// The number of the subscriber.
    pub id: u64,
}

/// The state at the last commit; none while the key has no session.
#[derive(Debug, Message)]
#[rtype(result = "Option<View>")]
pub struct GetView;

/// Somebody is about to follow the session, which stays in memory for that. How many follow it already.
#[derive(Debug, Clone, Message)]
#[rtype(result = "usize")]
pub struct Expect;

/// A session at its last commit.
#[derive(Debug)]
pub struct View {
    /// Shared data; cheap.
    pub state: State,
    /// Streams that follow it.
    pub subscribers: usize,
}

/// Tell when a turn is over. None when it neither waits nor runs.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<oneshot::Receiver<Finished>>")]
pub struct AwaitTurn(pub TurnId);

/// Leave memory if idle since `idle`; the answer says whether it does.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct EvictIfIdle {
    /// How long it must have been idle.
    pub idle: std::time::Duration,
}

/// The server stops: start nothing, and stop what runs once the grace is over. Answered when nothing runs.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// How long a running turn may go on.
    pub grace: std::time::Duration,
}

/// To the supervisor: a session actor has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SessionStopped {
    /// Whose.
    pub key: SessionKey,
    /// Which incarnation.
    pub incarnation: u64,
    /// How.
    pub fate: Fate,
}

/// How a session actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was idle.
    Evicted,
    /// Its session was deleted, or never came to be.
    Gone,
    /// Somebody else owns the session.
    Fenced,
    /// It panicked.
    Crashed,
}
