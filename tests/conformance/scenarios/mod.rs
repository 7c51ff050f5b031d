//! What every agent is put through. Each scenario is a function of its own; what must hold panics when it does not, and
//! what an agent may honestly lack is told as [`Went::Without`].

mod asking;
mod conversation;
mod faults;
mod restart;
mod settings;
mod stopping;

use std::{future::Future, pin::Pin};

pub use asking::assert_settled;

use crate::subject::Subject;

/// How a scenario went in which nothing was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// As it should.
    Well,
    /// In one of several good ways.
    As(&'static str),
    /// The agent lacks what it takes, and said so or did nothing.
    Without(&'static str),
}

/// One row of the table.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub play: fn(Subject) -> Pin<Box<dyn Future<Output = Went>>>,
}

/// Calls a macro with every scenario: its name, what the table says, its function.
macro_rules! for_every_scenario {
    ($then:ident $(, $argument:tt)*) => {
        $then! {
            [$($argument)*]
            first_token "the answer is streamed" conversation::first_token;
            conversation "two turns in one conversation" conversation::conversation;
            reasoning "reasoning apart from the answer" conversation::reasoning;
            usage "tokens per turn, never counted twice" conversation::usage;
            parallel "two sessions at once" conversation::parallel;
            commands "slash commands listed" conversation::commands;
            tool_allowed "a permission, allowed" asking::tool_allowed;
            tool_rejected "a permission, rejected" asking::tool_rejected;
            allow_always "allowed always: not asked again" asking::allow_always;
            question "a question to the user" asking::question;
            steer "a text into the running turn" stopping::steer;
            cancel_streaming "cancelled while it streams" stopping::cancel_streaming;
            cancel_asking "cancelled while it asks" stopping::cancel_asking;
            model_switch "another model for a turn" settings::model_switch;
            mode_switch "another mode for a turn" settings::mode_switch;
            plan "permission mode `plan`" settings::plan;
            error_401 "credentials refused: says what to do" faults::error_401;
            error_429 "model server busy: fails with its words" faults::error_429;
            error_500 "model server broken: fails with its words" faults::error_500;
            agent_killed "agent killed: settled, and goes on" restart::agent_killed;
            server_killed "`kill -9` of Greenroom: the conversation goes on" restart::server_killed;
            nothing_left "no process left after an orderly stop" restart::nothing_left;
        }
    };
}
pub(crate) use for_every_scenario;

macro_rules! list {
    ([] $($name:ident $what:literal $path:path;)*) => {
        /// All of them, in the order of the table.
        pub const SCENARIOS: &[Scenario] = &[
            $(Scenario { name: stringify!($name), what: $what, play: |subject| Box::pin($path(subject)) }),*
        ];
    };
}
for_every_scenario!(list);
