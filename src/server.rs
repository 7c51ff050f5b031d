//! Puts the rooms together: store, agents, sessions, gateway, HTTP; and takes them apart in the right order.
//!
//! Start: store (migrations) → sweep of agent processes that a crash left → sessions and HTTP, which answers at once
//! → unfinished sessions are taken up again → agents are looked for. Stop: see [`crate::app`].

use std::{
    io,
    net::TcpListener,
    sync::{Arc, RwLock},
};

use actix::Actor as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    access::{Access, Deed},
    agents::{ProcessLedger, ProcessRecord, Registry, pool::Pool, process},
    app::Application,
    config::Config,
    directory::Directory,
    gateway::{Gateway, Principal},
    ids::SessionKey,
    session::{Deps, Effective, admission::Admission, budget::day_of, day_sums::DaySums, env::Settings},
    store::{AccountChange, Store, StoreError},
    supervisor::{DrainAll, Recover, Supervisor},
    timestamp::Timestamp,
};

/// How often calls that are older than a day are forgotten.
const HOUSEKEEPING: std::time::Duration = std::time::Duration::from_secs(3600);

/// How often a server looks what users have used on others.
const SPENDING: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs a server until a signal stops it. `ready` is called once everything is open.
///
/// # Errors
/// One line: why it could not start.
pub fn run(config: Config, listener: TcpListener, ready: impl FnOnce(bool)) -> Result<(), StartError> {
    let mut config = config;
    crate::metrics::install().map_err(StartError::Failed)?;
    config.store.url = Some(config.database_url());
    let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
    let store = Store::open(&config.store).map_err(|error| failed(&error))?;
    let registry = Registry::new(&config).map_err(StartError::Failed)?;
    actix::System::new().block_on(async move {
        let access = Access::open(store.clone(), &config.callers).await.map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        if access.book().is_open() && !address.ip().is_loopback() {
            return Err(StartError::Open(address));
        }
        serve(config, listener, store, registry, Arc::new(access), ready).await.map_err(|error| failed(&error))
    })
}

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Everybody in the network could call.
    #[error(
        "configuration: server.bind: {0} is not a loopback address, and there are no tokens yet that would keep strangers \
         out; make one with `greenroom token create --user NAME`, or use 127.0.0.1 or [::1]"
    )]
    Open(std::net::SocketAddr),
    /// One line.
    #[error("{0}")]
    Failed(String),
}

async fn serve(
    config: Config,
    listener: TcpListener,
    store: Store,
    registry: Registry,
    access: Arc<Access>,
    ready: impl FnOnce(bool),
) -> io::Result<()> {
    // Taken before anything else can be interrupted, so that no signal is lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    sweep_processes(&store).await;
    let settings = settings(&config);
    let day_sums = DaySums::default();
    // Before any session is taken up: what waits at a used-up budget must not start.
    day_sums.add(&store.spent_since(day_of(Timestamp::now())).await.map_err(io::Error::other)?);
    let deps = Arc::new(Deps {
        day_sums,
        pool: Pool::new(config.pool.max_processes),
        admission: Admission::new(config.pool.max_running),
        ledger: Arc::new(StoredLedger(store.clone())),
        access: Arc::clone(&access),
        store: store.clone(),
        registry: registry.clone(),
        effective: RwLock::new(Arc::new(Effective { config: config.clone(), settings })),
    });
    let memory = config.pool.max_memory.map(|limit| limit.bytes() as u64).or_else(process::memory::half_of_machine);
    if let Some(limit) = memory {
        let pool = deps.pool.clone();
        actix::spawn(async move { pool.keep_below(limit).await });
    }
    let ledger = Arc::clone(&deps.ledger);
    let arbiters = Supervisor::arbiters();
    let handles = arbiters.iter().map(actix::Arbiter::handle).collect();
    let directory = Directory::default();
    let supervisor = Supervisor::new(Arc::clone(&deps), handles, directory.clone()).start();
    let shared = Arc::clone(&deps);
    let gateway = Gateway::new(supervisor.clone(), directory, deps, Arc::clone(&access));
    let application = Application::build(Arc::new(config.clone()), listener, gateway.clone())?;
    ready(access.book().is_open());
    actix::spawn(watch_accounts(gateway.clone()));
    actix::spawn(take_up(supervisor.clone(), gateway.clone(), config.session.primary.clone()));
    actix::spawn(async move { registry.refresh(ledger).await });
    actix::spawn(retain(gateway.clone()));
    actix::spawn(keep_house(store.clone(), Arc::clone(&access), config.audit.keep.map(|keep| keep.0)));
    if store.is_shared() {
        actix::spawn(follow_spending(Arc::clone(&shared)));
    }
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        log::info!("stopping: no new turns; running ones may take a moment (a second signal stops at once)");
        actix::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            log::warn!("stopped at once by a second signal");
            std::process::exit(130);
        });
    };
    let drain = || async move {
        let grace = gateway.config().shutdown.grace.0;
        gateway.begin_draining();
        if supervisor.send(DrainAll { grace }).await.is_err() {
            log::error!("the sessions could not be stopped in order: their supervisor is gone");
        }
    };
    let result = application.run_until_stopped(stop, drain).await;
    for arbiter in &arbiters {
        arbiter.stop();
    }
    access.note_uses().await;
    access.audit.flush().await;
    store.flush_and_close().await;
    log::info!("stopped");
    result
}

/// The settings that sessions decide by.
#[must_use]
pub fn settings(config: &Config) -> Settings {
    Settings {
        max_queue: config.session.max_queue,
        primary: config.session.primary.clone(),
        default_agent: config.default_agent().to_owned(),
        choice_timeout: config.choice.timeout.0,
        on_timeout: config.choice.on_timeout,
        fallbacks: config
            .agents
            .iter()
            .filter_map(|(name, agent)| Some((name.clone(), agent.fallback.clone()?)))
            .collect(),
        retry_interrupted: config.recovery.retry_interrupted,
        budget: config.budget.clone(),
    }
}

/// Takes up sessions with unfinished turns, and makes the primary one. Tried until it works: a store that is not
/// there at the start may come.
async fn take_up(supervisor: actix::Addr<Supervisor>, gateway: Gateway, primary: String) {
    let mut pause = std::time::Duration::from_millis(100);
    loop {
        let ensured = match primary.parse::<SessionKey>() {
            Ok(key) => gateway.ensure(&Principal::local(), &key).await,
            // Checked with the configuration.
            Err(_invalid) => Ok(()),
        };
        let recovered = supervisor.send(Recover).await;
        match (ensured, recovered) {
            (Ok(()), Ok(Ok(0))) => return,
            (Ok(()), Ok(Ok(count))) => {
                return log::info!(sessions = count; "sessions with unfinished turns were taken up again");
            }
            (_, Err(_gone)) => return,
            _ if gateway.is_draining() => return,
            (Err(error), _) | (_, Ok(Err(error))) => {
                log::warn!(error:% = error; "sessions could not be taken up again yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_secs(5));
    }
}

/// Goes by what the command line, or another server, changes of accounts.
async fn watch_accounts(gateway: Gateway) {
    let access = Arc::clone(gateway.access());
    access.watch(|keys| gateway.recheck(keys)).await;
}

/// Kills agent processes that an earlier run left behind.
async fn sweep_processes(store: &Store) {
    let left = match store.processes().await {
        Ok(left) if left.is_empty() => return,
        Ok(left) => left,
        Err(error) => return log::error!(error:% = error; "processes of an earlier run could not be looked up"),
    };
    let groups = left.clone();
    let killed = tokio::task::spawn_blocking(move || process::sweep(&groups)).await.unwrap_or(0);
    if killed > 0 {
        log::warn!(groups = killed; "agent processes of an earlier run were still there and were killed");
    }
    for process in left {
        strike_out(store, process.pgid).await;
    }
}

async fn strike_out(store: &Store, pgid: i32) {
    if let Err(error) = store.process_ended(pgid).await {
        log::warn!(pgid, error:% = error; "the end of a process could not be recorded");
    }
}

/// Removes what is too old or too much, again and again.
async fn retain(gateway: Gateway) {
    loop {
        let pause = gateway.config().retention.interval.0;
        tokio::time::sleep(pause).await;
        if gateway.is_draining() {
            return;
        }
        gateway.retain().await;
    }
}

/// Goes by what users have used in sessions of other servers on the same database.
async fn follow_spending(deps: Arc<Deps>) {
    loop {
        tokio::time::sleep(SPENDING).await;
        match deps.store.spent_since(day_of(Timestamp::now())).await {
            Ok(spends) => deps.day_sums.replace(&spends),
            Err(error) => log::debug!("what users have used cannot be read now: {error}"),
        }
    }
}

/// Removes what is older than the audit is kept, and tells so in the audit.
async fn shorten_audit(store: &Store, access: &Access, keep: std::time::Duration) {
    let before = Timestamp(Timestamp::now().0.saturating_sub(Timestamp(0).plus(keep).0));
    match store.sweep_audit(before).await {
        Ok(0) => {}
        Ok(removed) => {
            let detail = serde_json::json!({"removed": removed, "before": before});
            let deed = Deed { action: "audit.shorten", session: None, owner: "", detail };
            access.audit.note(deed.by(&Principal { user: "server".into(), ..Principal::local() }));
        }
        Err(error) => log::warn!(error:% = error; "old entries of the audit could not be removed"),
    }
}

async fn keep_house(store: Store, access: Arc<Access>, keep_audit: Option<std::time::Duration>) {
    let day = std::time::Duration::from_secs(24 * 3600);
    loop {
        let before = Timestamp(Timestamp::now().0.saturating_sub(Timestamp(0).plus(day).0));
        if let Err(StoreError::Unavailable(cause)) = store.sweep_idempotency(before).await {
            log::warn!(cause:% = cause; "old idempotency keys could not be forgotten");
        }
        let ended = AccountChange::SweepLogins(Timestamp::now());
        if let Err(StoreError::Unavailable(cause)) = store.change_accounts(ended, None).await {
            log::warn!(cause:% = cause; "old logins could not be forgotten");
        }
        if let Some(keep) = keep_audit {
            shorten_audit(&store, &access, keep).await;
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Records process groups in the store, beside whoever starts and ends them.
struct StoredLedger(Store);

impl ProcessLedger for StoredLedger {
    fn started(&self, process: ProcessRecord) {
        let store = self.0.clone();
        tokio::spawn(async move {
            let pgid = process.pgid;
            if let Err(error) = store.process_started(process).await {
                log::warn!(pgid, error:% = error; "a process could not be recorded; a crash may leave it behind");
            }
        });
    }

    fn ended(&self, pgid: i32) {
        let store = self.0.clone();
        tokio::spawn(async move { strike_out(&store, pgid).await });
    }
}
