//! Sessions whose rows make no sense any more: they say so, can be got rid of, and harm no other.

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use serde_json::{Value, json};

use crate::gateway::{Sse, SseEvent, TestGateway, eventually, text, turn_id};

/// A server with a session `bad` that hangs in a turn with two more waiting, and a sound one, stopped by a crash.
async fn crashed() -> TestGateway {
    let mut server = TestGateway::on_sqlite(&[]);
    server.run("good", text("before")).await;
    server.hang("bad", json!({})).await;
    server.message("bad", text("waits")).await;
    server.kill9();
    server
}

fn spoil(server: &TestGateway, sql: &str) {
    let file = server.data_dir().join("greenroom.db");
    SqliteConnection::establish(file.to_str().unwrap()).unwrap().batch_execute(sql).unwrap();
}

/// All calls that need the session say what is wrong; the sound one works; a delete by force is the way out.
async fn is_contained(server: &TestGateway) {
    for _ in 0..2 {
        let refused = server.post("/v1/sessions/bad/messages", text("x")).await;
        let error = refused.refused(500, "session_unreadable");
        assert!(error["message"].as_str().unwrap().contains("force=true") && error["key"] == "bad", "{error}");
    }
    server.act("/v1/sessions/bad/reset").await.refused(500, "session_unreadable");
    assert_eq!(server.run("good", text("still")).await["turn"]["state"], "completed");
    let listed = server.get("/v1/sessions").await.ok(200);
    let keys: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"good"), "{keys:?}");
    server.get("/v1/choices").await.ok(200);
    eventually("ready", async || (server.get("/ready").await.status == 200).then_some(())).await;
    let last = last_seq(server, "bad").await;
    assert_eq!(server.delete("/v1/sessions/bad?force=true").await.status, 204);
    server.get("/v1/sessions/bad").await.refused(404, "session_not_found");
    // The key is as good as new, and goes on counting.
    let turn = turn_id(&server.run("bad", text("again")).await);
    assert_eq!(server.turn("bad", &turn).await["state"], "completed");
    let events = server.events("bad").await;
    assert_eq!((&events[0]["type"], &events[0]["seq"]), (&json!("session.deleted"), &json!(last + 1)));
}

/// The newest event of a key, from the feed, which needs nothing of the session.
async fn last_seq(server: &TestGateway, key: &str) -> u64 {
    let request = server.request("GET", "/v1/events?after=0&limit=1000").header("accept", "application/json");
    let page: Value = server.send(request).await.ok(200);
    let of_key = page["data"].as_array().unwrap().iter().filter(|event| event["session"] == key);
    of_key.filter_map(|event| event["seq"].as_u64()).max().unwrap()
}

#[tokio::test]
async fn a_session_with_a_spoilt_row_is_contained_and_can_be_deleted() {
    let mut server = crashed().await;
    spoil(&server, "UPDATE sessions SET metadata = '{nonsense' WHERE key = 'bad'");
    server.restart();
    server.get("/v1/sessions/bad").await.refused(500, "session_unreadable");
    is_contained(&server).await;
}

#[tokio::test]
async fn a_session_with_a_spoilt_turn_is_contained_and_can_be_deleted() {
    let mut server = crashed().await;
    spoil(&server, "UPDATE turns SET metadata = 'nonsense', usage = 'nonsense' WHERE key = 'bad'");
    server.restart();
    is_contained(&server).await;
}

#[tokio::test]
async fn events_that_are_spoilt_end_their_own_stream_and_pass_through_no_other() {
    let mut server = TestGateway::on_sqlite(&[]);
    server.run("bad", text("one")).await;
    server.run("good", text("two")).await;
    assert!(server.stop().success());
    spoil(&server, "UPDATE event_batches SET payload = 'x' || payload WHERE key = 'bad'");
    server.restart();
    let mut own = Sse::open(&server, "/v1/sessions/bad/events?after=0").await;
    assert_eq!(own.until_type("stream.end").await["data"]["reason"], "store_unavailable");
    // Over all sessions the place is named, and the others' events come.
    let mut feed = Sse::open(&server, "/v1/events?after=0").await;
    let (mut gaps, mut seen) = (0, Vec::new());
    while seen.last() != Some(&"turn.finished".to_owned()) {
        let data = match feed.next().await {
            SseEvent::Event { data, .. } => data,
            SseEvent::Closed => panic!("the feed has ended over events of one session"),
            _ => continue,
        };
        let event: Value = serde_json::from_str(&data).unwrap();
        assert!(event["session"] != "bad" || event["type"] == "stream.gap", "{event}");
        gaps += usize::from(event["data"]["reason"] == "unreadable" && event["session"] == "bad");
        if event["session"] == "good" {
            seen.push(event["type"].as_str().unwrap().to_owned());
        }
    }
    assert!(gaps > 0, "nobody was told");
}

/// What a session has in memory and what is stored can drift apart, as after a change by hand. It must not try the
/// same commit for ever.
#[tokio::test]
async fn a_session_that_does_not_fit_its_rows_any_more_is_opened_anew() {
    let server = TestGateway::on_sqlite(&[]);
    let turn = server.hang("k", json!({})).await;
    server.run("other", text("before")).await;
    let waiting = turn_id(&server.message("k", text("after")).await);
    spoil(&server, &format!("PRAGMA busy_timeout = 20000; DELETE FROM turns WHERE id = '{turn}'"));
    server.act("/v1/sessions/k/abort").await;
    // What waited runs, on what is stored.
    let done = eventually("what waited has run", async || {
        let reply = server.get(&format!("/v1/sessions/k/turns/{waiting}")).await;
        (reply.status == 200 && reply.json()["state"] == "completed").then_some(())
    });
    done.await;
    assert_eq!(server.run("other", text("after")).await["turn"]["state"], "completed");
    assert_eq!(server.run("k", text("and on")).await["turn"]["state"], "completed");
}

/// One session that fails inside again and again stays alone with it.
#[tokio::test]
async fn a_session_that_cannot_be_committed_is_left_alone_after_some_tries() {
    let server = TestGateway::on_sqlite(&[]);
    server.hang("k", json!({})).await;
    server.run("other", text("before")).await;
    // From now on no row of it can be changed.
    spoil(
        &server,
        "PRAGMA busy_timeout = 20000; CREATE TRIGGER t BEFORE INSERT ON event_batches WHEN NEW.key = 'k' \
         BEGIN SELECT RAISE(ABORT, 'no such column: spoilt'); END",
    );
    server.act("/v1/sessions/k/abort").await;
    let refused = eventually("left alone", async || {
        let reply = server.post("/v1/sessions/k/messages", text("x")).await;
        (reply.status == 502).then_some(reply)
    });
    let error = refused.await.refused(502, "agent_error");
    assert!(error["message"].as_str().unwrap().contains("failed inside"), "{error}");
    for _ in 0..3 {
        assert_eq!(server.run("other", text("goes on")).await["turn"]["state"], "completed");
    }
    spoil(&server, "PRAGMA busy_timeout = 20000; DROP TRIGGER t");
    assert_eq!(server.delete("/v1/sessions/k?force=true").await.status, 204);
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");
}
