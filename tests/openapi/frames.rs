//! Events and frames against their named schemas, over every transport.

use serde_json::{Value, json};

use crate::{
    contract::Contract,
    gateway::{Socket, Sse, SseEvent, TestGateway, play, text},
};

/// A session in which as much happens as the echo agent can make happen.
async fn busy_session(server: &TestGateway) {
    let tool = json!({"name": "bash", "input": {"command": "ls"}, "output": "a b", "is_error": false});
    server.run("k", play(json!({"reasoning": 2, "tool": tool, "deltas": 2, "text": "done"}))).await;
    server.run("k", play(json!({"fail": "no luck"}))).await;
    let asks = server.message("k", play(json!({"ask": "permission"}))).await;
    let asked = server.until("k", |event| event["type"] == "choice.requested").await;
    let choice = asked.last().unwrap()["data"]["choice"]["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/sessions/k/choices/{choice}"), json!({"option_id": "always"})).await.ok(202);
    server.finished("k", asks["turn"]["id"].as_str().unwrap()).await;
    let asks = server.message("k", play(json!({"ask": "question"}))).await;
    server.until("k", |event| event["type"] == "choice.requested" && event["turn_id"] == asks["turn"]["id"]).await;
    server.post("/v1/sessions/k/abort", json!({})).await.ok(200);
    server.finished("k", asks["turn"]["id"].as_str().unwrap()).await;
    server.hang("k", json!({})).await;
    let first = server.message("k", text("first")).await;
    let second = server.message("k", text("second")).await;
    server.message("k", json!({"text": "steered", "policy": "steer"})).await;
    let (first, second) = (first["turn"]["id"].as_str().unwrap(), second["turn"]["id"].as_str().unwrap());
    server.patch(&format!("/v1/sessions/k/turns/{first}"), json!({"text": "other"})).await.ok(200);
    server.post(&format!("/v1/sessions/k/turns/{second}/move"), json!({"before": first})).await.ok(200);
    server.patch("/v1/sessions/k", json!({"title": "A title", "metadata": {"a": 1}})).await.ok(200);
    server.post("/v1/sessions/k/reset", json!({})).await.ok(200);
    server.patch("/v1/sessions/k", json!({"archived": true})).await.ok(200);
}

#[tokio::test]
async fn every_event_and_frame_has_its_form() {
    let server = TestGateway::start();
    let contract = Contract::of(&server).await;
    busy_session(&server).await;
    let events = server.events("k").await;
    for event in &events {
        contract.check("/components/schemas/Event", event);
        contract.check("/components/schemas/StreamFrame", event);
    }
    let mut kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in ["session.reset", "turn.steered", "turn.moved", "tool.finished", "choice.resolved", "message.delta"] {
        assert!(kinds.contains(&kind), "{kind} did not happen: {kinds:?}");
    }

    let mut stream = Sse::open(&server, "/v1/sessions/k/events?after=99999&types=session.").await;
    for kind in ["session.hello", "stream.gap"] {
        let frame = stream.until_type(kind).await;
        contract.check("/components/schemas/ControlFrame", &frame);
    }
    server.delete("/v1/sessions/k").await.ok(204);
    for frame in stream.rest().await {
        contract.check("/components/schemas/StreamFrame", &frame);
    }
}

#[tokio::test]
async fn the_feed_has_its_form_over_every_transport() {
    let server = TestGateway::start();
    let contract = Contract::of(&server).await;
    let mut stream = Sse::open(&server, "/v1/events").await;
    let mut socket = Socket::open(&server, "/v1/ws").await;
    let op = json!({"id": 1, "op": "subscribe", "session": "*", "after": "0", "types": ["turn."]});
    contract.check("/components/schemas/SocketRequest", &op);
    socket.text(op.to_string()).await;
    server.run("k", text("hi")).await;
    let (mut kinds, mut over_socket) = (Vec::new(), Vec::new());
    while !kinds.contains(&"turn.finished".to_owned()) {
        let SseEvent::Event { data, .. } = stream.next().await else { continue };
        let frame: Value = serde_json::from_str(&data).unwrap();
        contract.check("/components/schemas/StreamFrame", &frame);
        kinds.push(frame["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds[..2], ["stream.hello", "session.created"], "a place is a lone id here");
    while !over_socket.contains(&"turn.finished".to_owned()) {
        let frame = socket.json().await;
        contract.check("/components/schemas/SocketFrame", &frame);
        assert!(frame["seq"].is_null() || frame["cursor"].is_string(), "{frame}");
        over_socket.push(frame["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(over_socket[..3], ["reply", "stream.hello", "stream.cursor"]);
}

#[tokio::test]
async fn sockets_say_and_take_what_is_described() {
    let server = TestGateway::with(&[("GREENROOM_STREAM__HEARTBEAT", "1s")]);
    let contract = Contract::of(&server).await;
    server.hang("k", json!({})).await;
    let turn = server.message("k", text("waits")).await["turn"]["id"].clone();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    let mut frames = Vec::new();
    for (id, op) in [
        json!({"op": "ping"}),
        json!({"op": "snapshot", "session": "k"}),
        json!({"op": "subscribe", "session": "k", "after": 0, "types": ["turn."], "raw": false}),
        json!({"op": "send", "session": "k", "text": "hi", "policy": "enqueue", "idempotency_key": "one"}),
        json!({"op": "cancel", "session": "k", "turn_id": turn}),
        json!({"op": "answer", "session": "k", "choice_id": "choice_01kaknfh2vf9jbnz6qpv0g3x8c", "allow": true}),
        json!({"op": "abort", "session": "k"}),
        json!({"op": "unsubscribe", "session": "k"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut op = op;
        op["id"] = json!(id);
        contract.check("/components/schemas/SocketRequest", &op);
        socket.text(op.to_string()).await;
        loop {
            let frame = socket.json().await;
            frames.push(frame.clone());
            if frame["type"] == "reply" {
                assert_eq!(frame["id"], id);
                break;
            }
        }
    }
    frames.push(socket.until_type("ping").await);
    socket.text("no frame at all").await;
    frames.push(socket.json().await);
    for frame in &frames {
        contract.check("/components/schemas/SocketFrame", frame);
    }
    assert!(frames.iter().any(|frame| frame["type"] == "session.hello"), "{frames:?}");
}
