//! Agents as processes: the rules for child processes, the ACP adapter against a scripted agent, and real agents.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod choices;
mod harness;
mod lifecycle;
#[path = "../support/mock_llm/mod.rs"]
mod mock_llm;
mod opencode;
mod opencode_real;
mod process;
mod real;
#[path = "../support/real/mod.rs"]
mod real_agents;
mod settings;
mod stopping;
mod turns;
