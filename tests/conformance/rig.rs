//! A real server with one agent, its model server, its home and its folder to work in.
//!
//! Scenarios that leave the agent as it was share a rig, and within it a few warm sessions; those that kill or change
//! it have one of their own. When the last user of a rig is done, the server is stopped as an operator stops it, and
//! no process of the agent may be left.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    gateway::{PATIENCE, TestGateway},
    mock_llm::MockLlm,
    subject::{Subject, Variant},
};

/// The variable that every process of an agent carries.
const MARKER: &[u8] = b"GREENROOM_AGENT_GROUP=";

/// A server with one agent.
pub struct Rig {
    pub subject: Subject,
    pub server: TestGateway,
    pub mock: MockLlm,
    pub home: TempDir,
    pub work: TempDir,
    /// Sessions whose agent is warm and as it was.
    free: Mutex<Vec<String>>,
}

type Shared = HashMap<(Subject, Variant), Weak<Rig>>;
static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

impl Rig {
    /// One of its own.
    pub fn own(subject: Subject) -> Self {
        Self::with(subject, Variant::Usual)
    }

    /// One of its own, set up in a certain way.
    pub fn with(subject: Subject, variant: Variant) -> Self {
        let mock = MockLlm::start();
        let (home, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = home.path().join("greenroom.toml");
        std::fs::write(&file, subject.configuration(variant, &mock, home.path(), work.path())).unwrap();
        let server = TestGateway::with(&[("GREENROOM_CONFIG", file.to_str().unwrap())]);
        Self { subject, server, mock, home, work, free: Mutex::default() }
    }

    /// The one that scenarios share.
    pub fn shared(subject: Subject, variant: Variant) -> Arc<Self> {
        let variant = subject.plainest(variant);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = shared.entry((subject, variant)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let rig = Arc::new(Self::with(subject, variant));
            *slot = Arc::downgrade(&rig);
            rig
        })
    }

    /// A session that no other scenario uses: a warm one, or else a new one.
    pub async fn session(&self) -> String {
        let warm = self.free.lock().unwrap().pop();
        match warm {
            Some(key) => key,
            None => self.new_session().await,
        }
    }

    /// A session that is new.
    pub async fn new_session(&self) -> String {
        let body = json!({"agent": self.subject.name()});
        let made = self.server.post("/v1/sessions", body).await.ok(201);
        made["key"].as_str().unwrap().to_owned()
    }

    /// Gives a session back that is as it was.
    pub fn give_back(&self, key: String) {
        self.free.lock().unwrap().push(key);
    }

    /// A file in the folder where the agent works.
    pub fn file(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The living processes of the agent: those that carry the marker and this rig's home.
    pub fn processes(&self) -> Vec<i32> {
        let home = [b"HOME=", self.home.path().to_str().unwrap().as_bytes()].concat();
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| is_ours(Path::new(&format!("/proc/{pid}")), &home)).collect()
    }

    /// Kills the agent, as the system does when memory is short.
    pub fn kill_agent(&self) {
        let pids = self.processes();
        assert!(!pids.is_empty(), "no process of the agent runs");
        for pid in pids {
            // One that has ended meanwhile has ended.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Waits until no process of the agent lives.
    pub fn wait_for_no_process(&self) {
        let begin = Instant::now();
        while !self.processes().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "left behind: {:?}; the log:\n{}", self.processes(), self.server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A scenario that failed tells why; what it left behind is its server's to end, and ends with it.
        if !self.server.runs() {
            return;
        }
        let status = self.server.stop();
        if !std::thread::panicking() {
            assert!(status.success(), "the server ended with {status}; its log:\n{}", self.server.log());
            // Killed when the server ended; the system takes its moment to do it.
            self.wait_for_no_process();
        }
    }
}

fn is_ours(process: &Path, home: &[u8]) -> bool {
    // A zombie has no environment any more.
    let environment = std::fs::read(process.join("environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.clone().any(|variable| variable.starts_with(MARKER)) && variables.any(|variable| variable == home)
}
