//! The process: started on a free port, read from, signalled, killed, started again on the same data.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex, mpsc},
    thread,
};

use greenroom::config::known;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::PATIENCE;

/// A running server. Dropping it kills its process group and removes its data.
pub struct TestGateway {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    pub(super) client: reqwest::Client,
}

struct Process {
    child: Child,
    group: Pid,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group is gone already where the server has ended and left nothing behind.
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl TestGateway {
    /// A server with the defaults.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with settings, as in `("GREENROOM_SESSION__MAX_QUEUE", "5")`. Its database is an SQLite file; with
    /// `GREENROOM_TEST_STORE=postgres` in the environment of the tests, a new database of a throwaway Postgres.
    pub fn with(environment: &[(&str, &str)]) -> Self {
        match std::env::var("GREENROOM_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => Self::on_sqlite(environment),
            Ok("postgres") => {
                let database = super::postgres::server().fresh_database();
                Self::on_sqlite(&[&[("GREENROOM_DATABASE", database.as_str())], environment].concat())
            }
            Ok(other) => panic!("GREENROOM_TEST_STORE is sqlite or postgres, not {other:?}"),
        }
    }

    /// The same on SQLite in any case, for what is about its file.
    pub fn on_sqlite(environment: &[(&str, &str)]) -> Self {
        // One test process may do it often; only the first one counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let log = Arc::default();
        let (process, address) = spawn(dir.path(), &environment, &log);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { dir, environment, process: Some(process), address, log, client }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All that it has written to stderr, over all its lives.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Nothing above `info` was logged.
    #[track_caller]
    pub fn assert_quiet(&self) {
        let log = self.log();
        let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked");
        let loud: Vec<&str> = log.lines().filter(loud).collect();
        assert!(loud.is_empty(), "logged above info:\n{}", loud.join("\n"));
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.as_ref().expect("it runs").group
    }

    /// The URL of its database.
    pub fn database(&self) -> String {
        let given = self.environment.iter().find(|(name, _)| name == "GREENROOM_DATABASE").map(|(_, url)| url.clone());
        given.unwrap_or_else(|| format!("sqlite:{}", self.data_dir().join("greenroom.db").display()))
    }

    /// Sends a signal to the server alone, as an operator does.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let group = process.group;
        let ended = tokio::task::spawn_blocking(move || process.child.wait().unwrap());
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(status) => status.unwrap(),
            Err(_late) => {
                let _ = killpg(group, Signal::SIGKILL);
                panic!("the server did not end in {PATIENCE:?}; its log:\n{}", self.log());
            }
        }
    }

    /// True while it runs, as far as this side knows.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Stops it as an operator does, and waits until it has ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let mut process = self.process.take().expect("it runs");
        let begin = std::time::Instant::now();
        loop {
            if let Some(status) = process.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the server did not end in {PATIENCE:?}; its log:\n{}", self.log());
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Kills the server, and nothing else of its group, in the middle of whatever it does.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("it runs");
        kill(process.group, Signal::SIGKILL).unwrap();
        process.child.wait().unwrap();
        // What it had started is in groups of its own, as after a crash; the next start must find it.
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        let (process, address) = spawn(self.dir.path(), &self.environment, &self.log);
        self.process = Some(process);
        self.address = address;
    }

    /// Tries to start a second process on the same data, which must refuse: its exit status and what it says on stderr.
    pub fn refuses_to_start(&self) -> (i32, String) {
        let child = command(self.dir.path(), &self.environment).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = child.unwrap();
        let group = Pid::from_raw(i32::try_from(process.id()).unwrap());
        let mut text = String::new();
        let watchdog = thread::spawn(move || {
            thread::sleep(PATIENCE);
            let _ = killpg(group, Signal::SIGKILL);
        });
        process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        let status = process.wait().unwrap();
        // Its thread goes with the test process.
        drop(watchdog);
        (status.code().unwrap_or_else(|| panic!("it was killed, so it had started: {text}")), text)
    }

    /// The same with other settings beside those it had.
    pub fn restart_with(&mut self, environment: &[(&str, &str)]) {
        self.environment.extend(environment.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        self.restart();
    }
}

/// A folder with links to the machine's programs but for the agents that it may have: a test must find only its own.
pub fn tools() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
        std::fs::create_dir_all(&folder).unwrap();
        for program in ["/usr/bin", "/bin"].iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten()) {
            let name = program.file_name();
            let is_agent = name.to_str().is_none_or(|name| known::by_program(name).is_some());
            if !is_agent {
                // Another test may have made it.
                let _ = std::os::unix::fs::symlink(program.path(), folder.join(name));
            }
        }
        folder
    });
    &FOLDER
}

/// The program with its data in `dir`, on a free port.
fn command(dir: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data"));
    command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", tools());
    command.envs(environment.iter().map(|(name, value)| (name, value))).process_group(0).stdin(Stdio::null());
    command
}

/// Starts the program and reads its address from the block that it prints.
fn spawn(dir: &Path, environment: &[(String, String)], log: &Arc<Mutex<String>>) -> (Process, SocketAddr) {
    let mut child = command(dir, environment).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let process = Process { child, group };
    let log_of = Arc::clone(log);
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stderr.read(&mut piece) {
            log_of.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    });
    let (sender, addresses) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.trim_start().strip_prefix("address").and_then(|rest| rest.split("://").nth(1)) {
                let _ = sender.send(address.trim().parse().unwrap());
            }
        }
    });
    let address = addresses.recv_timeout(PATIENCE);
    let address = address.unwrap_or_else(|_| panic!("no address was printed:\n{}", log.lock().unwrap()));
    (process, address)
}

/// The URL of a new database of a throwaway Postgres, for servers that share one.
pub fn postgres_database() -> String {
    super::postgres::server().fresh_database()
}
