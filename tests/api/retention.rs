//! What is too old goes, what is too much goes, and who reads is told.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::gateway::{
    Sse, TestGateway, eventually, play, str_of, text,
    wire::{is_control, types},
};

/// A round of retention as often as a test can see it.
const OFTEN: (&str, &str) = ("GREENROOM_RETENTION__INTERVAL", "50ms");
const EACH: (&str, &str) = ("GREENROOM_STREAM__FLUSH_INTERVAL", "0s");

/// A sample of the metrics.
async fn sample(server: &TestGateway, name: &str) -> f64 {
    let reply = server.get("/metrics").await;
    let line = reply.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn reaches(server: &TestGateway, name: &str, least: f64) {
    eventually(name, async || (sample(server, name).await >= least).then_some(())).await;
}

/// Two more rounds: what was to be done before now is done.
async fn rounds(server: &TestGateway) {
    let name = r#"greenroom_retention_rounds_total{outcome="ok"}"#;
    reaches(server, name, sample(server, name).await + 2.0).await;
}

async fn set(server: &TestGateway, change: Value) {
    server.patch("/v1/config", change).await.ok(200);
}

/// All frames of a replay up to the event of that number: the bytes of events, and the ranges of gaps.
async fn replay(server: &TestGateway, path: &str, last: u64) -> (Vec<String>, Vec<(u64, u64)>) {
    let mut stream = Sse::open(server, path).await;
    let (mut events, mut gaps) = (Vec::new(), Vec::new());
    while let Some(event) = stream.frame().await.map(|(_, data)| data) {
        let value: Value = serde_json::from_str(&event).unwrap();
        if value["type"] == "stream.gap" {
            is_control(&value);
            assert_eq!((&value["data"]["reason"], &value["session"]), (&json!("pruned"), &json!("k")));
            gaps.push((value["data"]["from"].as_u64().unwrap(), value["data"]["to"].as_u64().unwrap()));
        }
        if let Some(seq) = value["seq"].as_u64() {
            events.push(event);
            if seq == last {
                return (events, gaps);
            }
        }
    }
    panic!("the stream ended");
}

fn seq(event: &str) -> u64 {
    serde_json::from_str::<Value>(event).unwrap()["seq"].as_u64().unwrap()
}

#[tokio::test]
async fn progress_of_finished_turns_goes_and_every_reader_is_told_where() {
    // Nothing goes before all is looked at.
    let server = TestGateway::with(&[OFTEN, EACH, ("GREENROOM_EVENTS__KEEP_DELTAS", "1h")]);
    let tool = json!({"name": "bash", "input": {"command": "ls"}, "output": "a b", "is_error": false});
    server.run("k", play(json!({"tool": tool, "deltas": 200, "bytes": 30}))).await;
    server.run("k", play(json!({"deltas": 50, "bytes": 30}))).await;
    server.message("k", play(json!({"deltas": 20, "bytes": 30, "hang": true}))).await;
    let running = |event: &Value| event["data"]["delta"].as_str().is_some_and(|delta| delta.starts_with("000019"));
    eventually("the third turn says all it has", async || {
        let events = server.events("k").await;
        (events.iter().filter(|event| running(event)).count() == 3).then_some(())
    })
    .await;
    let all = server.stored("k").await;
    let ends: Vec<u64> =
        all.iter().filter(|event| event.contains(r#""turn.finished""#)).map(|event| seq(event)).collect();
    let progress = |event: &String| {
        [r#""type":"message.delta""#, r#""type":"tool.delta""#, r#""type":"tool.updated""#]
            .iter()
            .any(|kind| event.contains(kind))
    };
    let stays: Vec<String> = all.iter().filter(|event| !progress(event) || seq(event) > ends[1]).cloned().collect();
    let last = seq(all.last().unwrap());
    let path = "/v1/sessions/k/events?after=0";
    assert_eq!(replay(&server, path, last).await, (all.clone(), vec![]));
    rounds(&server).await;
    assert_eq!(server.stored("k").await, all, "nothing is too old");

    set(&server, json!({"events": {"keep_deltas": "1ms"}})).await;
    let gone = (all.len() - stays.len()) as f64;
    reaches(&server, r#"greenroom_retention_events_total{why="age"}"#, gone).await;
    rounds(&server).await;
    assert_eq!(sample(&server, r#"greenroom_retention_events_total{why="age"}"#).await, gone);

    // A stream: what stays is what it was; what does not is named, once.
    let whole = |events: &[String], gaps: &[(u64, u64)], first: u64| {
        let mut told: Vec<u64> = events.iter().map(|event| seq(event)).collect();
        told.extend(gaps.iter().flat_map(|(from, to)| *from..=*to));
        told.sort_unstable();
        assert_eq!(told, (first..=last).collect::<Vec<_>>());
    };
    let (events, gaps) = replay(&server, path, last).await;
    assert_eq!(events, stays);
    whole(&events, &gaps, 1);
    // From within, and over all sessions.
    let middle = gaps[0].0 + 3;
    let (events, gaps) = replay(&server, &format!("/v1/sessions/k/events?after={middle}"), last).await;
    whole(&events, &gaps, middle + 1);
    // Who asks for nothing that was pruned misses nothing.
    let (events, gaps) = replay(&server, &format!("{path}&types=turn.,message.completed,message.delta"), last).await;
    assert!(!gaps.is_empty() && events.len() < stays.len());
    let (turns, none) = replay(&server, &format!("{path}&types=turn."), ends[1]).await;
    assert_eq!((turns.len(), none.len()), (6, 0), "the third one is queued before the second ends, or after it");

    // Pages.
    let page = |query: &str| {
        let path = format!("/v1/sessions/k/events?{query}");
        let request = server.request("GET", &path).header("accept", "application/json");
        let server = &server;
        async move { server.send(request).await.ok(200) }
    };
    let numbers = |page: &Value| {
        let mut told: Vec<u64> = page["data"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        for gap in page["gaps"].as_array().into_iter().flatten() {
            told.extend(gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap());
        }
        told.sort_unstable();
        told
    };
    let mut after = 0;
    let mut told = Vec::new();
    loop {
        let page = page(&format!("after={after}&limit=3")).await;
        told.extend(numbers(&page));
        after = page["last_id"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(told, (1..=last).collect::<Vec<_>>());
    let (mut before, mut told) = (last + 1, Vec::new());
    loop {
        let page = page(&format!("before={before}&limit=3")).await;
        told.extend(numbers(&page));
        before = page["first_id"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    told.sort_unstable();
    assert_eq!(told, (1..=last).collect::<Vec<_>>());
    assert!(page("types=turn.").await.get("gaps").is_none());

    // The transcript has it all, and the session goes on.
    let messages = server.get("/v1/sessions/k/messages?limit=100").await.ok(200);
    assert!(messages.to_string().contains("000199"), "what was said stays");
    server.act("/v1/sessions/k/abort").await.ok(200);
    server.run("k", text("on and on")).await;
    server.assert_quiet();
}

#[tokio::test]
async fn zero_keeps_everything() {
    let server = TestGateway::with(&[OFTEN, EACH, ("GREENROOM_EVENTS__KEEP_DELTAS", "0")]);
    server.run("k", play(json!({"deltas": 20}))).await;
    server.run("kept", text("x")).await;
    server.patch("/v1/sessions/kept", json!({"archived": true})).await.ok(200);
    let all = server.stored("k").await;
    rounds(&server).await;
    assert_eq!(server.stored("k").await, all);
    assert_eq!(server.snapshot("kept").await["archived"], true);
    server.assert_quiet();
}

#[tokio::test]
async fn archived_sessions_that_nobody_touches_are_deleted() {
    let server = TestGateway::with(&[
        OFTEN,
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "0s"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "50ms"),
    ]);
    for key in ["gone", "followed", "idle"] {
        server.run(key, text("x")).await;
    }
    for key in ["gone", "followed"] {
        server.patch(&format!("/v1/sessions/{key}"), json!({"archived": true})).await.ok(200);
    }
    let mut followed = Sse::open(&server, "/v1/sessions/followed/events").await;
    followed.until_type("session.hello").await;
    rounds(&server).await;
    server.snapshot("gone").await;

    set(&server, json!({"sessions": {"keep": "1ms"}})).await;
    let gone = async |key: &str| {
        let path = format!("/v1/sessions/{key}");
        eventually("it is deleted", async || (server.get(&path).await.status == 404).then_some(())).await;
    };
    gone("gone").await;
    rounds(&server).await;
    for key in ["followed", "idle", "main"] {
        server.snapshot(key).await;
    }
    let audit = server.get("/v1/audit?session=gone").await.ok(200);
    let entry = &audit["data"][0];
    assert_eq!((str_of(entry, "action"), str_of(entry, "actor")), ("session.delete", "greenroom"));
    assert_eq!((&entry["detail"]["reason"], &entry["owner"]), (&json!("retention"), &json!("local")));
    assert_eq!(sample(&server, r#"greenroom_retention_sessions_total{why="age"}"#).await, 1.0);

    // Once nobody follows it any more it goes too.
    drop(followed);
    gone("followed").await;
    server.assert_quiet();
}

#[tokio::test]
async fn over_its_budget_the_oldest_progress_goes_then_the_oldest_archived_sessions_and_then_it_is_told() {
    let server = TestGateway::on_sqlite(&[
        OFTEN,
        EACH,
        ("GREENROOM_EVENTS__KEEP_DELTAS", "0"),
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "0s"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "50ms"),
        ("GREENROOM_STORE__MAX_SIZE", "1MiB"),
    ]);
    server.run("archived", play(json!({"deltas": 20, "bytes": 1000}))).await;
    server.patch("/v1/sessions/archived", json!({"archived": true})).await.ok(200);
    rounds(&server).await;
    assert_eq!(sample(&server, r#"greenroom_retention_events_total{why="size"}"#).await, 0.0, "it fits");
    assert_eq!(server.get("/ready").await.ok(200)["reasons"], json!([]));
    // Each is three times in the database: as deltas, as a message, and in the event that tells it.
    for _ in 0..5 {
        server.run("k", play(json!({"deltas": 100, "bytes": 1000}))).await;
    }
    reaches(&server, r#"greenroom_retention_sessions_total{why="size"}"#, 1.0).await;
    server.get("/v1/sessions/archived").await.refused(404, "session_not_found");
    let events = server.events("k").await;
    let left = types(&events);
    let third = left.iter().enumerate().filter(|(_, kind)| **kind == "turn.finished").nth(2).unwrap().0;
    assert!(!left[..third].contains(&"message.delta"), "progress goes before sessions: {left:?}");
    for _ in 0..5 {
        server.run("k", play(json!({"deltas": 100, "bytes": 1000}))).await;
    }
    reaches(&server, "greenroom_store_over_budget", 1.0).await;
    let ready = server.get("/ready").await.ok(200);
    assert_eq!(ready["ready"], true);
    assert!(str_of(&ready, "reason").contains("store.max_size"), "{ready}");
    assert!(server.log().contains("over store.max_size"));
    assert!(sample(&server, r#"greenroom_store_bytes{part="used"}"#).await > f64::from(1 << 20));
    assert_eq!(sample(&server, r#"greenroom_limit{setting="store.max_size"}"#).await, f64::from(1 << 20));
    // Messages are taken all the same.
    server.run("k", text("still there")).await;
    server.delete("/v1/sessions/k").await.ok(204);
    eventually("it is within its budget again", async || {
        (sample(&server, "greenroom_store_over_budget").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(server.get("/ready").await.ok(200)["reasons"], json!([]));
}

#[tokio::test]
async fn the_file_gets_smaller_while_it_serves() {
    let server = TestGateway::on_sqlite(&[OFTEN, EACH]);
    for n in 0..6 {
        server.run(&format!("k{n}"), play(json!({"deltas": 100, "bytes": 10_000}))).await;
    }
    let size = |name: &str| std::fs::metadata(server.data_dir().join(name)).map_or(0, |data| data.len());
    // The log is written into the file and emptied by itself.
    eventually("the log is emptied", async || (size("greenroom.db-wal") < 4 << 20).then_some(())).await;
    let before = size("greenroom.db");
    assert!(before > 12 << 20, "{before}");
    let talk = async {
        for n in 0..30 {
            server.run("talk", text(&format!("m{n}"))).await;
        }
    };
    set(&server, json!({"events": {"keep_deltas": "1ms"}})).await;
    let shrinks = eventually("the file is smaller", async || {
        (size("greenroom.db") + (4 << 20) < before && size("greenroom.db-wal") < 8 << 20).then_some(())
    });
    tokio::join!(talk, shrinks);
    server.run("talk", text("after it")).await;
    server.assert_quiet();
}

fn vacuum(server: &TestGateway) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.env_clear().current_dir(server.data_dir()).arg("vacuum").arg("--data-dir").arg(server.data_dir());
    command.output().unwrap()
}

#[tokio::test]
async fn a_file_of_before_is_made_small_with_the_server_stopped() {
    use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
    let mut server = TestGateway::on_sqlite(&[OFTEN, EACH]);
    server.run("k", play(json!({"deltas": 100, "bytes": 10_000}))).await;
    let running = vacuum(&server);
    assert_eq!(running.status.code(), Some(1), "{running:?}");
    assert!(String::from_utf8(running.stderr).unwrap().contains("another server"));
    server.stop();
    let path = server.data_dir().join("greenroom.db");
    // As files were made once: free pages stay where they are.
    let mut old = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    old.batch_execute("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA journal_mode = WAL;")
        .unwrap();
    drop(old);
    server.restart_with(&[("GREENROOM_EVENTS__KEEP_DELTAS", "1ms")]);
    reaches(&server, r#"greenroom_retention_events_total{why="age"}"#, 100.0).await;
    rounds(&server).await;
    assert!(sample(&server, r#"greenroom_store_bytes{part="free"}"#).await > f64::from(1 << 19));
    server.stop();
    let before = std::fs::metadata(&path).unwrap().len();
    let done = vacuum(&server);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert!(std::fs::metadata(&path).unwrap().len() + (1 << 19) < before);
    server.restart();
    server.run("k", text("on it goes")).await;
    server.assert_quiet();
}
