//! Child processes of agents: spawn, read, stop, and sweep what a crash left behind.
//!
//! Owns every rule about processes, so that no adapter has its own: an own process group, a cleared environment
//! with an allow list, bounded lines, a tail of stderr, one way to stop. Knows nothing of any agent's protocol.
//!
//! Invariants:
//! - A group that was started is in the ledger until it is gone; "gone" means every member, not just the leader.
//! - Agents run commands in groups of their own, too. Each process of an agent carries [`MARKER`] in its
//!   environment with a value of its own, so what has left the group is found and ends with it. A process that has
//!   cleared its environment *and* left the group is out of reach.
//! - Dropping a [`Process`] kills at once and does not wait; [`Process::stop`] waits.

mod environment;
mod group;
mod lines;
pub mod memory;
mod procfs;
mod stderr;
mod sweep;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::process::{Child, ChildStdin, ChildStdout};

pub use self::{
    environment::{MARKER, environment, find_program},
    lines::{Line, Lines},
    stderr::readable,
    sweep::{sweep, sweep_unrecorded},
};
use self::{group::Group, stderr::StderrTail};
use super::{ProcessLedger, ProcessRecord};

/// What to start, and within which limits.
#[derive(Clone)]
pub struct Spawn {
    /// The agent's name, for the ledger and for messages.
    pub agent: String,
    /// The session's key, for the ledger.
    pub session: String,
    /// The program: a name to be looked up on the child's `PATH`, or a path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The whole environment, as [`environment`] makes it; the marker is added.
    pub env: BTreeMap<String, String>,
    /// Where it works: a folder that exists.
    pub cwd: PathBuf,
    /// The longest line of stdout that is read whole, in bytes.
    pub max_line: usize,
    /// How much of stderr is kept, in bytes.
    pub stderr_tail: usize,
    /// How long the group may take to end after SIGTERM before SIGKILL.
    pub kill_grace: Duration,
    /// Where the group is recorded.
    pub ledger: Arc<dyn ProcessLedger>,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program.
    #[error("{0} not found")]
    NotFound(String),
    /// The folder that it should work in is not there.
    #[error("the working folder {0} does not exist")]
    NoFolder(PathBuf),
    /// The system refused.
    #[error("{program} cannot be started: {source}")]
    Refused {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// A running child with everything that belongs to it.
#[derive(Debug)]
pub struct Process {
    /// Its stdin; none once it was closed.
    pub stdin: Option<ChildStdin>,
    /// Its stdout, by lines.
    pub stdout: Lines<ChildStdout>,
    // Before `child`, so that on drop the group is killed while its leader is not reaped yet.
    group: Group,
    child: Child,
    stderr: StderrTail,
    kill_grace: Duration,
}

impl Process {
    /// Starts a program in a group of its own and records it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the program or its folder is not there, or the system refuses.
    pub fn spawn(spawn: Spawn) -> Result<Self, SpawnError> {
        let Spawn { agent, session, program, args, mut env, cwd, max_line, stderr_tail, kill_grace, ledger } = spawn;
        let path = find_program(&program, &env).ok_or_else(|| SpawnError::NotFound(program.clone()))?;
        if !cwd.is_dir() {
            return Err(SpawnError::NoFolder(cwd));
        }
        let marker = format!("{}{}", ledger.home(), uuid::Uuid::now_v7().simple());
        env.insert(MARKER.to_owned(), marker.clone());
        let refused = |source| SpawnError::Refused { program: program.clone(), source };

        let mut command = tokio::process::Command::new(path);
        command.args(args).env_clear().envs(env).current_dir(cwd).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(refused)?;

        // From here on `group` is what ends it, also when something below fails.
        let pgid = child.id().and_then(|id| i32::try_from(id).ok());
        let pgid = pgid.ok_or_else(|| refused(io::Error::other("it was gone at once")))?;
        let record = ProcessRecord {
            pgid,
            started_ticks: procfs::started_ticks(pgid).unwrap_or(0),
            boot_id: procfs::boot_id().unwrap_or_default(),
            agent,
            session,
            marker,
        };
        let group = Group::new(record, ledger);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(refused(io::Error::other("it has no pipes")));
        };
        let stderr = StderrTail::follow(stderr, stderr_tail);
        Ok(Self { stdin: child.stdin.take(), stdout: Lines::new(stdout, max_line), child, group, stderr, kill_grace })
    }

    /// The group, which is also the id of the process.
    #[must_use]
    pub fn pgid(&self) -> i32 {
        self.group.pgid()
    }

    /// Its stdin, its stdout, and a future that ends when the process itself has ended (its group may live on). The
    /// future can be dropped and taken again.
    pub fn parts(
        &mut self,
    ) -> (&mut Option<ChildStdin>, &mut Lines<ChildStdout>, impl Future<Output = io::Result<ExitStatus>>) {
        (&mut self.stdin, &mut self.stdout, self.child.wait())
    }

    /// The newest readable text of stderr, at most `limit` bytes; empty when there is none.
    #[must_use]
    pub fn stderr(&self, limit: usize) -> String {
        self.stderr.text(limit)
    }

    /// Closes stdin and waits at most `patience` for the process to end by itself; what it still writes to stdout
    /// is thrown away. [`Process::stop`] comes after it in any case.
    pub async fn finish(&mut self, patience: Duration) {
        self.stdin = None;
        let ended = async {
            let drained = async { while matches!(self.stdout.next().await, Ok(Some(_))) {} };
            let (_, status) = tokio::join!(drained, self.child.wait());
            status
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            log::debug!(pgid = self.group.pgid(); "agent does not end when its stdin is closed");
        }
    }

    /// Ends the whole group: SIGTERM, `kill_grace`, SIGKILL, and waits until every member is gone. Returns the exit
    /// status of the leader, where it is known, and the readable tail of stderr.
    ///
    /// Bounded in time: what the system does not let die within some seconds after SIGKILL stays in the ledger.
    pub async fn stop(mut self, stderr_limit: usize) -> Stopped {
        self.stdin = None;
        // What it still writes is read, so that a polite end does not hang on a full pipe.
        let drain = async {
            while matches!(self.stdout.next().await, Ok(Some(_))) {}
            std::future::pending::<()>().await;
        };
        let status = tokio::select! {
            status = self.group.stop(&mut self.child, self.kill_grace) => status,
            () = drain => None,
        };
        // The pipe ends with the group; what was in it belongs to the message.
        self.stderr.ended().await;
        Stopped { status, stderr: self.stderr.text(stderr_limit) }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The exit status of the leader, where it is known.
    pub status: Option<ExitStatus>,
    /// The readable tail of stderr.
    pub stderr: String,
}

impl Stopped {
    /// For a person: `ended with exit status: 3; stderr: …`.
    #[must_use]
    pub fn describe(&self) -> String {
        let status = self.status.map_or_else(|| "ended".to_owned(), |status| format!("ended with {status}"));
        if self.stderr.is_empty() { status } else { format!("{status}; stderr: {}", self.stderr) }
    }
}

/// A ledger for processes that live shorter than the call that starts them, as in a probe.
#[derive(Debug, Clone, Copy)]
pub struct Unrecorded;

impl ProcessLedger for Unrecorded {
    fn started(&self, _: ProcessRecord) {}
    fn ended(&self, _: i32) {}
}

/// Bytes of stderr in which a line is looked for.
const STDERR_LINE: usize = 1000;

/// Runs a program to its end, with empty stdin, and returns the first line that it wrote to stdout, or else to stderr, if it
/// ended well. Its group is gone afterwards.
///
/// # Errors
/// When it cannot be started.
pub async fn first_line(spawn: Spawn, patience: Duration) -> Result<Option<String>, SpawnError> {
    let mut process = Process::spawn(spawn)?;
    process.stdin = None;
    let run = async {
        let first = process.stdout.next().await;
        while matches!(process.stdout.next().await, Ok(Some(_))) {}
        match (first, process.child.wait().await) {
            (Ok(Some(Line::Text(line))), Ok(status)) if status.success() => Some(line),
            (Ok(None), Ok(status)) if status.success() => Some(String::new()),
            _ => None,
        }
    };
    let line = tokio::time::timeout(patience, run).await.unwrap_or(None);
    let stderr = process.stop(STDERR_LINE).await.stderr;
    // Some write there what they are asked for.
    let on_stderr = || stderr.lines().next().map(str::to_owned);
    Ok(line.and_then(|line| if line.is_empty() { on_stderr() } else { Some(line) }))
}

/// A path without links, for programs given by path; relative ones count from the server's own folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
