//! Permissions with the scripted agent.

use greenroom::{
    agents::{AgentCommand, AgentEvent, Answer, Outcome},
    protocol::OptionKind,
};
use serde_json::{Value, json};

use crate::harness::{COMPLETED, Fake, eventually, text};

/// Options in an order in which a choice by position would be wrong.
fn ask(id: Value) -> Value {
    json!({"ask": {"id": id, "toolCall": {"toolCallId": "c", "title": "rm -rf x", "kind": "execute", "status": "pending"},
        "options": [{"optionId": "p1", "name": "Always", "kind": "allow_always"},
            {"optionId": "p2", "name": "Once", "kind": "allow_once"}, {"optionId": "p3", "name": "No", "kind": "reject_once"}]}})
}

fn option(ask: &greenroom::agents::Ask, kind: OptionKind) -> Answer {
    let option = ask.options.iter().find(|option| option.kind == kind).unwrap();
    Answer::Option { id: option.id.clone() }
}

#[tokio::test]
async fn the_answer_reaches_the_request_that_asked() {
    for id in [json!(0), json!("0f3c-uuid")] {
        let fake = Fake::new(json!({}));
        let (mut client, _) = fake.open().await;
        client.script(json!([ask(id.clone())])).await;
        let events = client.until(|event| matches!(event, AgentEvent::ChoiceAsked(_))).await;
        // The call was never announced; its card comes before the question.
        let [AgentEvent::ToolStarted(card), AgentEvent::ChoiceAsked(asked)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((card.call_id.as_str(), card.title.as_deref()), ("c", Some("rm -rf x")));
        assert_eq!((asked.title.as_str(), asked.tool.as_deref()), ("rm -rf x", Some("execute")));
        assert_eq!(asked.input_summary.as_deref(), Some("rm -rf x"));
        let answer = option(asked, OptionKind::AllowOnce);
        client.send(AgentCommand::Answer { ask_id: asked.ask_id.clone(), answer }).await;
        let (events, outcome) = client.turn().await;
        assert_eq!(text(&events), r#"{"outcome":"selected","optionId":"p2"}"#);
        assert_eq!(outcome, COMPLETED);
        let reply = fake.log().into_iter().find(|message| message.get("result").is_some()).unwrap();
        assert_eq!(reply["id"], id);
        client.close().await;
    }
}

#[tokio::test]
async fn a_cancel_takes_the_question_back() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([ask(json!(1))])).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(events, [AgentEvent::ChoiceWithdrawn { ask_id: asked.ask_id.clone() }]);
    assert_eq!(outcome, Outcome::Cancelled);
    // An answer that comes after that harms nothing.
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: Answer::Option { id: "p2".into() } }).await;
    let (events, _) = client.play(json!([{"say": "next"}])).await;
    assert_eq!(text(&events), "next");
    client.close().await;
}

#[tokio::test]
async fn nobody_answering_is_a_refusal_and_the_turn_goes_on() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([ask(json!(1))])).await;
    let ask_id = client.asked().await.ask_id;
    client.send(AgentCommand::Answer { ask_id, answer: Answer::Cancelled }).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), (r#"{"outcome":"cancelled"}"#, COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_rejected_call_is_over_before_the_agent_goes_on() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([ask(json!(1))])).await;
    let asked = client.asked().await;
    let answer = option(&asked, OptionKind::RejectOnce);
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer }).await;
    let (events, _) = client.turn().await;
    let over = AgentEvent::ToolFinished { call_id: "c".into(), output: "rejected".into(), is_error: true };
    assert_eq!(events.first(), Some(&over));
    assert_eq!(text(&events), r#"{"outcome":"selected","optionId":"p3"}"#);
    client.close().await;
}

#[tokio::test]
async fn an_agent_that_ends_its_turn_over_a_refusal_has_completed_it() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([ask(json!(1)), {"result": {"stopReason": "cancelled"}}])).await;
    let asked = client.asked().await;
    let answer = option(&asked, OptionKind::RejectOnce);
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer }).await;
    assert_eq!(client.turn().await.1, Outcome::Completed { reason: Some("rejected".into()) });
    client.close().await;
}

#[tokio::test]
async fn a_question_without_a_choice_and_a_question_taken_back_by_the_agent_are_settled() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let empty = json!({"ask": {"toolCall": {"toolCallId": "c"}, "options": [{"optionId": "x", "kind": "maybe"}]}});
    let (events, outcome) = client.play(json!([empty])).await;
    assert_eq!((text(&events).as_str(), outcome), (r#"{"outcome":"cancelled"}"#, COMPLETED));
    assert!(events.iter().any(|event| matches!(event, AgentEvent::Fault { .. })), "{events:?}");

    let withdraw = json!({"notify": {"method": "$/cancel_request", "params": {"requestId": "w"}}});
    let question = ask(json!("w"))["ask"].clone();
    let asks = json!({"notify": {"id": "w", "method": "session/request_permission", "params": question}});
    client.script(json!([asks, withdraw])).await;
    let ask_id = client.asked().await.ask_id;
    let (events, _) = client.turn().await;
    assert_eq!(events, [AgentEvent::ChoiceWithdrawn { ask_id }]);
    client.close().await;
}

#[tokio::test]
async fn questions_outside_a_turn_are_refused() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    let question = ask(json!("late"))["ask"].clone();
    let asks = json!({"notify": {"id": "late", "method": "session/request_permission", "params": question}});
    let answer = json!({"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}}).to_string();
    // It answers its prompt (the third request that it gets) by hand, and asks after that.
    client.script(json!([{"raw": answer + "\n"}, asks])).await;
    let (_, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    let refused = |message: &Value| message["id"] == "late" && message["result"]["outcome"]["outcome"] == "cancelled";
    eventually("the question is refused", || fake.log().iter().any(refused)).await;
    let (events, _) = client.play(json!([{"say": "on"}])).await;
    assert_eq!(text(&events), "on");
    client.close().await;
}
