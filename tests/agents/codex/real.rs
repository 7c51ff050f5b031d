//! The real Codex from its npm package, offline, against the mock model server: what is special to it. `scripts/agents`
//! installs it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, Ask, Opened, Outcome, Prompt, codex::CodexAgent},
    config::{AgentConfig, AgentLimits},
    protocol::{Attachment, ChoiceKind, Message, Role, Usage, event::DeltaKind, event::Resumed},
};
use serde_json::json;
use tempfile::TempDir;

use super::turn;
use crate::{
    harness::{COMPLETED, Client, Ledger, Told, eventually, failure, message, open_spec, prompt, text},
    mock_llm::MockLlm,
    real_agents::Real,
};

/// Codex with a HOME, a folder to work in and a model server of its own.
struct Rig {
    mock: MockLlm,
    config: AgentConfig,
    home: TempDir,
    work: Arc<TempDir>,
    ledger: Arc<Ledger>,
    native_id: Option<String>,
    transcript: Mutex<Vec<Message>>,
}

impl Rig {
    fn new() -> Self {
        let mock = MockLlm::start();
        let home = tempfile::tempdir().unwrap();
        let config = Real::Codex.set_up(&mock, home.path());
        let work = Arc::new(tempfile::tempdir().unwrap());
        Self { mock, config, home, work, ledger: Arc::default(), native_id: None, transcript: Mutex::default() }
    }

    async fn open(&self) -> (Client, Opened) {
        let mut spec = open_spec(self.work.path(), &self.ledger);
        spec.native_id.clone_from(&self.native_id);
        spec.transcript = Arc::new(Told(Ok(self.transcript.lock().unwrap().clone())));
        let live = CodexAgent::new("codex".into(), self.config.clone(), AgentLimits::default()).start(spec);
        let mut client = Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.work) };
        let opened = client.opened().await;
        (client, opened)
    }

    /// A turn that is expected to go well; its events.
    async fn talk(&self, client: &mut Client, words: &str) -> Vec<AgentEvent> {
        let (events, outcome) = turn(client, prompt(words)).await;
        assert_eq!(outcome, COMPLETED, "{events:?}");
        self.transcript.lock().unwrap().extend([message(Role::User, words), message(Role::Assistant, &text(&events))]);
        events
    }

    /// What the model was sent last, as text.
    fn last_request(&self) -> String {
        self.mock.generations().last().unwrap().body.to_string()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.work.path().join(file)
    }

    /// Kills the process as a crash would.
    async fn crash(&self, mut client: Client) {
        let leader = nix::unistd::Pid::from_raw(self.ledger.running()[0].pgid);
        nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL).unwrap();
        client.closed().await;
    }
}

async fn answer(client: &Client, asked: &Ask, option: &str) {
    let answer = Answer::Option { id: option.into() };
    client.send(AgentCommand::Answer { ask_id: asked.ask_id.clone(), answer }).await;
}

fn usage(events: &[AgentEvent]) -> Usage {
    let mut usages =
        events.iter().filter_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None });
    usages.next_back().unwrap()
}

fn asks(events: &[AgentEvent]) -> bool {
    events.iter().any(|event| matches!(event, AgentEvent::ChoiceAsked(_)))
}

const MAKE: &str = "USE_TOOL TOOL_CMD:[touch made.txt]";

/// The mock counts 100 input tokens and the number of the request for each model call, 10 of them cached, and 7 output
/// tokens; the sum over all turns must be the sum over all calls.
#[tokio::test]
async fn usage_over_turns_and_calls_adds_up_to_what_the_model_server_counted() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    assert_eq!((opened.resumed, opened.model.as_deref()), (Some(Resumed::New), Some("gpt-5.5")));
    let mut usages = vec![usage(&rig.talk(&mut client, "the word is xylophone").await)];
    client.prompt(MAKE).await;
    let asked = client.asked().await;
    answer(&client, &asked, "accept").await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    usages.push(usage(&events));
    rig.native_id = opened.native_id;
    rig.crash(client).await;
    let (mut client, _) = rig.open().await;
    usages.push(usage(&rig.talk(&mut client, "and again").await));
    let calls: Vec<u64> = rig.mock.generations().iter().map(|call| call.number as u64).collect();
    assert_eq!(calls.len(), 4);
    let sum = usages.iter().fold(Usage::default(), |sum, turn| sum.plus(*turn));
    let expected = (calls.iter().map(|number| 100 + number).sum::<u64>(), 28, 40);
    assert_eq!((sum.input_tokens, sum.output_tokens, sum.cached_tokens), expected);
    // Its last call: 104 in and 7 out.
    assert!(sum.context_used == Some(calls[3] + 107) && sum.context_max > Some(100_000), "{sum:?}");
    client.close().await;
}

#[tokio::test]
async fn text_and_thoughts_are_streamed_and_not_doubled() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let events = rig.talk(&mut client, "THINK first").await;
    let of = |wanted| {
        let deltas = events.iter().filter_map(move |event| match event {
            AgentEvent::Delta { kind, text } if *kind == wanted => Some(text.as_str()),
            _ => None,
        });
        deltas.collect::<Vec<_>>()
    };
    assert_eq!(of(DeltaKind::Reasoning).concat(), "let me think");
    assert_eq!((of(DeltaKind::Text).concat().as_str(), of(DeltaKind::Text).len()), ("Hello from mock", 3));
    client.close().await;
}

#[tokio::test]
async fn a_command_that_is_allowed_for_the_session_is_not_asked_again() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    client.prompt(MAKE).await;
    let asked = client.asked().await;
    assert_eq!((asked.tool.as_deref(), asked.input_summary.as_deref()), (Some("shell"), Some("touch made.txt")));
    assert!(!asked.options.iter().any(|option| option.id.contains("Amendment")), "not for everybody: {asked:?}");
    assert!(!rig.path("made.txt").exists());
    answer(&client, &asked, "acceptForSession").await;
    let (events, outcome) = client.turn().await;
    assert!(outcome == COMPLETED && rig.path("made.txt").exists(), "{events:?}");
    std::fs::remove_file(rig.path("made.txt")).unwrap();
    let events = rig.talk(&mut client, MAKE).await;
    assert!(!asks(&events) && rig.path("made.txt").exists(), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_refusal_lets_the_turn_go_on_or_stops_it() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let rejected = Outcome::Completed { reason: Some("rejected".into()) };
    for (option, expected, says) in [("decline", COMPLETED, true), ("cancel", rejected, false)] {
        client.prompt(MAKE).await;
        let asked = client.asked().await;
        answer(&client, &asked, option).await;
        let (events, outcome) = client.turn().await;
        assert_eq!((outcome, text(&events).contains("all done")), (expected, says), "{option}");
    }
    assert!(!rig.path("made.txt").exists());
    client.close().await;
}

#[tokio::test]
async fn a_change_of_files_shows_its_diff_before_it_is_made() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch\nEOF";
    client.prompt(format!("USE_TOOL TOOL_CMD:[{patch}]")).await;
    let mut events = client.until(|event| matches!(event, AgentEvent::ChoiceAsked(_))).await;
    let Some(AgentEvent::ChoiceAsked(asked)) = events.pop() else { panic!("no question") };
    assert_eq!(asked.tool.as_deref(), Some("apply_patch"));
    assert!(asked.input_summary.as_ref().is_some_and(|summary| summary.ends_with("/new.txt")), "{asked:?}");
    let card = |event: &AgentEvent| match event {
        AgentEvent::ToolStarted(card) => card.name == "apply_patch" && card.input["changes"][0]["diff"] == "hello\n",
        _ => false,
    };
    assert!(events.iter().any(card) && !rig.path("new.txt").exists(), "{events:?}");
    answer(&client, &asked, "accept").await;
    let (events, outcome) = client.turn().await;
    assert!(outcome == COMPLETED && rig.path("new.txt").exists(), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_plan_changes_nothing_and_the_next_turn_asks_again() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let plan = Prompt { permission_mode: "plan".into(), ..prompt(MAKE) };
    let (events, outcome) = turn(&mut client, plan).await;
    assert!(outcome == COMPLETED && !asks(&events) && !rig.path("made.txt").exists(), "{events:?}");
    let planning = |event: &AgentEvent| matches!(event, AgentEvent::Mode { mode: Some(mode), .. } if mode == "plan");
    assert!(events.iter().any(planning), "{events:?}");
    client.prompt(MAKE).await;
    client.asked().await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    let edits = Prompt { permission_mode: "accept_edits".into(), ..prompt(MAKE) };
    let (events, outcome) = turn(&mut client, edits).await;
    assert!(outcome == COMPLETED && !asks(&events) && rig.path("made.txt").exists(), "{events:?}");
    client.close().await;
}

#[tokio::test]
async fn a_question_of_the_plan_mode_is_answered() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let questions = json!({"questions": [{"id": "q1", "header": "Colour", "question": "Which colour?",
        "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]}]});
    let words = format!("USE_TOOL TOOL_NAME:request_user_input TOOL_INPUT:{questions}");
    client.send(AgentCommand::Prompt(Prompt { mode: Some("plan".into()), ..prompt(words) })).await;
    let asked = client.asked().await;
    assert_eq!((asked.kind, asked.questions[0].options.len()), (ChoiceKind::Question, 2));
    let answers = Answer::Answers(json!({"q1": "Blue, like the sea"}).as_object().cloned().unwrap());
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer: answers }).await;
    assert_eq!(client.turn().await.1, COMPLETED);
    assert!(rig.last_request().contains("Blue, like the sea"));
    client.close().await;
}

#[tokio::test]
async fn a_steered_text_reaches_the_model_in_the_running_turn() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    client.prompt("SLOW").await;
    client.until(|event| text(std::slice::from_ref(event)).contains("slow")).await;
    client.send(AgentCommand::Steer { id: 3, text: "turn left".into() }).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, COMPLETED);
    let at = events.iter().position(|event| *event == AgentEvent::Steered { id: 3 }).unwrap();
    assert_eq!(text(&events[at..]), "Hello from mock");
    assert!(rig.last_request().contains("turn left"));
    client.close().await;
}

#[tokio::test]
async fn a_steered_text_that_the_model_never_gets_is_not_taken() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    client.prompt(MAKE).await;
    client.asked().await;
    client.send(AgentCommand::Steer { id: 3, text: "PURPLE".into() }).await;
    client.send(AgentCommand::Cancel).await;
    let (events, outcome) = client.turn().await;
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(!events.contains(&AgentEvent::Steered { id: 3 }), "{events:?}");
    rig.talk(&mut client, "hi").await;
    assert!(!rig.last_request().contains("PURPLE"));
    client.close().await;
}

/// True while a process runs that has this text in its command line.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(mark))
}

#[tokio::test]
async fn a_cancelled_turn_leaves_no_command_running() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    // Codex ends by itself what has just begun, and lets run on what has been running for a while.
    for (at_once, mark) in [(true, "tick-one-28c1"), (false, "tick-two-28c1")] {
        client.prompt(format!("USE_TOOL TOOL_CMD:[while :; do echo {mark}; sleep 0.1; done]")).await;
        let asked = client.asked().await;
        answer(&client, &asked, "accept").await;
        if at_once {
            eventually("the command runs", || runs(mark)).await;
        } else {
            client.until(|event| matches!(event, AgentEvent::ToolUpdated { .. })).await;
        }
        client.send(AgentCommand::Cancel).await;
        let (events, outcome) = client.turn().await;
        assert_eq!(outcome, Outcome::Cancelled);
        // Codex tells of the end of a command once it has killed it; the kernel may need a moment more.
        eventually(&format!("the command is gone: {events:?}"), || !runs(mark)).await;
    }
    rig.talk(&mut client, "hi").await;
    client.close().await;
}

#[tokio::test]
async fn a_thread_goes_on_after_a_crash_with_the_model_of_the_session() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    rig.talk(&mut client, "the word is xylophone").await;
    let other = Prompt { model: Some("mock-2".into()), ..prompt("hi") };
    assert_eq!(turn(&mut client, other).await.1, COMPLETED);
    assert_eq!(rig.mock.generations().last().unwrap().body["model"], "mock-2");
    client.prompt("SLOW").await;
    client.until(|event| text(std::slice::from_ref(event)).contains("slow")).await;
    rig.native_id = opened.native_id;
    rig.crash(client).await;

    let (mut client, opened) = rig.open().await;
    assert_eq!((opened.resumed, &opened.native_id), (Some(Resumed::Native), &rig.native_id));
    rig.talk(&mut client, "and again").await;
    assert!(rig.last_request().contains("xylophone"));
    assert_eq!(rig.mock.generations().last().unwrap().body["model"], "gpt-5.5");
    client.close().await;
    // As after an eviction.
    let (client, opened) = rig.open().await;
    assert_eq!((opened.resumed, &opened.native_id), (Some(Resumed::Native), &rig.native_id));
    client.close().await;
}

#[tokio::test]
async fn a_broken_thread_is_replaced_and_told_the_transcript() {
    let mut rig = Rig::new();
    let (mut client, opened) = rig.open().await;
    rig.talk(&mut client, "the word is xylophone").await;
    client.close().await;
    let id = opened.native_id.clone().unwrap();
    let files: Vec<PathBuf> = files_below(&rig.home.path().join(".codex/sessions"));
    let stored = files.iter().filter(|path| path.to_str().is_some_and(|path| path.contains(&id)));
    stored.for_each(|path| std::fs::write(path, "garbage\n").unwrap());
    for broken in [id, "not even an id".into()] {
        rig.native_id = Some(broken);
        let (mut client, opened) = rig.open().await;
        assert_eq!(opened.resumed, Some(Resumed::Replayed));
        assert_ne!(opened.native_id, rig.native_id);
        rig.talk(&mut client, "and again").await;
        assert!(rig.last_request().contains("xylophone"));
        client.close().await;
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn errors_of_the_model_server_are_told_and_the_agent_stays() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    for (words, expected) in [("ERR401", "credentials"), ("ERR429", "429"), ("ERR500", "agent `codex`")] {
        let (_, outcome) = turn(&mut client, prompt(words)).await;
        assert!(failure(&outcome, "agent_error").contains(expected), "{words}: {outcome:?}");
    }
    rig.talk(&mut client, "hi").await;
    client.close().await;
}

#[tokio::test]
async fn an_image_reaches_the_model() {
    let rig = Rig::new();
    let (mut client, _) = rig.open().await;
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let file = |name: &str, media_type: &str, content: &str| Attachment {
        name: name.into(),
        media_type: media_type.into(),
        content_base64: content.into(),
    };
    let files = vec![file("dot.png", "image/png", png), file("note.txt", "text/plain", "YSB6ZWJyYQ==")];
    let look = Prompt { attachments: Arc::new(files), ..prompt("look") };
    assert_eq!(turn(&mut client, look).await.1, COMPLETED);
    let sent = rig.last_request();
    assert!(sent.contains("data:image/png;base64,") && sent.contains("a zebra"));
    client.close().await;
}

#[tokio::test]
async fn it_is_found_and_says_its_version() {
    let rig = Rig::new();
    let probe = CodexAgent::new("codex".into(), rig.config.clone(), AgentLimits::default())
        .probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded))
        .await;
    assert!(probe.available && probe.version.is_some_and(|version| version.starts_with("0.")));
}
