//! What the store takes and gives: plain data in the words of the protocol.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{BudgetRecord, DeliveryWrite, Spend};
use crate::{
    ids::{ChoiceId, EndpointId, SessionId, SessionKey, TurnId},
    protocol::{Attachment, Choice, Message, Snapshot, Turn, Visibility, account::AuditEntry, frame::Batch},
    timestamp::Timestamp,
};

/// A session as stored: its snapshot (the fields `live`, `subscribers`, `current_turn` and `budget` are not stored and read
/// as false, 0 and null) and what is not part of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// `goal`, `done`, `open`, `clarifications`.
    pub brief: Map<String, Value>,
    /// `{"rating", "comment"}`, or null.
    pub feedback: Value,
    /// What its budget has beside the configuration.
    pub budget: BudgetRecord,
}

/// A turn as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnRecord {
    /// What clients see of it. `position` is not stored; it reads as null.
    pub turn: Turn,
    /// The conversation it belongs to.
    pub conversation: SessionId,
    /// Its rank in the queue: lower runs first. Unique among the queued turns of a key.
    pub rank: i64,
    /// The mode asked for.
    pub mode: Option<String>,
    /// The permission mode asked for.
    pub permission_mode: Option<String>,
    /// The files, whole.
    pub attachments: Arc<Vec<Attachment>>,
    /// The event that accepted it; 0 before it has one. Its other events come after.
    pub first_seq: u64,
    /// The running turn that this text was offered to, while it is neither taken nor a turn of its own. Such a
    /// record is not shown to clients.
    pub steers: Option<TurnId>,
}

/// Columns of a turn that change while it goes its way.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnWrite {
    /// A new turn, whole.
    Insert(Box<TurnRecord>),
    /// What changes on its way: agent, model, state, times, error, reason, summary, usage, rank, `first_seq`, `steers`.
    Update(Box<TurnRecord>),
    /// Another text, while it waits.
    Text(TurnId, String),
    /// The record of a steered text that the agent has taken.
    Remove(TurnId),
}

/// A new message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageWrite {
    /// Its conversation.
    pub conversation: SessionId,
    /// Its place in it, from 1 without gaps: the session's `message_count` with it.
    pub ordinal: u64,
    /// The message.
    pub message: Message,
}

/// A change of a choice.
#[derive(Debug, Clone, PartialEq)]
pub enum ChoiceWrite {
    /// A new, pending choice, with the agent's own id of the question.
    Insert {
        /// The choice.
        choice: Box<Choice>,
        /// The agent's own id of the question.
        ask_id: String,
    },
    /// It is settled.
    Resolve {
        /// Which.
        id: ChoiceId,
        /// The `outcome` of its event.
        outcome: Value,
        /// The `source` of its event, by its wire name.
        source: String,
        /// When.
        at: Timestamp,
    },
}

/// An answer to be given again to the same question in the same session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The agent that asked.
    pub agent: String,
    /// The tool that it asked for.
    pub tool: String,
    /// The exact input that it covers; none covers the tool whenever it comes without a summary.
    pub input_summary: Option<String>,
    /// True to allow, false to reject.
    pub allow: bool,
}

/// A call that must not happen twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Caller, route and session.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// SHA-256 of the whole request, as hex.
    pub request_hash: String,
    /// What the call made, as JSON: enough to give the first answer again.
    pub outcome: String,
    /// When.
    pub created_at: Timestamp,
}

/// Who may see a session, by what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// Whose it is.
    pub owner: Arc<str>,
    /// Who else may see it.
    pub visibility: Visibility,
    /// The organisation that [`Visibility::Org`] means.
    pub org_id: Option<Arc<str>>,
}

impl Audience {
    /// The audience of a session.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            owner: snapshot.owner.as_str().into(),
            visibility: snapshot.visibility,
            org_id: snapshot.org_id.as_deref().map(Into::into),
        }
    }
}

/// What happens to the session row with an append.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum SessionWrite {
    /// Nothing: only the log grows.
    #[default]
    Keep,
    /// The first session of a key, or the next after a delete.
    Create(Box<SessionRecord>),
    /// The row gets these values.
    Update(Box<SessionRecord>),
    /// Of the row, only what changes with every turn: times but `created_at`, `message_count`, the preview, `busy`,
    /// `queue_depth`, `agent_status`, `usage`.
    Touch(Box<SessionRecord>),
    /// A new conversation: `previous` stays readable by its id, `next` becomes the session of the key. Rules and
    /// native agent sessions of the previous conversation are dropped.
    Replace {
        /// The last values of the old conversation.
        previous: Box<SessionRecord>,
        /// The new one.
        next: Box<SessionRecord>,
    },
    /// All conversations, turns, messages, choices, rules, native ids and idempotency records of the key go, and
    /// all its events but those of this append. The key's numbering stays.
    Delete,
}

/// One commit of a session.
#[derive(Debug, Clone)]
pub struct Append {
    /// Whose log.
    pub key: SessionKey,
    /// The caller's claim on it; 0 when the key was never claimed, together with [`SessionWrite::Create`].
    pub epoch: i64,
    /// The newest event before this append.
    pub expected_seq: u64,
    /// The new events, numbered from `expected_seq + 1` without gaps. May be empty.
    pub events: Arc<Batch>,
    /// When it was decided.
    pub at: Timestamp,
    /// The session row.
    pub session: SessionWrite,
    /// Turns.
    pub turns: Vec<TurnWrite>,
    /// Whole messages, in order.
    pub messages: Vec<MessageWrite>,
    /// Choices.
    pub choices: Vec<ChoiceWrite>,
    /// New rules for the present conversation.
    pub rules: Vec<Rule>,
    /// Native agent session ids of the present conversation: agent → id, or none to forget it.
    pub native_ids: Vec<(SessionId, String, Option<String>)>,
    /// Calls that must not happen twice.
    pub idempotency: Vec<IdempotencyRecord>,
    /// What is said of it in the audit.
    pub audit: Vec<AuditEntry>,
    /// What its turns have used, where that is counted for their owner's day.
    pub spends: Vec<Spend>,
    /// Who may see the session, for those that follow all sessions; of a session that is deleted, as it was.
    pub audience: Option<Audience>,
    /// Who is told of its events by webhook.
    pub deliveries: Vec<DeliveryWrite>,
    /// How many of its events endpoints are not told of, because too many deliveries wait for them.
    pub dropped: Vec<(EndpointId, u64)>,
    /// True when a client waits for it; under load it is committed before appends that only report progress.
    pub urgent: bool,
}

/// A claim on a key: the caller owns it until somebody else claims it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The new epoch.
    pub epoch: i64,
    /// The newest event.
    pub last_seq: u64,
    /// The oldest event that is kept; `last_seq + 1` when none is.
    pub oldest_seq: u64,
    /// The lane of the feed that its newest events are in; none where there are none, and in SQLite, which has one.
    pub lane: Option<i32>,
    /// The session, unless the key has none now (it was deleted).
    pub session: Option<ClaimedSession>,
}

/// What an actor needs to take a session up again.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedSession {
    /// The row.
    pub record: SessionRecord,
    /// Turns without a terminal state: the one that ran, those that wait (by rank), texts offered to a running turn.
    pub unfinished: Vec<TurnRecord>,
    /// Pending choices with the agent's own ids of the questions, oldest first.
    pub choices: Vec<(Choice, String)>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Native agent session ids by agent.
    pub native_ids: BTreeMap<String, String>,
}

/// Which way through a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most this many.
    pub limit: u32,
    /// Those that come after this id in the order of the list.
    pub after: Option<String>,
    /// Those that come right before this id in the order of the list.
    pub before: Option<String>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
}

/// A page of a list, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    /// The entries.
    pub data: Vec<T>,
    /// True when there are more in the direction of the cursor.
    pub has_more: bool,
}

/// Who looks at a list of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Viewer {
    /// The user.
    pub user: String,
    /// Its organisations.
    pub orgs: Vec<String>,
}

/// How much of the server a user takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Its sessions that are not archived.
    pub sessions: i64,
    /// Those of them, but for one, with a turn that runs or waits.
    pub busy_elsewhere: i64,
    /// True when that one exists, whoever owns it.
    pub exists: bool,
}

/// Which sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Archived ones only (true), or the others only (false).
    pub archived: bool,
    /// Of this agent.
    pub agent: Option<String>,
    /// With a turn that runs or waits (true), or without (false).
    pub busy: Option<bool>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Those that this user may see beside its own: public ones, and those of its organisations. None sees all.
    pub seen_by: Option<Viewer>,
    /// Whose title or key contains this text, whatever its case (ASCII).
    pub text: Option<String>,
}

/// A row of the feed: the events of one append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRow {
    /// Its lane.
    pub lane: i32,
    /// Its place there.
    pub position: i64,
    /// Whose events.
    pub key: SessionKey,
    /// The first of them, or the first of those that were pruned before them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Their JSON, in order, but for what was pruned; none when they went with a deleted session.
    pub events: Vec<String>,
}

/// A page of the feed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeedPage {
    /// The rows, oldest first.
    pub rows: Vec<FeedRow>,
    /// Who may see the sessions of the rows now; a key without a session has that of its last owner alone.
    pub audiences: HashMap<SessionKey, Audience>,
    /// True when there may be more in that direction.
    pub more: bool,
}

/// Where the feed stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedState {
    /// The database.
    pub id: u32,
    /// The highest position that was ever given out.
    pub newest: i64,
    /// The newest row of each lane.
    pub lanes: Vec<(i32, i64)>,
}

/// Events of one key as they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// The events' JSON, in order of `seq`, but for what was pruned.
    pub events: Vec<String>,
    /// The oldest event that is kept; `last_seq + 1` when none is.
    pub oldest_seq: u64,
    /// The newest event.
    pub last_seq: u64,
}
