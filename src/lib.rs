//! Greenroom: a gateway that hosts many long-lived sessions with AI agents.

pub mod agents;
pub mod cli;
pub mod config;
pub mod error;
pub mod gateway;
pub mod ids;
pub mod protocol;
pub mod store;
pub mod timestamp;
pub mod tls;
