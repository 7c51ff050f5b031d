//! `Idempotency-Key`: the same call happens once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::gateway::{
    Reply, Socket, Sse, TestGateway, play, str_of, text, turn_id,
    wire::{is_log, of_type},
};

async fn post(server: &TestGateway, path: &str, key: &str, body: Value) -> Reply {
    server.send(server.request("POST", path).header("idempotency-key", key).json(&body)).await
}

const MESSAGES: &str = "/v1/sessions/k/messages";

#[tokio::test]
async fn the_same_send_is_the_first_turn_again() {
    let mut server = TestGateway::start();
    let first = post(&server, MESSAGES, "once", text("hi")).await.ok(202);
    let id = turn_id(&first);
    let again = post(&server, MESSAGES, "once", text("hi")).await;
    assert_eq!(turn_id(&again.ok(202)), id);
    assert!(again.header("location").ends_with(&id));
    server.finished("k", &id).await;
    // It joins the turn also by waiting and by streaming.
    let waited = post(&server, &format!("{MESSAGES}?wait=30"), "once", text("hi")).await.ok(200);
    assert_eq!((turn_id(&waited), &waited["response"]), (id.clone(), &json!("hi")));
    let streamed = server.request("POST", MESSAGES).header("idempotency-key", "once");
    let mut stream = Sse::from(streamed.header("accept", "text/event-stream").json(&text("hi"))).await;
    let events = stream.rest().await;
    assert_eq!((&events[0]["type"], &events[0]["turn_id"]), (&json!("turn.queued"), &json!(id)));
    assert_eq!(events.last().unwrap()["type"], "turn.finished");

    post(&server, MESSAGES, "once", text("ho")).await.refused(409, "idempotency_key_reused");
    assert_ne!(turn_id(&post(&server, MESSAGES, "twice", text("hi")).await.ok(202)), id);
    // Scoped to the session.
    assert_ne!(turn_id(&post(&server, "/v1/sessions/other/messages", "once", text("hi")).await.ok(202)), id);

    server.kill9();
    server.restart();
    assert_eq!(turn_id(&post(&server, MESSAGES, "once", text("hi")).await.ok(202)), id);
    post(&server, MESSAGES, "once", text("ho")).await.refused(409, "idempotency_key_reused");
    let events = server.events("k").await;
    is_log(&events, 1);
    assert_eq!(of_type(&events, "turn.queued").len(), 2);
    server.assert_quiet();
}

#[tokio::test]
async fn many_at_once_are_one() {
    let server = TestGateway::start();
    let path = format!("{MESSAGES}?wait=30");
    let calls = (0..20).map(|_| post(&server, &path, "once", text("hi")));
    let ids: Vec<String> = join_all(calls).await.iter().map(|reply| turn_id(&reply.ok(200))).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let mixed = (0..20).map(|number| post(&server, MESSAGES, "mixed", text(if number % 2 == 0 { "a" } else { "b" })));
    let mixed = join_all(mixed).await;
    let accepted: Vec<String> =
        mixed.iter().filter(|reply| reply.status == 202).map(|reply| turn_id(&reply.json())).collect();
    assert_eq!(accepted.len(), 10);
    assert!(accepted.iter().all(|id| *id == accepted[0]), "{accepted:?}");
    for refused in mixed.iter().filter(|reply| reply.status != 202) {
        refused.refused(409, "idempotency_key_reused");
    }
    assert_eq!(of_type(&server.events("k").await, "turn.queued").len(), 2);
    server.assert_quiet();
}

#[tokio::test]
async fn sessions_are_made_once() {
    let mut server = TestGateway::start();
    let made = post(&server, "/v1/sessions", "once", json!({"title": "T"})).await.ok(201);
    let again = post(&server, "/v1/sessions", "once", json!({"title": "T"})).await.ok(201);
    assert_eq!(made["id"], again["id"]);
    post(&server, "/v1/sessions", "once", json!({"title": "U"})).await.refused(409, "idempotency_key_reused");
    let named = post(&server, "/v1/sessions", "named", json!({"key": "k"})).await.ok(201);
    assert_eq!(post(&server, "/v1/sessions", "named", json!({"key": "k"})).await.ok(201)["id"], named["id"]);
    // Another session is another request, and none is made.
    for other in [json!({"key": "l"}), json!({})] {
        post(&server, "/v1/sessions", "named", other).await.refused(409, "idempotency_key_reused");
    }
    server.get("/v1/sessions/l").await.refused(404, "session_not_found");
    server.kill9();
    server.restart();
    assert_eq!(post(&server, "/v1/sessions", "once", json!({"title": "T"})).await.ok(201)["id"], made["id"]);
    post(&server, "/v1/sessions", "named", json!({"key": "l"})).await.refused(409, "idempotency_key_reused");
}

#[tokio::test]
async fn many_sessions_at_once_are_one() {
    let server = TestGateway::start();
    for (name, body) in [("named", json!({"key": "k"})), ("generated", json!({"title": "T"}))] {
        let calls = (0..20).map(|_| post(&server, "/v1/sessions", name, body.clone()));
        let made: Vec<Value> = join_all(calls).await.iter().map(|reply| reply.ok(201)).collect();
        let ids: Vec<&str> = made.iter().map(|session| str_of(session, "id")).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{name}: {ids:?}");
    }
    // One key for many sessions: one of them is made.
    let calls = (0..20).map(|number| post(&server, "/v1/sessions", "mixed", json!({"key": format!("mixed-{number}")})));
    let replies = join_all(calls).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    for refused in replies.iter().filter(|reply| reply.status != 201) {
        refused.refused(409, "idempotency_key_reused");
    }
    assert_eq!(server.get("/v1/sessions?q=mixed").await.ok(200)["data"].as_array().unwrap().len(), 1);
    server.assert_quiet();
}

#[tokio::test]
async fn retries_are_made_once() {
    let server = TestGateway::start();
    let failed = turn_id(&server.run("k", play(json!({"fail": "no"}))).await);
    let path = format!("/v1/sessions/k/turns/{failed}/retry");
    let first = post(&server, &path, "once", json!({})).await.ok(202);
    assert_eq!(turn_id(&post(&server, &path, "once", json!({})).await.ok(202)), turn_id(&first));
    assert_eq!(of_type(&server.events("k").await, "turn.queued").len(), 2);
}

#[tokio::test]
async fn a_steered_text_is_steered_once() {
    let mut server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    let steer = json!({"text": "aside", "policy": "steer"});
    for _ in 0..3 {
        assert_eq!(turn_id(&post(&server, MESSAGES, "once", steer.clone()).await.ok(202)), running);
    }
    server.message("k", json!({"text": "last", "policy": "steer"})).await;
    server.until("k", |event| event["type"] == "turn.steered" && event["data"]["text"] == "last").await;
    assert_eq!(of_type(&server.events("k").await, "turn.steered").len(), 2);
    server.kill9();
    server.restart();
    assert_eq!(turn_id(&post(&server, MESSAGES, "once", steer).await.ok(202)), running);
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let server = TestGateway::start();
    server.hang("k", json!({})).await;
    let reject = json!({"text": "now or never", "policy": "reject"});
    post(&server, MESSAGES, "once", reject.clone()).await.refused(409, "session_busy");
    let running = str_of(&server.snapshot("k").await["current_turn"], "id").to_owned();
    server.act("/v1/sessions/k/abort").await.ok(200);
    server.finished("k", &running).await;
    post(&server, MESSAGES, "once", reject).await.ok(202);
}

#[tokio::test]
async fn keys_have_a_length() {
    let server = TestGateway::start();
    post(&server, MESSAGES, &"x".repeat(256), text("hi")).await.ok(202);
    post(&server, MESSAGES, &"x".repeat(257), text("hi")).await.refused(400, "idempotency_key_too_long");
}

#[tokio::test]
async fn a_message_that_was_sent_over_a_socket_is_the_same_over_http() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    let op = json!({"op": "send", "session": "k", "text": "hi", "client_id": "c", "idempotency_key": "once"});
    let first = turn_id(&socket.ok(op).await);
    let again = post(&server, MESSAGES, "once", json!({"client_id": "c", "text": "hi"})).await.ok(202);
    assert_eq!(turn_id(&again), first);
    post(&server, MESSAGES, "once", text("hi")).await.refused(409, "idempotency_key_reused");
}

#[tokio::test]
async fn a_reset_happens_once() {
    let mut server = TestGateway::start();
    server.hang("k", json!({})).await;
    let path = "/v1/sessions/k/reset";
    let (one, two) = futures_util::join!(post(&server, path, "r", json!({})), post(&server, path, "r", json!({})));
    let id = one.ok(200)["id"].clone();
    assert_eq!(two.ok(200)["id"], id, "both are the one reset");
    server.run("k", text("in the new one")).await;
    server.kill9();
    server.restart();
    assert_eq!(post(&server, path, "r", json!({})).await.ok(200)["id"], id);
    assert_eq!(server.snapshot("k").await["message_count"], 2, "nothing was reset again");
    assert_ne!(post(&server, path, "another", json!({})).await.ok(200)["id"], id);
}
