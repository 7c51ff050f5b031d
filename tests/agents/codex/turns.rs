//! Turns with the scripted app-server: what it tells and what becomes of it, steering, cancelling.

use greenroom::{
    agents::{AgentCommand, AgentEvent, Outcome, ToolCall},
    protocol::{Usage, event::DeltaKind, session::AgentStatus},
};
use serde_json::{Value, json};

use super::{Server, turn};
use crate::harness::{COMPLETED, Client, eventually, failure, prompt, text};

fn usage(calls: u64) -> Value {
    let counts = |n: u64| {
        json!({"totalTokens": n * 12, "inputTokens": n * 10, "cachedInputTokens": n * 3, "outputTokens": n * 2,
            "reasoningOutputTokens": n})
    };
    json!(["thread/tokenUsage/updated", {"tokenUsage": {"total": counts(calls), "last": counts(1),
        "modelContextWindow": 1000}}])
}

fn last_usage(events: &[AgentEvent]) -> Usage {
    let mut usages =
        events.iter().filter_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None });
    usages.next_back().unwrap()
}

#[tokio::test]
async fn news_become_events_in_order_and_nothing_twice() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let reasoning = json!({"type": "reasoning", "id": "r", "summary": ["hm"]});
    let command = |status: &str, code: Value| {
        json!({"type": "commandExecution", "id": "c", "command": "/bin/sh -c 'make it'", "cwd": "/w",
            "status": status, "aggregatedOutput": "made", "exitCode": code})
    };
    let plan = json!([{"step": "one", "status": "inProgress"}]);
    let steps = json!([
        {"notify": ["item/reasoning/summaryTextDelta", {"itemId": "r", "delta": "hm", "summaryIndex": 0}]},
        {"item": ["completed", reasoning]},
        {"notify": ["turn/plan/updated", {"plan": plan}]},
        {"item": ["started", command("inProgress", Value::Null)]},
        {"notify": ["item/commandExecution/outputDelta", {"itemId": "c", "delta": "ma"}]},
        {"item": ["completed", command("completed", json!(0))]},
        {"say": "done"}, {"say": "really"},
    ]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!(outcome, COMPLETED);
    let events: Vec<AgentEvent> =
        events.into_iter().skip_while(|event| !matches!(event, AgentEvent::Delta { .. })).collect();
    let delta = |kind, text: &str| AgentEvent::Delta { kind, text: text.into() };
    let card = ToolCall {
        call_id: "c".into(),
        name: "shell".into(),
        title: Some("make it".into()),
        kind: Some("execute".into()),
        input: json!({"command": "make it", "cwd": "/w"}),
    };
    let status = greenroom::protocol::ToolStatus::Running;
    let expected = [
        delta(DeltaKind::Reasoning, "hm"),
        AgentEvent::Plan(plan),
        AgentEvent::ToolStarted(card),
        AgentEvent::ToolUpdated { call_id: "c".into(), status, output: json!("ma") },
        AgentEvent::ToolFinished { call_id: "c".into(), output: json!("made"), is_error: false },
        delta(DeltaKind::Text, "done"),
        delta(DeltaKind::Text, "\n\nreally"),
    ];
    assert_eq!(events, expected);
    client.close().await;
}

#[tokio::test]
async fn news_of_other_threads_and_of_turns_that_are_over_are_not_part_of_the_answer() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let delta = |ids: Value| {
        let mut params = json!({"itemId": "x", "delta": "WRONG"});
        params.as_object_mut().unwrap().extend(ids.as_object().cloned().unwrap());
        json!({"notify": ["item/agentMessage/delta", params]})
    };
    let end = json!({"notify": ["turn/completed", {"turn": {"id": "turn-0", "status": "failed"}}]});
    let steps = json!([delta(json!({"threadId": "child"})), delta(json!({"turnId": "turn-0"})), end, {"say": "right"}]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!((text(&events).as_str(), outcome), ("right", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn usage_is_of_the_turn_also_where_figures_are_repeated() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let (events, _) = client.play(json!([{"notify": usage(1)}, {"notify": usage(2)}, {"notify": usage(2)}])).await;
    let expected = |calls: u64| Usage {
        input_tokens: calls * 10,
        output_tokens: calls * 2,
        cached_tokens: calls * 3,
        reasoning_tokens: calls,
        cost_usd: None,
        context_used: Some(12),
        context_max: Some(1000),
    };
    assert_eq!(last_usage(&events), expected(2));
    let (events, _) = client.play(json!([{"notify": usage(2)}, {"notify": usage(3)}])).await;
    assert_eq!(last_usage(&events), expected(1));
    client.close().await;
}

#[tokio::test]
async fn retries_show_and_failures_are_honest() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let error = |retries: bool| {
        json!({"notify": ["error", {"willRetry": retries, "error": {"message": "Reconnecting... 1/5",
            "additionalDetails": "429 Too Many Requests"}}]})
    };
    let (events, outcome) = client.play(json!([error(true), {"say": "back"}])).await;
    assert_eq!(outcome, COMPLETED);
    let reasons: Vec<Option<&str>> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Status { status: AgentStatus::Working, reason } => Some(reason.as_deref()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [Some("Reconnecting... 1/5: 429 Too Many Requests"), None]);

    let failed = |info: Value| json!([{"end": {"status": "failed", "error": {"message": "unexpected status 401", "codexErrorInfo": info}}}]);
    let (_, outcome) = client.play(failed(json!({"httpConnectionFailed": {"httpStatusCode": 401}}))).await;
    let message = failure(&outcome, "agent_error");
    assert!(message.contains("credentials") && message.contains("codex login"), "{message}");
    let (_, outcome) = client.play(failed(json!("modelNotFound"))).await;
    failure(&outcome, "model_not_found");
    client.close().await;
}

#[tokio::test]
async fn warnings_are_told_once_and_a_replaced_model_is_told() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let warning = json!({"notify": ["warning", {"message": "it is late"}]});
    let rerouted = json!({"notify": ["model/rerouted", {"fromModel": "a", "toModel": "b"}]});
    let (events, _) = client.play(json!([warning, warning, rerouted])).await;
    let faults: Vec<(&str, &str)> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Fault { code, message } => Some((code.as_str(), message.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(faults, [("agent_warning", "it is late"), ("model_rerouted", "model `a` was replaced by `b`")]);
    client.close().await;
}

/// Starts a turn with these steps and steers it.
async fn steered(server: &Server, steps: Value) -> Client {
    let (mut client, _) = server.open().await;
    client.script(steps).await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.send(AgentCommand::Steer { id: 7, text: "this way".into() }).await;
    client
}

fn is_steered(events: &[AgentEvent]) -> bool {
    events.contains(&AgentEvent::Steered { id: 7 })
}

#[tokio::test]
async fn a_steered_text_is_taken_when_it_shows_in_the_turn() {
    for silent in [false, true] {
        let server = Server::new(json!({"silent_users": silent}));
        let mut client = steered(&server, json!([{"say": "a"}, {"until_steered": true}, {"say": "b"}])).await;
        let (events, outcome) = client.turn().await;
        assert!(is_steered(&events) && outcome == COMPLETED, "silent: {silent}: {events:?}");
        let sent = &server.sent("turn/steer")[0];
        assert_eq!((&sent["expectedTurnId"], &sent["input"][0]["text"]), (&json!("turn-1"), &json!("this way")));
        client.close().await;
    }
}

#[tokio::test]
async fn a_steered_text_that_is_refused_is_left_to_the_session() {
    let refused = json!({"code": -32600, "message": "no active turn to steer"});
    let server = Server::new(json!({"refuse": {"turn/steer": refused}}));
    let mut client = steered(&server, json!([{"say": "a"}, {"until_interrupted": true}])).await;
    eventually("it was asked", || !server.sent("turn/steer").is_empty()).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert!(!is_steered(&events) && outcome == Outcome::Cancelled, "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_steered_text_that_an_interruption_drops_is_left_to_the_session() {
    // It says yes to the text, and never shows it.
    let server = Server::new(json!({"drop_steers": true}));
    let mut client = steered(&server, json!([{"say": "a"}, {"until_interrupted": true}])).await;
    eventually("it was asked", || !server.sent("turn/steer").is_empty()).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert!(!is_steered(&events) && outcome == Outcome::Cancelled, "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_cancel_right_after_the_prompt_waits_for_the_turn_to_begin() {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    client.script(json!([{"until_interrupted": true}])).await;
    client.send(AgentCommand::Cancel).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert_eq!(server.sent("turn/interrupt"), [json!({"threadId": "thread-1", "turnId": "turn-1"})]);
    // With nothing to cancel, nothing is sent.
    client.send(AgentCommand::Cancel).await;
    client.play(json!([])).await;
    assert_eq!(server.sent("turn/interrupt").len(), 1);
    client.close().await;
}

#[tokio::test]
async fn a_cancelled_turn_ends_when_its_commands_have_ended() {
    for undying in [false, true] {
        let terminals = json!([{"itemId": "c", "processId": "1"}, {"itemId": "of an earlier turn", "processId": "2"}]);
        let server = Server::new(json!({"terminals": terminals, "undying": undying}));
        let (mut client, _) = server.open().await;
        let command = json!({"type": "commandExecution", "id": "c", "command": "sleep 1000", "status": "inProgress"});
        client.script(json!([{"item": ["started", command]}, {"until_interrupted": true}])).await;
        client.until(|event| matches!(event, AgentEvent::ToolStarted(_))).await;
        client.send(AgentCommand::Cancel).await;
        let (events, outcome) = client.turn().await;
        assert_eq!(outcome, Outcome::Cancelled);
        let terminated = server.sent("thread/backgroundTerminals/terminate");
        assert_eq!(terminated, [json!({"threadId": "thread-1", "processId": "1"})]);
        let finished = |event: &AgentEvent| matches!(event, AgentEvent::ToolFinished { is_error: true, .. });
        assert_eq!(events.iter().any(finished), !undying);
        // A command that does not end takes the whole process with it.
        if undying {
            client.closed().await;
        } else {
            client.play(json!([])).await;
            client.close().await;
        }
    }
}

#[tokio::test]
async fn skills_and_compaction_are_commands() {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    turn(&mut client, prompt("/tidy up")).await;
    let input = &server.sent("turn/start")[0]["input"];
    assert_eq!(input[1], json!({"type": "skill", "name": "tidy", "path": "/s/tidy"}));
    let (_, outcome) = turn(&mut client, prompt("/compact")).await;
    assert_eq!(outcome, COMPLETED);
    assert_eq!(server.sent("thread/compact/start"), [json!({"threadId": "thread-1"})]);
    client.close().await;
}
