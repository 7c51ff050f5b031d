//! Overload: what is too much is refused at once, with the time to come back, and nothing is left of it afterwards.

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::json;

use crate::gateway::{Reply, Socket, Sse, TestGateway, eventually, in_time, play, text};

/// A refusal names the time to come back.
#[track_caller]
fn is_refused(reply: &Reply, status: u16, code: &str) {
    reply.refused(status, code);
    assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{:?}", reply.headers);
}

async fn refusals(server: &TestGateway, code: &str) -> f64 {
    let name = format!("greenroom_refusals_total{{code=\"{code}\"}} ");
    let reply = server.get("/metrics").await;
    reply.text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn while_too_much_waits_for_the_database_messages_are_refused_at_once() {
    let server = TestGateway::on_sqlite(&[("GREENROOM_STORE__QUEUE", "4")]);
    server.run("first", text("x")).await;
    let path = server.data_dir().join("greenroom.db");
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE").unwrap();
    let send = |n: usize| {
        let key = format!("/v1/sessions/s{n}/messages");
        let server = &server;
        async move { server.post(&key, text("x")).await }
    };
    // Nothing is written while another program holds the database: the first few wait, the others hear it at once.
    let mut calls: FuturesUnordered<_> = (0..40).map(send).collect();
    let mut refused = 0;
    while refused < 20 {
        let reply = in_time("a refusal", calls.next()).await.unwrap();
        is_refused(&reply, 503, "store_unavailable");
        refused += 1;
    }
    assert!(refusals(&server, "store_unavailable").await >= 20.0);
    other.batch_execute("ROLLBACK").unwrap();
    let mut taken = 0;
    while let Some(reply) = in_time("an answer", calls.next()).await {
        match reply.status {
            202 => taken += 1,
            _ => is_refused(&reply, 503, "store_unavailable"),
        }
    }
    assert!(taken > 0, "what waited is taken");
    // And all is as before, once what was taken has run.
    eventually("nothing waits any more", async || {
        let level = server.get("/metrics").await.text;
        level.lines().any(|line| line == "greenroom_store_queue_jobs 0").then_some(())
    })
    .await;
    for key in ["first", "new"] {
        eventually("a message is taken", async || {
            let path = format!("/v1/sessions/{key}/messages");
            (server.post(&path, text("after it")).await.status == 202).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn more_sessions_than_may_be_live_are_refused_until_one_is_gone() {
    let server = TestGateway::with(&[
        ("GREENROOM_SESSION__MAX_LIVE", "3"),
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "0s"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "50ms"),
    ]);
    server.hang("a", json!({})).await;
    server.hang("b", json!({})).await;
    for n in 0..50 {
        let reply = server.post(&format!("/v1/sessions/n{n}/messages"), text("x")).await;
        is_refused(&reply, 429, "too_many_sessions");
    }
    assert_eq!(refusals(&server, "too_many_sessions").await, 50.0);
    server.get("/v1/sessions/n0").await.refused(404, "session_not_found");
    // Those that are there are served as ever.
    server.message("a", text("waits")).await;
    server.act("/v1/sessions/b/abort").await.ok(200);
    eventually("there is room again", async || {
        (server.post("/v1/sessions/n0/messages", text("x")).await.status == 202).then_some(())
    })
    .await;
    server.assert_quiet();
}

#[tokio::test]
async fn more_streams_than_may_follow_are_refused_until_one_leaves() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__MAX_SUBSCRIBERS", "2")]);
    server.run("k", text("x")).await;
    for path in ["/v1/sessions/k/events", "/v1/events"] {
        let mut first = Sse::open(&server, path).await;
        let mut second = Sse::open(&server, path).await;
        for stream in [&mut first, &mut second] {
            stream.json().await.unwrap();
        }
        for _ in 0..20 {
            let third = server.send(server.request("GET", path).header("accept", "text/event-stream")).await;
            is_refused(&third, 429, "too_many_subscribers");
        }
        drop(second);
        eventually("there is room again", async || {
            let request = server.request("GET", path).header("accept", "text/event-stream");
            (request.send().await.unwrap().status() == 200).then_some(())
        })
        .await;
        server.run("k", text("served")).await;
        if path.contains("sessions") {
            let events = first.until(|event| event["type"] == "turn.finished").await;
            assert_eq!(events.last().unwrap()["data"]["summary"], "served");
        }
    }
    assert!(refusals(&server, "too_many_subscribers").await >= 40.0);
    server.assert_quiet();
}

#[tokio::test]
async fn a_full_queue_refuses_a_burst_at_once_and_goes_on() {
    let server = TestGateway::with(&[("GREENROOM_SESSION__MAX_QUEUE", "3")]);
    server.hang("k", json!({})).await;
    let calls = (0..60).map(|n| server.post("/v1/sessions/k/messages", text(&format!("m{n}"))));
    let replies = futures_util::future::join_all(calls).await;
    let taken = replies.iter().filter(|reply| reply.status == 202).count();
    assert_eq!(taken, 3);
    replies.iter().filter(|reply| reply.status != 202).for_each(|reply| is_refused(reply, 429, "queue_full"));
    server.act("/v1/sessions/k/abort").await.ok(200);
    eventually("the queue is worked off", async || (server.snapshot("k").await["busy"] == false).then_some(())).await;
    server.run("k", text("after it")).await;
    server.assert_quiet();
}

#[tokio::test]
async fn a_message_has_so_many_files_and_no_more() {
    let server = TestGateway::start();
    let files = |count: usize| {
        let file = |n| json!({"name": format!("{n}.txt"), "media_type": "text/plain", "content_base64": "aGk="});
        json!({"text": "see", "attachments": (0..count).map(file).collect::<Vec<_>>()})
    };
    server.post("/v1/sessions/k/messages", files(65)).await.refused(400, "invalid_attachment");
    server.post("/v1/sessions/k/messages", files(64)).await.ok(202);
    assert!(refusals(&server, "invalid_attachment").await >= 1.0);
}

#[tokio::test]
async fn a_socket_follows_so_many_sessions_and_no_more() {
    let server = TestGateway::start();
    let create = |n: usize| {
        let server = &server;
        async move { server.post("/v1/sessions", json!({"key": format!("s{n}")})).await.ok(201) }
    };
    let mut made: FuturesUnordered<_> = (0..1025).map(create).collect();
    while made.next().await.is_some() {}
    let mut socket = Socket::open(&server, "/v1/ws").await;
    for n in 0..1024 {
        socket.ok(json!({"op": "subscribe", "session": format!("s{n}")})).await;
    }
    let one_more = json!({"op": "subscribe", "session": "s1024"});
    socket.refused(one_more.clone(), "overloaded").await;
    // One that is left makes room for another.
    socket.ok(json!({"op": "unsubscribe", "session": "s0"})).await;
    socket.ok(one_more).await;
}

#[tokio::test]
async fn a_call_that_its_session_does_not_answer_in_time_is_told_so() {
    let server = TestGateway::on_sqlite(&[("GREENROOM_SESSION__CALL_TIMEOUT", "300ms")]);
    server.run("k", text("x")).await;
    let path = server.data_dir().join("greenroom.db");
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE").unwrap();
    let late = server.post("/v1/sessions/k/messages", text("y")).await;
    is_refused(&late, 503, "overloaded");
    assert!(late.text.contains("not known"), "it may have been taken, and says so: {}", late.text);
    other.batch_execute("ROLLBACK").unwrap();
    eventually("it answers again", async || {
        let answer = server.post("/v1/sessions/k/messages?wait=60", text("z")).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_does_not_end_is_stopped_at_its_bound() {
    let server = TestGateway::start();
    let much = json!({"deltas": 80, "bytes": 1_000_000});
    let done = server.run("k", play(much)).await;
    assert_eq!((&done["turn"]["state"], &done["turn"]["reason"]), (&json!("failed"), &json!("answer_too_large")));
    assert_eq!(done["turn"]["error"]["code"], "content_too_large", "{done}");
    let said = done["response"].as_str().unwrap().len();
    assert!((60 << 20..=64 << 20).contains(&said), "{said} bytes are kept");
    // The next one is answered.
    assert_eq!(server.run("k", text("fine")).await["response"], "fine");
}
