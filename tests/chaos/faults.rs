//! What goes wrong, from outside: the server and its agents are killed, the store fails for a moment.

use std::{fmt, process::Command, time::Duration};

use diesel::{Connection as _, PgConnection, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{RngExt as _, rngs::StdRng};

use crate::gateway::{TestGateway, eventually};

/// The variable by which agents and all that they start are known.
pub const MARK: &str = "CHAOS_MARK";

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` and a new start.
    Kill,
    /// A polite stop in the middle of everything, and a new start.
    Stop,
    /// Agents are killed.
    KillAgents,
    /// SQLite: somebody else holds the write lock. Postgres: all connections are cut.
    Disturb,
    /// SQLite: no file may grow, as on a full disk. Postgres: all connections are cut.
    Fill,
}

impl Fault {
    /// The first rounds have one of each; then it is left to chance.
    pub fn of(rng: &mut StdRng, round: u64) -> Self {
        let all = [Self::Kill, Self::KillAgents, Self::Disturb, Self::Fill, Self::Stop];
        match usize::try_from(round).ok().and_then(|round| all.get(round - 1)) {
            Some(fault) => *fault,
            None => match rng.random_range(0..20) {
                0..12 => Self::Kill,
                12..14 => Self::Stop,
                14..16 => Self::KillAgents,
                16..18 => Self::Disturb,
                _ => Self::Fill,
            },
        }
    }
}

/// Does it, and counts.
pub struct Saboteur {
    mark: String,
    struck: Vec<Fault>,
    agents: usize,
}

impl Saboteur {
    pub fn new(mark: String) -> Self {
        Self { mark, struck: Vec::new(), agents: 0 }
    }

    /// Leaves a server that runs.
    pub async fn strike(&mut self, fault: Fault, server: &mut TestGateway, rng: &mut StdRng) {
        self.struck.push(fault);
        match fault {
            Fault::Kill => {
                server.kill9();
                server.restart();
            }
            Fault::Stop => {
                assert!(server.stop().success(), "a stop in order ends with success");
                server.restart();
            }
            Fault::KillAgents => {
                for pid in self.marked() {
                    // It may be gone already.
                    self.agents += usize::from(rng.random_ratio(2, 3) && kill(pid, Signal::SIGKILL).is_ok());
                }
            }
            Fault::Disturb | Fault::Fill => {
                let time = Duration::from_millis(rng.random_range(20..400));
                match server.database().strip_prefix("sqlite:") {
                    None => cut_connections(&server.database()),
                    Some(file) if fault == Fault::Disturb => hold_lock(file, time).await,
                    Some(_) => fill(server.pid(), time).await,
                }
            }
        }
    }

    /// The processes that carry the mark: agents, and whatever they have started.
    fn marked(&self) -> Vec<Pid> {
        let wanted = format!("{MARK}={}", self.mark).into_bytes();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        // One that has ended meanwhile has no environment.
        let is_marked = |pid: &i32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == wanted)
        };
        pids.filter(is_marked).map(Pid::from_raw).collect()
    }

    /// Waits until no agent runs, nor anything that one has started.
    pub async fn nothing_left(&self) {
        let gone = async || self.marked().is_empty().then_some(());
        if tokio::time::timeout(Duration::from_secs(10), eventually("no process", gone)).await.is_err() {
            let left = self.marked().into_iter().map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
            });
            let left: Vec<String> = left.collect();
            for pid in self.marked() {
                // It may end by itself just now.
                let _ = kill(pid, Signal::SIGKILL);
            }
            panic!("processes are left behind:\n{}", left.join("\n"));
        }
    }
}

impl fmt::Display for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |fault| self.struck.iter().filter(|struck| **struck == fault).count();
        write!(
            f,
            "{} kills, {} stops, {} agents killed, {} disturbed and {} full stores",
            count(Fault::Kill),
            count(Fault::Stop),
            self.agents,
            count(Fault::Disturb),
            count(Fault::Fill)
        )
    }
}

fn cut_connections(url: &str) {
    let mut admin = PgConnection::establish(url).unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    diesel::sql_query(cut).execute(&mut admin).unwrap();
}

async fn hold_lock(file: &str, time: Duration) {
    let mut other = SqliteConnection::establish(file).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    tokio::time::sleep(time).await;
    other.batch_execute("ROLLBACK").unwrap();
}

async fn fill(server: Pid, time: Duration) {
    limit_files(server, "4096");
    tokio::time::sleep(time).await;
    limit_files(server, "unlimited");
}

/// How large the files of a process may grow; a write beyond it fails.
pub fn limit_files(process: Pid, limit: &str) {
    let done = Command::new("prlimit").args(["--pid", &process.to_string(), &format!("--fsize={limit}:")]).status();
    assert!(done.unwrap().success(), "prlimit");
}
