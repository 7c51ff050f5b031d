//! Session snapshots: what runs, what waits, what it costs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    budget::Budget,
    turn::{TurnState, Usage},
};
use crate::{
    ids::{ChoiceId, SessionId, SessionKey, TurnId},
    timestamp::Timestamp,
};

/// Who may see a session beside its owner and admins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// The members of one organisation.
    Org,
    /// Everybody who may call this server.
    Public,
}

impl Visibility {
    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Org => "org",
            Self::Public => "public",
        }
    }

    /// The visibility of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "private" => Self::Private,
            "org" => Self::Org,
            "public" => Self::Public,
            _ => return None,
        })
    }
}

/// What the agent of a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Hash, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// It works on a turn.
    Working,
    /// It waits for a turn.
    #[default]
    Idle,
    /// It failed last time.
    Error,
}

impl AgentStatus {
    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Error => "error",
        }
    }
}

/// The turn that runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentTurn {
    /// Its id.
    pub id: TurnId,
    /// `starting`, `running` or `awaiting_choice`.
    pub state: TurnState,
    /// When the agent got it; null while it starts.
    pub started_at: Option<Timestamp>,
    /// The oldest question that it waits on.
    pub pending_choice_id: Option<ChoiceId>,
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Its key.
    pub key: SessionKey,
    /// The id of its present conversation; a reset makes a new one.
    pub id: SessionId,
    /// Its title; `untitled` at first.
    pub title: String,
    /// Who made it.
    pub owner: String,
    /// Who else may see it.
    pub visibility: Visibility,
    /// The organisation, when `visibility` is `org`.
    pub org_id: Option<String>,
    /// The agent that runs its turns.
    pub agent: String,
    /// The model; null is the agent's default.
    pub model: Option<String>,
    /// The agent's mode; null is its default.
    pub mode: Option<String>,
    /// `default`, `accept_edits`, `plan`, `dont_ask` or `bypass`.
    #[schemars(extend("enum" = ["default", "accept_edits", "plan", "dont_ask", "bypass"]))]
    pub permission_mode: String,
    /// The profile that it was made with.
    pub profile: Option<String>,
    /// The project whose worktree it works in.
    pub project_id: Option<String>,
    /// The client's own data.
    pub metadata: Map<String, Value>,
    /// True when it takes no more messages.
    pub archived: bool,
    /// Since when.
    pub archived_at: Option<Timestamp>,
    /// True for the one session that is never evicted and cannot be deleted.
    pub primary: bool,
    /// When this conversation began.
    pub created_at: Timestamp,
    /// When anything about it last changed.
    pub updated_at: Timestamp,
    /// When a message last came in or an answer went out.
    pub last_active_at: Timestamp,
    /// Entries of the transcript.
    pub message_count: u64,
    /// The first 120 characters of the last text of user or assistant.
    pub last_message_preview: Option<String>,
    /// True while a turn runs or waits.
    pub busy: bool,
    /// Turns that wait.
    pub queue_depth: u32,
    /// True while an actor holds it in memory.
    pub live: bool,
    /// Streams that follow it.
    pub subscribers: u32,
    /// The newest event.
    pub last_seq: u64,
    /// The turn that runs.
    pub current_turn: Option<CurrentTurn>,
    /// What its agent does.
    pub agent_status: AgentStatus,
    /// Sum over its turns.
    pub usage: Usage,
    /// How much of its budgets is used up; null without any.
    pub budget: Option<Budget>,
}
