//! The wire, line by line: a client that knows only the contract, against the real program.
//!
//! Each test starts a server of its own, so they run beside each other. Modules are named after what the contract
//! describes; what every answer and every log must be is checked in `support/gateway`.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

mod access;
mod agents;
mod backup;
mod bad_input;
mod bounds;
mod budgets;
mod chat;
mod choices;
mod conversations;
mod echo;
mod events;
mod feed;
mod handover;
mod idempotency;
mod limits;
mod lists;
mod metrics;
mod operate;
mod policies;
mod prewarm;
mod queue;
mod raw;
mod recovery;
mod retention;
mod rules;
mod sending;
mod sessions;
mod shutdown;
mod sockets;
mod streams;
