//! The store: everything that must survive, in SQLite or Postgres, behind verbs by intent.
//!
//! Writes go through one writer thread (on Postgres: several, sharded by session key) that commits what waits in
//! one transaction and acknowledges after COMMIT; reads use a small pool beside it. No diesel type leaves this
//! room.
//!
//! Invariants:
//! - An append is a compare-and-set on `(epoch, last_seq)` of its key, in the transaction that appends. When
//!   somebody else has claimed the key since, it answers [`AppendError::Fenced`] and writes nothing.
//! - What was acknowledged is on disk (`durability = "full"`) or at least out of this process (`"normal"`).
//! - The log of a key is never rewritten; a deleted key keeps its last `seq`, so numbering goes on.

mod records;

pub use records::*;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is full, locked or read-only. Trying again later makes sense.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database answered something that cannot be right; a bug, or a file changed by hand.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
    /// The database cannot be opened or migrated: the text says what to do.
    #[error("{0}")]
    Setup(String),
}

/// Why an append was not made. In each case nothing of it was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Somebody else has claimed the key, or the log has moved on: the caller is no longer its owner.
    #[error("the session is owned by somebody else")]
    Fenced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store;

// The verbs below are the whole interface: sessions write through `claim` and `append`, everybody reads.
//
//   Store::open(&StoreConfig) -> Result<Store, StoreError>                     connect, migrate, start the threads (blocking)
//   claim(&SessionKey) -> Result<Option<Claimed>, StoreError>                  epoch + 1, commit, load; None: key never used
//   append(Append) -> Result<(), AppendError>
//   unfinished_keys() -> Result<Vec<SessionKey>, StoreError>                   keys with a turn that is not terminal
//   session(&SessionKey) -> Result<Option<SessionRecord>, StoreError>          the present conversation of the key
//   session_by_id(SessionId) -> Result<Option<SessionRecord>, StoreError>      any conversation, also an earlier one
//   sessions(&SessionFilter, &Page) -> Result<Paged<SessionRecord>, StoreError>    ids ses_… are the cursors
//   events(&SessionKey, after: u64, limit: usize, max_bytes: usize) -> Result<Option<EventPage>, StoreError>
//   messages(SessionId, &Page) -> Result<Paged<Message>, StoreError>
//   messages_around(SessionId, MessageId, limit: u32) -> Result<Option<Paged<Message>>, StoreError>
//   message(&SessionKey, MessageId) -> Result<Option<Message>, StoreError>
//   transcript(SessionId, max_messages: u32) -> Result<Vec<Message>, StoreError>   the newest, in order
//   turn(&SessionKey, TurnId) -> Result<Option<TurnRecord>, StoreError>
//   turns(&SessionKey, Option<TurnState>, &Page) -> Result<Paged<TurnRecord>, StoreError>
//   choice(&SessionKey, ChoiceId) -> Result<Option<(Choice, resolved: bool)>, StoreError>
//   pending_choices(Option<&SessionKey>, owner: Option<&str>) -> Result<Vec<Choice>, StoreError>
//   idempotency(scope: &str, key: &str) -> Result<Option<IdempotencyRecord>, StoreError>  none when older than 24 h
//   remember_call(IdempotencyRecord) / sweep_idempotency(before)
//   process_started(ProcessRecord) / process_ended(pgid) / processes()
//   health() -> Result<(), StoreError>                                         a read and the state of the writer
//   flush_and_close()                                                         waits for what was taken, ends the threads
