//! Models and modes with the scripted agent.

use greenroom::agents::{AgentCommand, AgentEvent, Prompt};
use serde_json::{Value, json};

use crate::harness::{COMPLETED, Client, Fake, failure, prompt};

fn modes() -> Value {
    json!({"currentModeId": "default", "availableModes": [{"id": "default", "name": "Default"},
        {"id": "plan", "name": "Plan"}, {"id": "acceptEdits", "name": "Accept Edits"}, {"id": "yolo", "name": "YOLO"}]})
}

fn models() -> Value {
    json!({"currentModelId": "small", "availableModels": [{"modelId": "small", "name": "Small"}, {"modelId": "large"}]})
}

/// The values that `field` had in what was sent to a method.
fn values(fake: &Fake, method: &str, field: &str) -> Vec<Value> {
    fake.sent(method).into_iter().map(|params| params[field].clone()).collect()
}

async fn turn(client: &mut Client, prompt: Prompt) -> (Vec<AgentEvent>, greenroom::agents::Outcome) {
    client.send(AgentCommand::Prompt(prompt)).await;
    client.turn().await
}

#[tokio::test]
async fn the_model_asked_for_is_set_and_a_wrong_one_fails_the_turn_only() {
    let mut fake = Fake::new(json!({"session": {"models": models()}}));
    fake.spec.model = Some("large".into());
    let (mut client, opened) = fake.open().await;
    assert_eq!(opened.model.as_deref(), Some("large"));
    let listed: Vec<Value> = opened.models.iter().map(|model| json!(model)).collect();
    assert_eq!(listed, [json!({"id": "small", "name": "Small"}), json!({"id": "large", "name": "large"})]);
    let wrong = Prompt { model: Some("huge".into()), ..prompt("hi") };
    let (_, outcome) = turn(&mut client, wrong).await;
    let message = failure(&outcome, "model_not_found");
    assert_eq!(message, "agent `fake`: there is no model `huge`; the agent offers `small`, `large`");
    assert_eq!(turn(&mut client, prompt("hi")).await.1, COMPLETED);
    client.send(AgentCommand::SetModel("small".into())).await;
    assert_eq!(turn(&mut client, prompt("hi")).await.1, COMPLETED);
    assert_eq!(values(&fake, "session/set_model", "modelId"), ["large", "small"]);
    assert_eq!(fake.sent("session/prompt").len(), 2);
    client.close().await;
}

#[tokio::test]
async fn a_wrong_model_of_the_session_does_not_prevent_the_start() {
    let mut fake = Fake::new(json!({"session": {"models": models()}}));
    fake.config.model = Some("huge".into());
    let (mut client, opened) = fake.open().await;
    assert_eq!(opened.model.as_deref(), Some("small"));
    let (_, outcome) = turn(&mut client, prompt("hi")).await;
    assert!(failure(&outcome, "model_not_found").contains("`huge`"));
    client.close().await;

    let mut none = Fake::new(json!({}));
    none.spec.model = Some("large".into());
    let (mut client, _) = none.open().await;
    let (_, outcome) = turn(&mut client, prompt("hi")).await;
    assert!(failure(&outcome, "model_not_found").contains("no choice of models"));
    client.close().await;
}

#[tokio::test]
async fn config_options_are_used_where_there_is_nothing_else() {
    let option = |id: &str, current: &str, values: [&str; 2]| {
        let options = values.map(|value| json!({"value": value, "name": value}));
        json!({"id": id, "category": id, "type": "select", "currentValue": current, "options": options})
    };
    let options = json!([option("mode", "build", ["build", "plan"]), option("model", "a/b", ["a/b", "a/c"])]);
    let fake = Fake::new(json!({"session": {"configOptions": options}}));
    let (mut client, opened) = fake.open().await;
    assert_eq!(opened.model.as_deref(), Some("a/b"));
    let asked = Prompt { model: Some("a/c".into()), permission_mode: "plan".into(), ..prompt("hi") };
    let (events, outcome) = turn(&mut client, asked).await;
    assert_eq!(outcome, COMPLETED);
    let current = |event: &AgentEvent| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "plan");
    assert!(events.iter().any(current), "{events:?}");
    assert_eq!(values(&fake, "session/set_config_option", "value"), ["a/c", "plan"]);
    client.close().await;
}

#[tokio::test]
async fn permission_modes_are_mapped_and_asked_for_once() {
    let mut fake = Fake::new(json!({"session": {"modes": modes()}}));
    fake.config.allow_bypass = true;
    let (mut client, _) = fake.open().await;
    for permission_mode in ["default", "plan", "plan", "accept_edits", "bypass", "default"] {
        let asked = Prompt { permission_mode: permission_mode.into(), ..prompt("hi") };
        assert_eq!(turn(&mut client, asked).await.1, COMPLETED, "{permission_mode}");
    }
    assert_eq!(values(&fake, "session/set_mode", "modeId"), ["plan", "acceptEdits", "yolo", "default"]);
    client.close().await;
}

#[tokio::test]
async fn a_mode_that_the_agent_has_left_by_itself_is_not_forced_on_it_again() {
    let fake = Fake::new(json!({"session": {"modes": modes()}}));
    let (mut client, _) = fake.open().await;
    let plan = |text: &str| Prompt { permission_mode: "plan".into(), ..prompt(text) };
    let leave = json!([{"update": {"sessionUpdate": "current_mode_update", "currentModeId": "acceptEdits"}}]);
    let (events, _) = turn(&mut client, plan(&leave.to_string())).await;
    let left = |event: &AgentEvent| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "acceptEdits");
    assert!(events.iter().any(left), "{events:?}");
    turn(&mut client, plan("hi")).await;
    assert_eq!(values(&fake, "session/set_mode", "modeId"), ["plan"]);
    client.close().await;
}

#[tokio::test]
async fn what_allows_less_must_be_there_and_what_allows_more_is_left_out_with_a_fault() {
    let modes = json!({"currentModeId": "read-only", "availableModes": [{"id": "read-only"}, {"id": "full-access"}]});
    let fake = Fake::new(json!({"session": {"modes": modes}}));
    let (mut client, _) = fake.open().await;
    let asked = |permission_mode: &str| Prompt { permission_mode: permission_mode.into(), ..prompt("hi") };
    let (_, outcome) = turn(&mut client, asked("plan")).await;
    assert!(failure(&outcome, "invalid_permission_mode").contains("`read-only`, `full-access`"));
    let (_, outcome) = turn(&mut client, asked("bypass")).await;
    assert!(failure(&outcome, "invalid_permission_mode").contains("agents.fake.allow_bypass"));
    let (events, outcome) = turn(&mut client, asked("accept_edits")).await;
    assert_eq!(outcome, COMPLETED);
    let fault =
        |event: &AgentEvent| matches!(event, AgentEvent::Fault { code, .. } if code == "invalid_permission_mode");
    assert!(events.iter().any(fault), "{events:?}");
    assert_eq!(fake.sent("session/set_mode").len(), 0);
    client.close().await;
}

#[tokio::test]
async fn a_mode_can_be_set_in_the_middle_of_a_turn() {
    let fake = Fake::new(json!({"session": {"modes": modes()}}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "x"}, {"until_cancelled": true}])).await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.send(AgentCommand::SetMode("plan".into())).await;
    let is_plan = |event: &AgentEvent| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "plan");
    client.until(is_plan).await;
    client.send(AgentCommand::SetMode("nonsense".into())).await;
    let fault =
        |event: &AgentEvent| matches!(event, AgentEvent::Fault { message, .. } if message.contains("`nonsense`"));
    client.until(fault).await;
    client.send(AgentCommand::Cancel).await;
    client.turn().await;
    client.close().await;
}
