//! The few things that the command line does with the server's own rooms instead of over the wire.

use std::net::TcpListener;

use crate::{agents::Probe, config::Config};

/// Runs the server on `listener`; calls `ready` once everything is open, before the first request is answered.
///
/// # Errors
/// One line: why it could not start.
pub fn serve(config: Config, listener: TcpListener, ready: impl FnOnce()) -> Result<(), String> {
    drop((config, listener, ready));
    Err("the server is not connected to the command line yet".into())
}

/// Opens the database as the server would, and closes it. Only while no server runs on it.
///
/// # Errors
/// One line: why not, and what to do.
pub fn open_database(_config: &Config) -> Result<(), String> {
    Err("the store is not connected to the command line yet".into())
}

/// Asks each agent whether it could run.
///
/// # Errors
/// One line: an agent that cannot be set up at all.
pub fn probe_agents(_config: &Config) -> Result<Vec<(String, Probe)>, String> {
    Err("the agents are not connected to the command line yet".into())
}
