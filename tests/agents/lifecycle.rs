//! Opening with the scripted agent: new, loaded, replayed, refused, silent, missing.

use std::sync::Arc;

use greenroom::{
    agents::{Agent, AgentEvent, Outcome},
    config,
    protocol::{Role, event::Resumed},
};
use serde_json::{Value, json};

use crate::harness::{Fake, Told, eventually, failure, message, text};

fn past() -> Arc<Told> {
    Arc::new(Told(Ok(vec![message(Role::User, "my name is Ada"), message(Role::Assistant, "hello Ada")])))
}

/// A fake that can load, for a session with a past.
fn resuming(setup: Value) -> Fake {
    let mut whole = json!({"capabilities": {"loadSession": true}});
    whole.as_object_mut().unwrap().extend(setup.as_object().unwrap().clone());
    let mut fake = Fake::new(whole);
    fake.spec.native_id = Some("old-7".into());
    fake.spec.transcript = past();
    fake
}

/// The text blocks of the prompt of that number.
fn prompt_texts(fake: &Fake, number: usize) -> Vec<String> {
    let prompt = fake.sent("session/prompt")[number]["prompt"].clone();
    prompt.as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_new_conversation_is_new() {
    let fake = Fake::new(json!({}));
    let (mut client, opened) = fake.open().await;
    assert_eq!((opened.resumed, opened.native_id.as_deref()), (Some(Resumed::New), Some("fake-1")));
    client.prompt("hi").await;
    client.turn().await;
    assert_eq!(prompt_texts(&fake, 0), ["hi"]);
    assert_eq!(fake.sent("session/new"), [json!({"cwd": fake.spec.cwd, "mcpServers": []})]);
    client.close().await;
}

#[tokio::test]
async fn a_stored_conversation_is_loaded_and_its_replay_is_not_shown() {
    let chunk = |kind: &str| json!({"sessionUpdate": kind, "content": {"type": "text", "text": "old"}});
    let fake = resuming(json!({"load": [chunk("user_message_chunk"), chunk("agent_message_chunk"),
        {"sessionUpdate": "tool_call", "toolCallId": "old", "title": "old", "status": "completed"},
        {"sessionUpdate": "available_commands_update", "availableCommands": [{"name": "init"}]},
        {"sessionUpdate": "usage_update", "used": 5, "size": 10, "cost": {"amount": 4.0, "currency": "USD"}}]}));
    let (mut client, opened) = fake.open().await;
    assert_eq!((opened.resumed, opened.native_id.as_deref()), (Some(Resumed::Native), Some("old-7")));
    let cost = json!({"amount": 4.5, "currency": "USD"});
    let steps =
        json!([{"say": "new"}, {"update": {"sessionUpdate": "usage_update", "used": 6, "size": 10, "cost": cost}}]);
    let (events, _) = client.play(steps).await;
    assert_eq!(events.first(), Some(&AgentEvent::Commands(json!([{"name": "init"}]))));
    assert_eq!(text(&events), "new");
    assert!(!events.iter().any(|event| matches!(event, AgentEvent::ToolStarted(_))));
    let usage =
        events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(usage) } else { None });
    assert_eq!(usage.unwrap().cost_usd, Some(0.5));
    assert_eq!((prompt_texts(&fake, 0).len(), fake.sent("session/new").len()), (1, 0));
    client.close().await;
}

async fn is_replayed(fake: &Fake, loads: usize) {
    let (mut client, opened) = fake.open().await;
    assert_eq!((opened.resumed, opened.native_id.as_deref()), (Some(Resumed::Replayed), Some("fake-1")));
    for text in ["first", "second"] {
        client.prompt(text).await;
        client.turn().await;
    }
    let first = prompt_texts(fake, 0);
    assert!(first[0].contains("User: my name is Ada\n\nAssistant: hello Ada"), "{first:?}");
    assert_eq!(first[1..], ["first"]);
    assert_eq!(prompt_texts(fake, 1), ["second"]);
    assert_eq!(fake.sent("session/load").len(), loads);
    client.close().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_gets_the_transcript_instead() {
    is_replayed(&resuming(json!({"load": "refuse"})), 1).await;
    is_replayed(&resuming(json!({"load": "die"})), 1).await;
    let mut hanging = resuming(json!({"load": "hang"}));
    hanging.limits.open_timeout = config::Duration::secs(8);
    is_replayed(&hanging, 1).await;
}

#[tokio::test]
async fn load_is_not_tried_where_it_is_not_offered_not_wanted_or_known_to_be_broken() {
    is_replayed(&resuming(json!({"capabilities": {}, "load": []})), 0).await;
    is_replayed(&resuming(json!({"agent": "gemini-cli", "load": []})), 0).await;
    let mut unwanted = resuming(json!({"load": []}));
    unwanted.config.native_resume = false;
    is_replayed(&unwanted, 0).await;
}

#[tokio::test]
async fn a_replay_goes_again_when_the_prompt_failed() {
    let mut fake = Fake::new(json!({}));
    fake.spec.transcript = past();
    let (mut client, _) = fake.open().await;
    client.play(json!([{"error": {"code": -32603, "message": "no"}}])).await;
    client.play(json!([])).await;
    assert_eq!((prompt_texts(&fake, 0).len(), prompt_texts(&fake, 1).len()), (2, 2));
    client.close().await;
}

#[tokio::test]
async fn a_transcript_that_cannot_be_read_is_a_fault() {
    let mut fake = Fake::new(json!({}));
    fake.spec.transcript = Arc::new(Told(Err("disk".into())));
    let (mut client, opened) = fake.open().await;
    assert_eq!(opened.resumed, Some(Resumed::New));
    let (events, _) = client.play(json!([])).await;
    assert!(matches!(&events[..], [AgentEvent::Fault { code, .. }] if code == "replay_failed"), "{events:?}");
    client.close().await;
}

/// The failure of a start, after which the channel is closed.
async fn fails(fake: &Fake, code: &str) -> String {
    let mut client = fake.start();
    let Some(AgentEvent::Ended(outcome)) = client.next().await else { panic!("it must fail first of all") };
    assert_eq!(client.closed().await, []);
    failure(&outcome, code)
}

#[tokio::test]
async fn a_start_that_fails_says_what_to_do() {
    let mut fake = Fake::new(json!({}));
    fake.config.command = vec!["/nowhere/codex-acp".into()];
    let message = fails(&fake, "agent_unavailable").await;
    let expected = "`/nowhere/codex-acp` not found; install it with `npm install -g @zed-industries/codex-acp` or set \
                    agents.fake.command";
    assert_eq!(message, expected);
    fake.config.command.clear();
    assert!(fails(&fake, "agent_unavailable").await.contains("agents.fake.command is empty"));
    let version = fails(&Fake::new(json!({"version": 2})), "agent_unavailable").await;
    assert!(version.contains("protocol version 2"), "{version}");
    let refuse = json!({"refuse": {"session/new": {"code": -32000, "message": "Authentication required"}}});
    let login = fails(&Fake::new(refuse), "agent_unavailable").await;
    assert!(login.contains("check its key or its login") && login.contains("Authentication required"), "{login}");
    let mut dead = Fake::new(json!({}));
    dead.config.command = vec!["sh".into(), "-c".into(), "echo broken install >&2; exit 4".into()];
    let message = fails(&dead, "agent_unavailable").await;
    assert_eq!(message, "agent `fake` ended with exit status: 4; stderr: broken install");
}

#[tokio::test]
async fn a_process_that_dies_at_its_start_gets_a_second_one() {
    let mut fake = Fake::new(json!({}));
    fake.setup["die_once"] = fake.folder.path().join("died").to_str().unwrap().into();
    let (client, opened) = fake.open().await;
    assert_eq!(opened.resumed, Some(Resumed::New));
    assert_eq!(client.ledger.running().len(), 1, "only the second one is left");
    client.close().await;
}

#[tokio::test]
async fn a_start_that_takes_too_long_fails() {
    for method in ["initialize", "session/new"] {
        let mut fake = Fake::new(json!({"hang": [method]}));
        fake.limits.open_timeout = config::Duration::secs(3);
        let message = fails(&fake, "agent_timeout").await;
        assert!(message.contains(method), "{message}");
    }
}

#[tokio::test]
async fn a_kill_ends_a_start() {
    let fake = Fake::new(json!({"hang": ["initialize"]}));
    let mut client = fake.start();
    client.live.kill.kill();
    let rest = client.closed().await;
    assert!(matches!(&rest[..], [AgentEvent::Ended(Outcome::Failed(_))]), "{rest:?}");
}

#[tokio::test]
async fn the_agent_sees_a_clean_environment() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    let (events, _) = client.play(json!([{"env": true}])).await;
    let env: Value = serde_json::from_str(&text(&events)).unwrap();
    let env = env.as_object().unwrap();
    let known =
        ["PATH", "HOME", "LANG", "TERM", "TMPDIR", "USER", "SHELL", "FAKE", "FAKE_LOG", "GREENROOM_AGENT_GROUP"];
    // Cargo sets many variables for a test; none of them may be seen.
    let leaked: Vec<_> =
        env.keys().filter(|name| !known.contains(&name.as_str()) && !name.starts_with("LC_")).collect();
    assert_eq!(leaked, [""; 0]);
    assert_eq!(env["HOME"], fake.folder.path().to_str().unwrap());
    assert_eq!(env["GREENROOM_AGENT_GROUP"], client.ledger.running()[0].marker);
    client.close().await;
}

#[tokio::test]
async fn a_probe_finds_the_program_and_its_version_and_opens_nothing() {
    let mut fake = Fake::new(json!({}));
    let found = fake.agent().probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert!(found.available && found.version.as_deref() == Some("1.2.3") && found.reason.is_none(), "{found:?}");
    let program = fake.folder.path().join("agent");
    std::fs::write(&program, "#!/bin/sh\necho agent v1.2.3\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    fake.config.command = vec![program.to_str().unwrap().to_owned(), "--acp".into()];
    let found = fake.agent().probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert_eq!((found.available, found.version.as_deref()), (true, Some("1.2.3")));
    fake.config.command = vec!["no-such-agent".into()];
    let found = fake.agent().probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert_eq!(found.reason.as_deref(), Some("`no-such-agent` not found; install it or set agents.fake.command"));
    assert!(!found.available && fake.log().is_empty());
}

#[tokio::test]
async fn two_agents_of_a_kind_do_not_touch_each_other() {
    let fake = Fake::new(json!({}));
    let (mut first, _) = fake.open().await;
    let (second, _) = fake.open().await;
    drop(second);
    let (events, _) = first.play(json!([{"say": "unharmed"}])).await;
    assert_eq!(text(&events), "unharmed");
    eventually("one is left", || fake.ledger.running().len() == 1).await;
    first.close().await;
}
