//! A disk that is full, and one that takes no writes, under a server at work.

use std::{path::PathBuf, process::Command};

use serde_json::json;

use crate::{
    all_ran_once,
    gateway::{TestGateway, eventually, play, turn_id},
    healed, not_ready, send_until_refused,
};

/// A small file system of its own; none where the system does not let this user have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "greenroom-test"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|done| done.status.success());
        mounted.then_some(Self(folder))
    }

    fn database(&self) -> String {
        format!("sqlite:{}", self.0.path().join("greenroom.db").display())
    }

    /// Takes all that is left.
    fn fill(&self) -> PathBuf {
        let file = self.0.path().join("filler");
        let done = Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", file.display())).output();
        assert!(!done.unwrap().status.success(), "the disk has no end");
        file
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// A limit on the size of the server's files, set from outside: writes fail in the same place as on a full disk.
fn limit_files(server: &TestGateway, limit: &str) {
    let pid = server.pid().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Sends get a clear answer while nothing can be written, reading goes on, a turn that streams is held and not lost, and
/// all of it goes on by itself once there is room.
async fn full_and_back(server: &TestGateway, fill: impl FnOnce(), empty: impl FnOnce()) {
    let before = turn_id(&server.message("before", play(json!({"deltas": 40, "delay_ms": 50, "bytes": 100}))).await);
    server.until("before", |event| event["type"] == "message.delta").await;
    let mut acknowledged = vec![turn_id(&server.message("k", crate::text("first")).await)];
    fill();
    acknowledged.extend(send_until_refused(server, "k", &"x".repeat(20_000)).await);
    let why = not_ready(server).await;
    assert!(why.contains("full") || why.contains("I/O error"), "{why}");
    // What is small may fit in between, and is written then.
    let told = async || (server.get("/health").await.ok(200)["ready"] == false).then_some(());
    eventually("the health says so, too", told).await;
    // What is there can be read.
    assert!(server.events("before").await.len() > 2);
    empty();
    healed(server).await;
    all_ran_once(server, "k", &acknowledged).await;
    let turn = server.finished("before", &before).await;
    assert_eq!(turn["state"], "completed");
    let events = server.events("before").await;
    assert_eq!(crate::gateway::wire::said(&events, &before, "text").len(), 40 * 100, "nothing of it is missing");
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals() {
    let Some(disk) = SmallDisk::mount("8m") else {
        println!("no small disk can be mounted here: a limit on the size of files stands for it");
        let server = TestGateway::on_sqlite(&[]);
        return full_and_back(&server, || limit_files(&server, "65536"), || limit_files(&server, "unlimited")).await;
    };
    let mut server = TestGateway::on_sqlite(&[("GREENROOM_DATABASE", &disk.database())]);
    let filler = std::cell::OnceCell::new();
    let empty = || std::fs::remove_file(filler.get().unwrap()).unwrap();
    full_and_back(&server, || drop(filler.set(disk.fill())), empty).await;
    // It also starts again after a crash in the middle of a full disk.
    server.message("crash", crate::text("first")).await;
    let filler = disk.fill();
    let acknowledged = send_until_refused(&server, "crash", &"y".repeat(20_000)).await;
    server.kill9();
    std::fs::remove_file(filler).unwrap();
    server.restart();
    healed(&server).await;
    for turn in &acknowledged {
        let state = server.finished("crash", turn).await["state"].clone();
        assert!(state == "completed" || state == "interrupted", "{turn}: {state}");
    }
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_not_the_end() {
    let server = TestGateway::on_sqlite(&[]);
    full_and_back(&server, || limit_files(&server, "65536"), || limit_files(&server, "unlimited")).await;
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_stops_the_start_with_a_clear_line() {
    let mut server;
    let disk = SmallDisk::mount("16m");
    match &disk {
        Some(disk) => {
            server = TestGateway::on_sqlite(&[("GREENROOM_DATABASE", &disk.database())]);
            server.run("k", crate::text("kept")).await;
            assert!(server.stop().success());
            disk.remount("ro");
        }
        // Whoever may not mount is not root, and for the others a file without a right to write is enough.
        None => {
            server = TestGateway::on_sqlite(&[]);
            server.run("k", crate::text("kept")).await;
            assert!(server.stop().success());
            protect(&server, 0o400);
        }
    }
    let (status, said) = server.refuses_to_start();
    assert_eq!(status, 1, "{said}");
    let line = said.lines().last().unwrap();
    assert!(line.contains("greenroom.db") && (line.contains("Read-only") || line.contains("denied")), "{said}");
    match &disk {
        Some(disk) => disk.remount("rw"),
        None => protect(&server, 0o600),
    }
    server.restart();
    assert_eq!(server.snapshot("k").await["last_message_preview"], "kept");
}

fn protect(server: &TestGateway, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = server.data_dir().join("greenroom.db");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}
