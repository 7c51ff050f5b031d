//! What a session is, between two commits. Pure data; [`super::draft::Draft`] changes it.
//!
//! A clone is cheap (shared records, a [`Rope`] for the text that is being written): each commit is decided on a
//! clone, which becomes the state only when it is on disk.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    command::{After, Once},
    queue::Queue,
    rope::Rope,
};
use crate::{
    agents::{Opened, ToolCall},
    ids::{MessageId, SessionId, SessionKey, TurnId},
    protocol::{
        Choice, CurrentTurn, Message, Part, Role, Snapshot, ToolStatus, Turn, TurnState, Usage, event::DeltaKind,
    },
    store::{Rule, SessionRecord, TurnRecord},
    timestamp::Timestamp,
};

/// A session that exists.
#[derive(Debug, Clone)]
pub struct State {
    /// The row: title, owner, agent, counters. Its `busy`, `queue_depth`, `current_turn`, `live`, `subscribers` and
    /// `last_seq` are not kept up to date here; [`State::snapshot`] fills them.
    pub record: Arc<SessionRecord>,
    /// The newest event.
    pub last_seq: u64,
    /// The oldest event that is kept.
    pub oldest_seq: u64,
    /// Turns that wait.
    pub queue: Queue,
    /// The turn that the agent has, or gets.
    pub running: Option<Running>,
    /// What waits until nothing runs any more.
    pub pending_end: Option<PendingEnd>,
    /// The call that asked for the new conversation that waits, so that it happens once. Memory only.
    pub reset_call: Option<Once>,
    /// Answers to be given again.
    pub rules: Arc<Vec<Rule>>,
    /// The agents' own ids of this conversation.
    pub native_ids: Arc<BTreeMap<String, String>>,
    /// The agent that is warm: started and ready. Memory only.
    pub warm: Option<Warm>,
    /// True once an agent has run a turn since this state was loaded. Memory only.
    pub warmed_up: bool,
    /// The slash commands that the agent offers. Memory only.
    pub commands: Value,
    /// True while no turn may start: the server is stopping. Memory only.
    pub draining: bool,
}

/// An agent that is started and ready.
#[derive(Debug, Clone, PartialEq)]
pub struct Warm {
    /// Its name.
    pub agent: String,
    /// What it said when it was ready, where it has had no turn yet: of use to the first one.
    pub unused: Option<Opened>,
}

/// A change that needs an idle session and waits for the running turn to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingEnd {
    /// A new conversation.
    Reset,
    /// The end of the session.
    Delete,
}

impl PendingEnd {
    /// Why turns are cancelled by it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Reset => "session_reset",
            Self::Delete => "session_deleted",
        }
    }
}

/// The turn that the agent has, or gets.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its record; the state in it is `starting` or `running`.
    pub turn: Arc<TurnRecord>,
    /// Set once somebody asked to stop it.
    pub stop: Option<Stop>,
    /// The assistant message that is being written.
    pub message: Option<OpenMessage>,
    /// The text of the last assistant message that was completed in this turn.
    pub last_text: Arc<str>,
    /// Questions that the agent waits on, oldest first.
    pub choices: Vec<PendingChoice>,
    /// Texts that were offered to the agent and not taken yet, oldest first, with the number given to the agent.
    pub steers: Vec<(u64, Arc<TurnRecord>)>,
    /// The number for the next such text.
    pub next_steer: u64,
    /// Tokens and cost so far.
    pub usage: Usage,
    /// What of it belongs to prompts of this turn that are over: the agent counts from the last one. Memory only.
    pub spent: Usage,
    /// Agents that could not be started for it. Memory only.
    pub unavailable: Vec<String>,
    /// True while the agent is being stopped at a tool boundary to take a steered text. Memory only.
    pub redirecting: bool,
    /// Bytes of text and reasoning that the agent has said in it.
    pub said: usize,
    /// True while the agent has not got the prompt, because the budget is used up and somebody is asked. Memory only.
    pub held: bool,
}

/// Somebody asked to stop a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The state that it gets once it has stopped.
    pub state: TurnState,
    /// Why.
    pub reason: String,
}

/// A question that the agent waits on.
#[derive(Debug, Clone)]
pub struct PendingChoice {
    /// The question as clients see it.
    pub choice: Arc<Choice>,
    /// The agent's own id of it.
    pub ask_id: String,
}

/// A message that is being written.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// Its id.
    pub id: MessageId,
    /// When it began.
    pub created_at: Timestamp,
    /// Its parts so far.
    pub parts: Vec<OpenPart>,
}

/// A part that is being written.
#[derive(Debug, Clone)]
pub enum OpenPart {
    /// Text or reasoning.
    Text(DeltaKind, Rope),
    /// A tool call.
    Tool(Arc<OpenTool>),
}

/// A tool call as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenTool {
    /// What it is called with.
    pub call: ToolCall,
    /// What came back so far.
    pub output: Value,
    /// How far it is.
    pub status: ToolStatus,
}

impl OpenMessage {
    /// The message as it is now.
    #[must_use]
    pub fn message(&self, turn: &TurnRecord) -> Message {
        let parts = self.parts.iter().map(|part| match part {
            OpenPart::Text(DeltaKind::Text, rope) => Part::Text { text: rope.text() },
            OpenPart::Text(DeltaKind::Reasoning, rope) => Part::Reasoning { text: rope.text() },
            OpenPart::Tool(tool) => Part::ToolCall {
                call_id: tool.call.call_id.clone(),
                name: tool.call.name.clone(),
                title: tool.call.title.clone(),
                kind: tool.call.kind.clone(),
                input: tool.call.input.clone(),
                output: tool.output.clone(),
                is_error: tool.status == ToolStatus::Failed,
                status: tool.status,
            },
        });
        Message {
            id: self.id,
            role: Role::Assistant,
            parts: parts.collect(),
            turn_id: Some(turn.turn.id),
            agent: Some(turn.turn.agent.clone()),
            client_id: None,
            created_at: self.created_at,
        }
    }

    /// The tool call of that id.
    #[must_use]
    pub fn tool(&self, call_id: &str) -> Option<&Arc<OpenTool>> {
        self.parts.iter().find_map(|part| match part {
            OpenPart::Tool(tool) if tool.call.call_id == call_id => Some(tool),
            _ => None,
        })
    }

    /// The tool call of that id, to change it.
    pub fn tool_mut(&mut self, call_id: &str) -> Option<&mut OpenTool> {
        self.parts.iter_mut().find_map(|part| match part {
            OpenPart::Tool(tool) if tool.call.call_id == call_id => Some(Arc::make_mut(tool)),
            _ => None,
        })
    }

    /// Takes the calls without a result out of the message.
    pub fn take_open_tools(&mut self) -> Vec<Arc<OpenTool>> {
        let open: Vec<Arc<OpenTool>> = self.open_tools().cloned().collect();
        self.parts
            .retain(|part| !matches!(part, OpenPart::Tool(tool) if open.iter().any(|known| Arc::ptr_eq(known, tool))));
        open
    }

    /// The calls without a result.
    pub fn open_tools(&self) -> impl Iterator<Item = &Arc<OpenTool>> {
        self.parts.iter().filter_map(|part| match part {
            OpenPart::Tool(tool) if matches!(tool.status, ToolStatus::Pending | ToolStatus::Running) => Some(tool),
            _ => None,
        })
    }
}

impl Running {
    /// A turn that has just left the queue.
    #[must_use]
    pub fn new(turn: Arc<TurnRecord>) -> Self {
        Self {
            stop: None,
            message: None,
            last_text: "".into(),
            choices: Vec::new(),
            steers: Vec::new(),
            next_steer: 0,
            usage: turn.turn.usage,
            spent: Usage::default(),
            unavailable: Vec::new(),
            redirecting: false,
            said: 0,
            held: false,
            turn,
        }
    }

    /// The state that clients see.
    #[must_use]
    pub fn visible_state(&self) -> TurnState {
        match self.turn.turn.state {
            TurnState::Running if !self.choices.is_empty() => TurnState::AwaitingChoice,
            state => state,
        }
    }

    /// The turn as clients see it.
    #[must_use]
    pub fn view(&self) -> Turn {
        let mut turn = self.turn.turn.clone();
        turn.state = self.visible_state();
        turn.usage = self.usage;
        turn
    }
}

impl State {
    /// A session that has just been created or loaded, with nothing running.
    #[must_use]
    pub fn new(record: SessionRecord, last_seq: u64, oldest_seq: u64) -> Self {
        Self {
            record: Arc::new(record),
            last_seq,
            oldest_seq,
            queue: Queue::default(),
            running: None,
            pending_end: None,
            reset_call: None,
            rules: Arc::default(),
            native_ids: Arc::default(),
            warm: None,
            warmed_up: false,
            commands: Value::Array(Vec::new()),
            draining: false,
        }
    }

    /// The session's key.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.record.snapshot.key
    }

    /// The present conversation.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.record.snapshot.id
    }

    /// True while a turn runs or waits.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.running.is_some() || !self.queue.is_empty()
    }

    /// True when `after` is the last turn: of those that wait or run, or of those that are over.
    #[must_use]
    pub fn ends_with(&self, after: After) -> bool {
        let waits = self.queue.iter().last().map(|turn| turn.turn.id);
        match waits.or_else(|| self.running.as_ref().map(|running| running.turn.turn.id)) {
            Some(last) => last == after.turn,
            None => self.last_seq == after.seq,
        }
    }

    /// The row as it is to be stored.
    #[must_use]
    pub fn stored(&self) -> SessionRecord {
        let mut record = (*self.record).clone();
        record.snapshot.busy = self.busy();
        record.snapshot.queue_depth = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        record.snapshot.last_seq = self.last_seq;
        record
    }

    /// The session as clients see it.
    #[must_use]
    pub fn snapshot(&self, subscribers: usize) -> Snapshot {
        let mut snapshot = self.stored().snapshot;
        snapshot.live = true;
        snapshot.subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
        snapshot.current_turn = self.running.as_ref().map(|running| CurrentTurn {
            id: running.turn.turn.id,
            state: running.visible_state(),
            started_at: running.turn.turn.started_at,
            pending_choice_id: running.choices.first().map(|pending| pending.choice.id),
        });
        snapshot
    }

    /// A turn that waits or runs, as clients see it.
    #[must_use]
    pub fn turn(&self, id: TurnId) -> Option<Turn> {
        if let Some(running) = self.running.as_ref().filter(|running| running.turn.turn.id == id) {
            return Some(running.view());
        }
        let mut turn = self.queue.get(id)?.turn.clone();
        turn.position = self.position(id);
        Some(turn)
    }

    /// 1 while a turn has left the queue and has not started: it is still before all others.
    fn ahead(&self) -> u32 {
        u32::from(self.running.as_ref().is_some_and(|running| running.turn.turn.state == TurnState::Starting))
    }

    /// The place of a turn that waits: how many start before it.
    #[must_use]
    pub fn position(&self, id: TurnId) -> Option<u32> {
        Some(self.queue.position(id)? + self.ahead())
    }

    /// The turns that wait, next first, as clients see them.
    #[must_use]
    pub fn queued(&self) -> Vec<Turn> {
        let views = (self.ahead()..).zip(self.queue.iter());
        views.map(|(position, turn)| Turn { position: Some(position), ..turn.turn.clone() }).collect()
    }
}
