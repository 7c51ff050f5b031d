//! Turns that wait or run: cancelled, aborted, cleared, edited, moved, tried again; the queue's bound.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::gateway::{
    TestGateway, play, str_of, text, turn_id,
    wire::{is_log, of_type},
};

#[tokio::test]
async fn a_queued_turn_is_cancelled_at_once() {
    let server = TestGateway::start();
    server.hang("k", json!({})).await;
    let waiting = turn_id(&server.message("k", text("waits")).await);
    let path = format!("/v1/sessions/k/turns/{waiting}/cancel");
    let answer = server.act(&path).await;
    assert!((200..300).contains(&answer.status), "{}", answer.text);
    assert_eq!(server.turn("k", &waiting).await["state"], "cancelled");
    server.act(&path).await.refused(409, "turn_not_cancellable");
    let other = server.run("other", text("x")).await;
    server.act(&format!("/v1/sessions/k/turns/{}/cancel", turn_id(&other))).await.refused(404, "turn_not_found");
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn a_running_turn_is_cancelled_when_the_agent_has_stopped() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({"text": "so far"})).await;
    server.until("k", |event| event["type"] == "message.delta").await;
    let path = format!("/v1/sessions/k/turns/{running}/cancel");
    assert!((200..300).contains(&server.act(&path).await.status));
    let turn = server.finished("k", &running).await;
    assert_eq!((&turn["state"], &turn["summary"]), (&json!("cancelled"), &json!("so far")));
    server.act(&path).await.refused(409, "turn_not_cancellable");
    let done = server.run("k", text("x")).await;
    server.act(&format!("/v1/sessions/k/turns/{}/cancel", turn_id(&done))).await.refused(409, "turn_not_cancellable");
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    assert_eq!(messages["data"][1]["parts"][0]["text"], "so far", "what was said is kept");
}

#[tokio::test]
async fn an_agent_that_does_not_hear_is_stopped_by_the_deadline() {
    let server = TestGateway::with(&[("GREENROOM_AGENT__CANCEL_TIMEOUT", "200ms")]);
    let running = server.hang("k", json!({"ignore_cancel": true})).await;
    let asked = Instant::now();
    server.act(&format!("/v1/sessions/k/turns/{running}/cancel")).await;
    assert_eq!(server.turn("k", &running).await["state"], "running", "asked is not stopped");
    let turn = server.finished("k", &running).await;
    assert_eq!(turn["state"], "cancelled");
    assert!(asked.elapsed() >= Duration::from_millis(200), "the deadline was waited for");
    assert_eq!(server.run("k", text("next")).await["response"], "next");
    is_log(&server.events("k").await, 1);
    server.assert_quiet();
}

#[tokio::test]
async fn abort_stops_what_runs() {
    let server = TestGateway::start();
    server.run("k", text("x")).await;
    assert_eq!(server.act("/v1/sessions/k/abort").await.ok(200), json!({"ok": false}));
    let running = server.hang("k", json!({})).await;
    assert_eq!(server.act("/v1/sessions/k/abort").await.ok(200), json!({"ok": true, "turn_id": running}));
    assert_eq!(server.finished("k", &running).await["state"], "cancelled");
}

#[tokio::test]
async fn clearing_the_queue_settles_all_that_waits() {
    let server = TestGateway::start();
    server.run("k", text("x")).await;
    assert_eq!(server.delete("/v1/sessions/k/queue").await.ok(200), json!({"cancelled": 0}));
    let running = server.hang("k", json!({})).await;
    let mut waiting = Vec::new();
    for words in ["one", "two", "three"] {
        waiting.push(turn_id(&server.message("k", text(words)).await));
    }
    assert_eq!(server.delete("/v1/sessions/k/queue").await.ok(200), json!({"cancelled": 3}));
    for turn in &waiting {
        let turn = server.turn("k", turn).await;
        assert_eq!(turn["state"], "cancelled");
        assert!(turn["reason"].is_string());
    }
    assert_eq!(server.turn("k", &running).await["state"], "running");
    assert_eq!(server.snapshot("k").await["queue_depth"], 0);
}

#[tokio::test]
async fn what_happens_in_the_queue_does_not_touch_what_runs() {
    let server = TestGateway::start();
    let play_on = async |way: &str| {
        let running = turn_id(&server.message(way, play(json!({"deltas": 100, "bytes": 10, "delay_ms": 30}))).await);
        server.until(way, |event| event["type"] == "message.delta").await;
        let first = turn_id(&server.message(way, text("first")).await);
        server.message(way, text("second")).await;
        let turn = format!("/v1/sessions/{way}/turns/{first}");
        match way {
            "cancel" => drop(server.act(&format!("{turn}/cancel")).await.ok(200)),
            "clear" => drop(server.delete(&format!("/v1/sessions/{way}/queue")).await.ok(200)),
            "replace" => drop(server.message(way, json!({"text": "third", "policy": "replace"})).await),
            "edit" => drop(server.patch(&turn, text("other")).await.ok(200)),
            _ => drop(server.post(&format!("{turn}/move"), json!({"before": null})).await.ok(200)),
        }
        assert_eq!(server.turn(way, &running).await["state"], "running", "{way}");
        let done = server.finished(way, &running).await;
        assert_eq!((&done["state"], &done["usage"]["output_tokens"]), (&json!("completed"), &json!(100)), "{way}");
    };
    join_all(["cancel", "clear", "replace", "edit", "move"].map(play_on)).await;
    server.assert_quiet();
}

#[tokio::test]
async fn a_queued_turn_can_be_edited() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    let waiting = turn_id(&server.message("k", text("draft")).await);
    let path = format!("/v1/sessions/k/turns/{waiting}");
    let edited = server.patch(&path, text("  final ")).await.ok(200);
    assert_eq!((&edited["text"], &edited["state"]), (&json!("final"), &json!("queued")));
    server.patch(&path, text(" ")).await.refused(400, "missing_text");
    server.patch(&path, text(&"x".repeat(1_048_577))).await.refused(413, "content_too_large");
    server.patch(&path, json!({})).await.assert_envelope();
    server.patch(&format!("/v1/sessions/k/turns/{running}"), text("x")).await.refused(409, "turn_not_queued");
    server.act("/v1/sessions/k/abort").await.ok(200);
    assert_eq!(server.finished("k", &waiting).await["summary"], "final");
    server.patch(&path, text("too late")).await.refused(409, "turn_not_queued");
    let events = server.events("k").await;
    is_log(&events, 1);
    let updated = of_type(&events, "turn.updated");
    assert_eq!((updated.len(), &updated[0]["data"]["turn"]["text"]), (1, &json!("final")));
}

#[tokio::test]
async fn queued_turns_can_be_moved() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    let mut ids = Vec::new();
    for words in ["a", "b", "c"] {
        ids.push(turn_id(&server.message("k", text(words)).await));
    }
    let queue = async || -> Vec<String> {
        let state = server.get("/v1/sessions/k/state").await.ok(200);
        state["queue"].as_array().unwrap().iter().map(|turn| str_of(turn, "text").to_owned()).collect()
    };
    let place = async |id: &str, before: Value| {
        server.post(&format!("/v1/sessions/k/turns/{id}/move"), json!({"before": before})).await
    };
    assert_eq!(place(&ids[2], json!(ids[0])).await.ok(200)["position"], 0);
    assert_eq!(queue().await, ["c", "a", "b"]);
    assert_eq!(place(&ids[0], Value::Null).await.ok(200)["position"], 2);
    assert_eq!(queue().await, ["c", "b", "a"]);
    place(&running, Value::Null).await.refused(409, "turn_not_queued");
    place(&ids[0], json!(running)).await.refused(409, "turn_not_queued");
    place(&ids[0], json!("turn_01h455vb4pex5vsknk084sn02q")).await.refused(404, "turn_not_found");
    server.post(&format!("/v1/sessions/k/turns/{}/move", ids[0]), json!({})).await.assert_envelope();
    server.act("/v1/sessions/k/abort").await.ok(200);
    let events = server.until("k", |event| event["type"] == "turn.finished" && event["turn_id"] == *ids[0]).await;
    is_log(&events, 1);
    let order: Vec<&Value> = of_type(&events, "turn.started").iter().map(|event| &event["turn_id"]).collect();
    assert_eq!(order, [&json!(running), &json!(ids[2]), &json!(ids[1]), &json!(ids[0])]);
    let moved: Vec<&Value> = of_type(&events, "turn.moved").iter().map(|event| &event["data"]).collect();
    assert_eq!(moved[0], &json!({"turn_id": ids[2], "position": 0}));
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let server = TestGateway::with(&[("GREENROOM_SESSION__MAX_QUEUE", "2")]);
    server.hang("k", json!({})).await;
    for words in ["one", "two"] {
        server.message("k", text(words)).await;
    }
    for policy in ["enqueue", "interrupt"] {
        let refused = server.post("/v1/sessions/k/messages", json!({"text": "three", "policy": policy})).await;
        let error = refused.refused(429, "queue_full");
        assert_eq!(error["depth"], 2, "{error}");
    }
    assert_eq!(server.snapshot("k").await["current_turn"]["state"], "running", "a refused interrupt stops nothing");
    server.message("k", json!({"text": "instead", "policy": "replace"})).await;
    assert_eq!(server.snapshot("k").await["queue_depth"], 1);
    server.assert_quiet();
}

#[tokio::test]
async fn what_ended_badly_can_be_tried_again() {
    let server = TestGateway::start();
    let failed = server.run("k", play(json!({"fail": "no luck"}))).await;
    let id = turn_id(&failed);
    let reply = server.act(&format!("/v1/sessions/k/turns/{id}/retry")).await;
    let again = reply.ok(202);
    assert!(reply.header("location").ends_with(&turn_id(&again)));
    assert_ne!(turn_id(&again), id);
    assert_eq!((&again["turn"]["continued_from"], &again["turn"]["attempt"]), (&json!(id), &json!(2)));
    assert_eq!(again["turn"]["text"], failed["turn"]["text"]);
    assert_eq!(server.finished("k", &turn_id(&again)).await["state"], "failed");
    assert_eq!(server.turn("k", &id).await["state"], "failed", "a terminal state never changes");

    let running = server.hang("k", json!({})).await;
    let retry = async |id: &str| server.act(&format!("/v1/sessions/k/turns/{id}/retry")).await;
    assert_eq!(retry(&running).await.assert_envelope()["type"], "conflict_error");
    server.act("/v1/sessions/k/abort").await.ok(200);
    server.finished("k", &running).await;
    retry(&running).await.ok(202);
    server.act("/v1/sessions/k/abort").await.ok(200);
    let done = server.run("k", text("fine")).await;
    assert_eq!(retry(&turn_id(&done)).await.assert_envelope()["type"], "conflict_error");
    is_log(&server.events("k").await, 1);
}
