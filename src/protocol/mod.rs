//! What crosses the wire: pure data with serde, no actor, no database, no runtime.
//!
//! Allowed changes: a new variant, a new optional field. Never rename, remove, retype or reuse one: clients and
//! the event log keep what was written for ever.

pub mod account;
pub mod answer;
pub mod budget;
pub mod choice;
pub mod command;
pub mod event;
pub mod frame;
pub mod message;
pub mod session;
pub mod turn;
pub mod webhook;

pub use answer::{Aborted, AcceptedTurn, Acknowledged, Brief, Cleared, Health, OpenTool, StoppedTurn};
pub use choice::{Choice, ChoiceAnswer, ChoiceKind, ChoiceOption, OptionKind, Question, QuestionOption, ResolvedBy};
pub use command::{Attachment, ContinueSession, CreateSession, Feedback, PatchSession, Rating, SendMessage};
pub use event::{Event, EventBody};
pub use frame::{Control, Frame};
pub use message::{Message, Part, Role, ToolStatus};
pub use session::{AgentStatus, CurrentTurn, Snapshot, Visibility};
pub use turn::{Policy, Turn, TurnError, TurnState, Usage};
