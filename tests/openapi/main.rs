//! The description of the API against the running server: it is served, kept and linted; its examples are posted; what
//! the server answers is what it says; strangers' tools find nothing to complain about; a client made from it works.
//!
//! `scripts/tools` installs the tools.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

mod contract;
mod description;
mod examples;
mod frames;
mod page;
mod schemathesis;
mod tools;
mod typescript;
