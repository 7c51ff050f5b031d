//! The log: every type that the echo agent can cause, its pages, the same bytes on every way.

use serde_json::{Value, json};

use crate::gateway::{
    Socket, Sse, TestGateway, play, str_of, text, turn_id,
    wire::{is_control, is_event, is_log, of_type, types},
};

/// Causes every type of event that can be caused without another agent, in a session `k`.
async fn cause_all(server: &TestGateway) {
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    server.patch("/v1/sessions/k", json!({"title": "T"})).await.ok(200);
    let tool = json!({"name": "bash", "input": {"command": "ls"}, "output": {"a": 1}});
    let steps = json!({"reasoning": 2, "tool": tool, "ask": "permission", "deltas": 3, "hang": true});
    let running = turn_id(&server.message("k", play(steps)).await);
    let events = server.until("k", |event| event["type"] == "choice.requested").await;
    let choice = str_of(&events.last().unwrap()["data"]["choice"], "id").to_owned();
    let first = turn_id(&server.message("k", text("first")).await);
    let second = turn_id(&server.message("k", text("second")).await);
    server.patch(&format!("/v1/sessions/k/turns/{first}"), text("changed")).await.ok(200);
    server.post(&format!("/v1/sessions/k/turns/{second}/move"), json!({"before": first})).await.ok(200);
    server.post(&format!("/v1/sessions/k/choices/{choice}"), json!({"allow": true})).await.ok(202);
    server.message("k", json!({"text": "aside", "policy": "steer"})).await;
    server.until("k", |event| event["type"] == "turn.steered").await;
    server.act(&format!("/v1/sessions/k/turns/{running}/cancel")).await;
    server.finished("k", &first).await;
    server.run("k", play(json!({"fail": "no"}))).await;
    server.act("/v1/sessions/k/reset").await.ok(200);
    server.patch("/v1/sessions/k", json!({"archived": true})).await.ok(200);
}

const ALL: &[&str] = &[
    "session.created",
    "session.updated",
    "session.reset",
    "session.archived",
    "turn.queued",
    "turn.started",
    "turn.updated",
    "turn.moved",
    "turn.steered",
    "turn.finished",
    "message.started",
    "message.delta",
    "message.completed",
    "tool.started",
    "tool.finished",
    "choice.requested",
    "choice.resolved",
];

#[tokio::test]
async fn every_type_has_its_fields_and_the_same_bytes_live_and_replayed() {
    let server = TestGateway::start();
    server.post("/v1/sessions", json!({"key": "k"})).await.ok(201);
    let mut live = Sse::open(&server, "/v1/sessions/k/events").await;
    let hello = live.until_type("session.hello").await;
    is_control(&hello);
    assert_eq!((&hello["data"]["last_seq"], &hello["data"]["oldest_seq"]), (&json!(1), &json!(1)));
    let mut live_socket = Socket::open(&server, "/v1/sessions/k/ws").await;
    is_control(&live_socket.until_type("session.hello").await);
    assert_eq!(server.delete("/v1/sessions/k").await.status, 204);
    cause_all(&server).await;
    let stored = server.stored("k").await;
    let events: Vec<Value> = stored.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    events.iter().for_each(is_event);
    is_log(&events, events[0]["seq"].as_u64().unwrap());
    for kind in ALL {
        assert!(types(&events).contains(kind), "{kind} was not caused");
    }
    let started: Vec<&Value> = of_type(&events, "turn.started").iter().map(|event| &event["data"]).collect();
    assert_eq!(started[0], &json!({"agent": "echo", "model": null, "cold_start": true, "resumed": "new"}));
    assert_eq!(started[1], &json!({"agent": "echo", "model": null, "cold_start": false, "resumed": null}));
    let finished: Vec<&str> =
        of_type(&events, "turn.finished").iter().map(|event| str_of(&event["data"], "state")).collect();
    assert_eq!(finished, ["cancelled", "completed", "completed", "failed"]);
    server.assert_quiet();
}

#[tokio::test]
async fn live_and_replay_are_the_same_bytes_on_every_way() {
    let server = TestGateway::start();
    server.message("k", text("zero")).await;
    let mut streams = (
        Sse::open(&server, "/v1/sessions/k/events?after=0").await,
        Socket::open(&server, "/v1/sessions/k/ws?after=0").await,
        Socket::open(&server, "/v1/ws").await,
    );
    streams.2.ok(json!({"op": "subscribe", "session": "k", "after": 0})).await;
    let tool = json!({"name": "bash", "input": {"command": "l\u{2028}s \u{1F600}"}, "output": [1.5, null]});
    server
        .run("k", play(json!({"reasoning": 3, "tool": tool, "deltas": 30, "delay_ms": 3, "text": "\u{e4}\n\"\\\r\n"})))
        .await;
    let stored = server.stored("k").await;
    for expected in &stored {
        assert_eq!(streams.0.stored().await.as_ref(), Some(expected), "SSE, live");
        assert_eq!(&streams.1.stored().await, expected, "the session's socket, live");
        assert_eq!(&streams.2.stored().await, expected, "the common socket, live");
    }
    let mut replays = (
        Sse::open(&server, "/v1/sessions/k/events?after=0").await,
        Socket::open(&server, "/v1/sessions/k/ws?after=0").await,
    );
    for expected in &stored {
        assert_eq!(replays.0.stored().await.as_ref(), Some(expected), "SSE, replayed");
        assert_eq!(&replays.1.stored().await, expected, "WebSocket, replayed");
    }
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn the_log_comes_in_pages() {
    let server = TestGateway::start();
    for _ in 0..3 {
        server.run("k", text("a b c")).await;
    }
    let all = server.events("k").await;
    let page = async |query: &str| {
        let path = format!("/v1/sessions/k/events?{query}");
        let reply = server.send(server.request("GET", &path).header("accept", "application/json")).await;
        assert_eq!(reply.header("content-type").split(';').next(), Some("application/json"));
        reply.ok(200)
    };
    let first = page("after=0&limit=5").await;
    assert_eq!(first["data"], json!(all[..5]));
    assert_eq!((&first["first_id"], &first["last_id"], &first["has_more"]), (&json!(1), &json!(5), &json!(true)));
    assert_eq!(page("after=5&limit=1000").await["data"], json!(all[5..]));
    let last = all.len();
    let end = page(&format!("after={last}")).await;
    assert_eq!(end, json!({"data": [], "first_id": null, "last_id": null, "has_more": false}));
    assert_eq!(page(&format!("after={}", last + 100)).await["data"], json!([]));
    assert_eq!(page("before=4&limit=2").await["data"], json!(all[1..3]));
    assert_eq!(page("before=1").await["data"], json!([]));
    let turns = page("after=0&types=turn.,session.created&limit=1000").await;
    let wanted: Vec<&Value> = all
        .iter()
        .filter(|event| {
            let kind = str_of(event, "type");
            kind.starts_with("turn.") || kind == "session.created"
        })
        .collect();
    assert_eq!(turns["data"], json!(wanted));
    let few = page("before=1000000&types=turn.finished&limit=2").await;
    assert_eq!(few["data"].as_array().unwrap().len(), 2);
    assert_eq!(few["has_more"], true);
    server.assert_quiet();
}

#[tokio::test]
async fn the_log_is_the_same_after_a_restart() {
    let mut server = TestGateway::start();
    cause_all(&server).await;
    let before = server.stored("k").await;
    server.kill9();
    server.restart();
    assert_eq!(server.stored("k").await, before);
    server.assert_quiet();
}
