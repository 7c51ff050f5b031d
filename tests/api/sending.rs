//! Sending a message: what it takes, and the three ways to answer.

use serde_json::{Value, json};

use crate::gateway::{
    Sse, TestGateway, play, str_of, text, turn_id,
    wire::{TURN, USAGE, has, is_event, is_id, is_log, is_time, types},
};

#[tokio::test]
async fn accepted_means_a_turn_with_a_place() {
    let server = TestGateway::start();
    let body = json!({"text": "  hello there  ", "source": "test", "client_id": "mine-1", "metadata": {"a": [1]}});
    let reply = server.post("/v1/sessions/web:alice/messages", body).await;
    let answer = reply.ok(202);
    let mut fields: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["position", "turn"]);
    assert_eq!(answer["position"], 0);
    let turn = &answer["turn"];
    has(turn, TURN);
    has(&turn["usage"], USAGE);
    is_id(&turn["id"], "turn");
    is_time(&turn["created_at"]);
    for (field, value) in [
        ("session", "web:alice"),
        ("source", "test"),
        ("text", "hello there"),
        ("agent", "echo"),
        ("client_id", "mine-1"),
    ] {
        assert_eq!(turn[field], value, "{field}");
    }
    assert_eq!((&turn["metadata"], &turn["attempt"]), (&json!({"a": [1]}), &json!(1)));
    let id = str_of(turn, "id");
    let location = reply.header("location");
    assert!(
        location == format!("/v1/sessions/web:alice/turns/{id}")
            || location == format!("/v1/sessions/web%3Aalice/turns/{id}"),
        "{location}"
    );
    assert_eq!(server.get(location).await.ok(200)["id"], *id);
    let done = server.finished("web:alice", id).await;
    assert_eq!((&done["state"], &done["summary"]), (&json!("completed"), &json!("hello there")));
    is_time(&done["started_at"]);
    is_time(&done["finished_at"]);
    assert_eq!(
        (&done["position"], &done["error"], &done["continued_from"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(done["usage"]["output_tokens"], 2);
    let messages = server.get("/v1/sessions/web:alice/messages?order=asc").await.ok(200);
    assert_eq!(messages["data"][0]["client_id"], "mine-1");
    assert_eq!(messages["data"][0]["role"], "user");
    is_id(&messages["data"][0]["id"], "msg");
    let default = server.message("web:alice", text("x")).await;
    assert_eq!(default["turn"]["source"], "api");
    server.assert_quiet();
}

#[tokio::test]
async fn waiting_gives_the_end_of_the_turn() {
    let server = TestGateway::start();
    let done = server.post("/v1/sessions/k/messages?wait=30", text("one two")).await.ok(200);
    assert_eq!((&done["response"], &done["turn"]["state"]), (&json!("one two"), &json!("completed")));
    let prefer = server.request("POST", "/v1/sessions/k/messages").header("prefer", "respond-async, wait=30");
    assert_eq!(server.send(prefer.json(&text("three"))).await.ok(200)["response"], "three");
    // Whatever the state.
    let failed = server.run("k", play(json!({"text": "half", "fail": "no luck"}))).await;
    assert_eq!((&failed["turn"]["state"], &failed["response"]), (&json!("failed"), &json!("half")));
    assert_eq!(failed["turn"]["error"]["message"], "no luck");
    // Time is up: as if nobody had waited.
    let late = server.post("/v1/sessions/k/messages?wait=0.05", play(json!({"hang": true}))).await;
    let late_body = late.ok(202);
    assert!(late.header("location").ends_with(&turn_id(&late_body)));
    assert_eq!(late_body["turn"]["state"], "running");
    let queued = server.post("/v1/sessions/k/messages?wait=0", text("x")).await.ok(202);
    assert_eq!((&queued["turn"]["state"], &queued["position"]), (&json!("queued"), &json!(0)));
    for bad in ["601", "-1", "x", "NaN"] {
        let refused = server.post(&format!("/v1/sessions/k/messages?wait={bad}"), text("x")).await;
        assert_eq!(refused.status, 400, "{bad}: {}", refused.text);
        refused.assert_envelope();
    }
    assert_eq!(server.snapshot("k").await["queue_depth"], 1, "what was refused is not accepted");
    server.assert_quiet();
}

#[tokio::test]
async fn a_waiting_turn_can_be_waited_for_until_it_is_cancelled() {
    let server = TestGateway::start();
    server.hang("k", json!({})).await;
    let waiting = server.post("/v1/sessions/k/messages?wait=30", text("never"));
    let clear = async {
        server.until("k", |event| event["type"] == "turn.queued" && event["data"]["turn"]["text"] == "never").await;
        server.delete("/v1/sessions/k/queue").await.ok(200)
    };
    let (waited, cleared) = tokio::join!(waiting, clear);
    assert_eq!(cleared, json!({"cancelled": 1}));
    assert_eq!(waited.ok(200)["turn"]["state"], "cancelled");
}

#[tokio::test]
async fn a_streamed_answer_has_the_turn_and_nothing_else() {
    let server = TestGateway::start();
    server.hang("k", json!({"delay_ms": 1})).await;
    let request = server.request("POST", "/v1/sessions/k/messages").header("accept", "text/event-stream");
    let mut stream = Sse::from(request.json(&text("one two three"))).await;
    assert_eq!(stream.headers["cache-control"], "no-store");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let first = stream.json().await.unwrap();
    assert_eq!(first["type"], "turn.queued");
    let id = str_of(&first, "turn_id").to_owned();
    server.message("k", text("another turn behind it")).await;
    server.act("/v1/sessions/k/abort").await.ok(200);
    let mut frames = vec![first];
    frames.extend(stream.rest().await);
    for frame in &frames {
        is_event(frame);
        assert_eq!(frame["turn_id"], *id);
    }
    assert_eq!(frames.last().unwrap()["type"], "turn.finished");
    assert!(
        types(&frames).contains(&"turn.started") && types(&frames).contains(&"message.delta"),
        "{:?}",
        types(&frames)
    );
    // A refusal is no stream.
    let request = server.request("POST", "/v1/sessions/k/messages").header("accept", "text/event-stream");
    server.send(request.json(&text("  "))).await.refused(400, "missing_text");
}

#[tokio::test]
async fn leaving_cancels_nothing() {
    let server = TestGateway::start();
    let request = server.request("POST", "/v1/sessions/k/messages").header("accept", "text/event-stream");
    let mut stream = Sse::from(request.json(&play(json!({"deltas": 20, "delay_ms": 10})))).await;
    let id = str_of(&stream.until_type("turn.started").await, "turn_id").to_owned();
    drop(stream);
    assert_eq!(server.finished("k", &id).await["state"], "completed");
}

#[tokio::test]
async fn what_a_message_must_be() {
    let server = TestGateway::start();
    let send = |body: Value| server.post("/v1/sessions/k/messages", body);
    for empty in [json!({}), text(""), text(" \n\t "), json!({"text": null}), json!({"attachments": []})] {
        send(empty).await.refused(400, "missing_text");
    }
    let file = |name: &str, content: &str| json!({"name": name, "media_type": "text/plain", "content_base64": content});
    for bad in [file("a", "not base64!"), file("", "aGk="), file("a", "")] {
        let refused = send(json!({"attachments": [bad]})).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        refused.assert_envelope();
    }
    let mut long = text("x");
    long["client_id"] = json!("x".repeat(65));
    assert_eq!(send(long).await.assert_envelope()["type"], "invalid_request_error");
    let mut policy = text("x");
    policy["policy"] = json!("sometimes");
    send(policy).await.refused(400, "invalid_json");
    server.get("/v1/sessions/k").await.refused(404, "session_not_found");

    let sent = send(json!({"attachments": [file("../a b.txt", "aGVsbG8=")]})).await.ok(202);
    let done = server.finished("k", &turn_id(&sent)).await;
    assert_eq!(done["attachments"], json!([{"name": "../a b.txt", "media_type": "text/plain", "bytes": 5}]));
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    let part = &messages["data"][0]["parts"][0];
    assert_eq!((&part["type"], &part["name"], &part["bytes"]), (&json!("file"), &json!("../a b.txt"), &json!(5)));
    is_log(&server.events("k").await, 1);
    server.assert_quiet();
}
