//! Agents: what runs behind a session.
//!
//! An adapter speaks one agent's protocol and translates it to [`AgentEvent`]s. It knows nothing of turns,
//! messages, sequences or the store: the session actor attaches those. What it does not understand becomes
//! [`AgentEvent::Raw`], never an error.
//!
//! Contract between a session and a [`Live`] agent:
//! - `start` returns at once; the first event is [`AgentEvent::Opened`] or [`AgentEvent::Ended`] with a failure.
//! - At most one prompt at a time. Each [`AgentCommand::Prompt`] is answered by exactly one [`AgentEvent::Ended`].
//! - An agent that ends under a prompt says [`AgentEvent::Leaving`] before that `Ended`: the turn that waits behind it must
//!   not be given to it.
//! - After [`AgentCommand::Cancel`] the adapter asks the agent to stop and reports `Ended` once it *has* stopped.
//! - [`Live::kill`] stops it by force: the whole process group, and the event channel closes only after that
//!   group is gone. A closed channel is how a session learns that its agent is dead.
//! - Dropping a [`Live`] kills as well, without waiting.
//! - The event channel is bounded: an agent that floods is slowed down, not buffered.

pub mod acp;
pub mod claude;
pub mod codex;
pub mod command;
pub mod echo;
mod json;
mod mode;
pub mod openai;
pub mod opencode;
pub mod pi;
pub mod pool;
pub mod process;
pub mod program;
mod registry;
mod summary;

pub use mode::Mode;
pub use registry::Registry;
pub use summary::{input_summary, shortened, whole_input};

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{SessionId, SessionKey},
    protocol::{
        Attachment, ChoiceKind, ChoiceOption, Message, Question, ToolStatus, TurnError, Usage,
        event::{DeltaKind, Resumed},
        session::AgentStatus,
    },
};

/// Events that may wait between an adapter and its session.
pub const EVENT_CHANNEL: usize = 256;
/// Commands that may wait between a session and an adapter.
pub const COMMAND_CHANNEL: usize = 16;

/// What an agent can do; what it cannot, Greenroom does without or for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Capabilities {
    /// Keeps nothing between turns: it is started for each turn, at no cost, and dropped after it.
    pub stateless: bool,
    /// Its process lives for one turn: it is started for each, with a place in the pool, and let go after it.
    pub per_turn: bool,
    /// Takes a text into the running turn.
    pub steer: bool,
    /// Many sessions share one process, which takes no place in the pool.
    pub shared: bool,
    /// Takes images.
    pub images: bool,
    /// Asks for permission or puts questions.
    pub choices: bool,
    /// Can go on with a stored session of its own after a restart.
    pub resume: bool,
    /// Gets the conversation from Greenroom's transcript.
    pub replay: bool,
}

/// Something that can run turns, as configured.
pub trait Agent: Send + Sync {
    /// The name in the configuration: `echo`, `claude`, …
    fn id(&self) -> &str;

    /// The kind of adapter, as in the configuration: `echo`, `openai`, `acp`, …
    fn kind(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Starts it for one session and returns at once. Must be called inside a tokio runtime.
    fn start(&self, spec: OpenSpec) -> Live;

    /// The modes that it has whatever it runs on, so that they are known before it is opened; none where it tells them only
    /// while it runs, empty where it has no modes at all.
    fn modes(&self) -> Option<Vec<Mode>> {
        None
    }

    /// Finds out whether it could run: binary, version, models. Bounded in time by the caller.
    /// What is started for it is recorded in `processes`, so that it does not outlive a server that dies meanwhile.
    fn probe(&self, processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe>;
}

/// What a probe found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Probe {
    /// True when a turn could run.
    pub available: bool,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// Its models, where it tells.
    pub models: Vec<Value>,
    /// What is missing and what to do; null when nothing is.
    pub reason: Option<String>,
    /// How to log in, where it is there and no credentials of it were seen; they may be where nobody looked. Null otherwise.
    pub login: Option<String>,
    /// True when the look took too long, so that something is there.
    #[serde(skip)]
    pub late: bool,
}

/// What an agent needs to know to start for a session.
#[derive(Clone)]
pub struct OpenSpec {
    /// The session.
    pub session: SessionKey,
    /// Its conversation.
    pub conversation: SessionId,
    /// Where it works: an absolute path that exists.
    pub cwd: PathBuf,
    /// The model asked for; none is the agent's default.
    pub model: Option<String>,
    /// The mode asked for; none is the agent's default.
    pub mode: Option<String>,
    /// `default`, `accept_edits`, `plan`, `dont_ask` or `bypass`.
    pub permission_mode: String,
    /// The agent's own id of this conversation, from an earlier [`AgentEvent::Opened`].
    pub native_id: Option<String>,
    /// The conversation so far.
    pub transcript: Arc<dyn Transcript>,
    /// Where processes are recorded, so that a later start can sweep what a crash left behind.
    pub processes: Arc<dyn ProcessLedger>,
}

/// Reads the conversation so far, without the message of the running turn.
pub trait Transcript: Send + Sync {
    /// The messages in order. The error is text for the log.
    fn load(&self) -> BoxFuture<'static, Result<Vec<Message>, String>>;
}

/// Remembers process groups that must not outlive the server.
pub trait ProcessLedger: Send + Sync {
    /// A group was started.
    fn started(&self, process: ProcessRecord);
    /// The group is gone.
    fn ended(&self, pgid: i32);
    /// What the markers of all its processes begin with, so that those can be found whose record a crash forestalled.
    /// Empty where nobody looks for them.
    fn home(&self) -> &str {
        ""
    }
}

/// A process group as recorded in the store. Process ids are used again by the system, so the start time of the
/// leader, in clock ticks since boot (field 22 of `/proc/PID/stat`), tells whether it is still the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRecord {
    /// The group, which is also the process id of its leader.
    pub pgid: i32,
    /// When the leader started, in clock ticks since boot.
    pub started_ticks: i64,
    /// The boot that those ticks count from (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The agent's name.
    pub agent: String,
    /// The session's key.
    pub session: String,
    /// A random value that every process of the agent carries in its environment, so that those that outlive their
    /// leader are known; see [`process::MARKER`].
    pub marker: String,
}

/// A started agent. Dropping it kills the agent.
#[derive(Debug)]
pub struct Live {
    /// To the agent.
    pub commands: mpsc::Sender<AgentCommand>,
    /// From the agent; closed when it is gone.
    pub events: mpsc::Receiver<AgentEvent>,
    /// Stops it by force.
    pub kill: KillOnDrop,
}

/// Asks for a kill when dropped.
#[derive(Debug)]
pub struct KillOnDrop(pub CancellationToken);

impl KillOnDrop {
    /// Asks for a kill now; the end of the event channel tells when it is done.
    pub fn kill(&self) {
        self.0.cancel();
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The ends of the channels that an adapter holds.
#[derive(Debug)]
pub struct AdapterSide {
    /// From the session; closed when the session lets go.
    pub commands: mpsc::Receiver<AgentCommand>,
    /// To the session. Drop it only when the agent is gone.
    pub events: mpsc::Sender<AgentEvent>,
    /// Fires when the agent must be stopped by force.
    pub killed: CancellationToken,
}

/// Makes the two ends of a started agent.
#[must_use]
pub fn channel() -> (Live, AdapterSide) {
    let (command_sender, commands) = mpsc::channel(COMMAND_CHANNEL);
    let (event_sender, events) = mpsc::channel(EVENT_CHANNEL);
    let killed = CancellationToken::new();
    let live = Live { commands: command_sender, events, kill: KillOnDrop(killed.clone()) };
    (live, AdapterSide { commands, events: event_sender, killed })
}

/// What a session asks of an agent.
#[derive(Debug)]
pub enum AgentCommand {
    /// Run a turn.
    Prompt(Prompt),
    /// Take a text into the running turn; answered by [`AgentEvent::Steered`] when it is taken.
    Steer {
        /// Which text, for the acknowledgement.
        id: u64,
        /// The text.
        text: String,
    },
    /// Stop the running turn, politely.
    Cancel,
    /// Answer a question.
    Answer {
        /// The agent's own id of the question.
        ask_id: String,
        /// The answer.
        answer: Answer,
    },
    /// Use another model from the next turn on.
    SetModel(String),
    /// Go into another mode.
    SetMode(String),
    /// Finish in order: no turn runs.
    Close,
}

/// A message for an agent.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The text; may be empty where there are attachments.
    pub text: String,
    /// Files.
    pub attachments: Arc<Vec<Attachment>>,
    /// The model for this turn, where one was asked for.
    pub model: Option<String>,
    /// The mode for this turn, where one was asked for.
    pub mode: Option<String>,
    /// The permission mode.
    pub permission_mode: String,
}

/// A question of an agent, answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One of the options of a permission.
    Option {
        /// The agent's own id of the option.
        id: String,
    },
    /// The answers to questions, by question id.
    Answers(serde_json::Map<String, Value>),
    /// Nobody answers any more: the turn is being stopped, or time is up.
    Cancelled,
}

/// What an agent tells.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// It is ready for its first prompt. In a running turn: its own id of the conversation is another one from now on,
    /// as after a command that clears it.
    Opened(Opened),
    /// A piece of the answer. A new part begins whenever the kind changes or a tool call stands between.
    Delta {
        /// Text or reasoning.
        kind: DeltaKind,
        /// The piece, to append.
        text: String,
    },
    /// A tool is called, or more is known about a call that was announced: known fields replace.
    ToolStarted(ToolCall),
    /// The input of a call as far as the model has written it: the whole prefix.
    ToolDelta {
        /// The call.
        call_id: String,
        /// The prefix.
        input_so_far: String,
    },
    /// News of a call.
    ToolUpdated {
        /// The call.
        call_id: String,
        /// How far it is.
        status: ToolStatus,
        /// What came back so far.
        output: Value,
    },
    /// A call is over.
    ToolFinished {
        /// The call.
        call_id: String,
        /// What came back.
        output: Value,
        /// True when it failed or was refused.
        is_error: bool,
    },
    /// It asks, and waits.
    ChoiceAsked(Ask),
    /// It no longer waits for that answer.
    ChoiceWithdrawn {
        /// Its own id of the question.
        ask_id: String,
    },
    /// It took a steered text.
    Steered {
        /// Which.
        id: u64,
    },
    /// Its slash commands, as it gives them.
    Commands(Value),
    /// Its plan, as it gives it.
    Plan(Value),
    /// Its mode and the modes it offers.
    Mode {
        /// The mode it is in.
        mode: Option<String>,
        /// The modes it offers, as it gives them.
        modes: Value,
    },
    /// Tokens and cost of the running turn so far: each replaces the one before.
    Usage(Usage),
    /// How it is, as in a retry after a 429.
    Status {
        /// Working, idle or error.
        status: AgentStatus,
        /// Why.
        reason: Option<String>,
    },
    /// How far it is with reading the prompt.
    Progress {
        /// Tokens read.
        processed: u64,
        /// Tokens to read.
        total: u64,
        /// Tokens from a cache.
        cached: u64,
        /// Milliseconds so far.
        time_ms: u64,
    },
    /// A fault that does not end the turn.
    Fault {
        /// A code.
        code: String,
        /// For a person.
        message: String,
    },
    /// Its own message, not understood or passed through.
    Raw(Value),
    /// It is gone, or as good as gone: what ends now is the last that it does. The next turn needs a fresh one.
    Leaving,
    /// The turn is over, or the start failed.
    Ended(Outcome),
}

/// An agent is ready.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Opened {
    /// How it got the conversation.
    pub resumed: Option<Resumed>,
    /// Its own id of the conversation, to be stored for the next start.
    pub native_id: Option<String>,
    /// The model it uses, where it tells.
    pub model: Option<String>,
    /// The models it offers: `{"id", "name"}` each.
    pub models: Vec<BTreeMap<String, Value>>,
}

/// A tool call as far as it is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolCall {
    /// The agent's id of the call.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// One line for a person.
    pub title: Option<String>,
    /// The sort of work.
    pub kind: Option<String>,
    /// What it is called with.
    pub input: Value,
}

/// A question of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The agent's own id of the question.
    pub ask_id: String,
    /// Permission or question.
    pub kind: ChoiceKind,
    /// One line for a person.
    pub title: String,
    /// The tool that asks.
    pub tool: Option<String>,
    /// What it would do, in short.
    pub input_summary: Option<String>,
    /// The answers that a permission can get; at least one.
    pub options: Vec<ChoiceOption>,
    /// The questions, for a question.
    pub questions: Vec<Question>,
}

/// How a turn, or a start, ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Well. The reason is the agent's stop reason where it is not the ordinary one, as in `max_tokens`.
    Completed {
        /// `max_tokens`, `refusal`, …
        reason: Option<String>,
    },
    /// It stopped because it was asked to. An agent that ends its turn over a rejected permission has completed it, with
    /// the reason `rejected`.
    Cancelled,
    /// Badly.
    Failed(TurnError),
}

impl Outcome {
    /// A failure with a code and a message for a person.
    #[must_use]
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(TurnError { code: code.into(), message: message.into() })
    }
}
