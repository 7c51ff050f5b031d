//! Models, modes and permission modes with the scripted app-server.

use greenroom::agents::{AgentCommand, AgentEvent, Prompt};
use serde_json::{Value, json};

use super::{Server, turn};
use crate::harness::{COMPLETED, failure, prompt};

fn with_model(model: &str) -> Prompt {
    Prompt { model: Some(model.into()), ..prompt("[]") }
}

fn permitted(mode: &str) -> Prompt {
    Prompt { permission_mode: mode.into(), ..prompt("[]") }
}

/// The values that a field had in the turns.
fn said(server: &Server, field: &str) -> Vec<Value> {
    server.sent("turn/start").into_iter().map(|params| params[field].clone()).collect()
}

#[tokio::test]
async fn it_is_opened_with_what_is_on_offer() {
    let models = json!([{"data": [{"model": "a", "displayName": "A"}], "nextCursor": "1"},
        {"data": [{"model": "b", "hidden": true}, {"model": "c"}], "nextCursor": null}]);
    let server = Server::new(json!({"models": models}));
    let (mut client, opened) = server.open().await;
    let listed: Vec<&str> = opened.models.iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!((opened.model.as_deref(), listed), (Some("base"), vec!["base", "a", "c"]));
    let events = client.until(|event| matches!(event, AgentEvent::Commands(list) if list[1]["name"] == "tidy")).await;
    let modes = |event: &AgentEvent| match event {
        AgentEvent::Mode { mode, modes } => mode.as_deref() == Some("default") && modes[0]["id"] == "plan",
        _ => false,
    };
    assert!(events.iter().any(modes), "{events:?}");
    assert_eq!(server.sent("initialized").len(), 1);
    client.close().await;
}

#[tokio::test]
async fn the_model_of_one_turn_is_not_the_model_of_the_next() {
    let mut server = Server::new(json!({"settings": {"model": "own"}, "config": {"model": "own"}}));
    server.0.spec.model = Some("session".into());
    let (mut client, opened) = server.open().await;
    assert_eq!(opened.model.as_deref(), Some("session"));
    assert_eq!(server.sent("thread/start")[0]["model"], "session");
    let in_force = |model: &str| {
        let settings =
            json!({"model": model, "approvalPolicy": "untrusted", "sandboxPolicy": {"type": "workspaceWrite"}});
        json!([{"notify": ["thread/settings/updated", {"threadSettings": settings}]}]).to_string()
    };
    for (prompted, model) in [(None, "session"), (Some("other"), "other"), (None, "session"), (None, "session")] {
        let prompt = Prompt { model: prompted.map(str::to_owned), ..prompt(in_force(model)) };
        assert_eq!(turn(&mut client, prompt).await.1, COMPLETED);
    }
    assert_eq!(said(&server, "model"), [json!("session"), json!("other"), json!("session"), Value::Null]);
    client.send(AgentCommand::SetModel("new".into())).await;
    turn(&mut client, prompt("[]")).await;
    assert_eq!(said(&server, "model")[4], "new");
    assert!(said(&server, "effort").iter().all(Value::is_null));
    client.close().await;
}

#[tokio::test]
async fn only_openais_own_list_is_complete() {
    let openai = Server::new(json!({"settings": {"modelProvider": "openai"}}));
    let (mut client, _) = openai.open().await;
    let (_, outcome) = turn(&mut client, with_model("nonsense")).await;
    let message = failure(&outcome, "model_not_found");
    assert_eq!(message, "agent `fake`: there is no model `nonsense`; the agent offers `base`");
    assert_eq!(turn(&mut client, prompt("[]")).await.1, COMPLETED);
    client.close().await;

    let (mut client, _) = Server::new(json!({})).open().await;
    assert_eq!(turn(&mut client, with_model("my-own")).await.1, COMPLETED);
    client.close().await;
}

#[tokio::test]
async fn permission_modes_are_policies_and_are_taken_back() {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    let start = &server.sent("thread/start")[0];
    assert_eq!((&start["approvalPolicy"], &start["sandbox"]), (&json!("untrusted"), &json!("workspace-write")));
    let tell = |approval: &str, sandbox: &str, mode: &str| {
        let settings = json!({"model": "base", "approvalPolicy": approval, "sandboxPolicy": {"type": sandbox},
            "collaborationMode": {"mode": mode}});
        json!([{"notify": ["thread/settings/updated", {"threadSettings": settings}]}]).to_string()
    };
    let turns = [
        ("default", tell("untrusted", "workspaceWrite", "default")),
        ("plan", tell("never", "readOnly", "plan")),
        ("accept_edits", tell("on-request", "workspaceWrite", "default")),
        ("dont_ask", tell("never", "workspaceWrite", "default")),
        ("default", "[]".to_owned()),
    ];
    for (mode, text) in turns {
        let prompt = Prompt { permission_mode: mode.into(), ..prompt(text) };
        assert_eq!(turn(&mut client, prompt).await.1, COMPLETED, "{mode}");
    }
    let approvals = said(&server, "approvalPolicy");
    assert_eq!(approvals, [Value::Null, json!("never"), json!("on-request"), json!("never"), json!("untrusted")]);
    let kinds: Vec<Value> = said(&server, "sandboxPolicy").iter().map(|policy| policy["type"].clone()).collect();
    let null = || Value::Null;
    assert_eq!(kinds, [null(), json!("readOnly"), json!("workspaceWrite"), null(), null()]);
    let modes: Vec<Value> = said(&server, "collaborationMode").iter().map(|mode| mode["mode"].clone()).collect();
    assert_eq!(modes, [null(), json!("plan"), json!("default"), null(), null()]);
    client.close().await;
}

#[tokio::test]
async fn bypass_needs_to_be_allowed() {
    let mut server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    let (_, outcome) = turn(&mut client, permitted("bypass")).await;
    assert!(failure(&outcome, "invalid_permission_mode").contains("allow_bypass"), "{outcome:?}");
    assert!(server.sent("turn/start").is_empty());
    client.close().await;

    server.0.config.allow_bypass = true;
    let (mut client, _) = server.open().await;
    assert_eq!(turn(&mut client, permitted("bypass")).await.1, COMPLETED);
    let sent = &server.sent("turn/start")[0];
    assert_eq!(
        (&sent["approvalPolicy"], &sent["sandboxPolicy"]["type"]),
        (&json!("never"), &json!("dangerFullAccess"))
    );
    client.close().await;
}

#[tokio::test]
async fn a_mode_can_be_gone_into_and_a_wrong_one_is_told() {
    let server = Server::new(json!({}));
    let (mut client, _) = server.open().await;
    client.send(AgentCommand::SetMode("plan".into())).await;
    client.until(|event| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "plan")).await;
    assert_eq!(server.sent("thread/settings/update")[0]["collaborationMode"]["mode"], "plan");
    client.send(AgentCommand::SetMode("party".into())).await;
    let told = |event: &AgentEvent| matches!(event, AgentEvent::Fault { message, .. } if message.contains("`plan`"));
    client.until(told).await;
    let wrong = Prompt { mode: Some("party".into()), ..prompt("[]") };
    failure(&turn(&mut client, wrong).await.1, "model_not_found");
    assert_eq!(turn(&mut client, prompt("[]")).await.1, COMPLETED);
    assert_eq!(said(&server, "collaborationMode"), [Value::Null]);
    client.close().await;
}

#[tokio::test]
async fn a_model_that_only_one_session_asks_for_is_on_offer_to_nobody() {
    let mut server = Server::new(json!({"settings": {"model": "only here"}}));
    server.0.spec.model = Some("only here".into());
    let (client, opened) = server.open().await;
    assert!(opened.models.iter().all(|model| model["id"] != "only here"), "{opened:?}");
    assert_eq!(opened.model.as_deref(), Some("only here"));
    client.close().await;
}
