//! The few things that the command line does with the server's own rooms instead of over the wire.

use std::{net::TcpListener, path::Path};

use crate::{
    agents::{Probe, Registry},
    config::Config,
    server,
    store::{self, Backup, Store},
};

/// Runs the server on `listener`; calls `ready` once everything is open, before the first request is answered.
///
/// # Errors
/// One line: why it could not start.
pub fn serve(config: Config, listener: TcpListener, ready: impl FnOnce()) -> Result<(), String> {
    server::run(config, listener, ready)
}

/// Opens the database as the server would, and closes it. Only while no server runs on it.
///
/// # Errors
/// One line: why not, and what to do.
pub fn open_database(config: &Config) -> Result<(), String> {
    let mut store = config.store.clone();
    store.url = Some(config.database_url());
    Store::open(&store).map(drop).map_err(|error| error.to_string())
}

/// Copies the database to a file, also while a server works on it.
///
/// # Errors
/// One line: why not, and what to do.
pub fn backup(config: &Config, to: &Path) -> Result<Backup, String> {
    let mut store = config.store.clone();
    store.url = Some(config.database_url());
    store::backup(&store, to).map_err(|error| error.to_string())
}

/// Asks each agent whether it could run; those that are neither installed nor configured are left out, but for the
/// default one.
///
/// # Errors
/// One line: an agent that cannot be set up at all.
pub fn probe_agents(config: &Config) -> Result<Vec<(String, Probe)>, String> {
    let registry = Registry::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime for the probes: {error}"))?.block_on(registry.refresh());
    let default = config.default_agent();
    let found = registry.found().into_iter();
    Ok(found.filter(|(name, probe)| name == default || registry.concerns(name, Some(probe))).collect())
}
