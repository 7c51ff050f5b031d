//! Chats of the Vercel AI SDK on the wire: what is taken, which turn is shown, and how a stream ends.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::gateway::{Reply, TestGateway, in_time, play, script, str_of, text};

/// The parts of a stream; `[DONE]` is a text.
fn parts(body: &str) -> Vec<Value> {
    let data = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
}

fn types(parts: &[Value]) -> Vec<&str> {
    parts.iter().map(|part| part["type"].as_str().or(part.as_str()).unwrap()).collect()
}

/// The text that a stream tells.
fn told(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let parts = parts(&reply.text);
    parts.iter().filter(|part| part["type"] == "text-delta").map(|part| part["delta"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_form_of_a_message_is_taken() {
    let server = TestGateway::start();
    let message = |body: &str| json!([{"id": "m-1", "role": "user", "parts": [{"type": "text", "text": body}]}]);
    for (path, body) in [
        ("/v1/chat", json!({"id": "web:a", "messages": message("hi there"), "trigger": "submit-message", "own": 1})),
        ("/v1/sessions/web:a/chat", json!({"id": "no key of ours!", "messages": message("hi there")})),
        ("/v1/sessions/web:a/chat", json!({"text": "hi there"})),
        ("/v1/sessions/web:a/chat", json!({"prompt": "hi there", "agent": "echo"})),
    ] {
        let reply = server.post(path, body).await;
        assert_eq!(told(&reply), "hi there", "{path}");
        assert_eq!(reply.header("x-vercel-ai-ui-message-stream"), "v1");
        assert_eq!(reply.header("content-type"), "text/event-stream");
        let turn = server.turn("web:a", reply.header("x-turn-id")).await;
        assert_eq!((&turn["text"], &turn["source"]), (&json!("hi there"), &json!("chat")));
        assert_eq!(parts(&reply.text).last(), Some(&json!("[DONE]")));
        assert!(!reply.text.contains("finishReason"), "5.0.0 does not know it");
    }
    // What goes wrong before the stream begins is told as everywhere.
    server.post("/v1/chat", json!({"messages": message("x")})).await.refused(400, "invalid_id");
    server.post("/v1/chat", json!({"id": "k"})).await.refused(400, "missing_text");
    server.post("/v1/chat", json!({"id": "k", "text": 5})).await.refused(400, "invalid_json");
    server.post("/v1/chat?ui=4", json!({"id": "k", "text": "x"})).await.refused(400, "invalid_parameter");
    server.post("/v1/sessions/k/chat", json!({"text": "x", "agent": "nobody"})).await.refused(400, "unknown_agent");
    let file = json!([{"role": "user", "parts": [{"type": "file", "mediaType": "a/b", "url": "http://127.0.0.1/"}]}]);
    server.post("/v1/sessions/k/chat", json!({"messages": file})).await.refused(400, "invalid_attachment");
    server
        .post(
            "/v1/sessions/web:a/chat",
            json!({"messages": [{"role": "assistant", "parts": [
                {"type": "dynamic-tool", "state": "approval-responded", "approval": {"id": "x", "approved": true}},
            ]}]}),
        )
        .await
        .refused(404, "choice_not_found");
    server.assert_quiet();
}

#[tokio::test]
async fn a_version_is_named_by_header_or_parameter() {
    let server = TestGateway::start();
    let named = server.post("/v1/sessions/k/chat?ui=6", text("x")).await;
    assert!(named.text.contains(r#"{"type":"finish","finishReason":"stop"}"#), "{}", named.text);
    let request = server.request("POST", "/v1/sessions/k/chat").header("x-ai-sdk-version", "5.0.277");
    assert!(server.send(request.json(&text("x"))).await.text.contains("finishReason"));
}

#[tokio::test]
async fn the_same_message_is_one_turn() {
    let server = TestGateway::start();
    let body = json!({"id": "k", "messages": [{"id": "m", "role": "user", "parts": [
        {"type": "text", "text": script(&json!({"deltas": 20, "delay_ms": 10}))},
    ]}]});
    let post = || server.send(server.request("POST", "/v1/chat").header("idempotency-key", "one").json(&body));
    let (first, joined) = tokio::join!(post(), post());
    let later = post().await;
    assert_eq!((&first.text, &first.text), (&joined.text, &later.text), "the same stream from its start");
    let turns = server.get("/v1/sessions/k/turns").await.ok(200);
    assert_eq!(turns["data"].as_array().unwrap().len(), 1);
    let other =
        server.request("POST", "/v1/chat").header("idempotency-key", "one").json(&json!({"id": "k", "text": "x"}));
    server.send(other).await.refused(409, "idempotency_key_reused");
}

#[tokio::test]
async fn a_turn_that_waits_is_shown_alone() {
    let server = TestGateway::start();
    server.message("k", play(json!({"deltas": 20, "delay_ms": 20, "text": "EARLIER"}))).await;
    let own = server.post("/v1/sessions/k/chat", text("mine")).await;
    assert_eq!(told(&own), "mine");
    assert!(!own.text.contains("EARLIER"));
    // Another answer is another turn.
    let again = json!({"trigger": "regenerate-message", "messages": [{"role": "user", "content": "mine"}]});
    assert_eq!(told(&server.post("/v1/sessions/k/chat", again).await), "mine");
    assert_eq!(server.get("/v1/sessions/k/turns").await.ok(200)["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_client_that_left_finds_its_turn_again() {
    let server = TestGateway::start();
    let nothing = server.get("/v1/chat/k/stream").await;
    assert_eq!((nothing.status, nothing.text.as_str()), (204, ""));
    server.get("/v1/sessions/k/chat/stream").await.refused(404, "session_not_found");
    let first = server.message("k", play(json!({"hang": true}))).await;
    // Its turn waits behind another one when the client goes.
    let request = server.request("POST", "/v1/sessions/k/chat").json(&text("mine"));
    let answer = in_time("the head", request.send()).await.unwrap();
    let turn = answer.headers()["x-turn-id"].to_str().unwrap().to_owned();
    drop(answer);
    assert_eq!(server.turn("k", &turn).await["state"], "queued");
    let asked = server.get("/v1/chat/k/stream");
    let (running, ()) = tokio::join!(asked, async {
        server.post("/v1/sessions/k/abort", json!({})).await.ok(200);
    });
    assert!([str_of(&first["turn"], "id"), &turn].contains(&running.header("x-turn-id")));
    server.finished("k", &turn).await;
    assert_eq!(server.get("/v1/chat/k/stream").await.status, 204);
    let by_id = server.get(&format!("/v1/sessions/k/chat/stream?turn={turn}")).await;
    assert_eq!(told(&by_id), "mine");
    assert_eq!(server.get("/v1/chat/k/stream?turn=last").await.text, by_id.text, "a replay is the same");
    server.get("/v1/chat/k/stream?turn=turn_x").await.refused(404, "turn_not_found");
}

#[tokio::test]
async fn a_server_that_stops_tells_of_no_end() {
    let mut server = TestGateway::with(&[("GREENROOM_SHUTDOWN__GRACE", "100ms")]);
    let hanging = text(&script(&json!({"text": "half", "hang": true})));
    let mut answer = server.request("POST", "/v1/sessions/k/chat").json(&hanging).send().await.unwrap();
    let mut body = Vec::new();
    while !String::from_utf8_lossy(&body).contains("half") {
        body.extend_from_slice(&in_time("a piece", answer.chunk()).await.unwrap().expect("more"));
    }
    server.signal(Signal::SIGTERM);
    while let Some(piece) = in_time("the rest", answer.chunk()).await.unwrap() {
        body.extend_from_slice(&piece);
    }
    let told = parts(&String::from_utf8(body).unwrap());
    let kinds = types(&told);
    assert!(kinds.contains(&"error") && !kinds.contains(&"finish"), "{kinds:?}");
    assert!(server.exit().await.success());
    // What there was of it is an error after the restart as well.
    server.restart();
    let again = server.get("/v1/sessions/k/chat/stream?turn=last").await;
    let kinds = parts(&again.text);
    assert_eq!(types(&kinds)[kinds.len() - 2..], ["error", "[DONE]"], "{}", again.text);
}
