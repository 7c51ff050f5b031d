//! What is bounded over all sessions: turns that run at once, and how long one waits for its place.

use serde_json::json;

use crate::gateway::{TestGateway, eventually, script, str_of, text, turn_id, wire::of_type};

const ONE: (&str, &str) = ("GREENROOM_POOL__MAX_RUNNING", "1");

#[tokio::test]
async fn turns_wait_for_their_place_and_get_it_in_the_order_in_which_they_came() {
    let server = TestGateway::with(&[ONE]);
    let first = server.hang("a", json!({})).await;
    // Behind the one that runs, and therefore behind all that wait when it ends.
    server.message("a", text("again")).await;
    server.message("b", text("one")).await;
    server.message("c", text("two")).await;
    let waiting = server.get("/v1/sessions/b").await.ok(200);
    assert_eq!(waiting["current_turn"]["state"], "starting");
    server.act("/v1/sessions/a/abort").await.ok(200);
    let mut starts = Vec::new();
    for (key, words) in [("a", "again"), ("b", "one"), ("c", "two")] {
        let events =
            server.until(key, |event| event["type"] == "turn.finished" && event["data"]["summary"] == *words).await;
        let started = of_type(&events, "turn.started");
        starts.push((str_of(started.last().unwrap(), "at").to_owned(), key));
        assert_eq!(started.first().unwrap()["turn_id"] == json!(first), key == "a");
    }
    starts.sort();
    assert_eq!(starts.iter().map(|(_, key)| *key).collect::<Vec<_>>(), ["b", "c", "a"]);
    server.assert_quiet();
}

#[tokio::test]
async fn a_turn_that_waits_for_its_place_can_be_cancelled_and_keeps_nobody_out() {
    let server = TestGateway::with(&[ONE]);
    server.hang("a", json!({})).await;
    let waits = turn_id(&server.message("b", text("never")).await);
    server.message("c", text("after all")).await;
    server.act(&format!("/v1/sessions/b/turns/{waits}/cancel")).await.ok(202);
    let events = server.until("b", |event| event["type"] == "turn.finished").await;
    assert_eq!(events.last().unwrap()["data"]["state"], "cancelled");
    assert!(of_type(&events, "turn.started").is_empty());
    server.act("/v1/sessions/a/abort").await.ok(200);
    server.until("c", |event| event["data"]["summary"] == "after all").await;
    server.assert_quiet();
}

#[tokio::test]
async fn waiting_for_a_place_has_a_limit_and_its_end_is_an_event() {
    let server = TestGateway::with(&[ONE, ("GREENROOM_POOL__MAX_WAIT", "300ms")]);
    server.hang("a", json!({})).await;
    server.message("b", text("too late")).await;
    let events = server.until("b", |event| event["type"] == "turn.finished").await;
    let end = &events.last().unwrap()["data"];
    assert_eq!((&end["state"], &end["error"]["code"]), (&json!("failed"), &json!("agent_error")));
    assert!(str_of(&end["error"], "message").contains("pool.max_wait"), "{end}");
}

const SOON: (&str, &str) = ("GREENROOM_AGENT__STALL_TIMEOUT", "400ms");

#[tokio::test]
async fn an_agent_that_says_nothing_for_too_long_is_stopped_and_its_turn_fails() {
    let server = TestGateway::with(&[SOON]);
    server.message("k", text(&script(&json!({"deltas": 1, "hang": true})))).await;
    server.message("k", text("next")).await;
    let events = server.until("k", |event| event["data"]["summary"] == "next").await;
    let fault = of_type(&events, "error");
    assert_eq!(fault[0]["data"]["code"], "agent_timeout");
    let ends = of_type(&events, "turn.finished");
    let end = &ends[0]["data"];
    assert_eq!((&end["state"], &end["reason"]), (&json!("failed"), &json!("stalled")));
    assert_eq!(end["error"]["code"], "agent_timeout");
    assert!(fault[0]["seq"].as_u64() < ends[0]["seq"].as_u64(), "it is told before it is done");
}

#[tokio::test]
async fn what_an_agent_did_not_say_while_nobody_asked_it_anything_is_no_silence() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let command = json!(["node", script]).to_string();
    let server = TestGateway::with(&[
        ("GREENROOM_AGENT__STALL_TIMEOUT", "2s"),
        ("GREENROOM_AGENTS__FAKE__KIND", "acp"),
        ("GREENROOM_AGENTS__FAKE__COMMAND", &command),
    ]);
    server.run("k", json!({"text": "[]", "agent": "fake"})).await;
    // Another session's agent talks for longer than the limit, while this one is idle and stays warm.
    server.run("clock", text(&script_of_seconds(3))).await;
    let late = json!({"text": json!([{"pause": 500}, {"say": "well"}]).to_string(), "agent": "fake"});
    let answer = server.run("k", late).await;
    assert_eq!((&answer["turn"]["state"], &answer["response"]), (&json!("completed"), &json!("well")));
    let events = server.events("k").await;
    let starts = of_type(&events, "turn.started");
    assert_eq!(starts.last().unwrap()["data"]["cold_start"], false, "it was the same process");
    server.assert_quiet();
}

/// Words of echo for so many seconds, ten of them in each.
fn script_of_seconds(seconds: u32) -> String {
    script(&json!({"deltas": seconds * 10, "delay_ms": 100}))
}

#[tokio::test]
async fn an_agent_that_waits_for_an_answer_is_not_stalled() {
    let server = TestGateway::with(&[SOON]);
    let asks = turn_id(&server.message("k", text(&script(&json!({"ask": "permission"})))).await);
    let asked = server.until("k", |event| event["type"] == "choice.requested").await;
    // Another session's agent talks for longer than the limit, and never pauses for as long.
    server.run("clock", text(&script(&json!({"deltas": 12, "delay_ms": 100})))).await;
    assert_eq!(server.turn("k", &asks).await["state"], "awaiting_choice");
    let choice = str_of(&asked.last().unwrap()["data"]["choice"], "id").to_owned();
    server.post(&format!("/v1/sessions/k/choices/{choice}"), json!({"allow": true})).await.ok(202);
    assert_eq!(server.finished("k", &asks).await["state"], "completed");
    server.assert_quiet();
}

#[tokio::test]
async fn a_long_queue_gives_its_place_in_the_pool_to_who_waits_for_it() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
    let command = json!(["node", script]).to_string();
    let server = TestGateway::with(&[
        ("GREENROOM_POOL__MAX_PROCESSES", "1"),
        ("GREENROOM_AGENTS__FAKE__KIND", "acp"),
        ("GREENROOM_AGENTS__FAKE__COMMAND", &command),
    ]);
    let message = |text: String| json!({"text": text, "agent": "fake"});
    let options = json!([{"optionId": "y", "name": "Yes", "kind": "allow_once"}]);
    let asks = json!([{"ask": {"toolCall": {"toolCallId": "t", "title": "rm"}, "options": options}}]);
    server.message("hog", message(asks.to_string())).await;
    let asked = server.until("hog", |event| event["type"] == "choice.requested").await;
    let second = turn_id(&server.message("hog", message("second".into())).await);
    let late = turn_id(&server.message("late", message("late".into())).await);
    eventually("it waits for a place", async || {
        let metrics = server.get("/metrics").await.text;
        metrics.lines().any(|line| line == "greenroom_agent_processes{state=\"waited_for\"} 1").then_some(())
    })
    .await;
    let choice = str_of(&asked.last().unwrap()["data"]["choice"], "id").to_owned();
    server.post(&format!("/v1/sessions/hog/choices/{choice}"), json!({"allow": true})).await.ok(202);
    assert_eq!(server.finished("hog", &second).await["state"], "completed");
    let of_late = server.turn("late", &late).await;
    assert_eq!(of_late["state"], "completed", "it had its turn first");
    let begun = str_of(&server.turn("hog", &second).await, "started_at").to_owned();
    assert!(str_of(&of_late, "finished_at") <= begun.as_str(), "{of_late} {begun}");
    // Where nobody waits, the agent is kept.
    server.run("hog", message("third".into())).await;
    let events = server.events("hog").await;
    let cold: Vec<_> =
        of_type(&events, "turn.started").iter().map(|event| event["data"]["cold_start"].clone()).collect();
    assert_eq!(cold, [true, true, false]);
    server.assert_quiet();
}
