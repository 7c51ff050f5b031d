//! The few things that the command line does with the server's own rooms instead of over the wire.

use std::{net::TcpListener, path::Path, sync::Arc};

use crate::{
    access::WATCH_INTERVAL,
    agents::{Probe, Registry, process},
    config::Config,
    server::{self, StartError},
    store::{self, Backup, Store, Vacuumed},
    webhooks::inbound::{Route, Routes},
};

/// Runs the server on `listener`; calls `ready` once everything is open, before the first request is answered, with
/// whether everybody on this machine may call.
///
/// # Errors
/// One line: why it could not start.
pub fn serve(config: Config, listener: TcpListener, ready: impl FnOnce(bool)) -> Result<(), StartError> {
    server::run(config, listener, ready)
}

/// Makes the routes for webhooks as the server would.
///
/// # Errors
/// One line: what is wrong with which key.
pub fn webhook_routes(config: &Config) -> Result<Routes, String> {
    Routes::new(config, &variable)
}

/// The same with one route, whether it is enabled or not.
///
/// # Errors
/// One line: there is no such route, or what is wrong with it.
pub fn webhook_route(config: &Config, name: &str) -> Result<Route, String> {
    let route = config.webhooks.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.webhooks.keys().map(String::as_str).collect();
        format!("there is no [webhooks.{name}] in the configuration; there are: {}", known.join(" "))
    })?;
    Route::new(name, config, route, &variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
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

/// Works on the accounts of the database, also beside a server that runs on it; returns once that server goes by what was
/// changed.
///
/// # Errors
/// One line: why the database cannot be opened, or what `work` says.
pub fn with_accounts<T>(config: &Config, work: impl AsyncFnOnce(Store) -> Result<T, String>) -> Result<T, String> {
    let mut settings = config.store.clone();
    settings.url = Some(config.database_url());
    let (store, may_run) = Store::open_beside(&settings).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(async {
        let before = store.account_version().await.map_err(|error| error.to_string())?;
        let result = work(store.clone()).await;
        if may_run {
            wait_until_seen(&store, before).await;
        }
        store.flush_and_close().await;
        result
    })
}

/// Waits until a running server goes by the accounts as they are. Where none did before there is none that would.
async fn wait_until_seen(store: &Store, (version, seen): (i64, i64)) {
    let deadline = tokio::time::Instant::now() + 20 * WATCH_INTERVAL;
    while version == seen && tokio::time::Instant::now() < deadline {
        match store.account_version().await {
            Ok((version, seen)) if seen < version => tokio::time::sleep(WATCH_INTERVAL / 10).await,
            _ => return,
        }
    }
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

/// Makes the database file as small as what is in it.
///
/// # Errors
/// One line: why not, and what to do.
pub fn vacuum(config: &Config) -> Result<Vacuumed, String> {
    let mut store = config.store.clone();
    store.url = Some(config.database_url());
    store::vacuum(&store).map_err(|error| error.to_string())
}

/// Asks each agent whether it could run; those that are neither installed nor configured are left out, but for the
/// default one.
///
/// # Errors
/// One line: an agent that cannot be set up at all.
pub fn probe_agents(config: &Config) -> Result<Vec<(String, Probe)>, String> {
    let registry = Registry::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| format!("no runtime for the probes: {error}"))?
        .block_on(registry.refresh(Arc::new(process::Unrecorded)));
    let default = config.default_agent();
    let found = registry.found().into_iter();
    Ok(found.filter(|(name, probe)| name == default || registry.concerns(name, Some(probe))).collect())
}
