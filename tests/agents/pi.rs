//! pi: the real one against the mock model server, and a scripted one for what the real one does not do on demand.

use std::{path::Path, sync::Arc};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, OpenSpec, Opened, Outcome, Prompt, pi::PiAgent},
    config::{AgentConfig, AgentLimits, Secret},
    protocol::{Attachment, Message, Role, Usage, event::Resumed},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{COMPLETED, Client, Ledger, Told, acp, failure, message, open_spec, prompt, text},
    mock_llm::MockLlm,
    real_agents::Real,
};

/// A pi with a HOME and a folder to work in of its own.
struct Rig {
    config: AgentConfig,
    home: TempDir,
    work: Arc<TempDir>,
    ledger: Arc<Ledger>,
    spec: OpenSpec,
}

impl Rig {
    /// The real one.
    fn real(mock: &MockLlm) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = Real::Pi.set_up(mock, home.path());
        Self::with(config, home)
    }

    /// The scripted one.
    fn fake(setup: &Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-pi.mjs");
        let mut config = acp(vec!["node".into(), script.into()], &[], home.path());
        config.env.insert("FAKE_PI".into(), Secret::new(setup.to_string()));
        Self::with(config, home)
    }

    fn with(config: AgentConfig, home: TempDir) -> Self {
        let work = Arc::new(tempfile::tempdir().unwrap());
        let ledger = Arc::new(Ledger::default());
        let spec = open_spec(work.path(), &ledger);
        Self { config, home, work, ledger, spec }
    }

    fn told(&mut self, messages: &[(Role, &str)]) {
        let messages: Vec<Message> = messages.iter().map(|(role, text)| message(*role, text)).collect();
        self.spec.transcript = Arc::new(Told(Ok(messages)));
    }

    fn start(&self) -> Client {
        let live = PiAgent::new("pi".into(), self.config.clone(), AgentLimits::default()).start(self.spec.clone());
        Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.work) }
    }

    async fn open(&self) -> (Client, Opened) {
        let mut client = self.start();
        let opened = client.opened().await;
        (client, opened)
    }
}

/// A turn that is expected to go well; its events.
async fn talk(client: &mut Client, prompt: Prompt) -> Vec<AgentEvent> {
    client.send(AgentCommand::Prompt(prompt)).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED, "{events:?}");
    events
}

async fn fails(client: &mut Client, prompt: Prompt, code: &str) -> String {
    client.send(AgentCommand::Prompt(prompt)).await;
    failure(&client.turn().await.1, code)
}

fn usage(events: &[AgentEvent]) -> Option<Usage> {
    events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None })
}

/// What the model was sent last, as text.
fn last_request(mock: &MockLlm) -> String {
    mock.generations().last().unwrap().body.to_string()
}

fn is_tool(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::ToolStarted(call) if call.name == "bash" && !call.input.is_null())
}

#[tokio::test]
async fn talks_in_one_conversation_and_counts_each_turn_for_itself() {
    let mock = MockLlm::start();
    let rig = Rig::real(&mock);
    let (mut client, opened) = rig.open().await;
    assert_eq!((opened.resumed, opened.model.as_deref()), (Some(Resumed::New), Some("mock/mock-model")));
    assert!(opened.native_id.is_some_and(|file| file.ends_with(".jsonl")) && opened.models.len() == 2);
    let events = talk(&mut client, prompt("the word is xylophone")).await;
    assert_eq!(text(&events), "Hello from mock");
    assert!(events.iter().filter(|event| matches!(event, AgentEvent::Delta { .. })).count() > 1, "not streamed");
    let first = usage(&events).unwrap();
    let events = talk(&mut client, prompt("USE_TOOL TOOL_CMD:[echo one; echo two]")).await;
    assert!(last_request(&mock).contains("xylophone"));
    // Two calls of the model, and nothing of the turn before.
    let second = usage(&events).unwrap();
    assert_eq!((first.output_tokens, second.output_tokens, second.cached_tokens), (7, 14, 20));
    assert!(second.cost_usd.unwrap() > first.cost_usd.unwrap() && second.context_max == Some(128_000));
    assert!(second.input_tokens > 2 * 100 && second.context_used.unwrap() < second.input_tokens);
    assert!(events.iter().any(is_tool));
    let done = |event: &AgentEvent| matches!(event, AgentEvent::ToolFinished { output, is_error: false, .. } if output == "one\ntwo\n");
    assert!(events.iter().any(done), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn takes_a_text_into_the_running_turn_and_says_so() {
    let mock = MockLlm::start();
    let rig = Rig::real(&mock);
    let (mut client, _) = rig.open().await;
    client.prompt("USE_TOOL TOOL_CMD:[while [ ! -e go ]; do sleep 0.05; done]").await;
    client.until(is_tool).await;
    client.send(AgentCommand::Steer { id: 7, text: "and a zebra".into() }).await;
    std::fs::write(rig.work.path().join("go"), "").unwrap();
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    let steered = events.iter().filter(|event| matches!(event, AgentEvent::Steered { id: 7 })).count();
    assert_eq!(steered, 1, "{events:?}");
    assert!(last_request(&mock).contains("zebra"));
    client.close().await;
}

#[tokio::test]
async fn a_text_that_was_not_taken_is_not_taken_later() {
    let mock = MockLlm::start();
    let rig = Rig::real(&mock);
    let (mut client, _) = rig.open().await;
    client.prompt("SLOW the word is xylophone").await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    client.send(AgentCommand::Steer { id: 1, text: "and a zebra".into() }).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(!events.iter().any(|event| matches!(event, AgentEvent::Steered { .. })));
    assert_eq!(text(&talk(&mut client, prompt("hi")).await), "Hello from mock");
    let request = last_request(&mock);
    assert!(request.contains("xylophone") && !request.contains("zebra"), "{request}");
    client.close().await;
}

#[tokio::test]
async fn goes_on_after_it_was_killed_and_without_its_file_from_the_transcript() {
    let mock = MockLlm::start();
    let mut rig = Rig::real(&mock);
    let (mut client, opened) = rig.open().await;
    talk(&mut client, prompt("the word is xylophone")).await;
    let leader = nix::unistd::Pid::from_raw(rig.ledger.running()[0].pgid);
    nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(client.closed().await.iter().all(|event| !matches!(event, AgentEvent::Ended(_))));

    rig.spec.native_id.clone_from(&opened.native_id);
    rig.told(&[(Role::User, "the word is marimba")]);
    let (mut client, again) = rig.open().await;
    assert_eq!((again.resumed, &again.native_id), (Some(Resumed::Native), &opened.native_id));
    talk(&mut client, prompt("hi")).await;
    assert!(last_request(&mock).contains("xylophone") && !last_request(&mock).contains("marimba"));
    client.close().await;

    let file = opened.native_id.unwrap();
    for damage in ["garbage", ""] {
        if damage.is_empty() { std::fs::remove_file(&file) } else { std::fs::write(&file, damage) }.unwrap();
        let (mut client, again) = rig.open().await;
        assert_eq!(again.resumed, Some(Resumed::Replayed), "{damage}");
        talk(&mut client, prompt("hi")).await;
        assert!(last_request(&mock).contains("marimba"), "{damage}");
        client.close().await;
    }
}

#[tokio::test]
async fn models_and_modes_change_in_the_conversation_and_leave_its_users_settings_alone() {
    let mock = MockLlm::start();
    let mut rig = Rig::real(&mock);
    rig.spec.model = Some("nonsense".into());
    let (mut client, opened) = rig.open().await;
    assert_eq!(opened.model.as_deref(), Some("mock/mock-model"));
    assert!(fails(&mut client, prompt("hi"), "model_not_found").await.contains("offers `mock/mock-model`"));
    client.send(AgentCommand::SetModel("mock-model".into())).await;
    talk(&mut client, prompt("the word is xylophone")).await;
    talk(&mut client, Prompt { model: Some("mock/mock-2".into()), ..prompt("hi") }).await;
    let request = last_request(&mock);
    assert!(request.contains("\"model\":\"mock-2\"") && request.contains("xylophone"), "{request}");
    talk(&mut client, prompt("hi")).await;
    assert!(last_request(&mock).contains("\"model\":\"mock-model\""));
    let thinks = Prompt { mode: Some("high".into()), ..prompt("hi") };
    assert!(fails(&mut client, thinks, "model_not_found").await.contains("does not think"));
    let settings = rig.home.path().join(".pi/agent/settings.json");
    assert!(!settings.exists(), "{:?}", std::fs::read_to_string(settings));
    client.close().await;
}

#[tokio::test]
async fn a_plan_has_only_tools_that_read_and_other_permission_modes_are_said() {
    let mock = MockLlm::start();
    let rig = Rig::real(&mock);
    let (mut client, _) = rig.open().await;
    talk(&mut client, Prompt { permission_mode: "plan".into(), ..prompt("hi") }).await;
    let tools = |request: &str| {
        let body: Value = serde_json::from_str(request).unwrap();
        let names = body["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].to_string());
        names.collect::<String>()
    };
    let planned = tools(&last_request(&mock));
    assert!(planned.contains("read") && !planned.contains("bash") && !planned.contains("write"), "{planned}");
    let events = talk(&mut client, Prompt { permission_mode: "accept_edits".into(), ..prompt("hi") }).await;
    assert!(matches!(&events[0], AgentEvent::Fault { code, .. } if code == "invalid_permission_mode"), "{events:?}");
    assert!(tools(&last_request(&mock)).contains("bash"));
    let bypass = Prompt { permission_mode: "bypass".into(), ..prompt("hi") };
    assert!(fails(&mut client, bypass, "invalid_permission_mode").await.contains("allow_bypass"));
    client.close().await;
}

#[tokio::test]
async fn what_fails_says_so_and_pi_stays() {
    let mock = MockLlm::start();
    let rig = Rig::real(&mock);
    let (mut client, _) = rig.open().await;
    assert!(fails(&mut client, prompt("ERR401"), "agent_error").await.contains("credentials"));
    // A stop in the pause before it tries again.
    client.prompt("ERR500").await;
    let retries = |event: &AgentEvent| matches!(event, AgentEvent::Status { reason: Some(reason), .. } if reason.contains("tries again"));
    client.until(retries).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert_eq!(text(&talk(&mut client, prompt("hi")).await), "Hello from mock");
    let file = Attachment { name: "a.txt".into(), media_type: "text/plain".into(), content_base64: "aGk=".into() };
    talk(&mut client, Prompt { attachments: Arc::new(vec![file]), ..prompt("see") }).await;
    assert!(last_request(&mock).contains("input/a.txt") && rig.work.path().join("input/a.txt").exists());
    client.close().await;
}

#[tokio::test]
async fn without_credentials_it_is_unavailable() {
    let mock = MockLlm::start();
    let mut rig = Rig::real(&mock);
    // Without the provider that it is told to use.
    rig.config.command.truncate(1);
    std::fs::remove_file(rig.home.path().join(".pi/agent/models.json")).unwrap();
    let mut client = rig.start();
    let message = failure(&client.turn().await.1, "agent_unavailable");
    assert!(message.contains("no credentials") && message.contains("/login"), "{message}");
    client.closed().await;
}

fn starts(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join("starts")).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_start_that_fails_over_a_model_or_a_file_is_made_without() {
    let mut rig = Rig::fake(&json!({"die": ["nonsense", "broken.jsonl"]}));
    let file = rig.work.path().join("broken.jsonl");
    std::fs::write(&file, "x").unwrap();
    rig.spec.native_id = Some(file.to_str().unwrap().into());
    rig.spec.model = Some("nonsense".into());
    rig.told(&[(Role::User, "before")]);
    let (client, opened) = rig.open().await;
    assert_eq!(opened.resumed, Some(Resumed::Replayed));
    let file = file.display();
    let expected = [
        format!("--mode rpc --session {file} --model nonsense"),
        format!("--mode rpc --session {file}"),
        "--mode rpc".to_owned(),
    ];
    assert_eq!(starts(rig.work.path()), expected);
    client.close().await;

    let dead = Rig::fake(&json!({"die": ["rpc"]}));
    let mut client = dead.start();
    let message = failure(&client.turn().await.1, "agent_unavailable");
    assert!(message.contains("ended while it started") && message.contains("no rpc"), "{message}");
    client.closed().await;
}

#[tokio::test]
async fn noise_is_no_text_and_a_command_of_an_extension_ends() {
    let (mut client, _) = Rig::fake(&json!({})).open().await;
    let (events, outcome) = client.play(json!([{"raw": "noise\n{\"half"}, {"raw": "\":1}\n"}, {"say": "a"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("a", COMPLETED));
    assert!(events.contains(&AgentEvent::Raw(json!({"line": "noise"}))), "{events:?}");
    assert!(
        talk(&mut client, prompt("/extension")).await.iter().all(|event| !matches!(event, AgentEvent::Delta { .. }))
    );
    assert!(fails(&mut client, prompt("/refused"), "agent_error").await.contains("not now"));
    let (events, outcome) = client.play(json!([{"say": "b"}])).await;
    assert_eq!((text(&events).as_str(), outcome), ("b", COMPLETED));
    client.close().await;
}

#[tokio::test]
async fn a_dialog_of_an_extension_is_a_choice() {
    let (mut client, _) = Rig::fake(&json!({})).open().await;
    let confirm = json!([{"ask": {"id": "u1", "method": "confirm", "title": "Sure?"}}]);
    client.script(confirm.clone()).await;
    let ask = client.asked().await;
    client.send(AgentCommand::Answer { ask_id: ask.ask_id, answer: Answer::Option { id: "yes".into() } }).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).contains("\"confirmed\":true"), outcome), (true, COMPLETED));
    // Nobody answers a turn that is being stopped.
    client.script(confirm).await;
    let ask = client.asked().await;
    client.send(AgentCommand::Cancel).await;
    let (events, _) = client.turn().await;
    assert!(events.contains(&AgentEvent::ChoiceWithdrawn { ask_id: ask.ask_id }), "{events:?}");
    assert!(text(&events).contains("\"cancelled\":true"));
    client.close().await;
}

#[tokio::test]
async fn a_death_in_a_turn_leaves_its_last_words() {
    let (mut client, _) = Rig::fake(&json!({})).open().await;
    let (events, outcome) =
        client.play(json!([{"say": "so far"}, {"exit": {"code": 7, "stderr": "out of cheese"}}])).await;
    assert_eq!(text(&events), "so far");
    assert_eq!(failure(&outcome, "agent_error"), "agent `pi` ended with exit status: 7; stderr: out of cheese");
    assert_eq!(client.closed().await, []);
}
