//! `greenroom backup` while the server works, and a server that starts from the copy.

use std::process::{Command, Output};

use futures_util::future::join_all;
use serde_json::json;

use crate::gateway::{TestGateway, script, text, turn_id};

fn backup(server: &TestGateway, to: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.env_clear().current_dir(server.data_dir()).arg("backup").arg(to).arg("--data-dir").arg(server.data_dir());
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_backup_is_in_it_and_runs_from_it() {
    let server = TestGateway::on_sqlite(&[]);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    server.message("runs", text(&script(&json!({"deltas": 5, "hang": true})))).await;
    server.until("runs", |event| event["type"] == "message.delta").await;
    let waits = turn_id(&server.message("runs", text("after it")).await);
    // Others keep writing while the copy is made.
    let talk = join_all((0..4).map(async |number| {
        let mut told = Vec::new();
        for round in 0..20 {
            told.push(turn_id(&server.message(&format!("s{number}"), text(&format!("m{round}"))).await));
        }
        told
    }));
    let before = turn_id(&server.run("early", text("before")).await);
    let (output, _) = tokio::join!(async { tokio::task::block_in_place(|| backup(&server, &copy)) }, talk);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("--database sqlite:"));

    let again = backup(&server, &copy);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("does not replace"));

    let mut restored = TestGateway::on_sqlite(&[]);
    restored.kill9();
    for leftover in ["greenroom.db", "greenroom.db-wal", "greenroom.db-shm"] {
        let _ = std::fs::remove_file(restored.data_dir().join(leftover));
    }
    std::fs::copy(&copy, restored.data_dir().join("greenroom.db")).unwrap();
    restored.restart();
    assert_eq!(restored.turn("early", &before).await["state"], "completed");
    assert_eq!(restored.finished("runs", &waits).await["state"], "completed");
    let turns = restored.get("/v1/sessions/runs/turns?order=asc").await.ok(200);
    assert_eq!(turns["data"][0]["state"], "interrupted");
    server.act("/v1/sessions/runs/abort").await.ok(200);
}

#[test]
fn a_backup_of_nothing_says_so_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |database: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.env_clear().current_dir(folder.path()).args(["backup", "copy.db", "--database", database]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run("sqlite:none.db").contains("there is no database"));
    assert!(run("postgres://me:hunter2@127.0.0.1/db").contains("pg_dump"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
