//! Server-sent events: cursors, gaps, filters, heartbeats, joining while a turn streams.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::gateway::{
    Socket, Sse, SseEvent, TestGateway, eventually, in_time, play, str_of, text, turn_id,
    wire::{is_control, is_log, of_type, said, types},
};

fn path(query: &str) -> String {
    format!("/v1/sessions/k/events{query}")
}

#[tokio::test]
async fn every_cursor_gives_exactly_what_comes_after_it() {
    let server = TestGateway::start();
    server.run("k", text("one two")).await;
    let all = server.stored("k").await;
    for after in 0..=all.len() {
        let by_query = Sse::open(&server, &path(&format!("?after={after}"))).await;
        let by_header = server.request("GET", &path("?after=0")).header("accept", "text/event-stream");
        let by_header = Sse::from(by_header.header("last-event-id", after.to_string())).await;
        for mut stream in [by_query, by_header] {
            assert_eq!(stream.headers["cache-control"], "no-store");
            assert_eq!(stream.headers["x-accel-buffering"], "no");
            let hello = stream.json().await.unwrap();
            assert_eq!(hello["type"], "session.hello");
            assert_eq!(hello["data"]["last_seq"], all.len());
            for expected in &all[after..] {
                assert_eq!(stream.stored().await.as_ref(), Some(expected), "after {after}");
            }
        }
    }
    server.assert_quiet();
}

#[tokio::test]
async fn without_a_cursor_it_is_live_from_now() {
    let server = TestGateway::start();
    server.run("k", text("before")).await;
    let last = server.snapshot("k").await["last_seq"].as_u64().unwrap();
    let mut stream = Sse::open(&server, &path("")).await;
    assert_eq!(stream.json().await.unwrap()["type"], "session.hello");
    server.message("k", text("after")).await;
    let events = stream.until(|event| event["type"] == "turn.finished").await;
    assert_eq!(events[0]["seq"], last + 1);
    assert_eq!(stream.last_id, Some(events.last().unwrap()["seq"].to_string()));
    // Nobody asked for JSON: it is a stream.
    let plain = Sse::from(server.request("GET", &path(""))).await;
    assert_eq!(plain.headers["content-type"], "text/event-stream");
}

#[tokio::test]
async fn a_cursor_that_the_log_does_not_know_is_told_and_all_is_given() {
    let server = TestGateway::start();
    server.run("k", text("one")).await;
    let all = server.stored("k").await;
    let mut stream = Sse::open(&server, &path("?after=5000")).await;
    assert_eq!(stream.json().await.unwrap()["type"], "session.hello");
    let gap = stream.json().await.unwrap();
    is_control(&gap);
    assert_eq!(gap["type"], "stream.gap");
    assert_eq!(gap["data"]["to"], 5000);
    for expected in &all {
        assert_eq!(stream.stored().await.as_ref(), Some(expected));
    }
    server.message("k", text("two")).await;
    let live = stream.until(|event| event["type"] == "turn.finished").await;
    assert_eq!(live[0]["seq"], all.len() + 1);

    // A key that was deleted and made again: what is gone is a gap too.
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    server.run("k", text("three")).await;
    let mut stream = Sse::open(&server, &path("?after=2")).await;
    stream.until_type("session.hello").await;
    let gap = stream.json().await.unwrap();
    assert_eq!((&gap["type"], &gap["data"]["from"]), (&json!("stream.gap"), &json!(3)));
    let first = stream.json().await.unwrap();
    assert_eq!(first["seq"].as_u64().unwrap(), gap["data"]["to"].as_u64().unwrap() + 1);
}

#[tokio::test]
async fn types_are_filtered_by_prefix() {
    let server = TestGateway::start();
    let mut stream = {
        server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
        Sse::open(&server, &path("?after=0&types=turn.,choice.")).await
    };
    server.run("k", text("a b c")).await;
    let turn = turn_id(&server.message("k", play(json!({"ask": "permission"}))).await);
    let seen = stream.until(|event| event["type"] == "choice.requested").await;
    let expected = ["turn.queued", "turn.started", "turn.finished", "turn.queued", "turn.started", "choice.requested"];
    assert_eq!(types(&seen), expected);
    server.act(&format!("/v1/sessions/k/turns/{turn}/cancel")).await;
    let mut replay = Sse::open(&server, &path("?after=0&types=turn.finished")).await;
    let finished = replay.until(|event| event["turn_id"] == *turn).await;
    assert_eq!(finished.len(), 2);
}

#[tokio::test]
async fn a_subscriber_may_join_at_any_moment() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")]);
    let turn = turn_id(&server.message("k", play(json!({"deltas": 300, "bytes": 10, "delay_ms": 2}))).await);
    let whole: String = (0..300).map(|i| format!("{i:06} xxx")).collect();
    let mut joined = 0;
    // One after the other joins while the turn streams, from the beginning and from wherever the last one was.
    let mut after = 0;
    loop {
        let mut stream = Sse::open(&server, &path("?after=0")).await;
        let fits = |event: &Value| event["type"] == "turn.finished" || event["seq"].as_u64().unwrap() > after + 20;
        let events = stream.until(fits).await;
        is_log(&events, 1);
        joined += 1;
        let last = events.last().unwrap();
        after = last["seq"].as_u64().unwrap();
        // The rest by a new stream from that cursor.
        let mut rest = Sse::open(&server, &path(&format!("?after={after}"))).await;
        if last["type"] == "turn.finished" {
            assert_eq!(said(&events, &turn, "text"), whole);
            break;
        }
        let more =
            rest.until(|event| event["type"] == "turn.finished" || event["seq"].as_u64().unwrap() > after + 5).await;
        assert_eq!(more[0]["seq"], after + 1);
        is_log(&[events, more].concat(), 1);
    }
    assert!(joined > 1, "the turn was over too soon to test anything");
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__HEARTBEAT", "50ms")]);
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut stream = Sse::open(&server, &path("")).await;
    let mut beats = 0;
    while beats < 3 {
        match stream.next().await {
            SseEvent::Comment(_) => beats += 1,
            SseEvent::Closed => panic!("closed"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_state_is_told_beside_the_events() {
    let server = TestGateway::start();
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut stream = Sse::open(&server, &path("")).await;
    server.message("k", play(json!({"hang": true}))).await;
    loop {
        let state = stream.until_type("session.state").await;
        is_control(&state);
        if state["data"]["snapshot"]["current_turn"]["state"] == "running" {
            break;
        }
    }
    let started = of_type(&server.events("k").await, "turn.started").len();
    assert_eq!(started, 1);
    server.get("/v1/sessions/none/events").await.refused(404, "session_not_found");
}

#[tokio::test]
async fn what_a_session_does_is_seen_by_all_who_follow() {
    let server = TestGateway::start();
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = Sse::open(&server, &path("")).await;
        stream.until_type("session.hello").await;
        streams.push(stream);
    }
    assert_eq!(server.snapshot("k").await["subscribers"], 10);
    server.message("k", text("to all")).await;
    for stream in &mut streams {
        let events = stream.until(|event| event["type"] == "turn.finished").await;
        assert_eq!(str_of(&events.last().unwrap()["data"], "summary"), "to all");
    }
}

#[tokio::test]
async fn a_long_log_is_replayed_whole_while_it_grows() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")]);
    let turn = turn_id(&server.message("k", play(json!({"deltas": 6000, "bytes": 10}))).await);
    let done = |event: &Value| event["type"] == "turn.finished";
    let mut live = Sse::open(&server, &path("?after=0")).await;
    let mut socket = Socket::open(&server, "/v1/sessions/k/ws?after=0").await;
    let (seen, by_socket) = tokio::join!(live.until(done), socket.until(done));
    is_log(&seen, 1);
    assert_eq!(seen, by_socket);
    assert_eq!(said(&seen, &turn, "text").len(), 60_000);
    assert!(seen.len() > 6000, "{} events", seen.len());
    assert_eq!(Sse::open(&server, &path("?after=0")).await.until(done).await, seen);
    assert_eq!(server.events("k").await, seen);
    let middle = Sse::open(&server, &path("?after=3000")).await.until(done).await;
    assert_eq!(middle, seen[3000..]);
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_is_cut_and_harms_nobody() {
    let server = TestGateway::with(&[
        ("GREENROOM_STREAM__FLUSH_INTERVAL", "0s"),
        ("GREENROOM_STREAM__MAX_LAG_BYTES", "64KiB"),
        ("GREENROOM_STREAM__MAX_LAG", "2s"),
    ]);
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut stalled = TcpStream::connect(server.address()).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n",
        path("?after=0")
    );
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut good = Sse::open(&server, &path("?after=0")).await;
    good.until_type("session.hello").await;
    eventually("both follow", async || (server.snapshot("k").await["subscribers"] == 2).then_some(())).await;
    let before = server.memory();
    // More than any buffer between the two can hold, in turns of a megabyte each.
    let send = async {
        for _ in 0..39 {
            server.message("k", play(json!({"deltas": 100, "bytes": 10_000}))).await;
        }
        server.message("k", text("the last")).await;
    };
    let last = |event: &Value| event["type"] == "turn.finished" && event["data"]["summary"] == "the last";
    let (seen, ()) = tokio::join!(good.until(last), send);
    is_log(&seen, 1);
    assert_eq!(of_type(&seen, "turn.finished").len(), 40);
    eventually("the stalled one is cut", async || (server.snapshot("k").await["subscribers"] == 1).then_some(())).await;
    let grown = server.memory().saturating_sub(before) / (1 << 20);
    assert!(grown < 64, "memory has grown by {grown} MiB");
    // What it did get is a part of the log without a gap; then the stream ends.
    let mut bytes = Vec::new();
    in_time("the end of the stalled stream", async { drop(stalled.read_to_end(&mut bytes).await) }).await;
    let text = String::from_utf8_lossy(&bytes);
    let ids: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(!ids.is_empty() && ids.len() < seen.len(), "{} of {}", ids.len(), seen.len());
    assert!(ids.iter().zip(1..).all(|(id, expected)| *id == expected), "{ids:?}");
    let mut resumed = Sse::open(&server, &path(&format!("?after={}", ids.last().unwrap()))).await;
    let rest = resumed.until(last).await;
    assert_eq!(rest[0]["seq"], ids.last().unwrap() + 1);
    assert_eq!(ids.len() + rest.len(), seen.len());
    server.assert_quiet();
}

#[tokio::test]
async fn who_is_behind_when_the_session_is_deleted_still_gets_its_end() {
    let server = TestGateway::with(&[
        ("GREENROOM_STREAM__FLUSH_INTERVAL", "0s"),
        ("GREENROOM_STREAM__MAX_LAG_BYTES", "64KiB"),
        ("GREENROOM_STREAM__MAX_LAG", "10m"),
    ]);
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut behind = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", path("?after=0"));
    behind.write_all(request.as_bytes()).await.unwrap();
    eventually("it follows", async || (server.snapshot("k").await["subscribers"] == 1).then_some(())).await;
    // More than any buffer between the two can hold, so that it is behind for sure.
    for _ in 0..20 {
        server.run("k", play(json!({"deltas": 100, "bytes": 10_000}))).await;
    }
    let last = server.snapshot("k").await["last_seq"].as_u64().unwrap();
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    // Whoever takes the key now is nobody that it follows.
    server.run("k", text("another life")).await;
    let mut bytes = Vec::new();
    in_time("the end of the stream", async { drop(behind.read_to_end(&mut bytes).await) }).await;
    let text = String::from_utf8_lossy(&bytes);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let frames: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    // Every number once: as an event, or within a gap that is told.
    let mut next = 1;
    for frame in &frames {
        if frame["type"] == "stream.gap" {
            assert_eq!(frame["data"]["from"], next, "{frame}");
            next = frame["data"]["to"].as_u64().unwrap() + 1;
        } else if let Some(seq) = frame["seq"].as_u64() {
            assert_eq!(seq, next, "{frame}");
            next = seq + 1;
        }
    }
    let gaps = of_type(&frames, "stream.gap");
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap["data"]["reason"] == "pruned"), "{gaps:?}");
    let [.., deleted, end] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((&deleted["type"], &deleted["seq"]), (&json!("session.deleted"), &json!(last + 1)));
    assert_eq!((&end["type"], &end["data"]["reason"]), (&json!("stream.end"), &json!("session_deleted")));
    server.assert_quiet();
}
