//! The transports over real sockets: what holds for every call, whatever the gateway behind it does.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod client;
mod rules;
mod sockets;
mod uploads;
