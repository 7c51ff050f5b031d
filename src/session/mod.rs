//! Sessions: named, long-lived conversations, one actor each while they are live.
//!
//! One direction: command → decide → append → (committed) → apply → publish. A decision is made on a copy of the
//! state ([`draft::Draft`]), which becomes the state only once it is on disk; nobody sees an event that a crash
//! could take back. At most one commit of a session is under way; what comes meanwhile is decided together next.
//!
//! - pure: [`state`], [`queue`], [`rope`], [`draft`] with its decisions in `decide` (commands), `handover`, `turns` (the way of a
//!   turn), `steering` (texts for it), `spending` (its budgets, after [`budget`]), `progress` (what agents tell) and [`recovery`]; [`coalesce`];
//!   `audit` (what is noted of a command)
//! - the actor: [`actor`] (glue), `lane` (what is decided, one commit at a time), `commit` (what follows), `backend` (the agent and its time limits)
//! - over all sessions: [`admission`]; without one: [`call`]
//! - streams: [`outbox`], [`subscribers`], [`subscription`]

pub mod actor;
#[cfg(test)]
mod actor_tests;
pub mod admission;
mod audit;
mod backend;
pub mod budget;
pub mod call;
pub mod coalesce;
pub mod command;
mod commit;
pub mod day_sums;
mod decide;
pub mod draft;
pub mod env;
mod fallback;
mod handover;
mod lane;
pub mod messages;
pub mod outbox;
mod prewarm;
mod progress;
pub mod queue;
pub mod recovery;
pub mod rope;
mod spending;
pub mod state;
mod steering;
pub mod subscribers;
pub mod subscription;
mod trace;
mod turns;
pub mod workspace;

pub use actor::{Deps, Effective, SessionActor, SessionHandle, Undelivered};
pub use spending::{check_day as check_day_of, of_stored as budget_of_stored};
pub use subscription::{Item, Subscription};
pub(crate) use subscription::{misses_progress, passes};
