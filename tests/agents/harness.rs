//! What the tests of this folder share: a ledger that can be looked at, a transcript, the scripted agent, and a
//! client for the channels of a started agent in which nothing waits without a limit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use greenroom::{
    agents::{
        Agent, AgentCommand, AgentEvent, Live, OpenSpec, Opened, Outcome, ProcessLedger, ProcessRecord, Prompt,
        Transcript, acp::AcpAgent,
    },
    config::{self, AgentConfig, AgentKind, AgentLimits, Secret},
    ids::{MessageId, SessionId},
    protocol::{Message, Part, Role, event::DeltaKind},
    timestamp::Timestamp,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Remembers the groups that run.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<ProcessRecord>>);

impl Ledger {
    pub fn running(&self) -> Vec<ProcessRecord> {
        self.0.lock().unwrap().clone()
    }
}

impl ProcessLedger for Ledger {
    fn started(&self, process: ProcessRecord) {
        self.0.lock().unwrap().push(process);
    }

    fn ended(&self, pgid: i32) {
        self.0.lock().unwrap().retain(|process| process.pgid != pgid);
    }
}

/// A conversation so far, or why it cannot be read.
#[derive(Debug, Clone)]
pub struct Told(pub Result<Vec<Message>, String>);

impl Transcript for Told {
    fn load(&self) -> BoxFuture<'static, Result<Vec<Message>, String>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

/// A message of a transcript.
pub fn message(role: Role, text: &str) -> Message {
    Message {
        id: MessageId::new(),
        role,
        parts: vec![Part::Text { text: text.into() }],
        turn_id: None,
        agent: None,
        client_id: None,
        created_at: Timestamp(0),
    }
}

/// True when there is no living process of that id.
pub fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Waits for something that nothing else tells of.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until there is no living process of that id.
pub async fn wait_gone(pid: i32) {
    eventually("the process is gone", || is_gone(pid)).await;
}

/// An agent configuration with this command and environment, HOME being a folder of the test.
pub fn acp(command: Vec<String>, env: &[(&str, &str)], home: &Path) -> AgentConfig {
    let home = ("HOME", home.to_str().unwrap());
    let env: BTreeMap<String, Secret> =
        env.iter().chain([&home]).map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    let table = json!({"kind": "acp", "command": command});
    let config: AgentConfig = serde_json::from_value(table).unwrap();
    assert_eq!(config.kind, Some(AgentKind::Acp));
    AgentConfig { env, ..config }
}

/// The scripted agent with everything that a test may set before it starts.
pub struct Fake {
    pub folder: Arc<TempDir>,
    pub setup: Value,
    pub config: AgentConfig,
    pub limits: AgentLimits,
    pub spec: OpenSpec,
    pub ledger: Arc<Ledger>,
}

impl Fake {
    pub fn new(setup: Value) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
        let config = acp(vec!["node".into(), script.into()], &[], folder.path());
        let ledger = Arc::new(Ledger::default());
        let spec = open_spec(folder.path(), &ledger);
        let limits = AgentLimits { kill_grace: config::Duration::millis(500), ..AgentLimits::default() };
        Self { folder, setup, config, limits, spec, ledger }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn agent(&self) -> AcpAgent {
        let mut config = self.config.clone();
        config.env.insert("FAKE".into(), Secret::new(self.setup.to_string()));
        config.env.insert("FAKE_LOG".into(), Secret::new(self.log_file().to_str().unwrap()));
        AcpAgent::new("fake".into(), config, self.limits.clone())
    }

    /// Starts it; the first event is not read yet.
    pub fn start(&self) -> Client {
        let live = self.agent().start(self.spec.clone());
        Client { live, ledger: Arc::clone(&self.ledger), _folder: Arc::clone(&self.folder) }
    }

    /// Starts it and waits until it is open.
    pub async fn open(&self) -> (Client, Opened) {
        let mut client = self.start();
        let opened = client.opened().await;
        (client, opened)
    }

    /// What the agent was sent, in order.
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The `params` of the requests and notifications of a method that it was sent.
    pub fn sent(&self, method: &str) -> Vec<Value> {
        self.log()
            .into_iter()
            .filter(|message| message["method"] == method)
            .map(|message| message["params"].clone())
            .collect()
    }
}

/// A specification for a session that works in this folder and has no past.
pub fn open_spec(cwd: &Path, ledger: &Arc<Ledger>) -> OpenSpec {
    OpenSpec {
        session: "test:agents".parse().unwrap(),
        conversation: SessionId::new(),
        cwd: cwd.to_owned(),
        model: None,
        mode: None,
        permission_mode: "default".into(),
        native_id: None,
        transcript: Arc::new(Told(Ok(Vec::new()))),
        processes: ledger.clone(),
    }
}

/// A prompt with this text.
pub fn prompt(text: impl Into<String>) -> Prompt {
    Prompt {
        text: text.into(),
        attachments: Arc::default(),
        model: None,
        mode: None,
        permission_mode: "default".into(),
    }
}

/// A session's side of a started agent.
pub struct Client {
    pub live: Live,
    pub ledger: Arc<Ledger>,
    /// Where the agent works: it stays as long as this.
    pub _folder: Arc<TempDir>,
}

impl Client {
    pub async fn send(&self, command: AgentCommand) {
        timeout(LIMIT, self.live.commands.send(command)).await.expect("the agent takes no commands").unwrap();
    }

    pub async fn prompt(&self, text: impl Into<String>) {
        self.send(AgentCommand::Prompt(prompt(text))).await;
    }

    /// Prompts the scripted agent with steps.
    pub async fn script(&self, steps: Value) {
        self.prompt(steps.to_string()).await;
    }

    /// The next event; none when the channel is closed.
    pub async fn next(&mut self) -> Option<AgentEvent> {
        timeout(LIMIT, self.live.events.recv()).await.expect("the agent says nothing")
    }

    pub async fn opened(&mut self) -> Opened {
        match self.next().await {
            Some(AgentEvent::Opened(opened)) => opened,
            other => panic!("the first event must be Opened: {other:?}"),
        }
    }

    /// Events up to and with the first that fits.
    pub async fn until(&mut self, fits: impl Fn(&AgentEvent) -> bool) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("closed after {events:?}"));
            let done = fits(&event);
            events.push(event);
            if done {
                return events;
            }
        }
    }

    /// The events of a turn and its outcome.
    pub async fn turn(&mut self) -> (Vec<AgentEvent>, Outcome) {
        let mut events = self.until(|event| matches!(event, AgentEvent::Ended(_))).await;
        match events.pop() {
            Some(AgentEvent::Ended(outcome)) => (events, outcome),
            other => panic!("no end: {other:?}"),
        }
    }

    /// Prompts with steps and waits for the end.
    pub async fn play(&mut self, steps: Value) -> (Vec<AgentEvent>, Outcome) {
        self.script(steps).await;
        self.turn().await
    }

    /// The question that comes next.
    pub async fn asked(&mut self) -> greenroom::agents::Ask {
        match self.until(|event| matches!(event, AgentEvent::ChoiceAsked(_))).await.pop() {
            Some(AgentEvent::ChoiceAsked(ask)) => ask,
            other => panic!("no question: {other:?}"),
        }
    }

    /// Reads to the end of the channel, and checks that no group is left then.
    pub async fn closed(&mut self) -> Vec<AgentEvent> {
        let pgids: Vec<i32> = self.ledger.running().iter().map(|process| process.pgid).collect();
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        assert_eq!(self.ledger.running(), [], "closed before the group was gone");
        assert!(pgids.iter().all(|pgid| is_gone(*pgid)), "closed before the leader was gone");
        rest
    }

    /// Ends it in order.
    pub async fn close(mut self) {
        self.send(AgentCommand::Close).await;
        self.closed().await;
    }
}

/// The answer's text.
pub fn text(events: &[AgentEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        AgentEvent::Delta { kind: DeltaKind::Text, text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// The message of a failure.
pub fn failure(outcome: &Outcome, code: &str) -> String {
    match outcome {
        Outcome::Failed(error) if error.code == code => error.message.clone(),
        other => panic!("expected a failure {code}: {other:?}"),
    }
}

pub const COMPLETED: Outcome = Outcome::Completed { reason: None };
