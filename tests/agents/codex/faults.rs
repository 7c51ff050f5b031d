//! What goes wrong: a stored thread that cannot be resumed, noise, floods, silence, death, what ignores an interrupt.

use std::sync::Arc;

use greenroom::{
    agents::{AgentCommand, AgentEvent, Outcome},
    config,
    protocol::{Role, event::Resumed},
};
use serde_json::{Value, json};

use super::Server;
use crate::harness::{COMPLETED, Told, eventually, failure, message, text};

/// A session with a past, whose stored thread is asked for.
fn with_past(setup: Value) -> Server {
    let mut server = Server::new(setup);
    let past = vec![message(Role::User, "the word is xylophone"), message(Role::Assistant, "noted")];
    server.0.spec.native_id = Some("thread-0".into());
    server.0.spec.transcript = Arc::new(Told(Ok(past)));
    server
}

/// The texts of the first prompt that the agent got.
async fn first_prompt(server: &Server, expected: Resumed) -> String {
    let (mut client, opened) = server.open().await;
    assert_eq!((opened.resumed, opened.native_id.as_deref()), (Some(expected), Some("thread-1")));
    let (_, outcome) = client.play(json!([])).await;
    assert_eq!(outcome, COMPLETED);
    client.close().await;
    server.sent("turn/start")[0]["input"].to_string()
}

#[tokio::test]
async fn a_thread_that_cannot_be_resumed_does_not_poison_the_session() {
    let refused = json!({"code": -32600, "message": "no rollout found for thread id thread-0"});
    let server = with_past(json!({"refuse": {"thread/resume": refused}}));
    assert!(first_prompt(&server, Resumed::Replayed).await.contains("xylophone"));
    assert_eq!(server.sent("thread/resume")[0]["threadId"], "thread-0");
    assert_eq!(server.sent("thread/start").len(), 1);
}

#[tokio::test]
async fn a_thread_that_kills_or_hangs_the_agent_is_left_to_a_new_process() {
    for fault in ["die", "hang"] {
        let mut server = with_past(json!({ fault: ["thread/resume"] }));
        server.0.limits.open_timeout = config::Duration::secs(10);
        assert!(first_prompt(&server, Resumed::Replayed).await.contains("xylophone"), "{fault}");
        assert_eq!(server.sent("initialize").len(), 2, "{fault}");
    }
}

#[tokio::test]
async fn a_thread_that_another_process_is_letting_go_is_waited_for() {
    let taken = json!({"code": -32600, "message": "thread thread-0 already has an active writer"});
    let server = with_past(json!({"refuse": {"thread/resume": taken}, "refuse_times": {"thread/resume": 2}}));
    assert!(!first_prompt(&server, Resumed::Native).await.contains("xylophone"));
    assert_eq!(server.sent("thread/resume").len(), 3);
}

#[tokio::test]
async fn a_stored_thread_is_left_alone_where_that_is_configured() {
    let mut server = with_past(json!({}));
    server.0.config.native_resume = false;
    assert!(first_prompt(&server, Resumed::Replayed).await.contains("xylophone"));
    assert!(server.sent("thread/resume").is_empty());
}

#[tokio::test]
async fn without_a_login_it_says_what_to_do() {
    let mut client = Server::new(json!({"account": {"account": null, "requiresOpenaiAuth": true}})).start();
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "agent_unavailable").contains("codex login"), "{outcome:?}");
    client.closed().await;
}

#[tokio::test]
async fn a_start_that_is_refused_or_takes_too_long_fails() {
    let refused = json!({"refuse": {"thread/start": {"code": -1, "message": "the config is broken"}}});
    let mut client = Server::new(refused).start();
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "agent_error").contains("the config is broken"), "{outcome:?}");
    client.closed().await;

    let mut silent = Server::new(json!({"hang": ["initialize"]}));
    silent.0.limits.open_timeout = config::Duration::millis(300);
    let mut client = silent.start();
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "agent_timeout").contains("initialize"), "{outcome:?}");
    client.closed().await;
}

#[tokio::test]
async fn noise_half_lines_and_very_long_lines_do_not_end_a_turn() {
    let mut server = Server::new(json!({}));
    server.0.limits.max_line = config::Size::mib(1);
    let (mut client, _) = server.open().await;
    let unknown = json!(["hologram/shown", {"x": 1}]);
    let half = r#"{"method":"item/agentMessage/delta","params":{"threadId":"thread-1","turnId":"turn-1","#;
    let rest = "\"itemId\":\"h\",\"delta\":\"whole\"}}\n";
    let long = 10 * 1024 * 1024;
    let steps = json!([{"raw": "a warning\n"}, {"raw": half}, {"raw": rest}, {"long": long}, {"notify": unknown},
        {"item": ["started", {"type": "hologram", "id": "h1"}]}, {"say": "done"}]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!((text(&events).as_str(), outcome), ("whole\n\ndone", COMPLETED));
    let raw: Vec<&Value> =
        events.iter().filter_map(|event| if let AgentEvent::Raw(raw) = event { Some(raw) } else { None }).collect();
    assert_eq!(raw[0], &json!({"line": "a warning"}));
    let passed = |method: &str| raw.iter().any(|raw| raw["method"] == method);
    assert!(passed("hologram/shown") && passed("item/started"), "{raw:?}");
    let fault = |event: &AgentEvent| matches!(event, AgentEvent::Fault { code, .. } if code == "line_too_long");
    assert!(events.iter().any(fault), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_can_be_killed() {
    let (mut client, _) = Server::new(json!({})).open().await;
    client.script(json!([{"flood": 100_000}])).await;
    eventually("the channel is full", || client.live.events.len() == greenroom::agents::EVENT_CHANNEL).await;
    client.live.kill.kill();
    client.closed().await;
}

#[tokio::test]
async fn an_agent_that_dies_in_a_turn_leaves_its_last_words() {
    let (mut client, _) = Server::new(json!({})).open().await;
    let (events, outcome) =
        client.play(json!([{"say": "so far"}, {"exit": {"code": 7, "stderr": "out of cheese\n"}}])).await;
    assert_eq!(text(&events), "so far");
    assert_eq!(failure(&outcome, "agent_error"), "agent `fake` ended with exit status: 7; stderr: out of cheese");
    assert_eq!(client.closed().await, []);
}

#[tokio::test]
async fn what_ignores_an_interrupt_is_killed() {
    let server = Server::new(json!({"ignore_term": true, "ignore_eof": true}));
    let (mut client, _) = server.open().await;
    client.script(json!([{"say": "1"}, {"hang": true}])).await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.send(AgentCommand::Cancel).await;
    eventually("it was asked", || !server.sent("turn/interrupt").is_empty()).await;
    client.live.kill.kill();
    assert_eq!(client.closed().await, [AgentEvent::Ended(Outcome::Cancelled)]);
}

#[tokio::test]
async fn a_turn_that_is_not_begun_fails_and_its_replay_is_not_lost() {
    let refused = json!({"code": -32600, "message": "not now"});
    let setup = json!({"refuse": {"turn/start": refused, "thread/resume": refused}, "refuse_times": {"turn/start": 1}});
    let server = with_past(setup);
    let (mut client, _) = server.open().await;
    let (_, outcome) = client.play(json!([])).await;
    assert_eq!(failure(&outcome, "agent_error"), "agent `fake`: not now");
    let (_, outcome) = client.play(json!([])).await;
    assert_eq!(outcome, COMPLETED);
    let prompts = server.sent("turn/start");
    assert!(prompts.iter().all(|prompt| prompt["input"].to_string().contains("xylophone")), "{prompts:?}");
    // What the refused one brought into force is not known, so it is said again.
    assert_eq!((&prompts[0]["approvalPolicy"], &prompts[1]["approvalPolicy"]), (&Value::Null, &json!("untrusted")));
    client.close().await;
}
