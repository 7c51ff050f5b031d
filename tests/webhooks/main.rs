//! Webhooks, in and out, against the real program.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;
#[path = "../users/people.rs"]
#[allow(dead_code, reason = "the tests of users use more of it")]
mod people;

mod door;
mod endpoints;
mod inbound;
mod outbound;
mod receiver;
mod refused;
mod routes;
