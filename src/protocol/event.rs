//! The event log: one entry per fact, numbered without gaps from 1 per session key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    choice::{Choice, ResolvedBy},
    message::{Message, Role, ToolStatus},
    session::AgentStatus,
    turn::{Turn, TurnError, TurnState, Usage},
};
use crate::{
    ids::{ChoiceId, MessageId, SessionKey, TurnId},
    timestamp::Timestamp,
};

/// One entry of a session's log. [`super::Frame::encode`] writes it, [`super::frame::decode_event`] reads it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the log of its session key, from 1.
    pub seq: u64,
    /// What happened, as `type` and `data`.
    pub body: EventBody,
    /// The key of the session.
    pub session: SessionKey,
    /// The turn it belongs to; null outside a turn.
    pub turn_id: Option<TurnId>,
    /// When it was decided.
    pub at: Timestamp,
}

/// What a `message.delta` is a piece of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeltaKind {
    /// Text for the reader.
    Text,
    /// What the model thinks.
    Reasoning,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum EventBody {
    /// The session key got its first, or after a delete its next, session.
    #[serde(rename = "session.created")]
    SessionCreated {
        /// What was set.
        changed: Map<String, Value>,
    },
    /// Something about the session changed.
    #[serde(rename = "session.updated")]
    SessionUpdated {
        /// The new values of what changed.
        changed: Map<String, Value>,
    },
    /// A new conversation began under the key.
    #[serde(rename = "session.reset")]
    SessionReset {
        /// The new `id`, and the `previous_id`.
        changed: Map<String, Value>,
    },
    /// The session takes no more messages.
    #[serde(rename = "session.archived")]
    SessionArchived {
        /// `archived` and `archived_at`.
        changed: Map<String, Value>,
    },
    /// The session and its data are gone.
    #[serde(rename = "session.deleted")]
    SessionDeleted {
        /// The `id` that is gone.
        changed: Map<String, Value>,
    },
    /// A message was accepted.
    #[serde(rename = "turn.queued")]
    TurnQueued {
        /// The turn.
        turn: Box<Turn>,
        /// Its place in line, 0 is next.
        position: u32,
    },
    /// The agent gets the message now.
    #[serde(rename = "turn.started")]
    TurnStarted {
        /// The agent that runs it.
        agent: String,
        /// The model, where known.
        model: Option<String>,
        /// True when the turn had to wait for a start of its agent.
        cold_start: bool,
        /// How the agent got the conversation: `native`, `replayed` or `new`; null for one that has had a turn already.
        resumed: Option<Resumed>,
    },
    /// The text of a queued turn was changed.
    #[serde(rename = "turn.updated")]
    TurnUpdated {
        /// The turn as it is now.
        turn: Box<Turn>,
    },
    /// A queued turn has another place in line.
    #[serde(rename = "turn.moved")]
    TurnMoved {
        /// The turn.
        turn_id: TurnId,
        /// Its new place, 0 is next.
        position: u32,
    },
    /// The agent took a text into the running turn.
    #[serde(rename = "turn.steered")]
    TurnSteered {
        /// The text.
        text: String,
        /// Who sent it.
        source: String,
    },
    /// The turn reached its terminal state.
    #[serde(rename = "turn.finished")]
    TurnFinished {
        /// `completed`, `failed`, `cancelled` or `interrupted`.
        state: TurnState,
        /// Why, where the state alone does not say.
        reason: Option<String>,
        /// What failed.
        error: Option<TurnError>,
        /// Tokens and cost of the turn.
        usage: Usage,
        /// The first 500 characters of the final text.
        summary: Option<String>,
    },
    /// A message begins.
    #[serde(rename = "message.started")]
    MessageStarted {
        /// Its id.
        message_id: MessageId,
        /// Who speaks.
        role: Role,
    },
    /// A piece of a message.
    #[serde(rename = "message.delta")]
    MessageDelta {
        /// The message.
        message_id: MessageId,
        /// The part of the message, from 0.
        part: u32,
        /// What the part is.
        kind: DeltaKind,
        /// The piece, to append.
        delta: String,
    },
    /// A message is whole.
    #[serde(rename = "message.completed")]
    MessageCompleted {
        /// All of it.
        message: Box<Message>,
    },
    /// The agent calls a tool.
    #[serde(rename = "tool.started")]
    ToolStarted {
        /// The agent's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// One line for a person.
        title: Option<String>,
        /// The sort of work: `read`, `edit`, `execute`, …
        kind: Option<String>,
        /// What it is called with, as far as known.
        input: Value,
        /// The command, path, query or address, in short.
        input_summary: Option<String>,
    },
    /// The input of a call, as far as the model has written it.
    #[serde(rename = "tool.delta")]
    ToolDelta {
        /// The call.
        call_id: String,
        /// The whole prefix: the latest replaces earlier ones.
        input_so_far: String,
    },
    /// News of a call that runs.
    #[serde(rename = "tool.updated")]
    ToolUpdated {
        /// The call.
        call_id: String,
        /// How far it is.
        status: ToolStatus,
        /// What came back so far.
        output: Value,
    },
    /// A call is over.
    #[serde(rename = "tool.finished")]
    ToolFinished {
        /// The call.
        call_id: String,
        /// What came back.
        output: Value,
        /// True when it failed, was refused or cut off.
        is_error: bool,
    },
    /// The agent waits for an answer.
    #[serde(rename = "choice.requested")]
    ChoiceRequested {
        /// The question.
        choice: Box<Choice>,
    },
    /// A question is settled.
    #[serde(rename = "choice.resolved")]
    ChoiceResolved {
        /// Which.
        choice_id: ChoiceId,
        /// `{"option_id", "kind"}`, `{"answers"}`, or `{"cancelled": true}`.
        outcome: Value,
        /// Who decided.
        source: ResolvedBy,
    },
    /// News of the agent itself.
    #[serde(rename = "agent.status")]
    AgentStatus {
        /// What it does.
        status: AgentStatus,
        /// Why, as in `retry in 2 s: 429 rate limited`.
        reason: Option<String>,
    },
    /// The slash commands that the agent offers now.
    #[serde(rename = "agent.commands")]
    AgentCommands {
        /// The list as the agent gives it.
        commands: Value,
    },
    /// What the agent plans to do.
    #[serde(rename = "agent.plan")]
    AgentPlan {
        /// The list as the agent gives it.
        entries: Value,
    },
    /// The agent's mode, and the modes and models that it offers.
    #[serde(rename = "agent.mode")]
    AgentMode {
        /// The mode it is in.
        mode: Option<String>,
        /// The modes it offers, as it gives them.
        modes: Value,
    },
    /// How far the model is with reading the prompt.
    #[serde(rename = "agent.progress")]
    AgentProgress {
        /// 0 to 100.
        percent: u8,
        /// Tokens read.
        processed: u64,
        /// Tokens to read.
        total: u64,
        /// Tokens that came from a cache.
        cached: u64,
        /// Milliseconds so far.
        time_ms: u64,
    },
    /// A fault that does not end the turn.
    #[serde(rename = "error")]
    Error {
        /// A code.
        code: String,
        /// What happened, for a person.
        message: String,
    },
    /// A type that this version does not know: a newer one wrote it. Never written.
    #[serde(other, rename = "unknown")]
    #[schemars(skip)]
    Unknown,
}

impl EventBody {
    /// All types of events.
    pub const TYPES: [&str; 26] = [
        "session.created",
        "session.updated",
        "session.reset",
        "session.archived",
        "session.deleted",
        "turn.queued",
        "turn.started",
        "turn.updated",
        "turn.moved",
        "turn.steered",
        "turn.finished",
        "message.started",
        "message.delta",
        "message.completed",
        "tool.started",
        "tool.delta",
        "tool.updated",
        "tool.finished",
        "choice.requested",
        "choice.resolved",
        "agent.status",
        "agent.commands",
        "agent.plan",
        "agent.mode",
        "agent.progress",
        "error",
    ];

    /// The `type` on the wire.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::SessionCreated { .. } => "session.created",
            Self::SessionUpdated { .. } => "session.updated",
            Self::SessionReset { .. } => "session.reset",
            Self::SessionArchived { .. } => "session.archived",
            Self::SessionDeleted { .. } => "session.deleted",
            Self::TurnQueued { .. } => "turn.queued",
            Self::TurnStarted { .. } => "turn.started",
            Self::TurnUpdated { .. } => "turn.updated",
            Self::TurnMoved { .. } => "turn.moved",
            Self::TurnSteered { .. } => "turn.steered",
            Self::TurnFinished { .. } => "turn.finished",
            Self::MessageStarted { .. } => "message.started",
            Self::MessageDelta { .. } => "message.delta",
            Self::MessageCompleted { .. } => "message.completed",
            Self::ToolStarted { .. } => "tool.started",
            Self::ToolDelta { .. } => "tool.delta",
            Self::ToolUpdated { .. } => "tool.updated",
            Self::ToolFinished { .. } => "tool.finished",
            Self::ChoiceRequested { .. } => "choice.requested",
            Self::ChoiceResolved { .. } => "choice.resolved",
            Self::AgentStatus { .. } => "agent.status",
            Self::AgentCommands { .. } => "agent.commands",
            Self::AgentPlan { .. } => "agent.plan",
            Self::AgentMode { .. } => "agent.mode",
            Self::AgentProgress { .. } => "agent.progress",
            Self::Error { .. } => "error",
            Self::Unknown => "unknown",
        }
    }
}

/// How a cold agent got the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resumed {
    /// By its own stored session.
    Native,
    /// From Greenroom's transcript.
    Replayed,
    /// There was nothing to resume.
    New,
}
