//! Budgets of tokens and cost: what is told, what is stopped, how it goes on, and what a crash leaves of it.

use serde_json::{Value, json};

use crate::gateway::{TestGateway, eventually, play, str_of, text, turn_id, wire::of_type};

const SESSION: &str = "GREENROOM_BUDGET__SESSION_TOKENS";
const DAY: &str = "GREENROOM_BUDGET__USER_DAY_TOKENS";
const ON_LIMIT: &str = "GREENROOM_BUDGET__ON_LIMIT";

/// A message whose turn uses a token a delta and tells so each time, with time to be stopped in between.
fn spend(tokens: u64) -> Value {
    play(json!({"deltas": tokens, "bytes": 8, "delay_ms": 15, "report_usage": true}))
}

/// A message whose turn uses so many tokens and tells it at its end.
fn at_once(tokens: u64) -> Value {
    play(json!({"deltas": tokens, "bytes": 8}))
}

/// The codes of the error events.
fn faults(events: &[Value]) -> Vec<&str> {
    of_type(events, "error").iter().map(|event| str_of(&event["data"], "code")).collect()
}

fn tokens(usage: &Value) -> u64 {
    usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap()
}

async fn raise(server: &TestGateway, key: &str, budget: Value) -> Value {
    server.patch(&format!("/v1/sessions/{key}"), json!({ "budget": budget })).await.ok(200)
}

/// Waits for the question about the budget; gives its path.
async fn question(server: &TestGateway, key: &str, turn: &str) -> (Value, String) {
    let fits = |event: &Value| event["type"] == "choice.requested" && event["turn_id"] == *turn;
    let choice = server.until(key, fits).await.last().unwrap()["data"]["choice"].clone();
    let path = format!("/v1/sessions/{key}/choices/{}", str_of(&choice, "id"));
    (choice, path)
}

#[tokio::test]
async fn without_budgets_there_is_none_to_see() {
    let server = TestGateway::start();
    server.run("k", at_once(50)).await;
    assert_eq!(server.snapshot("k").await["budget"], Value::Null);
    let own = raise(&server, "k", json!({"tokens": 60})).await;
    assert_eq!(own["budget"]["tokens"], json!({"used": 50, "limit": 60}));
    assert_eq!(raise(&server, "k", json!({"tokens": null})).await["budget"], Value::Null);
    for bad in [json!({"tokens": -1}), json!({"cost_usd": -0.5}), json!({"token": 1}), json!(5)] {
        server.patch("/v1/sessions/k", json!({ "budget": bad })).await.refused(400, "invalid_json");
    }
}

#[tokio::test]
async fn a_warning_comes_once_and_the_turn_goes_on() {
    let server = TestGateway::with(&[(SESSION, "10"), (ON_LIMIT, "warn")]);
    let done = server.run("k", spend(20)).await;
    assert_eq!((&done["turn"]["state"], tokens(&done["turn"]["usage"])), (&json!("completed"), 20));
    server.run("k", spend(5)).await;
    assert_eq!(faults(&server.events("k").await), ["budget_warning", "budget_exceeded"], "once each");
    let budget = server.snapshot("k").await["budget"].clone();
    assert_eq!(budget["tokens"], json!({"used": 25, "limit": 10}));
    assert_eq!((&budget["state"], &budget["cost_usd"], &budget["day"]), (&json!("warned"), &Value::Null, &Value::Null));
    raise(&server, "k", json!({"tokens": 30})).await;
    server.run("k", spend(1)).await;
    let told = faults(&server.events("k").await).len();
    assert_eq!(told, 3, "a bound that was raised is told of anew");
}

#[tokio::test]
async fn a_used_up_budget_stops_the_turn_and_raising_it_lets_the_queue_go_on() {
    let server = TestGateway::with(&[(SESSION, "10")]);
    let first = turn_id(&server.message("k", spend(2000)).await);
    let second = turn_id(&server.message("k", text("waits")).await);
    let turn = server.finished("k", &first).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("failed"), &json!("budget")));
    assert_eq!(turn["error"]["code"], "budget_exceeded");
    let used = tokens(&turn["usage"]);
    assert!((10..2000).contains(&used), "{used}");
    assert_eq!(faults(&server.events("k").await), ["budget_warning", "budget_exceeded"]);

    let refused = server.post("/v1/sessions/k/messages", text("more")).await;
    let error = refused.refused(429, "budget_exceeded");
    assert_eq!(error["of"], "tokens");
    assert!(str_of(&error, "message").contains(r#"{"budget": {"tokens": N}}"#), "{error}");
    let snapshot = server.snapshot("k").await;
    assert_eq!(snapshot["budget"]["state"], "stopped");
    assert_eq!(snapshot["budget"]["tokens"], json!({"used": used, "limit": 10}));
    assert_eq!((&snapshot["queue_depth"], &snapshot["current_turn"]), (&json!(1), &Value::Null), "it waits");

    let raised = raise(&server, "k", json!({"tokens": 100_000})).await;
    assert_eq!((&raised["budget"]["state"], &raised["budget"]["tokens"]["limit"]), (&json!("ok"), &json!(100_000)));
    assert_eq!(server.finished("k", &second).await["state"], "completed");
    assert_eq!(server.run("k", spend(3)).await["turn"]["state"], "completed");
    let events = server.events("k").await;
    let updates = of_type(&events, "session.updated");
    assert_eq!(updates.last().unwrap()["data"]["changed"]["budget"]["tokens"]["limit"], 100_000);

    let metrics = server.get("/metrics").await.text;
    for outcome in ["warned", "exceeded", "stopped", "refused", "changed"] {
        let line = format!("greenroom_budget_events_total{{outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
    let audit = server.get("/v1/audit?action=session.update").await.ok(200);
    let detail = &audit["data"][0]["detail"];
    assert_eq!((&detail["fields"], &detail["budget"]["tokens"]["limit"]), (&json!(["budget"]), &json!(100_000)));
}

#[tokio::test]
async fn a_new_conversation_has_a_new_budget() {
    let server = TestGateway::with(&[(SESSION, "10")]);
    server.run("k", at_once(10)).await;
    server.post("/v1/sessions/k/messages", text("more")).await.refused(429, "budget_exceeded");
    server.act("/v1/sessions/k/reset").await.ok(200);
    assert_eq!(server.snapshot("k").await["budget"]["tokens"], json!({"used": 0, "limit": 10}));
    server.run("k", at_once(1)).await;
}

#[tokio::test]
async fn a_yes_raises_the_bound_and_the_turn_goes_on() {
    let server = TestGateway::with(&[(SESSION, "10"), (ON_LIMIT, "ask"), ("GREENROOM_BUDGET__STEP", "1000")]);
    let turn = turn_id(&server.message("k", spend(60)).await);
    let (choice, path) = question(&server, "k", &turn).await;
    assert_eq!((&choice["kind"], &choice["tool"]), (&json!("permission"), &Value::Null));
    server.post(&path, json!({"allow": true})).await.ok(202);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], tokens(&turn["usage"])), (&json!("completed"), 60));
    let budget = server.snapshot("k").await["budget"].clone();
    assert!(budget["tokens"]["limit"].as_u64().unwrap() >= 10_010, "{budget}");
    assert_eq!(budget["state"], "ok");
}

#[tokio::test]
async fn a_no_stops_and_holds_until_the_bound_is_raised() {
    let server = TestGateway::with(&[(SESSION, "10"), (ON_LIMIT, "ask"), ("GREENROOM_BUDGET__STEP", "1000")]);
    let turn = turn_id(&server.message("k", spend(5000)).await);
    let (_, path) = question(&server, "k", &turn).await;
    server.post(&path, json!({"option_id": "stop"})).await.ok(202);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("failed"), &json!("budget")));
    assert_eq!(server.snapshot("k").await["budget"]["state"], "stopped");
    server.post("/v1/sessions/k/messages", text("more")).await.refused(429, "budget_exceeded");
    raise(&server, "k", json!({"tokens": 0})).await;
    assert_eq!(server.run("k", text("more")).await["turn"]["state"], "completed");
}

#[tokio::test]
async fn a_turn_does_not_begin_before_somebody_said_yes() {
    let server = TestGateway::with(&[(SESSION, "10"), (ON_LIMIT, "ask")]);
    server.run("k", at_once(10)).await;
    let turn = turn_id(&server.message("k", text("hello")).await);
    let (_, path) = question(&server, "k", &turn).await;
    assert_eq!(server.turn("k", &turn).await["state"], "awaiting_choice");
    server.post(&path, json!({"allow": true})).await.ok(202);
    assert_eq!(server.finished("k", &turn).await["summary"], "hello");

    // It reaches the bound again: 15.
    server.run("k", at_once(4)).await;
    let turn = turn_id(&server.message("k", text("cancelled")).await);
    question(&server, "k", &turn).await;
    server.act("/v1/sessions/k/abort").await.ok(200);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], &turn["summary"]), (&json!("cancelled"), &Value::Null));
    let turn = turn_id(&server.message("k", text("patched")).await);
    question(&server, "k", &turn).await;
    raise(&server, "k", json!({"tokens": 50})).await;
    assert_eq!(server.finished("k", &turn).await["summary"], "patched", "to raise it is an answer, too");
    let turn = turn_id(&server.message("k", at_once(40)).await);
    server.finished("k", &turn).await;
    let turn = turn_id(&server.message("k", text("refused")).await);
    let (_, path) = question(&server, "k", &turn).await;
    server.post(&path, json!({"allow": false})).await.ok(202);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["reason"], &turn["summary"]), (&json!("budget"), &Value::Null));
}

#[tokio::test]
async fn when_nobody_answers_it_stops() {
    let server = TestGateway::with(&[
        (SESSION, "10"),
        (ON_LIMIT, "ask"),
        ("GREENROOM_BUDGET__STEP", "1000"),
        ("GREENROOM_CHOICE__TIMEOUT", "200ms"),
        ("GREENROOM_CHOICE__ON_TIMEOUT", "allow"),
    ]);
    let turn = turn_id(&server.message("k", spend(5000)).await);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("failed"), &json!("budget")));
    let events = server.events("k").await;
    let resolved = &of_type(&events, "choice.resolved")[0]["data"];
    assert_eq!((&resolved["source"], &resolved["outcome"]["option_id"]), (&json!("timeout"), &json!("stop")));
}

#[tokio::test]
async fn an_agent_that_works_on_meanwhile_gets_no_further_than_a_yes_would_let_it() {
    let server = TestGateway::with(&[(SESSION, "10"), (ON_LIMIT, "ask")]);
    let turn = turn_id(&server.message("k", spend(2000)).await);
    let turn = server.finished("k", &turn).await;
    assert_eq!((&turn["state"], &turn["reason"]), (&json!("failed"), &json!("budget")));
    assert!(tokens(&turn["usage"]) < 2000);
}

#[tokio::test]
async fn a_day_is_for_all_sessions_of_a_user() {
    let mut server = TestGateway::with(&[(DAY, "30")]);
    server.run("a", at_once(20)).await;
    server.run("b", at_once(5)).await;
    let day = |used: u64| json!({"tokens": {"used": used, "limit": 30}, "cost_usd": null});
    for key in ["a", "b"] {
        let budget = server.snapshot(key).await["budget"].clone();
        assert_eq!((&budget["day"], &budget["state"]), (&day(25), &json!("warned")), "{key}");
        assert_eq!(budget["tokens"], Value::Null);
    }
    server.kill9();
    server.restart();
    assert_eq!(server.snapshot("a").await["budget"]["day"], day(25), "kept, and not doubled");
    let list = server.get("/v1/sessions?q=b").await.ok(200);
    assert_eq!(list["data"][0]["budget"]["day"], day(25), "in lists, too");
    server.run("b", at_once(5)).await;
    for key in ["a", "b", "c"] {
        let refused = server.post(&format!("/v1/sessions/{key}/messages"), text("more")).await;
        refused.refused(429, "budget_exceeded");
        assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    server.get("/v1/sessions/c").await.refused(404, "session_not_found");
    server.kill9();
    server.restart();
    server.post("/v1/sessions/a/messages", text("more")).await.refused(429, "budget_exceeded");
    let change = json!({"budget": {"user_day_tokens": 1000}});
    server.patch("/v1/config", change).await.ok(200);
    assert_eq!(server.run("a", text("more")).await["turn"]["state"], "completed");
    assert_eq!(server.snapshot("a").await["budget"]["day"]["tokens"], json!({"used": 31, "limit": 1000}));
}

#[tokio::test]
async fn what_waits_at_a_day_goes_on_when_an_admin_raises_it() {
    let server = TestGateway::with(&[(DAY, "10")]);
    let first = turn_id(&server.message("k", spend(2000)).await);
    let second = turn_id(&server.message("k", text("waits")).await);
    assert_eq!(server.finished("k", &first).await["reason"], "budget");
    assert_eq!(server.turn("k", &second).await["state"], "queued");
    server.patch("/v1/config", json!({"budget": {"user_day_tokens": 100_000}})).await.ok(200);
    assert_eq!(server.finished("k", &second).await["state"], "completed");
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_turn_loses_and_doubles_nothing() {
    let mut server = TestGateway::with(&[(SESSION, "1000"), (DAY, "5000")]);
    server.run("k", at_once(7)).await;
    let turn = turn_id(
        &server.message("k", play(json!({"deltas": 12, "delay_ms": 5, "report_usage": true, "hang": true}))).await,
    );
    eventually("all is counted", async || {
        let budget = server.snapshot("k").await["budget"].clone();
        (budget["tokens"]["used"] == 19 && budget["day"]["tokens"]["used"] == 19).then_some(())
    })
    .await;
    let waiting = turn_id(&server.message("k", at_once(3)).await);
    server.kill9();
    server.restart();
    let cut = server.finished("k", &turn).await;
    assert_eq!((&cut["state"], tokens(&cut["usage"])), (&json!("interrupted"), 12));
    server.finished("k", &waiting).await;
    for _ in 0..2 {
        let snapshot = server.snapshot("k").await;
        assert_eq!(tokens(&snapshot["usage"]), 22);
        assert_eq!(snapshot["budget"]["tokens"], json!({"used": 22, "limit": 1000}));
        assert_eq!(snapshot["budget"]["day"]["tokens"], json!({"used": 22, "limit": 5000}));
        server.kill9();
        server.restart();
    }
}

#[tokio::test]
async fn what_waited_at_a_used_up_budget_waits_after_a_crash() {
    let mut server = TestGateway::with(&[(SESSION, "10")]);
    let first = turn_id(&server.message("k", spend(2000)).await);
    let second = turn_id(&server.message("k", text("waits")).await);
    server.finished("k", &first).await;
    server.kill9();
    server.restart();
    let snapshot = server.snapshot("k").await;
    assert_eq!((&snapshot["budget"]["state"], &snapshot["queue_depth"]), (&json!("stopped"), &json!(1)));
    assert_eq!(server.turn("k", &second).await["state"], "queued");
    raise(&server, "k", json!({"tokens": 100_000})).await;
    assert_eq!(server.finished("k", &second).await["state"], "completed");
    server.kill9();
    server.restart();
    assert_eq!(server.snapshot("k").await["budget"]["tokens"]["limit"], 100_000, "its own bound stays");
}

#[tokio::test]
async fn a_day_is_for_all_servers_on_one_database() {
    let database = crate::gateway::process::postgres_database();
    let server = |primary| {
        let own = [("GREENROOM_DATABASE", database.as_str()), ("GREENROOM_SESSION__PRIMARY", primary), (DAY, "30")];
        TestGateway::on_sqlite(&own)
    };
    let (one, other) = (server("main-1"), server("main-2"));
    one.run("a", at_once(20)).await;
    let day = eventually("the other server to see it", async || {
        let budget = other.get("/v1/sessions/main-2").await.ok(200)["budget"].clone();
        (budget["day"]["tokens"]["used"] == 20).then_some(budget)
    });
    assert_eq!(day.await["state"], "ok");
    other.run("b", at_once(15)).await;
    other.post("/v1/sessions/b/messages", text("more")).await.refused(429, "budget_exceeded");
    eventually("the first server to refuse, too", async || {
        let reply = one.post("/v1/sessions/c/messages", text("more")).await;
        (reply.status == 429).then(|| reply.refused(429, "budget_exceeded"))
    })
    .await;
}
