//! Webhooks, in and out, against the real program.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

mod door;
mod inbound;
mod routes;
