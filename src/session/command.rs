//! What a session can be asked, and what it answers. Plain data, so that it can cross to another node one day.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    ids::{ChoiceId, TurnId},
    protocol::{Attachment, ChoiceAnswer, CreateSession, Message, PatchSession, Policy, ResolvedBy, Snapshot, Turn},
    timestamp::Timestamp,
};

/// A change that somebody asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Make the session; refused when it exists.
    Create {
        /// Who makes it.
        owner: String,
        /// How it is set up; checked by the gateway.
        body: Arc<CreateSession>,
        /// The call that must not happen twice.
        once: Option<Once>,
    },
    /// Make the session where there is none.
    Ensure {
        /// Who owns it then.
        owner: String,
    },
    /// Accept a message; makes the session where there is none.
    Enqueue(Arc<Enqueue>),
    /// Stop a turn.
    Cancel(TurnId),
    /// Stop the running turn.
    Abort,
    /// Settle all queued turns as cancelled.
    ClearQueue,
    /// Change the text of a queued turn.
    Edit(TurnId, String),
    /// Put a queued turn before another, or last.
    Move(TurnId, Option<TurnId>),
    /// Answer a question.
    Answer(ChoiceId, ChoiceAnswer, ResolvedBy),
    /// Change the session.
    Patch(Arc<PatchSession>),
    /// Replace parts of the brief.
    Brief(Map<String, Value>),
    /// Go on with another agent or profile.
    HandOver(Arc<HandOver>),
    /// Keep what somebody thinks: of what (`session` or a turn's id), and what.
    Feedback(String, Value),
    /// Start a new conversation, once nothing runs; the call that must not happen twice.
    Reset(Option<Once>),
    /// Delete the session, once nothing runs; refused when it is busy and `force` is not set.
    Delete {
        /// Stop what runs.
        force: bool,
        /// Only where it is archived and was not touched after this moment: nobody asked, it is old.
        untouched_since: Option<Timestamp>,
    },
    /// Restart the agent at the next turn.
    Reload,
}

/// A hand-over, checked by the gateway.
#[derive(Debug, Clone)]
pub struct HandOver {
    /// The agent that goes on, where it is another one.
    pub agent: Option<String>,
    /// The profile that goes on, where it is another one.
    pub profile: Option<String>,
    /// What it is to do.
    pub message: Enqueue,
}

/// A message to accept, checked by the gateway.
#[derive(Debug, Clone)]
pub struct Enqueue {
    /// Who sends it: the owner of a session that it makes.
    pub user: String,
    /// The text, trimmed.
    pub text: String,
    /// Files.
    pub attachments: Arc<Vec<Attachment>>,
    /// What to do when the session is busy.
    pub policy: Policy,
    /// The agent, where one was asked for; known.
    pub agent: Option<String>,
    /// The model, where one was asked for.
    pub model: Option<String>,
    /// The mode, where one was asked for.
    pub mode: Option<String>,
    /// The permission mode, where one was asked for.
    pub permission_mode: Option<String>,
    /// Who sends it, in words.
    pub source: String,
    /// The client's own id.
    pub client_id: Option<String>,
    /// The client's own data.
    pub metadata: Map<String, Value>,
    /// The turn that this one repeats.
    pub continued_from: Option<TurnId>,
    /// 1, or one more than that of the turn that it repeats.
    pub attempt: u32,
    /// The call that must not happen twice.
    pub once: Option<Once>,
    /// The request that sends it, for the log.
    pub request_id: Option<Arc<str>>,
    /// What was said before, where the conversation begins with this message.
    pub before: Arc<Vec<Message>>,
    /// The turn that it must follow, if any.
    pub after: Option<After>,
}

/// The turn that a message must follow: it is refused when the conversation has gone on since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The turn.
    pub turn: TurnId,
    /// The newest event at a moment when it was the last turn, for when it is over.
    pub seq: u64,
}

/// A call that must not happen twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Caller, route and session.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// SHA-256 of the whole request, as hex.
    pub request_hash: String,
}

/// What was done. It is told only after it is committed.
#[derive(Debug, Clone)]
pub enum Done {
    /// The message is accepted.
    Accepted(Box<crate::gateway::Accepted>),
    /// The session as it is now.
    Snapshot(Box<Snapshot>),
    /// The turn as it is now.
    Turn(Box<Turn>),
    /// The turn that is being stopped, if any.
    Stopping(Option<TurnId>),
    /// How many.
    Count(usize),
    /// The brief as it is now.
    Brief(Map<String, Value>),
    /// The call was made before: what it made then, as JSON.
    Duplicate(String),
    /// Done, nothing to tell.
    Unit,
    /// It will be told when the running turn has stopped.
    Later,
}
