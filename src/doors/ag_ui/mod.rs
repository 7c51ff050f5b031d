//! AG-UI: a run of its protocol is a turn of a session, told as its events.
//!
//! The thread is the session, so of the messages that a client keeps only the new one is sent: the session knows the
//! others. Shared state is the client's own and is never touched. A question of the agent ends a run with an interrupt;
//! the run that answers it tells the rest of the same turn.
//!
//! Facts: the schemas and the verifier of npm `@ag-ui/core` and `@ag-ui/client` 1.0.0 and 0.0.59.

mod answer;
mod content;
mod input;
mod line;
mod narrator;
mod parts;
mod replay;

#[cfg(test)]
mod tests;

pub use self::{
    input::{Asks, Resume, Run, RunAgentInput},
    narrator::{AgUi, Telling},
};
