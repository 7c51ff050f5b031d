//! Real agents from their npm packages, offline, against the mock model server. `scripts/agents` installs them.

use std::sync::{Arc, Mutex};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, Opened, Outcome, Prompt, acp::AcpAgent},
    config::{AgentConfig, AgentLimits},
    protocol::{Message, OptionKind, Role, event::Resumed},
};
use tempfile::TempDir;

use crate::{
    harness::{COMPLETED, Client, Ledger, Told, failure, message, open_spec, prompt, text},
    mock_llm::MockLlm,
    real_agents::Real,
};

/// A real agent with a HOME, a folder to work in and a model server of its own.
pub struct Rig {
    real: Real,
    mock: MockLlm,
    config: AgentConfig,
    home: TempDir,
    work: Arc<TempDir>,
    ledger: Arc<Ledger>,
    native_id: Option<String>,
    transcript: Mutex<Vec<Message>>,
}

impl Rig {
    fn new(real: Real) -> Self {
        let mock = MockLlm::start();
        let home = tempfile::tempdir().unwrap();
        let config = real.set_up(&mock, home.path());
        let work = Arc::new(tempfile::tempdir().unwrap());
        Self { real, mock, config, home, work, ledger: Arc::default(), native_id: None, transcript: Mutex::default() }
    }

    fn agent(&self) -> AcpAgent {
        AcpAgent::new("real".into(), self.config.clone(), AgentLimits::default())
    }

    async fn open(&self) -> (Client, Opened) {
        let mut spec = open_spec(self.work.path(), &self.ledger);
        spec.native_id.clone_from(&self.native_id);
        spec.transcript = Arc::new(Told(Ok(self.transcript.lock().unwrap().clone())));
        let live = self.agent().start(spec);
        let mut client = Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.work) };
        let opened = client.opened().await;
        (client, opened)
    }

    /// A turn that is expected to go well; its answer.
    async fn talk(&self, client: &mut Client, words: &str) -> String {
        client.prompt(words).await;
        let (events, outcome) = client.turn().await;
        assert_eq!(outcome, COMPLETED, "{events:?}");
        let answer = text(&events);
        self.transcript.lock().unwrap().extend([message(Role::User, words), message(Role::Assistant, &answer)]);
        answer
    }

    /// What the model was sent last, as text.
    fn last_request(&self) -> String {
        self.mock.generations().last().unwrap().body.to_string()
    }

    fn made(&self) -> bool {
        self.work.path().join("made.txt").exists()
    }
}

const MAKE: &str = "USE_TOOL TOOL_CMD:[touch made.txt]";

/// Two turns in one conversation, in pieces, with usage.
async fn talks(rig: Rig) {
    let (mut client, opened) = rig.open().await;
    assert_eq!(opened.resumed, Some(Resumed::New));
    assert!(opened.native_id.is_some() && opened.model.is_some() && !opened.models.is_empty(), "{opened:?}");
    client.prompt("the word is xylophone").await;
    let (events, outcome) = client.turn().await;
    assert_eq!((text(&events).as_str(), outcome), ("Hello from mock", COMPLETED));
    let pieces = events.iter().filter(|event| matches!(event, AgentEvent::Delta { .. })).count();
    assert!(pieces > 1, "not streamed: {events:?}");
    let usage =
        events.iter().rev().find_map(|event| if let AgentEvent::Usage(usage) = event { Some(*usage) } else { None });
    let usage = usage.unwrap();
    match rig.real {
        Real::CodexAcp => assert!(usage.context_used > Some(0) && usage.context_max > usage.context_used, "{usage:?}"),
        _ => assert!(usage.input_tokens > 0 && usage.output_tokens > 0, "{usage:?}"),
    }
    assert_eq!(rig.talk(&mut client, "and again").await, "Hello from mock");
    assert!(rig.last_request().contains("xylophone"));
    client.close().await;
}

async fn answers(rig: Rig, kind: OptionKind) -> (Rig, Vec<AgentEvent>, Outcome) {
    let (mut client, _) = rig.open().await;
    client.prompt(MAKE).await;
    let mut events = client.until(|event| matches!(event, AgentEvent::ChoiceAsked(_))).await;
    let Some(AgentEvent::ChoiceAsked(asked)) = events.pop() else { panic!("no question") };
    assert!(!rig.made(), "done before it was allowed");
    assert!(asked.input_summary.as_ref().is_some_and(|summary| summary.contains("touch made.txt")), "{asked:?}");
    let option = asked.options.iter().find(|option| option.kind == kind).unwrap();
    let answer = Answer::Option { id: option.id.clone() };
    client.send(AgentCommand::Answer { ask_id: asked.ask_id, answer }).await;
    let (rest, outcome) = client.turn().await;
    events.extend(rest);
    client.close().await;
    (rig, events, outcome)
}

async fn allowed(rig: Rig) {
    let (rig, events, outcome) = answers(rig, OptionKind::AllowOnce).await;
    assert_eq!(outcome, COMPLETED);
    assert!(rig.made(), "allowed, and not done: {events:?}");
    assert!(text(&events).contains("all done"));
    let started = |event: &AgentEvent| matches!(event, AgentEvent::ToolStarted(card) if card.name == "execute");
    let finished = |event: &AgentEvent| matches!(event, AgentEvent::ToolFinished { is_error: false, .. });
    assert!(events.iter().any(started) && events.iter().any(finished), "{events:?}");
}

async fn rejected(rig: Rig) {
    let (rig, events, outcome) = answers(rig, OptionKind::RejectOnce).await;
    assert!(!rig.made(), "done although it was refused: {events:?}");
    let over = |event: &AgentEvent| matches!(event, AgentEvent::ToolFinished { is_error: true, .. });
    assert!(events.iter().any(over), "the call is left open: {events:?}");
    let reason = match rig.real {
        Real::CodexAcp => Some("rejected".to_owned()),
        _ => None,
    };
    assert_eq!(outcome, Outcome::Completed { reason });
}

async fn cancelled_while_streaming(rig: Rig) {
    let (mut client, _) = rig.open().await;
    client.prompt("SLOW").await;
    client.until(|event| text(std::slice::from_ref(event)).contains("slow")).await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert_eq!(rig.talk(&mut client, "hi").await, "Hello from mock");
    client.close().await;
}

async fn cancelled_while_asking(rig: Rig) {
    let (mut client, _) = rig.open().await;
    client.prompt(MAKE).await;
    client.asked().await;
    client.send(AgentCommand::Cancel).await;
    assert_eq!(client.turn().await.1, Outcome::Cancelled);
    assert!(!rig.made());
    assert_eq!(rig.talk(&mut client, "hi").await, "Hello from mock");
    client.close().await;
}

/// Killed like by a crash, then opened again with what a session has stored.
async fn resumed(mut rig: Rig) {
    let (mut client, opened) = rig.open().await;
    rig.talk(&mut client, "the word is xylophone").await;
    rig.native_id = opened.native_id;
    let leader = nix::unistd::Pid::from_raw(rig.ledger.running()[0].pgid);
    nix::sys::signal::killpg(leader, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(client.closed().await, []);

    let (mut client, opened) = rig.open().await;
    let (expected, same) = match rig.real {
        Real::CodexAcp => (Resumed::Native, true),
        _ => (Resumed::Replayed, false),
    };
    assert_eq!((opened.resumed, opened.native_id == rig.native_id), (Some(expected), same));
    assert_eq!(rig.talk(&mut client, "and again").await, "Hello from mock");
    assert!(rig.last_request().contains("xylophone"));
    client.close().await;
}

/// What fails says so, and the agent stays.
async fn fails(rig: Rig) {
    let (mut client, _) = rig.open().await;
    client.prompt("ERR401").await;
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "agent_error").contains("credentials"), "{outcome:?}");
    client.send(AgentCommand::Prompt(Prompt { model: Some("nonsense".into()), ..prompt("hi") })).await;
    let (_, outcome) = client.turn().await;
    assert!(failure(&outcome, "model_not_found").contains("offers `"), "{outcome:?}");
    assert_eq!(rig.talk(&mut client, "hi").await, "Hello from mock");
    client.close().await;
}

async fn probed(rig: Rig) {
    let probe = rig.agent().probe(std::sync::Arc::new(greenroom::agents::process::Unrecorded)).await;
    assert!(probe.available && probe.reason.is_none(), "{probe:?}");
    let expected = match rig.real {
        // It has no option for it.
        Real::CodexAcp => None,
        _ => Some("0.61.0"),
    };
    assert_eq!(probe.version.as_deref(), expected);
    assert!(rig.home.path().exists() && rig.mock.generations().is_empty());
}

macro_rules! suite {
    ($name:ident, $real:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn talks_in_one_conversation() {
                talks(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn does_what_it_is_allowed_to_do() {
                allowed(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn does_not_do_what_is_refused() {
                rejected(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn stops_while_it_streams() {
                cancelled_while_streaming(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn stops_while_it_asks() {
                cancelled_while_asking(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn goes_on_after_it_was_killed() {
                resumed(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn fails_with_a_message_and_stays() {
                fails(Rig::new($real)).await;
            }

            #[tokio::test]
            async fn can_be_probed() {
                probed(Rig::new($real)).await;
            }
        }
    };
}

suite!(codex_acp, Real::CodexAcp);
suite!(gemini, Real::Gemini);
