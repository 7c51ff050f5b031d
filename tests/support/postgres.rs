//! A throwaway Postgres for tests: started on the first use, on a Unix socket in a folder of its own, and gone when
//! the test process is gone, however that ends.
//!
//! The server is the child of a small shell whose standard input is a pipe that only the test process holds. When
//! that process ends, by return, panic or kill, the shell reads the end of the pipe, stops the server and removes
//! the folder.

// Not every test binary stops a server.
#![allow(dead_code)]

use std::{
    env,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use diesel::{Connection as _, PgConnection, connection::SimpleConnection as _};

/// A server.
pub struct Postgres {
    /// Where its socket is.
    pub folder: PathBuf,
    databases: AtomicU32,
}

/// The one server of this test process, started now when it does not run yet.
///
/// Panics with a line that says what to install where there is no Postgres.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(start)
}

impl Postgres {
    /// The URL of a new, empty database.
    pub fn fresh_database(&self) -> String {
        // Postgres copies its template for this, which it does not do twice at a time.
        static ONE_BY_ONE: Mutex<()> = Mutex::new(());
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let guard = ONE_BY_ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut admin = PgConnection::establish(&self.url("postgres")).unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        drop(guard);
        self.url(&name)
    }

    /// A server of its own, for a test that stops it.
    pub fn own() -> Self {
        start()
    }

    /// Stops it at once, as a crash does; what was committed is on its disk.
    pub fn stop(&self) {
        let pid_file = self.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(&pid_file).unwrap();
        let pid = text.lines().next().unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT).unwrap();
        // The file goes last.
        while pid_file.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Starts it again on its data.
    pub fn start_again(&self) {
        run(&programs(), &self.folder, unprivileged_user());
    }

    /// The URL of a database by name.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=greenroom", self.folder.display())
    }
}

fn start() -> Postgres {
    let programs = programs();
    let user = unprivileged_user();
    let folder = tempfile::Builder::new().prefix("greenroom-pg-").tempdir().unwrap().keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    if let Some((uid, gid)) = user {
        chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    let data = folder.join("data");
    let made = command(&programs.join("initdb"), &folder, user)
        .args(["--no-locale", "--encoding=UTF8", "--auth=trust", "--username=greenroom", "-D"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    run(&programs, &folder, user);
    Postgres { folder, databases: AtomicU32::new(0) }
}

/// A program as that user, in the folder.
fn command(program: &Path, folder: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder).current_dir(folder).process_group(0);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs the server until this process ends, or it is stopped.
fn run(programs: &Path, folder: &Path, user: Option<(u32, u32)>) {
    let script = r#""$1" -D "$2" -c listen_addresses= -c unix_socket_directories="$3" &
        read -r _; kill -QUIT $!; wait $!; cd /; rm -rf "$3""#;
    let mut watchdog = command(Path::new("/bin/sh"), folder, user)
        .args(["-c", script, "sh"])
        .args([&programs.join("postgres"), &folder.join("data"), &folder.to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watchdog.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    loop {
        match lines.next() {
            Some(Ok(line)) if line.contains("ready to accept connections") => break,
            Some(Ok(line)) => seen = seen + &line + "\n",
            _ => panic!("Postgres did not start:\n{seen}"),
        }
    }
    // Somebody must go on reading, or the server blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    // The pipe stays open until this process ends.
    std::mem::forget(watchdog);
}

/// The folder of `initdb` and `postgres`: the newest one that Debian's packages made, else the first one of `PATH`.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    found.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = found.into_iter().rev().map(|(_, folder)| folder).chain(env::split_paths(&path));
    folders
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .expect("these tests need a Postgres server: install it with `apt-get install postgresql`")
}

/// Postgres does not run as root: then somebody else's user and group.
fn unprivileged_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let fields: Vec<&str> = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a user `postgres` or `nobody` to run Postgres as"))
}
