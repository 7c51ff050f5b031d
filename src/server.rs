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
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, Deed},
    agents::{ProcessLedger, ProcessRecord, Registry, pool::Pool, process},
    app::Application,
    config::Config,
    directory::Directory,
    gateway::{Gateway, Principal},
    ids::SessionKey,
    session::{Deps, Effective, admission::Admission, budget::day_of, day_sums::DaySums, env::Settings, workspace},
    store::{AccountChange, Store, StoreError},
    supervisor::{DrainAll, Recover, Supervisor},
    timestamp::Timestamp,
    watchdog,
    webhooks::{inbound::Routes, outbound::Outbound},
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
    watchdog::watch_panics();
    config.store.url = Some(config.database_url());
    let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
    let routes = Routes::new(&config, &|name| std::env::var(name).ok()).map_err(StartError::Configuration)?;
    let store = Store::open(&config.store).map_err(|error| failed(&error))?;
    let registry = Registry::new(&config).map_err(StartError::Failed)?;
    actix::System::new().block_on(async move {
        let access = Access::open(store.clone(), &config.callers).await.map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        if access.book().is_open() && !address.ip().is_loopback() {
            return Err(StartError::Open(address));
        }
        let named = routes.iter().map(|route| ("webhooks", &route.name, &route.owner));
        let endpoints = config.webhook_endpoints.iter();
        let endpoints = endpoints.filter_map(|(name, one)| Some(("webhook_endpoints", name, one.owner.as_ref()?)));
        if let Some((topic, name, owner)) = named.chain(endpoints).find(|(.., owner)| !access.book().may_act(owner)) {
            let advice = format!("make it with `greenroom user create {owner}`, or enable it");
            let line = format!("{topic}.{name}.owner: there is no user {owner} who may act; {advice}");
            return Err(StartError::Configuration(line));
        }
        let rooms = Rooms { store, registry, access: Arc::new(access), routes: Arc::new(routes) };
        serve(config, listener, rooms, ready).await.map_err(|error| failed(&error))
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
    /// What only the start can tell of the configuration.
    #[error("configuration: {0}")]
    Configuration(String),
    /// One line.
    #[error("{0}")]
    Failed(String),
}

/// What is open before the server is.
struct Rooms {
    store: Store,
    registry: Registry,
    access: Arc<Access>,
    routes: Arc<Routes>,
}

async fn serve(config: Config, listener: TcpListener, rooms: Rooms, ready: impl FnOnce(bool)) -> io::Result<()> {
    let Rooms { store, registry, access, routes } = rooms;
    // Taken before anything else can be interrupted, so that no signal is lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A limit on the size of files (`ulimit -f`) is then an error of the write, as a full disk is, and not the end of
    // the process. Being taken is all that it needs.
    let _too_large = signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
    let home = home(&config);
    sweep_processes(&store, &home).await;
    workspace::sweep(&config);
    let settings = settings(&config);
    let day_sums = DaySums::default();
    // Before any session is taken up: what waits at a used-up budget must not start.
    day_sums.add(&store.spent_since(day_of(Timestamp::now())).await.map_err(io::Error::other)?);
    let outbound = Outbound::open(store.clone(), Arc::clone(&access), &config, routes.replies())
        .await
        .map_err(io::Error::other)?;
    let deps = Arc::new(Deps {
        day_sums,
        outbound: outbound.clone(),
        pool: Pool::new(config.pool.max_processes),
        admission: Admission::new(config.pool.max_running),
        ledger: Arc::new(StoredLedger { store: store.clone(), home: home.clone() }),
        access: Arc::clone(&access),
        store: store.clone(),
        registry: registry.clone(),
        effective: RwLock::new(Arc::new(Effective { config: config.clone(), settings })),
    });
    let memory = config.pool.max_memory.map(|limit| limit.bytes() as u64).or_else(process::memory::half_of_machine);
    if let Some(limit) = memory {
        let pool = deps.pool.clone();
        actix::spawn(watchdog::keep("memory", move || {
            let pool = pool.clone();
            async move { pool.keep_below(limit).await }
        }));
    }
    let ledger = Arc::clone(&deps.ledger);
    let arbiters = Supervisor::arbiters();
    let handles = arbiters.iter().map(actix::Arbiter::handle).collect();
    let directory = Directory::default();
    // Cancelled when the supervisor is gone, which without a stop only a panic can bring about.
    let sessions_gone = CancellationToken::new();
    let supervisor = Supervisor::new(Arc::clone(&deps), handles, directory.clone(), sessions_gone.clone()).start();
    let shared = Arc::clone(&deps);
    let gateway = Gateway::new(supervisor.clone(), directory, deps, Arc::clone(&access), routes);
    let application = Application::build(Arc::new(config.clone()), listener, gateway.clone())?;
    ready(access.book().is_open());
    actix::spawn(watchdog::keep("accounts", {
        let gateway = gateway.clone();
        move || watch_accounts(gateway.clone())
    }));
    actix::spawn(watchdog::keep("recovery", {
        let (supervisor, gateway, primary) = (supervisor.clone(), gateway.clone(), config.session.primary.clone());
        move || take_up(supervisor.clone(), gateway.clone(), primary.clone())
    }));
    actix::spawn(watchdog::keep("agents", move || {
        let (registry, ledger) = (registry.clone(), Arc::clone(&ledger));
        async move { registry.refresh(ledger).await }
    }));
    actix::spawn(watchdog::keep("housekeeping", {
        let (store, access) = (store.clone(), Arc::clone(&access));
        let keep = config.audit.keep.map(|keep| keep.0);
        move || keep_house(store.clone(), Arc::clone(&access), keep)
    }));
    actix::spawn(watchdog::keep("retention", {
        let gateway = gateway.clone();
        move || retain(gateway.clone())
    }));
    if store.is_shared() {
        actix::spawn(watchdog::keep("spending", move || follow_spending(Arc::clone(&shared))));
    }
    let delivering = actix::spawn(watchdog::keep("webhooks", {
        let outbound = outbound.clone();
        move || outbound.clone().run()
    }));
    let failed = sessions_gone.clone();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
            () = failed.cancelled() => log::error!("the supervisor of sessions is gone: the server stops"),
        }
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
        let failed = sessions_gone.is_cancelled();
        if supervisor.send(DrainAll { grace }).await.is_err() {
            log::error!("the sessions could not be stopped in order: their supervisor is gone");
        }
        if failed {
            Err(io::Error::other("a fault inside; the log says what, and a new start takes all up again"))
        } else {
            Ok(())
        }
    };
    let result = application.run_until_stopped(stop, drain).await;
    for arbiter in &arbiters {
        arbiter.stop();
    }
    outbound.stop();
    if delivering.await.is_err() {
        log::error!("webhooks were not stopped in order");
    }
    // Agents end where their sessions are dropped, in the threads of the arbiters: the process must not end before.
    let ended = tokio::task::spawn_blocking(move || {
        for arbiter in arbiters {
            if arbiter.join().is_err() {
                log::error!("a thread of sessions has panicked at its end");
            }
        }
    });
    if tokio::time::timeout(THREADS_END, ended).await.is_err() {
        log::error!("sessions do not end; the agents that they had are killed now");
    }
    let left = tokio::task::spawn_blocking(move || process::sweep_unrecorded(&home)).await.unwrap_or(0);
    if left > 0 {
        log::warn!(left; "agent processes were still there at the end and were killed");
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
async fn sweep_processes(store: &Store, home: &str) {
    let left = store.processes().await.unwrap_or_else(|error| {
        log::error!(error:% = error; "processes of an earlier run could not be looked up");
        Vec::new()
    });
    let (groups, home) = (left.clone(), home.to_owned());
    let killed = move || (process::sweep(&groups), process::sweep_unrecorded(&home));
    let (groups, more) = tokio::task::spawn_blocking(killed).await.unwrap_or((0, 0));
    if groups > 0 || more > 0 {
        log::warn!(groups, more; "agent processes of an earlier run were still there and were killed");
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

/// How long the threads of sessions may take to end.
const THREADS_END: std::time::Duration = std::time::Duration::from_secs(5);

/// What the markers of this server's agent processes begin with: the same for each start on the same data, and another
/// for any other server. A copy of the database is another one.
fn home(config: &Config) -> String {
    let url = config.database_url();
    let file = url.expose().strip_prefix("sqlite:").map(|path| std::path::absolute(path).unwrap_or_default());
    let database = file.map_or_else(|| url.expose().to_owned(), |file| file.display().to_string());
    let folder = std::path::absolute(config.data_dir()).unwrap_or_default();
    let hash = Sha256::digest(format!("{database}\n{}", folder.display()));
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.")
}

/// Records process groups in the store, beside whoever starts and ends them.
struct StoredLedger {
    store: Store,
    home: String,
}

impl ProcessLedger for StoredLedger {
    fn home(&self) -> &str {
        &self.home
    }

    fn started(&self, process: ProcessRecord) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let pgid = process.pgid;
            if let Err(error) = store.process_started(process).await {
                log::warn!(pgid, error:% = error; "a process could not be recorded; a crash may leave it behind");
            }
        });
    }

    fn ended(&self, pgid: i32) {
        let store = self.store.clone();
        tokio::spawn(async move { strike_out(&store, pgid).await });
    }
}
