//! Questions that an agent waits on.

use serde_json::{Value, json};

use crate::gateway::{
    Socket, TestGateway, play, str_of, text, turn_id,
    wire::{CHOICE, has, is_id, is_log, is_time, of_type, said},
};

/// Has the agent ask; gives the turn and the choice.
async fn asked(server: &TestGateway, key: &str, steps: Value) -> (String, Value) {
    let turn = turn_id(&server.message(key, play(steps)).await);
    let fits = |event: &Value| event["type"] == "choice.requested" && event["turn_id"] == *turn;
    let events = server.until(key, fits).await;
    (turn, events.last().unwrap()["data"]["choice"].clone())
}

fn path(choice: &Value) -> String {
    format!("/v1/sessions/{}/choices/{}", str_of(choice, "session"), str_of(choice, "id"))
}

/// The `choice.resolved` of a choice.
async fn resolved(server: &TestGateway, choice: &Value) -> Value {
    let key = str_of(choice, "session");
    let fits = |event: &Value| event["type"] == "choice.resolved" && event["data"]["choice_id"] == choice["id"];
    server.until(key, fits).await.last().unwrap()["data"].clone()
}

#[tokio::test]
async fn a_permission_is_asked_and_given() {
    let server = TestGateway::start();
    let (turn, choice) = asked(&server, "k", json!({"ask": "permission", "text": "done"})).await;
    has(&choice, CHOICE);
    is_id(&choice["id"], "choice");
    is_time(&choice["created_at"]);
    is_time(&choice["expires_at"]);
    assert_eq!((&choice["session"], &choice["turn_id"]), (&json!("k"), &json!(turn)));
    assert_eq!((&choice["kind"], &choice["questions"]), (&json!("permission"), &Value::Null));
    for option in choice["options"].as_array().unwrap() {
        has(option, &["id", "label", "kind"]);
    }
    let snapshot = server.snapshot("k").await;
    assert_eq!(snapshot["current_turn"]["state"], "awaiting_choice");
    assert_eq!(snapshot["current_turn"]["pending_choice_id"], choice["id"]);
    assert_eq!(server.turn("k", &turn).await["state"], "awaiting_choice");
    for list in ["/v1/choices", "/v1/sessions/k/choices"] {
        assert_eq!(server.get(list).await.ok(200)["data"], json!([choice]), "{list}");
    }
    assert_eq!(server.get("/v1/sessions/k/state").await.ok(200)["choices"], json!([choice]));

    for bad in [
        json!({}),
        json!({"allow": "yes"}),
        json!({"option_id": "nope"}),
        json!({"answers": {"answer": "x"}}),
        json!({"allow": true, "option_id": "allow"}),
        json!({"allow": true, "extra": 1}),
        json!([]),
        json!(null),
    ] {
        server.post(&path(&choice), bad).await.refused(400, "invalid_choice_payload");
    }
    server.post(&path(&choice).replace("/k/", "/main/"), json!({"allow": true})).await.refused(404, "choice_not_found");
    server.post(&path(&choice), json!({"allow": true})).await.ok(202);
    let outcome = resolved(&server, &choice).await;
    assert_eq!(outcome["outcome"], json!({"option_id": "allow", "kind": "allow_once"}));
    assert_eq!(outcome["source"], "api");
    assert_eq!(server.finished("k", &turn).await["state"], "completed");
    server.post(&path(&choice), json!({"allow": true})).await.refused(409, "choice_already_resolved");
    assert_eq!(server.get("/v1/choices").await.ok(200)["data"], json!([]));
    let events = server.events("k").await;
    is_log(&events, 1);
    assert_eq!(said(&events, &turn, "text"), "permission: allow done");
    server.assert_quiet();
}

#[tokio::test]
async fn a_permission_is_refused_or_given_by_option() {
    let server = TestGateway::start();
    for (answer, outcome) in [
        (json!({"allow": false}), json!({"option_id": "reject", "kind": "reject_once"})),
        (json!({"option_id": "reject"}), json!({"option_id": "reject", "kind": "reject_once"})),
        (json!({"option_id": "allow"}), json!({"option_id": "allow", "kind": "allow_once"})),
    ] {
        let (turn, choice) = asked(&server, "k", json!({"ask": "permission"})).await;
        server.post(&path(&choice), answer).await.ok(202);
        assert_eq!(resolved(&server, &choice).await["outcome"], outcome);
        server.finished("k", &turn).await;
    }
}

#[tokio::test]
async fn allow_always_becomes_a_rule_that_survives() {
    let mut server = TestGateway::start();
    let (turn, choice) = asked(&server, "k", json!({"ask": "permission"})).await;
    server.post(&path(&choice), json!({"option_id": "always"})).await.ok(202);
    server.finished("k", &turn).await;
    let done = server.run("k", play(json!({"ask": "permission", "text": "done"}))).await;
    assert_eq!(done["response"].as_str().unwrap().split(' ').next_back(), Some("done"));
    let events = server.events("k").await;
    is_log(&events, 1);
    let by_rule = of_type(&events, "choice.resolved")[1];
    assert_eq!(by_rule["data"]["source"], "rule");
    server.kill9();
    server.restart();
    let again = server.run("k", play(json!({"ask": "permission", "text": "done"}))).await;
    assert_eq!(again["turn"]["state"], "completed");
    // The rule is this session's, and this conversation's.
    waits_for_an_answer(&server, "other").await;
    server.post("/v1/sessions/k/reset", json!({})).await.ok(200);
    waits_for_an_answer(&server, "k").await;
    server.kill9();
    server.restart();
    waits_for_an_answer(&server, "k").await;
}

/// Asks for a permission that no rule gives: what a rule answers is told too, and pends at no time.
async fn waits_for_an_answer(server: &TestGateway, key: &str) {
    let (_, choice) = asked(server, key, json!({"ask": "permission"})).await;
    let pending = server.get(&format!("/v1/sessions/{key}/choices")).await.ok(200);
    assert_eq!(pending["data"], json!([choice]));
}

#[tokio::test]
async fn a_question_is_asked_and_answered() {
    let server = TestGateway::start();
    let (turn, choice) = asked(&server, "k", json!({"ask": "question"})).await;
    assert_eq!((&choice["kind"], &choice["options"]), (&json!("question"), &json!([])));
    let question = choice["questions"][0].clone();
    has(&question, &["id", "question", "header", "multi", "options"]);
    has(&question["options"][0], &["label", "description"]);
    let id = str_of(&question, "id");
    for bad in [
        json!({"allow": true}),
        json!({"answers": {}}),
        json!({"answers": {"other": "x"}}),
        json!({"answers": "x"}),
        json!({"answers": {id: 5}}),
        json!({"answers": {id: ["this"]}}),
    ] {
        server.post(&path(&choice), bad).await.refused(400, "invalid_choice_payload");
    }
    server.post(&path(&choice), json!({"answers": {id: "free text"}})).await.ok(202);
    assert_eq!(resolved(&server, &choice).await["outcome"], json!({"answers": {id: "free text"}}));
    let done = server.finished("k", &turn).await;
    assert!(str_of(&done, "summary").contains("free text"), "{done}");
}

#[tokio::test]
async fn nobody_in_time_is_the_configured_outcome() {
    for (outcome, kind) in [("reject", "reject_once"), ("allow", "allow_once")] {
        let server =
            TestGateway::with(&[("GREENROOM_CHOICE__TIMEOUT", "150ms"), ("GREENROOM_CHOICE__ON_TIMEOUT", outcome)]);
        let (turn, choice) = asked(&server, "k", json!({"ask": "permission"})).await;
        let end = resolved(&server, &choice).await;
        assert_eq!((&end["source"], &end["outcome"]["kind"]), (&json!("timeout"), &json!(kind)));
        assert_eq!(server.finished("k", &turn).await["state"], "completed");
        server.post(&path(&choice), json!({"allow": true})).await.refused(409, "choice_already_resolved");
        let (turn, question) = asked(&server, "k", json!({"ask": "question"})).await;
        assert_eq!(resolved(&server, &question).await["source"], "timeout");
        server.finished("k", &turn).await;
        is_log(&server.events("k").await, 1);
    }
}

#[tokio::test]
async fn the_end_of_the_turn_settles_it() {
    let server = TestGateway::start();
    let (turn, choice) = asked(&server, "k", json!({"ask": "permission"})).await;
    server.act(&format!("/v1/sessions/k/turns/{turn}/cancel")).await;
    assert_eq!(server.finished("k", &turn).await["state"], "cancelled");
    let end = resolved(&server, &choice).await;
    assert_eq!(end["source"], "turn_ended");
    server.post(&path(&choice), json!({"allow": true})).await.refused(409, "choice_already_resolved");
    let (_, interrupted) = asked(&server, "k", json!({"ask": "question"})).await;
    server.message("k", json!({"text": "me first", "policy": "interrupt"})).await;
    assert_eq!(resolved(&server, &interrupted).await["source"], "turn_ended");
    server.until("k", |event| event["type"] == "turn.finished" && event["data"]["summary"] == "me first").await;
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn a_crash_settles_it() {
    let mut server = TestGateway::start();
    let (turn, choice) = asked(&server, "k", json!({"ask": "permission"})).await;
    server.kill9();
    server.restart();
    let done = server.finished("k", &turn).await;
    assert_eq!((&done["state"], &done["reason"]), (&json!("interrupted"), &json!("server_restart")));
    assert_eq!(resolved(&server, &choice).await["source"], "turn_ended");
    server.post(&path(&choice), json!({"allow": true})).await.refused(409, "choice_already_resolved");
    assert_eq!(server.get("/v1/choices").await.ok(200)["data"], json!([]));
    is_log(&server.events("k").await, 1);
}

#[tokio::test]
async fn it_outlives_every_client_and_any_can_answer() {
    let server = TestGateway::start();
    let mut socket = Socket::open(&server, "/v1/ws").await;
    socket
        .ok(json!({"op": "send", "session": "k", "text": crate::gateway::script(&json!({"ask": "permission"}))}))
        .await;
    socket.ok(json!({"op": "subscribe", "session": "k", "after": 0})).await;
    let choice = socket.until_type("choice.requested").await["data"]["choice"].clone();
    drop(socket);
    let mut other = Socket::open(&server, "/v1/sessions/k/ws?after=0").await;
    other.refused(json!({"op": "answer", "choice_id": choice["id"], "allow": 7}), "invalid_choice_payload").await;
    other.ok(json!({"op": "answer", "choice_id": choice["id"], "allow": true})).await;
    assert_eq!(other.until_type("choice.resolved").await["data"]["source"], "ws");
    other.until_type("turn.finished").await;
    other.refused(json!({"op": "answer", "choice_id": choice["id"], "allow": true}), "choice_already_resolved").await;
    other.refused(json!({"op": "answer", "choice_id": "choice_x", "allow": true}), "choice_not_found").await;
    assert_eq!(server.run("k", text("next")).await["response"], "next");
}

#[tokio::test]
async fn a_no_is_taken_where_the_agent_offers_only_a_yes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let command = json!(["node", script]).to_string();
    let server =
        TestGateway::with(&[("GREENROOM_AGENTS__FAKE__KIND", "acp"), ("GREENROOM_AGENTS__FAKE__COMMAND", &command)]);
    let options = json!([{"optionId": "y", "name": "Yes", "kind": "allow_once"}]);
    let asks = json!([{"ask": {"toolCall": {"toolCallId": "t", "title": "rm"}, "options": options}}]);
    let id = turn_id(&server.message("k", json!({"text": asks.to_string(), "agent": "fake"})).await);
    let asked = server.until("k", |event| event["type"] == "choice.requested").await;
    let choice = str_of(&asked.last().unwrap()["data"]["choice"], "id").to_owned();
    server.post(&format!("/v1/sessions/k/choices/{choice}"), json!({"allow": false})).await.ok(202);
    assert_eq!(server.finished("k", &id).await["state"], "completed");
    let events = server.events("k").await;
    let outcome = &of_type(&events, "choice.resolved")[0]["data"]["outcome"];
    assert_eq!(outcome, &json!({"cancelled": true}));
    assert!(said(&events, &id, "text").contains("cancelled"), "the agent was told");
}
