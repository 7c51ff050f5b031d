//! Handing a session over to another agent or profile, and feedback.

use serde_json::json;

use crate::gateway::{TestGateway, str_of, text, turn_id, wire::of_type};

/// A second agent, so that there is one to hand over to.
const SECOND: (&str, &str) = ("GREENROOM_AGENTS__SECOND__KIND", "echo");

#[tokio::test]
async fn another_agent_goes_on_and_the_transcript_says_so() {
    let server = TestGateway::with(&[SECOND]);
    let first = server.run("k", text("begin")).await;
    server.put("/v1/sessions/k/mode", json!({"id": null})).await;
    let sent = server.post("/v1/sessions/k/continue", json!({"agent": "second", "text": "go on"})).await.ok(202);
    assert_eq!(sent["turn"]["continued_from"], first["turn"]["id"]);
    let turn = server.finished("k", &turn_id(&sent)).await;
    assert_eq!((&turn["agent"], &turn["state"]), (&json!("second"), &json!("completed")));
    assert_eq!(server.snapshot("k").await["agent"], "second");
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    let note = messages["data"].as_array().unwrap().iter().find(|message| message["role"] == "system").unwrap();
    assert_eq!(note["parts"][0]["text"], "Handed over from echo to second.");
    let events = server.events("k").await;
    let updated = of_type(&events, "session.updated");
    assert_eq!(updated.last().unwrap()["data"]["changed"]["agent"], "second");
    server.assert_quiet();
}

#[tokio::test]
async fn a_profile_can_be_handed_over_to_and_the_call_happens_once() {
    let server = TestGateway::start();
    server.run("k", text("begin")).await;
    let call = || {
        let body = json!({"profile": "reviewer", "text": "look at it"});
        server.request("POST", "/v1/sessions/k/continue").header("idempotency-key", "c1").json(&body)
    };
    let (one, two) = (server.send(call()).await.ok(202), server.send(call()).await.ok(202));
    assert_eq!(one["turn"]["id"], two["turn"]["id"]);
    server.finished("k", &turn_id(&one)).await;
    assert_eq!(server.snapshot("k").await["profile"], "reviewer");
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    let notes = messages["data"].as_array().unwrap().iter().filter(|message| message["role"] == "system");
    assert_eq!(notes.count(), 1);
}

#[tokio::test]
async fn only_what_has_ended_can_be_handed_over() {
    let server = TestGateway::with(&[SECOND]);
    let body = || json!({"agent": "second", "text": "go on"});
    server.post("/v1/sessions/none/continue", body()).await.refused(404, "session_not_found");
    server.post("/v1/sessions", json!({"key": "new"})).await.ok(201);
    server.post("/v1/sessions/new/continue", body()).await.refused(409, "session_busy");
    server.hang("k", json!({})).await;
    server.post("/v1/sessions/k/continue", body()).await.refused(409, "session_busy");
    assert_eq!(server.snapshot("k").await["agent"], "echo", "a refused call changes nothing");
    server.act("/v1/sessions/k/abort").await.ok(200);
    server.until("k", |event| event["type"] == "turn.finished").await;
    for (bad, code) in [
        (json!({"agent": "second"}), "missing_text"),
        (json!({"text": "x"}), "invalid_json"),
        (json!({"agent": "second", "text": "x", "nonsense": 1}), "invalid_json"),
    ] {
        server.post("/v1/sessions/k/continue", bad).await.refused(400, code);
    }
    let unknown = server.post("/v1/sessions/k/continue", json!({"agent": "nobody", "text": "x"})).await;
    assert!(unknown.status >= 400, "{unknown:?}");
    assert_eq!(server.snapshot("k").await["agent"], "echo");
}

#[tokio::test]
async fn feedback_is_for_the_session_or_one_of_its_turns() {
    let mut server = TestGateway::start();
    let turn = turn_id(&server.run("k", text("hi")).await);
    let path = "/v1/sessions/k/feedback";
    let given = server.put(path, json!({"rating": "down", "comment": "too short", "turn_id": turn})).await.ok(200);
    assert_eq!(given, json!({"rating": "down", "comment": "too short", "turn_id": turn}));
    server.put(path, json!({"rating": "up"})).await.ok(200);
    server.kill9();
    server.restart();
    let events = server.events("k").await;
    let told: Vec<_> =
        of_type(&events, "session.updated").iter().map(|event| event["data"]["changed"]["feedback"].clone()).collect();
    assert_eq!((told.len(), str_of(&told[0], "rating"), str_of(&told[1], "rating")), (2, "down", "up"));
    server.put(path, json!({"rating": "sideways"})).await.refused(400, "invalid_json");
    server.put(path, json!({"rating": "up", "comment": "x".repeat(4001)})).await.refused(413, "content_too_large");
    for malformed in ["turn_x", "", "msg_01hf7yat00fvk8v2zv8m7rzzzz"] {
        let refused = server.put(path, json!({"rating": "up", "turn_id": malformed})).await;
        assert_eq!(refused.refused(400, "invalid_id")["field"], "turn_id");
    }
    server.put(path, json!({"rating": "up", "turn_id": 7})).await.refused(400, "invalid_json");
    let other = "turn_01hf7yat00fvk8v2zv8m7rzzzz";
    server.put(path, json!({"rating": "up", "turn_id": other})).await.refused(404, "turn_not_found");
    server.put("/v1/sessions/none/feedback", json!({"rating": "up"})).await.refused(404, "session_not_found");
}
