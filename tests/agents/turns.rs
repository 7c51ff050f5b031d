//! Turns with the scripted agent: what it says and what becomes of it.

use std::sync::Arc;

use greenroom::{
    agents::{AgentCommand, AgentEvent, Outcome, Prompt, ToolCall},
    protocol::{Attachment, ToolStatus, Usage, event::DeltaKind},
};
use serde_json::{Value, json};

use crate::harness::{COMPLETED, Fake, eventually, failure, prompt, text};

fn delta(kind: DeltaKind, text: &str) -> AgentEvent {
    AgentEvent::Delta { kind, text: text.into() }
}

fn usages(events: &[AgentEvent]) -> Vec<Usage> {
    events.iter().filter_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None }).collect()
}

#[tokio::test]
async fn text_thoughts_plans_and_commands_come_in_order() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let unknown = json!({"sessionUpdate": "session_info_update", "title": "t"});
    let steps = json!([
        {"think": "hm"}, {"say": "a"}, {"say": "b"}, {"update": unknown},
        {"update": {"sessionUpdate": "plan", "entries": [{"content": "c", "priority": "high", "status": "pending"}]}},
        {"update": {"sessionUpdate": "available_commands_update", "availableCommands": [{"name": "init"}]}},
        {"update": {"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": "mine"}}},
        {"notify": {"method": "_private/status", "params": {"x": 1}}}, {"say": "c"},
    ]);
    let (events, outcome) = client.play(steps).await;
    let expected = [
        delta(DeltaKind::Reasoning, "hm"),
        delta(DeltaKind::Text, "a"),
        delta(DeltaKind::Text, "b"),
        AgentEvent::Raw(unknown),
        AgentEvent::Plan(json!([{"content": "c", "priority": "high", "status": "pending"}])),
        AgentEvent::Commands(json!([{"name": "init"}])),
        AgentEvent::Raw(json!({"method": "_private/status", "params": {"x": 1}})),
        delta(DeltaKind::Text, "c"),
    ];
    assert_eq!((events.as_slice(), outcome), (expected.as_slice(), COMPLETED));
    let (events, _) = client.play(json!([{"say": "again"}])).await;
    assert_eq!(text(&events), "again");
    client.close().await;
}

#[tokio::test]
async fn a_tool_call_gets_its_details_late_and_ends_once() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let call = |fields: Value| {
        let mut update = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c"});
        update.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "update": update })
    };
    let steps = json!([
        {"update": {"sessionUpdate": "tool_call", "toolCallId": "c", "title": "Terminal", "rawInput": {}}},
        call(json!({"title": "ls", "kind": "execute", "rawInput": {"command": "ls"}})),
        call(json!({"status": "in_progress"})),
        call(json!({"status": "completed", "rawOutput": {"stdout": "a"}})),
        call(json!({"status": "completed"})),
    ]);
    let (events, _) = client.play(steps).await;
    let card = |name: &str, title: &str, kind: Option<&str>, input| {
        let (name, title, kind) = (name.to_owned(), Some(title.to_owned()), kind.map(str::to_owned));
        AgentEvent::ToolStarted(ToolCall { call_id: "c".into(), name, title, kind, input })
    };
    let expected = [
        card("tool", "Terminal", None, Value::Null),
        card("execute", "ls", Some("execute"), json!({"command": "ls"})),
        AgentEvent::ToolUpdated { call_id: "c".into(), status: ToolStatus::Running, output: Value::Null },
        AgentEvent::ToolFinished { call_id: "c".into(), output: json!({"stdout": "a"}), is_error: false },
    ];
    assert_eq!(events, expected);
    client.close().await;
}

#[tokio::test]
async fn usage_is_per_turn_although_the_cost_is_cumulative() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let spend = |amount: f64| {
        json!([
            {"update": {"sessionUpdate": "usage_update", "used": 10, "size": 200}},
            {"update": {"sessionUpdate": "usage_update", "used": 20, "size": 200,
                "cost": {"amount": amount, "currency": "USD"}}},
            {"result": {"usage": {"inputTokens": 5, "outputTokens": 3, "cachedReadTokens": 2, "totalTokens": 10}}},
        ])
    };
    for (amount, cost) in [(0.5, 0.5), (0.75, 0.25)] {
        let (events, _) = client.play(spend(amount)).await;
        let expected = Usage {
            input_tokens: 7,
            output_tokens: 3,
            cached_tokens: 2,
            cost_usd: Some(cost),
            context_used: Some(20),
            context_max: Some(200),
            ..Usage::default()
        };
        assert_eq!(usages(&events).last(), Some(&expected));
    }
    client.close().await;
}

#[tokio::test]
async fn the_agents_stop_reason_and_its_errors_are_told() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let (_, outcome) = client.play(json!([{"result": {"stopReason": "max_tokens"}}])).await;
    assert_eq!(outcome, Outcome::Completed { reason: Some("max_tokens".into()) });
    let error = json!([{"error": {"code": -32603, "message": "Internal error", "data": {"details": "no disk"}}}]);
    let (_, outcome) = client.play(error).await;
    assert_eq!(failure(&outcome, "agent_error"), "agent `fake`: Internal error: no disk");
    let (_, outcome) = client.play(json!([{"error": {"code": 401, "message": "bad key"}}])).await;
    assert!(failure(&outcome, "agent_error").contains("credentials were refused"), "{outcome:?}");
    let (_, outcome) = client.play(json!([{"say": "still there"}])).await;
    assert_eq!(outcome, COMPLETED);
    client.close().await;
}

#[tokio::test]
async fn a_second_prompt_waits_for_the_first() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "one"}, {"until_cancelled": true}])).await;
    client.prompt("two").await;
    client.until(|event| text(std::slice::from_ref(event)) == "one").await;
    assert_eq!(fake.sent("session/prompt").len(), 1);
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("echo: two", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn requests_for_what_we_do_not_have_are_refused_with_their_own_ids() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    let read =
        |id: Value| json!({"request": {"id": id, "method": "fs/read_text_file", "params": {"path": "/etc/passwd"}}});
    let (events, outcome) = client.play(json!([read(json!("a-1")), read(json!(7))])).await;
    assert_eq!((text(&events).matches("-32601").count(), outcome), (2, COMPLETED));
    let ids: Vec<Value> = fake.log().iter().filter(|m| m.get("error").is_some()).map(|m| m["id"].clone()).collect();
    assert_eq!(ids, [json!("a-1"), json!(7)]);
    let client_capabilities = &fake.sent("initialize")[0]["clientCapabilities"];
    let forms =
        json!({"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false, "elicitation": {"form": {}}});
    assert_eq!(*client_capabilities, forms);
    client.close().await;
}

#[tokio::test]
async fn noise_half_lines_and_huge_lines_do_not_end_a_turn() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let steps = json!([
        {"raw": "Debugger attached.\n{\"jsonrpc\":\"2.0\",\"meth\n\n[1,2]\n"}, {"long": 20_000_000}, {"say": "fine"},
    ]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!((text(&events).as_str(), outcome), ("fine", COMPLETED));
    let raw = events.iter().filter(|event| matches!(event, AgentEvent::Raw(_))).count();
    let faults =
        events.iter().filter(|event| matches!(event, AgentEvent::Fault { code, .. } if code == "line_too_long"));
    assert_eq!((raw, faults.count()), (3, 1));
    client.close().await;
}

#[tokio::test]
async fn a_character_that_was_cut_in_two_costs_itself_and_nothing_beside_it() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let chunk = |text: &str| {
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "TEXT"}});
        let message =
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "fake-1", "update": update}});
        json!({"raw": format!("{}\n", message.to_string().replace("TEXT", text))})
    };
    let steps = json!([chunk("before \\ud83d"), chunk("\\ude00 after"), {"say": " end"}]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!((text(&events).as_str(), outcome), ("before \u{fffd}\u{fffd} after end", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_comes_whole() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([{"flood": 5000}])).await;
    // The session reads nothing until its channel is full.
    eventually("the channel is full", || client.live.events.len() == greenroom::agents::EVENT_CHANNEL).await;
    let (events, outcome) = client.turn().await;
    let expected: String = (0..5000).map(|i| format!("{i} ")).collect();
    assert!(text(&events) == expected, "the flood is not whole");
    assert_eq!(outcome, COMPLETED);
    client.close().await;
}

#[tokio::test]
async fn files_go_along_or_are_named_in_a_fault() {
    let image = Attachment { name: "p.png".into(), media_type: "image/png".into(), content_base64: "AA==".into() };
    for (takes, faults) in [(true, 0), (false, 1)] {
        let fake = Fake::new(json!({"capabilities": {"promptCapabilities": {"image": takes}}}));
        let (mut client, _) = fake.open().await;
        let attachments = Arc::new(vec![image.clone()]);
        client.send(AgentCommand::Prompt(Prompt { attachments, ..prompt("[]") })).await;
        let (events, _) = client.turn().await;
        let named =
            |event: &&AgentEvent| matches!(event, AgentEvent::Fault { message, .. } if message.contains("p.png"));
        assert_eq!(events.iter().filter(named).count(), faults);
        let sent = &fake.sent("session/prompt")[0]["prompt"];
        assert_eq!(sent.as_array().unwrap().iter().any(|block| block["type"] == "image"), takes);
        client.close().await;
    }
}
