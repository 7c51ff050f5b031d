//! Servers as child processes: started in a group of their own, stopped by SIGTERM, then by the group.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{Failure, Plan, baseline};

/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(15);

/// A folder that is removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder in the plan's.
    pub fn new(plan: &Plan) -> std::io::Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = plan.dir.join(format!("greenroom-bench-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command without anything of this environment: none of it may change what is measured.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command
}

/// The program beside this one.
pub fn greenroom() -> std::io::Result<Command> {
    Ok(clean(&std::env::current_exe()?.with_file_name("greenroom")))
}

/// A server that runs.
pub struct Server {
    child: Child,
    address: SocketAddr,
    // Kept open: a server whose output is closed might stop over it.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Greenroom with its data in `folder`.
    pub fn greenroom(folder: &Folder, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let mut command = greenroom()?;
        command.args(["serve", "--bind", "127.0.0.1:0", "--log", "warn", "--data-dir"]).arg(folder.path());
        command.current_dir(folder.path()).envs(settings.iter().copied());
        command.env("GREENROOM_SHUTDOWN__GRACE", "1s");
        Self::start(command).map_err(|error| format!("greenroom: {error}").into())
    }

    /// A baseline server.
    pub fn baseline(kind: baseline::Kind) -> Result<Self, Failure> {
        let mut command = clean(&std::env::current_exe()?);
        command.args(["--baseline", kind.name()]);
        Self::start(command)
    }

    /// Starts a server and reads its address from the first line that has one.
    fn start(mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut server = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), stdout: BufReader::new(stdout) };
        let mut line = String::new();
        loop {
            line.clear();
            if server.stdout.read_line(&mut line)? == 0 {
                return Err("it ended before it told its address".into());
            }
            if let Some(address) = line.split_once("http://").and_then(|(_, rest)| rest.trim().parse().ok()) {
                server.address = address;
                return Ok(server);
            }
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its resident memory in bytes.
    pub fn rss(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0)
    }

    /// Its open files.
    pub fn open_files(&self) -> Result<usize, Failure> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// The CPU time that it has used, in seconds.
    pub fn cpu(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(") ").ok_or("no stat")?.1;
        // Fields 14 and 15 of the line, in ticks of 1/100 s on every Linux of today.
        let ticks: f64 = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// Asks it to stop and waits until it is gone.
    pub fn stop(mut self) -> Result<(), Failure> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the server did not stop in time".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn pid(&self) -> Result<Pid, Failure> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}
