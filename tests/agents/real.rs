//! Real agents from their npm packages, offline, against the mock model server. `scripts/agents` installs them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Answer, Opened, Outcome, Prompt, acp::AcpAgent},
    config::{AgentConfig, AgentLimits},
    protocol::{Message, OptionKind, Role, event::Resumed},
};
use tempfile::TempDir;

use crate::{
    harness::{COMPLETED, Client, Ledger, Told, acp, failure, message, open_spec, prompt, text},
    mock_llm::MockLlm,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Real {
    Codex,
    Gemini,
}

impl Real {
    /// The program, which must be there: a test that is left out unseen would prove nothing.
    fn program(self) -> String {
        let folder = std::env::var_os("GREENROOM_TEST_AGENTS").map(PathBuf::from);
        let folder =
            folder.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/greenroom-agents"));
        let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
        let path = folder.join(match self {
            // The native program, not its wrapper in node, which leaves it behind when it is killed.
            Self::Codex => format!("codex-acp/node_modules/@zed-industries/codex-acp-linux-{arch}/bin/codex-acp"),
            Self::Gemini => "gemini-cli/node_modules/.bin/gemini".to_owned(),
        });
        assert!(path.exists(), "{} is not installed: run scripts/agents", path.display());
        path.to_str().unwrap().to_owned()
    }

    /// What the agent's own file in HOME must say to use the mock.
    fn settings(self, mock: &MockLlm) -> (&'static str, String) {
        match self {
            // A model that it knows: about others it complains in the answer's text.
            Self::Codex => (
                ".codex/config.toml",
                format!(
                    r#"
                    model = "gpt-5.4"
                    model_provider = "mock"
                    approval_policy = "untrusted"
                    sandbox_mode = "workspace-write"
                    check_for_update_on_startup = false
                    [model_providers.mock]
                    name = "mock"
                    base_url = "{}"
                    env_key = "MOCK_KEY"
                    wire_api = "responses"
                    request_max_retries = 0
                    stream_max_retries = 0
                    [analytics]
                    enabled = false
                    "#,
                    mock.v1()
                ),
            ),
            Self::Gemini => (
                ".gemini/settings.json",
                r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false}}"#
                    .to_owned(),
            ),
        }
    }
}

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
        let (file, settings) = real.settings(&mock);
        let file = home.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, settings).unwrap();
        let (args, env) = match real {
            Real::Codex => (vec![], vec![("MOCK_KEY", "dummy".to_owned())]),
            Real::Gemini => (
                vec!["--acp".to_owned()],
                vec![
                    ("GEMINI_API_KEY", "dummy".to_owned()),
                    ("GOOGLE_GEMINI_BASE_URL", mock.url()),
                    ("GEMINI_CLI_TRUST_WORKSPACE", "true".to_owned()),
                ],
            ),
        };
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let command = [vec![real.program()], args].concat();
        let config = acp(command, &env, home.path());
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
        Real::Codex => assert!(usage.context_used > Some(0) && usage.context_max > usage.context_used, "{usage:?}"),
        Real::Gemini => assert!(usage.input_tokens > 0 && usage.output_tokens > 0, "{usage:?}"),
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
    let reason = match rig.real {
        Real::Codex => Some("rejected".to_owned()),
        Real::Gemini => None,
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
        Real::Codex => (Resumed::Native, true),
        Real::Gemini => (Resumed::Replayed, false),
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
    let probe = rig.agent().probe().await;
    assert!(probe.available && probe.reason.is_none(), "{probe:?}");
    let expected = match rig.real {
        // It has no option for it.
        Real::Codex => None,
        Real::Gemini => Some("0.61.0"),
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

suite!(codex, Real::Codex);
suite!(gemini, Real::Gemini);
