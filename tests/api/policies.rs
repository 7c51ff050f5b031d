//! What happens to a message when the session is busy.

use serde_json::{Value, json};

use crate::gateway::{
    TestGateway, play, script, str_of, text, turn_id,
    wire::{is_log, of_type, said, types},
};

fn with(policy: &str, words: &str) -> Value {
    json!({"text": words, "policy": policy})
}

/// The texts of the turns that have started, in order.
fn started(events: &[Value]) -> Vec<String> {
    let queued = of_type(events, "turn.queued");
    let text_of = |id: &Value| {
        let queued = queued.iter().find(|event| event["turn_id"] == *id).unwrap();
        str_of(&queued["data"]["turn"], "text").to_owned()
    };
    of_type(events, "turn.started").iter().map(|event| text_of(&event["turn_id"])).collect()
}

/// Waits for the end of the turn with that text; gives all events.
async fn until_said(server: &TestGateway, words: &str) -> Vec<Value> {
    let events =
        server.until("k", |event| event["type"] == "turn.finished" && event["data"]["summary"] == *words).await;
    is_log(&events, 1);
    events
}

#[tokio::test]
async fn enqueue_waits_in_line() {
    let server = TestGateway::start();
    let hanging = script(&json!({"hang": true}));
    server.hang("k", json!({})).await;
    for (position, words) in ["one", "two", "three"].into_iter().enumerate() {
        let sent = server.message("k", with("enqueue", words)).await;
        assert_eq!((&sent["position"], &sent["turn"]["state"]), (&json!(position), &json!("queued")));
        assert_eq!(sent["turn"]["position"], position);
    }
    server.act("/v1/sessions/k/abort").await.ok(200);
    let events = until_said(&server, "three").await;
    assert_eq!(started(&events), [hanging.as_str(), "one", "two", "three"]);
    server.assert_quiet();
}

#[tokio::test]
async fn steer_goes_into_the_running_turn() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({"text": "before "})).await;
    server.message("k", text("waits")).await;
    let mut body = with("steer", "left a bit");
    body["source"] = json!("helm");
    body["client_id"] = json!("s-1");
    let sent = server.message("k", body).await;
    assert_eq!(sent["turn"]["id"], *running);
    let events = server.until("k", |event| event["type"] == "turn.steered").await;
    let steered = events.last().unwrap();
    assert_eq!(
        (&steered["turn_id"], &steered["data"]),
        (&json!(running), &json!({"text": "left a bit", "source": "helm"}))
    );
    server.message("k", with("steer", "right a bit")).await;
    server.until("k", |event| event["type"] == "turn.steered" && event["data"]["text"] == "right a bit").await;
    server.act("/v1/sessions/k/abort").await.ok(200);
    let events = until_said(&server, "waits").await;
    assert_eq!(said(&events, &running, "text"), "before steered: left a bitsteered: right a bit");
    let messages = server.get("/v1/sessions/k/messages?order=asc").await.ok(200);
    let messages = messages["data"].as_array().unwrap().clone();
    let roles: Vec<&str> = messages.iter().map(|message| str_of(message, "role")).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "assistant", "user", "assistant"]);
    assert_eq!((&messages[2]["parts"][0]["text"], &messages[2]["client_id"]), (&json!("left a bit"), &json!("s-1")));
    assert_eq!(server.get("/v1/sessions/k/turns").await.ok(200)["data"].as_array().unwrap().len(), 2);
    server.assert_quiet();
}

#[tokio::test]
async fn steer_is_enqueued_when_nothing_runs() {
    let server = TestGateway::start();
    let sent = server.message("k", with("steer", "just go")).await;
    assert_eq!(server.finished("k", &turn_id(&sent)).await["state"], "completed");
    let events = server.events("k").await;
    is_log(&events, 1);
    assert!(!types(&events).contains(&"turn.steered"));
}

#[tokio::test]
async fn a_steered_text_that_was_not_taken_becomes_a_turn_of_its_own() {
    let server = TestGateway::start();
    // While it waits for an answer the agent takes no text.
    let running = turn_id(&server.message("k", play(json!({"ask": "permission"}))).await);
    server.until("k", |event| event["type"] == "choice.requested").await;
    for words in ["first", "second"] {
        let sent = server.message("k", with("steer", words)).await;
        assert_eq!(sent["turn"]["id"], *running);
    }
    server.act(&format!("/v1/sessions/k/turns/{running}/cancel")).await;
    let events = until_said(&server, "second").await;
    assert_eq!(started(&events)[1..], ["first", "second"]);
    let turns = server.get("/v1/sessions/k/turns").await.ok(200);
    assert_eq!(turns["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn steers_that_come_too_late_keep_their_order() {
    let server = TestGateway::with(&[("GREENROOM_AGENT__CANCEL_TIMEOUT", "2s")]);
    let running = server.hang("k", json!({"ignore_cancel": true})).await;
    server.act(&format!("/v1/sessions/k/turns/{running}/cancel")).await;
    for words in ["first", "second", "third"] {
        server.message("k", with("steer", words)).await;
    }
    let last = server.until("k", |event| {
        event["type"] == "turn.finished" && event["data"]["state"] == "completed" && event["data"]["summary"] == "third"
    });
    let events = last.await;
    is_log(&events, 1);
    assert_eq!(started(&events)[1..], ["first", "second", "third"]);
}

#[tokio::test]
async fn interrupt_stops_the_running_turn_and_goes_next() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    server.message("k", text("waits")).await;
    let sent = server.message("k", with("interrupt", "me first")).await;
    assert_eq!(sent["position"], 0);
    let events = until_said(&server, "waits").await;
    assert_eq!(started(&events)[1..], ["me first", "waits"]);
    let stopped = server.turn("k", &running).await;
    assert_eq!(stopped["state"], "cancelled");
    assert!(stopped["reason"].is_string());
    let idle = server.run("k", with("interrupt", "nothing to stop")).await;
    assert_eq!(idle["turn"]["state"], "completed");
}

#[tokio::test]
async fn reject_refuses_when_busy() {
    let server = TestGateway::start();
    assert_eq!(server.run("k", with("reject", "idle")).await["response"], "idle");
    server.hang("k", json!({})).await;
    server.post("/v1/sessions/k/messages", with("reject", "busy")).await.refused(409, "session_busy");
    assert_eq!(server.snapshot("k").await["queue_depth"], 0);
}

#[tokio::test]
async fn replace_drops_what_waits() {
    let server = TestGateway::start();
    let running = server.hang("k", json!({})).await;
    let mut dropped = Vec::new();
    for words in ["one", "two"] {
        dropped.push(turn_id(&server.message("k", text(words)).await));
    }
    let sent = server.message("k", with("replace", "instead")).await;
    assert_eq!(sent["position"], 0);
    for turn in &dropped {
        assert_eq!(server.turn("k", turn).await["state"], "cancelled");
    }
    assert_eq!(server.turn("k", &running).await["state"], "running", "what runs goes on");
    server.act("/v1/sessions/k/abort").await.ok(200);
    let events = until_said(&server, "instead").await;
    assert_eq!(started(&events).len(), 2);
}
