//! The rules for child processes, with plain shell scripts as children.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use greenroom::agents::{
    ProcessLedger, ProcessRecord,
    process::{Line, MARKER, Process, Spawn, SpawnError, environment, sweep, sweep_unrecorded},
};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::{Instant, timeout};

use crate::harness::{LIMIT, Ledger, is_gone, wait_gone};

/// Ignores SIGTERM; says its pid.
const STUBBORN: &str = r#"trap "" TERM; echo $$; while :; do sleep 1; done"#;
const GRACE: Duration = Duration::from_millis(300);

fn shell(script: &str, ledger: &Arc<Ledger>) -> Spawn {
    Spawn {
        agent: "shell".into(),
        session: "test:process".into(),
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: environment(&[], &BTreeMap::new()),
        cwd: std::env::temp_dir(),
        max_line: 1000,
        stderr_tail: 1000,
        kill_grace: GRACE,
        ledger: ledger.clone(),
    }
}

async fn line(process: &mut Process) -> String {
    match timeout(LIMIT, process.stdout.next()).await.expect("no line").unwrap() {
        Some(Line::Text(line)) => line,
        other => panic!("no line: {other:?}"),
    }
}

async fn pid(process: &mut Process) -> i32 {
    line(process).await.parse().unwrap()
}

/// Kills a group at the end of a test that gave it out of hand.
struct Reaper(i32);

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[tokio::test]
async fn stop_ends_a_polite_group_without_the_hammer() {
    let ledger = Arc::new(Ledger::default());
    let mut spawn = shell("sleep 1000 & echo $!; wait", &ledger);
    spawn.kill_grace = LIMIT;
    let mut process = Process::spawn(spawn).unwrap();
    let grandchild = pid(&mut process).await;
    let running = ledger.running();
    assert_eq!((running.len(), running[0].pgid), (1, process.pgid()));
    assert!(running[0].started_ticks > 0 && !running[0].boot_id.is_empty(), "{running:?}");
    let stopped = timeout(LIMIT, process.stop(100)).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&stopped.status.unwrap()), Some(15));
    assert!(is_gone(grandchild) && ledger.running().is_empty());
}

#[tokio::test]
async fn stop_kills_a_grandchild_that_ignores_sigterm() {
    let ledger = Arc::new(Ledger::default());
    let mut process = Process::spawn(shell(&format!("sh -c '{STUBBORN}' & wait"), &ledger)).unwrap();
    let grandchild = pid(&mut process).await;
    let started = Instant::now();
    process.stop(100).await;
    assert!(started.elapsed() >= GRACE, "SIGKILL came before the time was up");
    assert!(is_gone(grandchild));
    assert_eq!(ledger.running(), []);
}

#[tokio::test]
async fn stop_finds_a_grandchild_that_left_the_group() {
    let ledger = Arc::new(Ledger::default());
    let script = format!("setsid sh -c '{STUBBORN}' & wait");
    let mut process = Process::spawn(shell(&script, &ledger)).unwrap();
    let grandchild = pid(&mut process).await;
    assert_ne!(nix::unistd::getpgid(Some(Pid::from_raw(grandchild))).unwrap().as_raw(), process.pgid());
    process.stop(100).await;
    assert!(is_gone(grandchild));
}

#[tokio::test]
async fn drop_kills_the_group_at_once() {
    let ledger = Arc::new(Ledger::default());
    let mut process = Process::spawn(shell(&format!("sh -c '{STUBBORN}' & wait"), &ledger)).unwrap();
    let grandchild = pid(&mut process).await;
    let leader = process.pgid();
    drop(process);
    wait_gone(grandchild).await;
    wait_gone(leader).await;
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_the_marker() {
    let ledger = Arc::new(Ledger::default());
    let mut spawn = shell("env; pwd", &ledger);
    spawn.env = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "b".into())]);
    spawn.cwd = PathBuf::from("/usr");
    let mut process = Process::spawn(spawn).unwrap();
    let mut lines = Vec::new();
    while let Some(Line::Text(line)) = process.stdout.next().await.unwrap() {
        lines.push(line);
    }
    assert_eq!(lines.pop().unwrap(), "/usr");
    // The shell itself adds these.
    lines.retain(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own)));
    lines.sort();
    let marker = format!("{MARKER}={}", ledger.running()[0].marker);
    assert_eq!(lines, ["A=b".to_owned(), marker, "PATH=/usr/bin:/bin".to_owned()]);
    process.stop(0).await;
}

#[tokio::test]
async fn a_huge_line_is_reported_once_and_reading_goes_on() {
    let ledger = Arc::new(Ledger::default());
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo next";
    let mut process = Process::spawn(shell(script, &ledger)).unwrap();
    assert_eq!(process.stdout.next().await.unwrap(), Some(Line::TooLong));
    assert_eq!(line(&mut process).await, "next");
    assert_eq!(process.stdout.next().await.unwrap(), None);
    process.stop(0).await;
}

#[tokio::test]
async fn the_end_of_a_process_comes_with_its_status_and_its_last_words() {
    let ledger = Arc::new(Ledger::default());
    let script = r"head -c 2000 /dev/zero | tr '\0' x >&2; echo >&2; printf '\033[31mit broke\033[0m\n' >&2; exit 7";
    let mut process = Process::spawn(shell(script, &ledger)).unwrap();
    let (_, _, exited) = process.parts();
    assert_eq!(timeout(LIMIT, exited).await.unwrap().unwrap().code(), Some(7));
    let stopped = process.stop(12).await;
    assert_eq!(stopped.describe(), "ended with exit status: 7; stderr: it broke");
}

#[tokio::test]
async fn finish_lets_a_process_end_by_itself_even_with_a_full_pipe() {
    let ledger = Arc::new(Ledger::default());
    let script = "cat >/dev/null; head -c 1000000 /dev/zero; exit 3";
    let mut process = Process::spawn(shell(script, &ledger)).unwrap();
    process.finish(LIMIT).await;
    assert_eq!(process.stop(0).await.status.unwrap().code(), Some(3));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let ledger = Arc::new(Ledger::default());
    let mut nothing = shell("", &ledger);
    nothing.program = "no-such-program".into();
    assert!(matches!(Process::spawn(nothing), Err(SpawnError::NotFound(name)) if name == "no-such-program"));
    let mut nowhere = shell("", &ledger);
    nowhere.cwd = "/no/such/folder".into();
    assert!(matches!(Process::spawn(nowhere), Err(SpawnError::NoFolder(_))));
    assert_eq!(ledger.running(), []);
}

/// Starts a script, reads the pid that it says, and gives the process out of hand as a crash would.
async fn abandoned(script: &str, leader_ends: bool) -> (ProcessRecord, i32, Reaper) {
    let ledger = Arc::new(Ledger::default());
    let mut process = Process::spawn(shell(script, &ledger)).unwrap();
    let reaper = Reaper(process.pgid());
    let pid = pid(&mut process).await;
    if leader_ends {
        let (_, _, exited) = process.parts();
        timeout(LIMIT, exited).await.unwrap().unwrap();
    }
    let record = ledger.running().remove(0);
    std::mem::forget(process);
    (record, pid, reaper)
}

async fn swept(records: Vec<ProcessRecord>) -> usize {
    tokio::task::spawn_blocking(move || sweep(&records)).await.unwrap()
}

#[tokio::test]
async fn the_sweep_kills_a_group_whose_leader_lives() {
    let (record, grandchild, _reaper) = abandoned(&format!("sh -c '{STUBBORN}' & wait"), false).await;
    assert_eq!(swept(vec![record.clone()]).await, 1);
    assert!(is_gone(grandchild) && is_gone(record.pgid));
    assert_eq!(swept(vec![record]).await, 0);
}

#[tokio::test]
async fn the_sweep_kills_grandchildren_that_outlive_their_leader() {
    let (record, grandchild, _reaper) = abandoned(&format!("sh -c '{STUBBORN}' &"), true).await;
    assert!(is_gone(record.pgid) && !is_gone(grandchild));
    assert_eq!(swept(vec![record]).await, 1);
    assert!(is_gone(grandchild));
}

#[tokio::test]
async fn the_sweep_leaves_alone_what_is_not_proven_to_be_ours() {
    let (record, grandchild, _reaper) = abandoned(&format!("sh -c '{STUBBORN}' & wait"), false).await;
    let other = |record: &ProcessRecord| ProcessRecord { marker: "another".into(), ..record.clone() };
    let reused = ProcessRecord { started_ticks: record.started_ticks + 1, ..other(&record) };
    let rebooted = ProcessRecord { boot_id: "another".into(), ..record.clone() };
    let unmarked = ProcessRecord { marker: String::new(), ..reused.clone() };
    assert_eq!(swept(vec![reused, rebooted, unmarked]).await, 0);
    assert!(!is_gone(grandchild) && !is_gone(record.pgid));
    assert_eq!(swept(vec![record]).await, 1);
}

/// A ledger that forgets, as a server does that is killed before it has written a record down.
struct Forgetful(String);

impl ProcessLedger for Forgetful {
    fn started(&self, _: ProcessRecord) {}

    fn ended(&self, _: i32) {}

    fn home(&self) -> &str {
        &self.0
    }
}

#[tokio::test]
async fn the_sweep_finds_what_was_started_and_never_recorded() {
    let homes: Vec<String> = (0..2).map(|_| format!("{}.", uuid::Uuid::now_v7().simple())).collect();
    let mut started = Vec::new();
    for home in &homes {
        let mut spawn = shell(&format!("setsid sh -c '{STUBBORN}' & wait"), &Arc::new(Ledger::default()));
        spawn.ledger = Arc::new(Forgetful(home.clone()));
        let mut process = Process::spawn(spawn).unwrap();
        let reaper = Reaper(process.pgid());
        let grandchild = pid(&mut process).await;
        started.push((process.pgid(), grandchild, reaper));
        std::mem::forget(process);
    }
    let sweep = |home: String| async { tokio::task::spawn_blocking(move || sweep_unrecorded(&home)).await.unwrap() };
    assert_eq!(sweep(String::new()).await, 0, "without a home nothing is anybody's");
    assert!(sweep(homes[0].clone()).await >= 2);
    assert!(is_gone(started[0].0) && is_gone(started[0].1));
    assert!(!is_gone(started[1].0) && !is_gone(started[1].1), "of another home");
    assert!(sweep(homes[1].clone()).await >= 2);
}
