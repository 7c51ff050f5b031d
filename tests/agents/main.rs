//! Agents as processes: the rules for child processes, the ACP adapter against a scripted agent, and real agents.

mod choices;
mod harness;
mod lifecycle;
mod process;
mod real;
mod settings;
mod stopping;
mod turns;
