//! The one server process that all sessions of an agent share: started by the first, ended some time after the last.
//!
//! Invariants:
//! - At most one server that takes sessions: several that come at once meet the same start.
//! - It listens on loopback with a password that was made for this start and stands in its environment only.
//! - A session learns of the end only when the process group is gone.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    api::{Api, USER},
    feed::{Inbox, Routes, follow},
};
use crate::{
    agents::{
        ProcessLedger,
        process::{Line, Process, readable},
        program::{Program, STDERR_IN_MESSAGE},
    },
    config::Secret,
};

/// What the program writes when it is ready; its address follows.
const READY: &str = "listening on ";
/// The pause between two looks whether a new server answers.
const LOOK: Duration = Duration::from_millis(100);
/// How long one such look may take: a server that is just coming up can leave a request without an answer for ever.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How far a server is.
#[derive(Debug, Clone)]
enum Phase {
    Starting,
    Running(Api),
    /// It is gone, with its whole group.
    Gone(Gone),
}

/// How a server ended.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    /// A code of the error table.
    pub(super) code: &'static str,
    /// For a person.
    pub(super) message: String,
}

/// The place of the server of one agent.
#[derive(Debug)]
pub(super) struct Place {
    program: Arc<Program>,
    /// How long it stays when nobody uses it.
    linger: Duration,
    server: Mutex<Option<Arc<Server>>>,
}

/// A server, from its start to its end.
#[derive(Debug)]
struct Server {
    phase: watch::Sender<Phase>,
    routes: Routes,
    uses: Mutex<Uses>,
    changed: Notify,
    /// Somebody wants it gone.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Uses {
    sessions: usize,
    /// True once it takes no sessions any more.
    closed: bool,
}

/// A session's use of the server. Dropping it lets the server go.
#[derive(Debug)]
pub(super) struct Lease {
    server: Arc<Server>,
    phase: watch::Receiver<Phase>,
    pub(super) inbox: Arc<Inbox>,
}

impl Place {
    pub(super) fn new(program: Arc<Program>, linger: Duration) -> Self {
        Self { program, linger, server: Mutex::default() }
    }

    /// Uses the server; starts one where there is none. Must be called inside a tokio runtime.
    pub(super) fn lease(&self, ledger: &Arc<dyn ProcessLedger>) -> Lease {
        let mut place = locked(&self.server);
        if let Some(lease) = place.as_ref().and_then(Server::lease) {
            return lease;
        }
        let server = Arc::new(Server {
            phase: watch::Sender::new(Phase::Starting),
            routes: Routes::default(),
            uses: Mutex::new(Uses { sessions: 1, closed: false }),
            changed: Notify::new(),
            stop: CancellationToken::new(),
        });
        *place = Some(Arc::clone(&server));
        drop(place);
        let (program, ledger) = (Arc::clone(&self.program), Arc::clone(ledger));
        tokio::spawn(supervise(program, ledger, Arc::clone(&server), self.linger));
        Lease { phase: server.phase.subscribe(), server, inbox: Arc::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = locked(&self.server).take() {
            server.stop.cancel();
        }
    }
}

impl Server {
    /// Another use of it; none when it takes no more.
    fn lease(self: &Arc<Self>) -> Option<Lease> {
        let mut uses = locked(&self.uses);
        if uses.closed {
            return None;
        }
        uses.sessions += 1;
        Some(Lease { server: Arc::clone(self), phase: self.phase.subscribe(), inbox: Arc::default() })
    }

    /// Takes no more sessions from now on; with `if_unused` only when it has none.
    fn close(&self, if_unused: bool) -> bool {
        let mut uses = locked(&self.uses);
        uses.closed |= !if_unused || uses.sessions == 0;
        uses.closed
    }
}

/// Says that the server is gone in any case, as when the runtime ends: nobody may wait for ever.
struct Supervised(Arc<Server>);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.close(false);
        self.0.phase.send_if_modified(|phase| {
            let lost = !matches!(phase, Phase::Gone(_));
            if lost {
                *phase = Phase::Gone(Gone::lost());
            }
            lost
        });
    }
}

impl Lease {
    /// The API, once the server is ready.
    pub(super) async fn ready(&mut self) -> Result<Api, Gone> {
        let phase = self.phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match phase.as_deref() {
            Ok(Phase::Running(api)) => Ok(api.clone()),
            Ok(Phase::Gone(gone)) => Err(gone.clone()),
            Ok(Phase::Starting) | Err(_) => Err(Gone::lost()),
        }
    }

    /// Ends when the server is gone.
    pub(super) async fn gone(&self) -> Gone {
        let mut phase = self.phase.clone();
        match phase.wait_for(|phase| matches!(phase, Phase::Gone(_))).await.as_deref() {
            Ok(Phase::Gone(gone)) => gone.clone(),
            _ => Gone::lost(),
        }
    }

    /// Sends a session's events to the inbox.
    pub(super) fn listen(&self, session: &str) {
        self.server.routes.add(session, &self.inbox);
    }

    /// Stops the server under all its sessions, and waits until it is gone.
    pub(super) async fn kill(&self) {
        self.server.close(false);
        self.server.stop.cancel();
        self.gone().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.routes.remove(&self.inbox);
        locked(&self.server.uses).sessions -= 1;
        self.server.changed.notify_one();
    }
}

impl Gone {
    /// Its supervisor was dropped, as at the end of the runtime.
    fn lost() -> Self {
        Self { code: "agent_error", message: "its server was given up".into() }
    }
}

/// Why a server ends.
enum End {
    Asked,
    Idle,
    Died,
    Unfit(&'static str, String),
}

/// Runs a server from its start to its end.
async fn supervise(program: Arc<Program>, ledger: Arc<dyn ProcessLedger>, server: Arc<Server>, linger: Duration) {
    let server = Supervised(server);
    let Supervised(server) = &server;
    let started = Instant::now();
    let password = format!("{}{}", uuid::Uuid::now_v7().simple(), uuid::Uuid::now_v7().simple());
    let args = ["serve", "--hostname", "127.0.0.1", "--port", "0"];
    let mut spawn = program.spawn(args.map(str::to_owned).to_vec(), "", std::env::temp_dir(), ledger);
    spawn.env.insert("OPENCODE_SERVER_USERNAME".into(), USER.into());
    spawn.env.insert("OPENCODE_SERVER_PASSWORD".into(), password.clone());
    let mut process = match Process::spawn(spawn) {
        Ok(process) => process,
        Err(error) => {
            server.close(false);
            let gone = Gone { code: "agent_unavailable", message: program.unavailable(&error) };
            server.phase.send_replace(Phase::Gone(gone));
            return;
        }
    };
    process.stdin = None;
    let pgid = process.pgid();
    log::debug!(agent = program.name.as_str(), pgid; "opencode server is started");
    let end = run(&program, server, &mut process, Secret::new(password), linger).await;
    server.close(false);
    let stopped = process.stop(STDERR_IN_MESSAGE).await;
    let name = &program.name;
    let stderr = || if stopped.stderr.is_empty() { String::new() } else { format!("; stderr: {}", stopped.stderr) };
    let gone = match end {
        End::Asked => Gone { code: "agent_error", message: format!("agent `{name}`: its server was stopped by force") },
        End::Idle => Gone { code: "agent_error", message: format!("agent `{name}`: its server was let go") },
        End::Died => {
            Gone { code: "agent_error", message: format!("agent `{name}`: its server {}", stopped.describe()) }
        }
        End::Unfit(code, message) => Gone { code, message: format!("agent `{name}`: {message}{}", stderr()) },
    };
    let lived_ms = started.elapsed().as_millis();
    log::info!(agent = name.as_str(), pgid, lived_ms; "opencode server has ended: {}", gone.message);
    server.phase.send_replace(Phase::Gone(gone));
}

async fn run(program: &Program, server: &Server, process: &mut Process, password: Secret, linger: Duration) -> End {
    let limit = program.limits.open_timeout;
    let starting = async {
        let address = address(process).await?;
        let api = Api::new(&address, password).map_err(|message| End::Unfit("agent_error", message))?;
        // Until it answers; the limit is around this.
        while let Err(error) = api.get("/global/health", None, LOOK_LIMIT).await {
            log::debug!("opencode server does not answer yet: {}", error.message);
            sleep(LOOK).await;
        }
        Ok(api)
    };
    let api = tokio::select! {
        () = server.stop.cancelled() => return End::Asked,
        api = tokio::time::timeout(limit.0, starting) => match api {
            Ok(Ok(api)) => api,
            Ok(Err(end)) => return end,
            Err(_elapsed) => {
                return End::Unfit("agent_timeout", format!("its server was not ready within {limit}"));
            }
        },
    };
    // Sessions begin when the stream of events stands, so that none of theirs is missed.
    let connected = || {
        server.phase.send_if_modified(|phase| {
            let first = matches!(phase, Phase::Starting);
            if first {
                *phase = Phase::Running(api.clone());
            }
            first
        });
    };
    let feed = follow(&api, &server.routes, program.limits.max_line.bytes(), limit.0, connected);
    let mut feed = std::pin::pin!(feed);
    let mut unused = Unused::default();
    let mut open = true;
    loop {
        let leave_at = unused.since(locked(&server.uses).sessions).map(|since| since + linger);
        let leave = async {
            match leave_at {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        let (_, stdout, exited) = process.parts();
        tokio::select! {
            () = server.stop.cancelled() => return End::Asked,
            _ = exited => return End::Died,
            // What it writes is of no interest, but a full pipe would stop it.
            line = stdout.next(), if open => open = matches!(line, Ok(Some(_))),
            broken = &mut feed => return End::Unfit("agent_error", format!("its server does not answer: {broken}")),
            () = server.changed.notified() => {}
            () = leave => if server.close(true) { return End::Idle },
        }
    }
}

/// Reads stdout up to the address.
async fn address(process: &mut Process) -> Result<String, End> {
    let (_, stdout, exited) = process.parts();
    let mut exited = std::pin::pin!(exited);
    let mut ended = false;
    loop {
        let line = tokio::select! {
            line = stdout.next() => line,
            _ = &mut exited, if !ended => {
                // Its last words are still to be read.
                ended = true;
                continue;
            }
        };
        match line {
            Ok(Some(Line::Text(line))) => {
                let line = readable(&line, 1000);
                if let Some((_, address)) = line.split_once(READY) {
                    return Ok(address.trim().to_owned());
                }
            }
            Ok(Some(Line::TooLong)) => {}
            Ok(None) | Err(_) => return Err(End::Died),
        }
    }
}

/// Since when nobody uses the server.
#[derive(Debug, Default)]
struct Unused(Option<Instant>);

impl Unused {
    fn since(&mut self, sessions: usize) -> Option<Instant> {
        if sessions > 0 {
            self.0 = None;
        } else if self.0.is_none() {
            self.0 = Some(Instant::now());
        }
        self.0
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
