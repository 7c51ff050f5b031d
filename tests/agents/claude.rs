//! The adapter of Claude Code against a scripted one: opening, faults, steering, stopping.

use std::{path::PathBuf, sync::Arc};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, OpenSpec, Opened, Outcome, Prompt, claude::ClaudeAgent},
    config::{self, AgentConfig, AgentKind, AgentLimits, Secret},
    protocol::{OptionKind, Role, event::Resumed, session::AgentStatus},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{COMPLETED, Client, Ledger, Told, acp, eventually, failure, message, open_spec, prompt, text};

/// The scripted agent with everything that a test may set before it starts.
struct Fake {
    folder: Arc<TempDir>,
    setup: Value,
    config: AgentConfig,
    limits: AgentLimits,
    spec: OpenSpec,
    ledger: Arc<Ledger>,
}

impl Fake {
    fn new(setup: Value) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-claude.mjs");
        let config = acp(vec!["node".into(), script.into()], &[], folder.path());
        let config = AgentConfig { kind: Some(AgentKind::Claude), ..config };
        let ledger = Arc::new(Ledger::default());
        let spec = open_spec(folder.path(), &ledger);
        let limits = AgentLimits { kill_grace: config::Duration::millis(500), ..AgentLimits::default() };
        Self { folder, setup, config, limits, spec, ledger }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn start(&self) -> Client {
        let mut config = self.config.clone();
        config.env.insert("FAKE".into(), Secret::new(self.setup.to_string()));
        config.env.insert("FAKE_LOG".into(), Secret::new(self.log_file().to_str().unwrap()));
        let live = ClaudeAgent::new("fake".into(), config, self.limits.clone()).start(self.spec.clone());
        Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.folder) }
    }

    async fn open(&self) -> (Client, Opened) {
        let mut client = self.start();
        let opened = client.opened().await;
        (client, opened)
    }

    /// What the agent was sent, in order, its arguments first.
    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The requests of a subtype that it was sent.
    fn sent(&self, subtype: &str) -> Vec<Value> {
        let requests = self.log().into_iter().map(|message| message["request"].clone());
        requests.filter(|request| request["subtype"] == subtype).collect()
    }

    /// The content of the prompts that it was sent.
    fn prompts(&self) -> Vec<Value> {
        let users = self.log().into_iter().filter(|message| message["type"] == "user");
        users.map(|message| message["message"]["content"].clone()).collect()
    }

    /// The arguments of its processes that begin with this.
    fn arguments(&self, begin: &str) -> Vec<String> {
        let all = self.log().into_iter().filter_map(|line| line.get("args")?.as_array().cloned()).flatten();
        let all = all.map(|arg| arg.as_str().unwrap().to_owned());
        all.filter(|arg| arg.starts_with(begin)).collect()
    }
}

fn past() -> Arc<Told> {
    Arc::new(Told(Ok(vec![message(Role::User, "my name is Ada"), message(Role::Assistant, "hello Ada")])))
}

fn is_fault(event: &AgentEvent, wanted: &str) -> bool {
    matches!(event, AgentEvent::Fault { code, .. } if code == wanted)
}

#[tokio::test]
async fn a_new_conversation_has_an_id_of_ours_and_a_stored_one_is_resumed() {
    let mut fake = Fake::new(json!({}));
    fake.spec.transcript = past();
    fake.spec.native_id = Some("7a0e".into());
    let (client, opened) = fake.open().await;
    assert_eq!((opened.resumed, opened.native_id.as_deref()), (Some(Resumed::Native), Some("7a0e")));
    assert_eq!(fake.arguments("--resume"), ["--resume=7a0e"]);
    client.close().await;
    fake.spec.native_id = None;
    fake.spec.transcript = Arc::new(Told(Ok(Vec::new())));
    let (mut client, opened) = fake.open().await;
    let id = opened.native_id.unwrap();
    assert_eq!(
        (opened.resumed, fake.arguments("--session-id")),
        (Some(Resumed::New), vec![format!("--session-id={id}")])
    );
    let (events, outcome) = client.play(json!([{"say": "Hello there"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("Hello there", COMPLETED));
    assert!(events.contains(&AgentEvent::Commands(json!([{"name": "cost"}]))), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn what_cannot_be_resumed_gets_the_transcript_instead() {
    for resume in ["refuse", "die", "hang"] {
        let mut fake = Fake::new(json!({"resume": resume}));
        fake.spec.transcript = past();
        fake.spec.native_id = Some("7a0e".into());
        if resume == "hang" {
            fake.limits.open_timeout = config::Duration::secs(8);
        }
        let (mut client, opened) = fake.open().await;
        assert_eq!(opened.resumed, Some(Resumed::Replayed), "{resume}");
        assert_ne!(opened.native_id.as_deref(), Some("7a0e"));
        // A command stands alone, so the replay waits for the next prompt.
        for words in ["/cost", "first", "second"] {
            client.prompt(words).await;
            client.turn().await;
        }
        let prompts = fake.prompts();
        let texts: Vec<usize> = prompts.iter().map(|blocks| blocks.as_array().unwrap().len()).collect();
        assert_eq!(texts, [1, 2, 1], "{resume}");
        assert!(prompts[1][0]["text"].as_str().unwrap().contains("User: my name is Ada"));
        client.close().await;
    }
}

#[tokio::test]
async fn a_replay_goes_again_when_the_prompt_failed_and_not_when_it_was_stopped() {
    for (steps, again) in
        [(json!([{"result": {"is_error": true}}]), 2), (json!([{"say": "on"}, {"until_interrupted": 0}]), 1)]
    {
        let mut fake = Fake::new(json!({}));
        fake.spec.transcript = past();
        let (mut client, _) = fake.open().await;
        client.script(steps).await;
        if again == 1 {
            client.until(|event| text(std::slice::from_ref(event)) == "on").await;
            client.send(AgentCommand::Cancel).await;
        }
        client.turn().await;
        client.play(json!([])).await;
        let blocks: Vec<usize> = fake.prompts().iter().map(|blocks| blocks.as_array().unwrap().len()).collect();
        assert_eq!(blocks, [2, again]);
        client.close().await;
    }
}

#[tokio::test]
async fn a_resume_that_is_not_wanted_is_not_tried() {
    let mut fake = Fake::new(json!({}));
    fake.config.native_resume = false;
    fake.spec.native_id = Some("7a0e".into());
    let (client, opened) = fake.open().await;
    assert_eq!((opened.resumed, fake.arguments("--resume").len()), (Some(Resumed::New), 0));
    client.close().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let mut silent = Fake::new(json!({"ready": false}));
    silent.limits.open_timeout = config::Duration::secs(3);
    let mut broken = Fake::new(json!({}));
    broken.config.command = vec!["sh".into(), "-c".into(), "echo broken install >&2; exit 4".into()];
    let mut missing = Fake::new(json!({}));
    missing.config.command = vec!["/nowhere/claude".into()];
    let cases = [
        (silent, "agent_timeout", "did not answer initialize within 3s"),
        (broken, "agent_unavailable", "ended with exit status: 4; stderr: broken install"),
        (missing, "agent_unavailable", "npm install -g @anthropic-ai/claude-code"),
    ];
    for (fake, code, words) in cases {
        let mut client = fake.start();
        let Some(AgentEvent::Ended(outcome)) = client.next().await else { panic!("it must fail first of all") };
        assert_eq!(client.closed().await, []);
        let message = failure(&outcome, code);
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn noise_half_lines_and_huge_lines_end_nothing() {
    let mut fake = Fake::new(json!({}));
    fake.limits.max_line = config::Size::mib(1);
    let (mut client, _) = fake.open().await;
    let steps = json!([
        {"say": "one "}, {"raw": "noise\n\n[1]\n\"x\"\n"}, {"raw": "{\"type\":\"half\",\n"}, {"told": {"type": "hologram"}},
        {"told": {"type": "assistant", "message": 7}}, {"told": {"type": "stream_event"}}, {"told": {"type": "user", "message": {"content": [7]}}},
        {"told": {"type": "control_request", "request_id": "h", "request": {"subtype": "hook_callback"}}},
        {"told": {"type": "control_response", "response": {"subtype": "success", "request_id": "nobody"}}},
        {"long": 10_000_000}, {"say": "two"}]);
    let (events, outcome) = client.play(steps).await;
    assert_eq!((text(&events).as_str(), outcome), ("one \n\ntwo", COMPLETED));
    assert!(events.iter().any(|event| is_fault(event, "line_too_long")), "{events:?}");
    assert!(events.contains(&AgentEvent::Raw(json!({"type": "hologram"}))));
    assert!(events.contains(&AgentEvent::Raw(json!({"line": "noise"}))));
    eventually("what is not known is refused", || {
        fake.log()
            .iter()
            .any(|message| message["response"]["subtype"] == "error" && message["response"]["request_id"] == "h")
    })
    .await;
    client.close().await;
}

#[tokio::test]
async fn a_flood_is_read_to_its_end_in_order() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let (events, outcome) = client.play(json!([{"flood": 5000}])).await;
    let expected: String = (0..5000).map(|i| format!("{i} ")).collect();
    assert_eq!((text(&events), outcome), (expected, COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn an_agent_that_dies_fails_its_turn_with_its_last_words() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([{"say": "partial"}, {"exit": {"code": 3, "stderr": "out of memory\n"}}])).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(text(&events), "partial");
    assert_eq!(failure(&outcome, "agent_error"), "agent `fake` ended with exit status: 3; stderr: out of memory");
    assert_eq!(client.closed().await, []);
}

#[tokio::test]
async fn a_cancel_stops_the_turn_and_takes_the_question_back() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([{"say": "on"}, {"until_interrupted": 0}])).await;
    client.until(|event| text(std::slice::from_ref(event)) == "on").await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    client.script(json!([{"ask": {"tool_name": "Bash", "input": {"command": "ls"}}}])).await;
    let ask_id = client.asked().await.ask_id;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(events.first(), Some(&AgentEvent::ChoiceWithdrawn { ask_id: ask_id.clone() }));
    assert_eq!(outcome, Outcome::Cancelled);
    client.send(AgentCommand::Answer { ask_id, answer: Answer::Option { id: "allow".into() } }).await;
    assert_eq!(text(&client.play(json!([{"say": "next"}])).await.0), "next");
    client.close().await;
}

#[tokio::test]
async fn a_deaf_agent_is_killed_and_its_turn_is_cancelled() {
    let fake = Fake::new(json!({"deaf": true, "ignore_term": true, "ignore_eof": true}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "on"}, {"hang": 0}])).await;
    client.until(|event| text(std::slice::from_ref(event)) == "on").await;
    client.send(AgentCommand::Cancel).await;
    eventually("it has been asked", || fake.sent("interrupt").len() == 1).await;
    client.live.kill.kill();
    let rest = client.closed().await;
    assert_eq!(rest.last(), Some(&AgentEvent::Ended(Outcome::Cancelled)), "{rest:?}");
}

#[tokio::test]
async fn a_steered_text_goes_into_the_turn_and_is_acknowledged() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    // Right behind the prompt, before the agent has said anything.
    client.script(json!([{"say": "begin"}, {"until_steered": 0}])).await;
    client.send(AgentCommand::Steer { id: 5, text: "look there".into() }).await;
    let (events, outcome) = client.turn().await;
    let at = events.iter().position(|event| *event == AgentEvent::Steered { id: 5 }).unwrap();
    assert_eq!((text(&events[..at]).as_str(), text(&events[at..]).as_str()), ("begin", "steered: look there"));
    assert_eq!(outcome, COMPLETED);
    let steered = fake.log().into_iter().find(|message| message["priority"] == "next").unwrap();
    assert_eq!(steered["message"]["content"][0]["text"], "look there");
    client.close().await;
}

#[tokio::test]
async fn a_text_that_the_turn_did_not_take_any_more_runs_before_its_end() {
    let (mut client, _) = Fake::new(json!({})).open().await;
    let ask = json!({"ask": {"tool_name": "Bash", "input": {"command": "ls"}}});
    client.script(json!([ask, {"result": {"is_error": true, "result": "broke"}}])).await;
    let asked = client.asked().await;
    client.send(AgentCommand::Steer { id: 5, text: "and this".into() }).await;
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: Answer::Option { id: "allow".into() } }).await;
    let (events, outcome) = client.turn().await;
    let at = events.iter().position(|event| *event == AgentEvent::Steered { id: 5 }).unwrap();
    assert!(is_fault(&events[at - 1], "agent_error"), "the failure before it is told: {events:?}");
    assert_eq!((text(&events[at..]).as_str(), outcome), ("echo: and this", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_text_in_a_stopped_turn_is_taken_back() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "on"}, {"until_interrupted": 0}])).await;
    client.until(|event| text(std::slice::from_ref(event)) == "on").await;
    client.send(AgentCommand::Steer { id: 5, text: "late".into() }).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(!events.contains(&AgentEvent::Steered { id: 5 }));
    assert_eq!(fake.sent("interrupt")[0]["cancel_queued"], true);
    assert_eq!(text(&client.play(json!([{"say": "next"}])).await.0), "next");
    client.close().await;
}

#[tokio::test]
async fn turns_of_the_agents_own_do_not_show_and_their_questions_are_refused() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    let hidden = json!({"told": {"type": "result", "is_error": true, "result": "hidden", "user_message_uuids": []}});
    let over = json!({"told": {"type": "result", "is_error": false, "result": "hidden"}});
    let said = json!({"type": "assistant", "message": {"id": "h", "content": [{"type": "text", "text": "hidden"}]}});
    let question = json!({"type": "control_request", "request_id": "late",
        "request": {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}});
    let (events, outcome) =
        client.play(json!([hidden, over, {"say": "seen"}, {"late": said}, {"late": question}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("seen", COMPLETED));
    eventually("the question is refused", || {
        fake.log().iter().any(|line| {
            let response = &line["response"];
            response["request_id"] == "late" && response["response"]["behavior"] == "deny"
        })
    })
    .await;
    let (events, _) = client.play(json!([{"say": "next"}])).await;
    assert_eq!(text(&events), "next");
    assert!(!events.iter().any(|event| matches!(event, AgentEvent::ChoiceAsked(_))), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_turn_whose_result_is_lost_still_ends() {
    let mut fake = Fake::new(json!({}));
    fake.limits.max_line = config::Size::kib(64);
    let (mut client, _) = fake.open().await;
    let (events, outcome) = client.play(json!([{"say": "all"}, {"result": {"result": "x".repeat(100_000)}}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("all", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn an_older_agent_without_signs_of_the_course_works_and_is_not_steered() {
    let fake = Fake::new(json!({"signs": false}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "one"}])).await;
    client.send(AgentCommand::Steer { id: 5, text: "lost?".into() }).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("one", COMPLETED));
    assert!(!events.contains(&AgentEvent::Steered { id: 5 }), "the session makes a turn of it");
    assert_eq!(text(&client.play(json!([{"say": "two"}])).await.0), "two");
    client.close().await;
}

#[tokio::test]
async fn a_refusal_of_the_credentials_is_not_tried_for_minutes() {
    let retry = |attempt: u64| {
        json!({"told": {"type": "system", "subtype": "api_retry", "attempt": attempt, "max_retries": 10,
        "retry_delay_ms": 500, "error_status": 401, "error": "authentication_failed"}})
    };
    let (mut client, _) = Fake::new(json!({})).open().await;
    client.script(json!([retry(1), retry(2), {"until_interrupted": 0}])).await;
    let (events, outcome) = client.turn().await;
    let reason = Some("retry 1 of 10 in 500ms: 401 authentication_failed".to_owned());
    assert!(events.contains(&AgentEvent::Status { status: AgentStatus::Working, reason }), "{events:?}");
    let message = failure(&outcome, "agent_error");
    assert!(message.contains("credentials") && message.contains("/login"), "{message}");
    client.close().await;
}

#[tokio::test]
async fn a_conversation_that_goes_on_under_another_id_says_so() {
    let (mut client, opened) = Fake::new(json!({})).open().await;
    let (events, _) = client.play(json!([{"result": {"session_id": "another"}}])).await;
    let again = Opened { native_id: Some("another".into()), ..Opened::default() };
    assert_ne!(opened.native_id, again.native_id);
    assert!(events.contains(&AgentEvent::Opened(again)), "{events:?}");
    client.close().await;
}

fn modes(events: &[AgentEvent]) -> Vec<String> {
    let modes = events.iter().filter_map(|event| match event {
        AgentEvent::Mode { mode, .. } => mode.clone(),
        _ => None,
    });
    modes.collect()
}

#[tokio::test]
async fn bypass_is_granted_here_where_the_agent_refuses_it_but_plans_and_questions_are_still_asked() {
    let mut fake = Fake::new(json!({"refuse": {"bypassPermissions": "not as root"}}));
    let bypass = |steps: Value| Prompt { permission_mode: "bypass".into(), ..prompt(steps.to_string()) };
    let ask = json!({"ask": {"tool_name": "Bash", "input": {"command": "ls"}}});
    let (mut client, _) = fake.open().await;
    client.send(AgentCommand::Prompt(bypass(json!([ask])))).await;
    assert!(failure(&client.turn().await.1, "invalid_permission_mode").contains("agents.fake.allow_bypass"));
    client.close().await;

    fake.config.allow_bypass = true;
    let (mut client, _) = fake.open().await;
    client.send(AgentCommand::Prompt(bypass(json!([ask])))).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).contains(r#""behavior":"allow""#), outcome), (true, COMPLETED));
    assert_eq!(modes(&events).last().map(String::as_str), Some("bypassPermissions"));
    let plan = json!({"ask": {"tool_name": "ExitPlanMode", "input": {}, "requires_user_interaction": true}});
    client.send(AgentCommand::Prompt(bypass(json!([plan])))).await;
    let asked = client.asked().await;
    assert!(asked.options.iter().all(|option| option.kind != OptionKind::AllowAlways));
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: Answer::Option { id: "reject".into() } }).await;
    assert!(text(&client.turn().await.0).contains("keep planning"));
    client.close().await;
}

#[tokio::test]
async fn modes_fall_back_or_fail_as_they_allow_more_or_less() {
    let fake = Fake::new(json!({"refuse": {"acceptEdits": "no", "plan": "no"}}));
    let (mut client, _) = fake.open().await;
    let with = |mode: &str| AgentCommand::Prompt(Prompt { permission_mode: mode.into(), ..prompt("hi") });
    client.send(with("accept_edits")).await;
    let (events, outcome) = client.turn().await;
    assert!(
        events.iter().any(|event| is_fault(event, "invalid_permission_mode")) && outcome == COMPLETED,
        "{events:?}"
    );
    client.send(with("plan")).await;
    failure(&client.turn().await.1, "invalid_permission_mode");
    client.send(with("dont_ask")).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((modes(&events), outcome), (vec!["dontAsk".to_owned()], COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_mode_can_change_in_the_middle_of_a_turn_by_either_side() {
    let fake = Fake::new(json!({}));
    let (mut client, _) = fake.open().await;
    client.script(json!([{"say": "on"}, {"until_interrupted": 0}])).await;
    client.until(|event| text(std::slice::from_ref(event)) == "on").await;
    client.send(AgentCommand::SetMode("plan".into())).await;
    let events = client.until(|event| matches!(event, AgentEvent::Mode { .. })).await;
    assert_eq!(modes(&events), ["plan"]);
    client.send(AgentCommand::SetMode("yolo".into())).await;
    client.until(|event| is_fault(event, "model_not_found")).await;
    client.send(AgentCommand::Cancel).await;
    client.turn().await;
    let status = json!({"told": {"type": "system", "subtype": "status", "status": null, "permissionMode": "default"}});
    let (events, _) = client.play(json!([status])).await;
    assert_eq!(modes(&events), ["default"]);
    client.close().await;
}
