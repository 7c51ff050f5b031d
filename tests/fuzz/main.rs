//! What nobody would send on purpose: broken, half, huge and senseless input at every place where bytes come in. The
//! server must answer each with an honest error or take it as what it is, lose nothing else over it, and never panic.
//!
//! Cases are made by changing genuine messages (`corpus/`, one JSON object a line). `GREENROOM_FUZZ_CASES` says how many
//! cases each test tries; one that fails is made as small as possible, and kept in `regressions/` to be tried first
//! from then on.

// The helpers of a test may fail it as the test itself may; reading a missing field of a JSON value gives null.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

mod agents;
mod bodies;
mod cases;
mod frames;
mod heads;
mod models;
