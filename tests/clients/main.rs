//! Clients of other makers, as they come from npm and PyPI, against the running server: what they understand is what
//! counts, not what we think that we said.
//!
//! `scripts/clients` installs them.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

#[path = "../support/mock_llm/mod.rs"]
mod mock_llm;

mod ag_ui;
mod cuts;
mod examples;
mod openai;
mod openai_calls;
mod run;
mod ui_message;
mod webhook_receiver;
mod webhooks;
