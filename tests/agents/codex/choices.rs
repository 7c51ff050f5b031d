//! Approvals, questions, and what nobody can answer, with the scripted app-server.

use greenroom::{
    agents::{AgentCommand, AgentEvent, Answer, Outcome},
    protocol::{ChoiceKind, OptionKind},
};
use serde_json::{Value, json};

use super::Server;
use crate::harness::{COMPLETED, text};

const COMMAND: &str = "item/commandExecution/requestApproval";

fn ask(id: Value, method: &str, params: &Value) -> Value {
    json!([{"ask": {"id": id, "method": method, "params": params}}])
}

/// Asks, answers, and returns what the agent was replied.
async fn replied(method: &str, params: Value, answer: Answer) -> Value {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    client.script(ask(json!("q-1"), method, &params)).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer }).await;
    let (_, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    client.close().await;
    server.answer(json!("q-1"))["result"].clone()
}

fn option(id: &str) -> Answer {
    Answer::Option { id: id.into() }
}

#[tokio::test]
async fn decisions_reach_the_agent_in_its_own_words() {
    let params = json!({"itemId": "c", "command": "touch a", "availableDecisions": ["accept", "cancel"]});
    for (answer, decision) in [
        (option("accept"), json!("accept")),
        (option("acceptForSession"), json!("acceptForSession")),
        (option("decline"), json!("decline")),
        (Answer::Cancelled, json!("decline")),
    ] {
        let reply = replied(COMMAND, params.clone(), answer).await;
        assert_eq!(reply, json!({ "decision": decision }));
    }
    let change = replied("item/fileChange/requestApproval", json!({"itemId": "f"}), option("acceptForSession")).await;
    assert_eq!(change, json!({"decision": "acceptForSession"}));
    let wanted = json!({"permissions": {"network": {"enabled": true}}});
    let granted = replied("item/permissions/requestApproval", wanted.clone(), option("accept")).await;
    assert_eq!(granted, json!({"permissions": wanted["permissions"], "scope": "turn"}));
}

#[tokio::test]
async fn a_decision_that_ends_the_turn_completes_it_as_rejected() {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    let asks = json!({"ask": {"id": 1, "method": COMMAND, "params": {"itemId": "c", "command": "touch a"}}});
    client.script(json!([asks, {"end": {"status": "interrupted"}}])).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: option("cancel") }).await;
    let (_, outcome) = client.turn().await;
    assert_eq!(outcome, Outcome::Completed { reason: Some("rejected".into()) });
    client.close().await;
}

#[tokio::test]
async fn a_permission_says_what_for_and_offers_always() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let params = json!({"itemId": "c", "command": "/bin/bash -lc 'touch a'", "reason": "May I touch?"});
    client.script(ask(json!(0), COMMAND, &params)).await;
    let asked = client.asked().await;
    assert_eq!((asked.kind, asked.title.as_str()), (ChoiceKind::Permission, "May I touch?"));
    assert_eq!((asked.tool.as_deref(), asked.input_summary.as_deref()), (Some("shell"), Some("touch a")));
    assert!(asked.options.iter().any(|option| option.kind == OptionKind::AllowAlways));
    client.send(AgentCommand::Cancel).await;
    client.live.kill.kill();
    client.closed().await;
}

#[tokio::test]
async fn questions_are_put_and_answered() {
    let params = json!({"questions": [{"id": "q", "header": "Colour", "question": "Which?", "options": []}]});
    let answers = Answer::Answers(json!({"q": "Blue"}).as_object().cloned().unwrap());
    let reply = replied("item/tool/requestUserInput", params, answers).await;
    assert_eq!(reply, json!({"answers": {"q": {"answers": ["Blue"]}}}));
    let form = json!({"serverName": "s", "mode": "form", "message": "m",
        "requestedSchema": {"type": "object", "properties": {"n": {"type": "number"}}}});
    let answers = Answer::Answers(json!({"n": "2"}).as_object().cloned().unwrap());
    let reply = replied("mcpServer/elicitation/request", form, answers).await;
    assert_eq!(reply, json!({"action": "accept", "content": {"n": 2}}));
}

#[tokio::test]
async fn a_question_that_the_agent_takes_back_is_withdrawn() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let params = json!({"itemId": "c", "command": "touch a"});
    let steps = json!([{"ask_and_resolve": {"id": 5, "method": COMMAND, "params": params}}, {"say": "never mind"}]);
    client.script(steps).await;
    let asked = client.asked().await;
    let (events, outcome) = client.turn().await;
    assert!(events.contains(&AgentEvent::ChoiceWithdrawn { ask_id: asked.ask_id }), "{events:?}");
    assert_eq!(outcome, COMPLETED);
    client.close().await;
}

#[tokio::test]
async fn a_cancel_while_it_asks_takes_the_question_back() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let params = json!({"itemId": "c", "command": "touch a"});
    let steps = json!([{"notify": ["x", {}]}, {"ask_and_wait": {"id": 5, "method": COMMAND, "params": params}}]);
    client.script(steps).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert!(events.contains(&AgentEvent::ChoiceWithdrawn { ask_id: asked.ask_id }), "{events:?}");
    assert_eq!(outcome, Outcome::Cancelled);
    client.close().await;
}

#[tokio::test]
async fn what_is_not_known_is_refused() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let (events, outcome) = client.play(ask(json!(9), "item/tool/call", &json!({"tool": "x"}))).await;
    assert!(text(&events).contains("-32601"), "{events:?}");
    assert_eq!(outcome, COMPLETED);
    let verify = json!({"serverName": "s", "mode": "openai/userVerification"});
    let (events, _) = client.play(ask(json!(10), "mcpServer/elicitation/request", &verify)).await;
    assert!(text(&events).contains("decline"), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, AgentEvent::Fault { .. })), "{events:?}");
    client.close().await;
}
