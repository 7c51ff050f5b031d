//! The real OpenCode, offline, against the mock model server: what is special to a shared server.

use std::{path::Path, sync::Arc};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, OpenSpec, Opened, Outcome, Prompt, opencode::OpencodeAgent},
    config::AgentLimits,
    protocol::{ChoiceKind, OptionKind, event::Resumed},
};
use tempfile::TempDir;

use crate::{
    harness::{COMPLETED, Client, Ledger, eventually, failure, is_gone, open_spec, prompt, text},
    mock_llm::MockLlm,
    real_agents::Real,
};

/// The agent with a HOME and a model server of its own.
struct Rig {
    mock: MockLlm,
    home: TempDir,
    work: Arc<TempDir>,
    ledger: Arc<Ledger>,
    agent: OpencodeAgent,
}

impl Rig {
    fn new() -> Self {
        let mock = MockLlm::start();
        let home = tempfile::tempdir().unwrap();
        let config = Real::Opencode.set_up(&mock, home.path());
        let agent = OpencodeAgent::new("real".into(), config, AgentLimits::default());
        Self { mock, home, work: Arc::new(tempfile::tempdir().unwrap()), ledger: Arc::default(), agent }
    }

    fn spec(&self, folder: &Path) -> OpenSpec {
        open_spec(folder, &self.ledger)
    }

    async fn open(&self, spec: OpenSpec) -> (Client, Opened) {
        let live = self.agent.start(spec);
        let mut client = Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.work) };
        let opened = client.opened().await;
        (client, opened)
    }
}

async fn talk(client: &mut Client, words: &str) -> String {
    client.prompt(words).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED, "{events:?}");
    text(&events)
}

async fn allow(client: &mut Client) {
    let ask = client.asked().await;
    let option = ask.options.iter().find(|option| option.kind == OptionKind::AllowOnce).unwrap();
    let answer = Answer::Option { id: option.id.clone() };
    client.send(AgentCommand::Answer { ask_id: ask.ask_id, answer }).await;
}

#[tokio::test]
async fn two_sessions_in_two_folders_share_one_process() {
    let rig = Rig::new();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, two) = tokio::join!(rig.open(rig.spec(folders[0].path())), rig.open(rig.spec(folders[1].path())));
    assert_eq!(rig.ledger.running().len(), 1);
    let (mut one, mut two) = (one.0, two.0);
    for client in [&one, &two] {
        client.prompt("USE_TOOL TOOL_CMD:[touch made.txt]").await;
    }
    allow(&mut two).await;
    let (events, outcome) = two.turn().await;
    assert_eq!((outcome, text(&events).as_str()), (COMPLETED, "Tool finished, all done."));
    assert!(folders[1].path().join("made.txt").exists() && !folders[0].path().join("made.txt").exists());
    let usage =
        events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None });
    let usage = usage.unwrap();
    assert!(usage.input_tokens > 200 && usage.output_tokens == 14, "two calls of the model: {usage:?}");
    assert!(usage.cost_usd.is_some_and(|cost| cost > 0.0) && usage.context_max == Some(128_000), "{usage:?}");
    assert!(usage.context_used < Some(usage.input_tokens), "{usage:?}");
    one.send(AgentCommand::Cancel).await;
    assert_eq!(one.turn().await.1, Outcome::Cancelled);
    assert_eq!(talk(&mut one, "go on").await, "Hello from mock");
    // Neither a title nor anything else was asked of the model beside the turns.
    assert_eq!(rig.mock.generations().len(), 4);
    let pid = rig.ledger.running()[0].pgid;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.contains("serve") && !command.contains("PASSWORD"));
    drop(rig.agent);
    eventually("both are told", || one.live.commands.is_closed() && two.live.commands.is_closed()).await;
    eventually("the server is gone", || is_gone(pid) && rig.ledger.running().is_empty()).await;
}

#[tokio::test]
async fn the_conversation_goes_on_after_the_server_was_killed_in_a_turn() {
    let rig = Rig::new();
    let (mut client, opened) = rig.open(rig.spec(rig.work.path())).await;
    assert_eq!((opened.resumed, opened.model.as_deref()), (Some(Resumed::New), Some("mock/mock-model")));
    let offered: Vec<&str> = opened.models.iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(offered, ["mock/mock-model", "mock/mock-2"], "the built-in provider was not configured");
    talk(&mut client, "the word is xylophone").await;
    client.prompt("SLOW").await;
    client.until(|event| matches!(event, AgentEvent::Delta { .. })).await;
    let pid = rig.ledger.running()[0].pgid;
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "agent_error").contains("signal: 9"), "{outcome:?}");
    while client.next().await.is_some() {}
    let native_id = opened.native_id;
    let (mut client, opened) = rig.open(OpenSpec { native_id, ..rig.spec(rig.work.path()) }).await;
    assert_eq!(opened.resumed, Some(Resumed::Native));
    assert_eq!(talk(&mut client, "and again").await, "Hello from mock");
    assert!(rig.mock.generations().last().unwrap().body.to_string().contains("xylophone"));
    assert!(rig.home.path().exists());
}

#[tokio::test]
async fn a_text_is_taken_into_the_running_turn() {
    let rig = Rig::new();
    let (mut client, _) = rig.open(rig.spec(rig.work.path())).await;
    client.prompt("USE_TOOL TOOL_CMD:[sleep 1]").await;
    allow(&mut client).await;
    client.send(AgentCommand::Steer { id: 7, text: "the word is marimba".into() }).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    assert!(events.contains(&AgentEvent::Steered { id: 7 }), "{events:?}");
    assert!(rig.mock.generations().last().unwrap().body.to_string().contains("marimba"));
    assert_eq!(text(&events), "Hello from mock");
    let at = |fits: fn(&AgentEvent) -> bool| events.iter().position(fits).unwrap();
    let completed = at(|event| matches!(event, AgentEvent::ToolFinished { .. }));
    let steered = at(|event| matches!(event, AgentEvent::Steered { .. }));
    assert!(completed < steered && steered < at(|event| matches!(event, AgentEvent::Delta { .. })), "{events:?}");
}

/// True when a file below the folder holds these bytes: OpenCode keeps texts as they are.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds(&entry.path(), bytes),
        Ok(kind) if kind.is_file() => {
            std::fs::read(entry.path()).is_ok_and(|content| content.windows(bytes.len()).any(|part| part == bytes))
        }
        _ => false,
    })
}

#[tokio::test]
async fn a_text_that_a_cancelled_turn_did_not_take_is_not_given_to_the_next() {
    let rig = Rig::new();
    let (mut client, _) = rig.open(rig.spec(rig.work.path())).await;
    for (id, wait) in [(7, true), (8, false)] {
        client.prompt("USE_TOOL TOOL_CMD:[sleep 60]").await;
        allow(&mut client).await;
        client.send(AgentCommand::Steer { id, text: "the word is marimba".into() }).await;
        if wait {
            // The other is overtaken by the stop.
            eventually("OpenCode has stored the text", || {
                holds(&rig.home.path().join(".local/share/opencode"), b"marimba")
            })
            .await;
        }
        client.send(AgentCommand::Cancel).await;
        let (events, outcome) = client.turn().await;
        assert_eq!(outcome, Outcome::Cancelled);
        assert!(!events.contains(&AgentEvent::Steered { id }), "{events:?}");
        assert_eq!(talk(&mut client, "go on").await, "Hello from mock");
        assert!(!rig.mock.generations().last().unwrap().body.to_string().contains("marimba"), "{id}");
    }
}

#[tokio::test]
async fn questions_and_sub_agents_work() {
    let rig = Rig::new();
    let (mut client, _) = rig.open(rig.spec(rig.work.path())).await;
    let input = r#"{"questions": [{"question": "Which?", "header": "W", "options": [
        {"label": "A", "description": "a"}, {"label": "B", "description": "b"}]}]}"#;
    client.prompt(format!("USE_TOOL TOOL_NAME:question TOOL_INPUT:{input}")).await;
    let ask = client.asked().await;
    assert_eq!((ask.kind, ask.title.as_str(), ask.questions[0].options.len()), (ChoiceKind::Question, "Which?", 2));
    let answers = [(ask.questions[0].id.clone(), "B".into())].into_iter().collect();
    client.send(AgentCommand::Answer { ask_id: ask.ask_id, answer: Answer::Answers(answers) }).await;
    assert_eq!(text(&client.turn().await.0), "Tool finished, all done.");
    assert!(rig.mock.generations().last().unwrap().body.to_string().contains(r#"\"Which?\"=\"B\""#));
    let input = r#"{"description": "d", "prompt": "USE_TOOL TOOL_NAME:bash TOOL_CMD:[touch made.txt]", "subagent_type": "general"}"#;
    client.prompt(format!("USE_TOOL TOOL_NAME:task TOOL_INPUT:{input}")).await;
    allow(&mut client).await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("Tool finished, all done.", COMPLETED), "said once");
    assert!(rig.work.path().join("made.txt").exists());
    let output = |event: &AgentEvent| matches!(event, AgentEvent::Usage(usage) if usage.output_tokens == 28);
    assert!(events.iter().any(output), "the sub-agent's calls count: {events:?}");
}

#[tokio::test]
async fn errors_and_refusals_are_said_and_the_session_stays() {
    let rig = Rig::new();
    let (mut client, _) = rig.open(rig.spec(rig.work.path())).await;
    client.prompt("ERR401").await;
    assert!(failure(&client.turn().await.1, "agent_error").contains("opencode auth login"));
    let image = greenroom::protocol::Attachment {
        name: "p.png".into(),
        media_type: "image/png".into(),
        content_base64: "aGk=".into(),
    };
    let broken = Prompt { attachments: Arc::new(vec![image]), ..prompt("look") };
    client.send(AgentCommand::Prompt(broken)).await;
    assert!(failure(&client.turn().await.1, "agent_error").contains("Image"));
    client.prompt("USE_TOOL TOOL_CMD:[touch made.txt]").await;
    let ask = client.asked().await;
    let answer = Answer::Option { id: "reject".into() };
    client.send(AgentCommand::Answer { ask_id: ask.ask_id, answer }).await;
    assert_eq!(client.turn().await.1, Outcome::Completed { reason: Some("rejected".into()) });
    assert!(!rig.work.path().join("made.txt").exists());
    assert_eq!(talk(&mut client, "THINK about it").await, "Hello from mock");
    client.prompt("/init it").await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("Hello from mock", COMPLETED));
    assert!(rig.mock.generations().last().unwrap().body.to_string().contains("AGENTS.md"));
}
