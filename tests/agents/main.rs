//! Agents as processes: the rules for child processes, the adapters against scripted agents, and real agents.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod choices;
mod claude;
mod claude_real;
mod codex;
mod command;
mod harness;
mod lifecycle;
#[path = "../support/mock_llm/mod.rs"]
mod mock_llm;
mod opencode;
mod opencode_real;
mod pi;
mod process;
mod real;
#[path = "../support/real/mod.rs"]
mod real_agents;
mod settings;
mod stopping;
mod turns;
