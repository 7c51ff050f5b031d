//! The openai adapter against a mock model server, through the channel that a session holds.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mock_llm/mod.rs"]
mod mock_llm;

mod errors;
mod mock;
mod requests;
mod retries;
mod streams;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use greenroom::{
    agents::{
        Agent as _, AgentCommand, AgentEvent, Live, OpenSpec, Outcome, ProcessLedger, ProcessRecord, Prompt,
        Transcript, openai::OpenAiAgent,
    },
    config::AgentLimits,
    ids::{MessageId, SessionId},
    protocol::{Attachment, Message, Part, Role, Usage, event::DeltaKind},
    timestamp::Timestamp,
};
use mock_llm::MockLlm;
use serde_json::{Value, json};

/// No event may take longer; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

struct Told(Result<Vec<Message>, String>);

impl Transcript for Told {
    fn load(&self) -> BoxFuture<'static, Result<Vec<Message>, String>> {
        let told = self.0.clone();
        async move { told }.boxed()
    }
}

struct NoProcesses;

impl ProcessLedger for NoProcesses {
    fn started(&self, process: ProcessRecord) {
        panic!("the openai adapter starts no processes: {process:?}");
    }

    fn ended(&self, pgid: i32) {
        panic!("the openai adapter starts no processes: {pgid}");
    }
}

fn message(role: Role, parts: Vec<Part>) -> Message {
    let created_at = Timestamp(0);
    Message { id: MessageId::new(), role, parts, turn_id: None, agent: None, client_id: None, created_at }
}

fn text_message(role: Role, text: &str) -> Message {
    message(role, vec![Part::Text { text: text.into() }])
}

fn prompt(text: &str) -> Prompt {
    let attachments = Arc::new(Vec::new());
    Prompt { text: text.into(), attachments, model: None, mode: None, permission_mode: "default".into() }
}

fn file(name: &str, media_type: &str, content_base64: &str) -> Attachment {
    Attachment { name: name.into(), media_type: media_type.into(), content_base64: content_base64.into() }
}

/// The agent `local`, with settings beside its address; it retries after a millisecond.
fn agent_at(base_url: &str, settings: Value) -> OpenAiAgent {
    let mut config = json!({"kind": "openai", "base_url": base_url, "model": "mock-model"});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let config = serde_json::from_value(config).unwrap();
    OpenAiAgent::with_first_retry("local", config, AgentLimits::default(), Duration::from_millis(1)).unwrap()
}

/// A started agent, as a session holds it.
struct Session {
    live: Live,
}

impl Session {
    async fn open(agent: &OpenAiAgent, told: Result<Vec<Message>, String>) -> Self {
        let spec = OpenSpec {
            session: "web:alice".parse().unwrap(),
            conversation: SessionId::new(),
            cwd: std::env::temp_dir(),
            model: None,
            mode: None,
            permission_mode: "default".into(),
            native_id: None,
            transcript: Arc::new(Told(told)),
            processes: Arc::new(NoProcesses),
        };
        let mut session = Self { live: agent.start(spec) };
        match session.next().await {
            AgentEvent::Opened(opened) => assert_eq!((opened.resumed, opened.native_id), (None, None)),
            other => panic!("the first event is {other:?}"),
        }
        session
    }

    /// A session with a fresh agent at a mock server.
    async fn at(mock: &MockLlm) -> Self {
        Self::open(&agent_at(&mock.v1(), json!({})), Ok(Vec::new())).await
    }

    async fn tell(&self, command: AgentCommand) {
        self.live.commands.send(command).await.unwrap();
    }

    /// The next event; none when the agent is gone.
    async fn event(&mut self) -> Option<AgentEvent> {
        tokio::time::timeout(PATIENCE, self.live.events.recv()).await.expect("an event in time")
    }

    async fn next(&mut self) -> AgentEvent {
        self.event().await.expect("the agent lives")
    }

    /// Reads events until one fits, and returns that.
    async fn until(&mut self, what: &str, fits: impl Fn(&AgentEvent) -> bool) -> AgentEvent {
        loop {
            match self.next().await {
                event if fits(&event) => return event,
                AgentEvent::Ended(outcome) => panic!("ended with {outcome:?} before {what}"),
                _ => {}
            }
        }
    }

    /// Runs a turn to its end.
    async fn turn(&mut self, prompt: Prompt) -> Turn {
        self.tell(AgentCommand::Prompt(prompt)).await;
        self.rest().await
    }

    async fn ask(&mut self, text: &str) -> Turn {
        self.turn(prompt(text)).await
    }

    /// Reads the running turn to its end.
    async fn rest(&mut self) -> Turn {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                AgentEvent::Ended(outcome) => return Turn { events, outcome },
                event => events.push(event),
            }
        }
    }
}

/// What came of a turn.
struct Turn {
    events: Vec<AgentEvent>,
    outcome: Outcome,
}

impl Turn {
    fn joined(&self, wanted: DeltaKind) -> String {
        let pieces = self.events.iter().filter_map(|event| match event {
            AgentEvent::Delta { kind, text } if *kind == wanted => Some(text.as_str()),
            _ => None,
        });
        pieces.collect()
    }

    fn text(&self) -> String {
        self.joined(DeltaKind::Text)
    }

    fn reasoning(&self) -> String {
        self.joined(DeltaKind::Reasoning)
    }

    /// The last usage.
    fn usage(&self) -> Option<Usage> {
        self.events.iter().rev().find_map(|event| match event {
            AgentEvent::Usage(usage) => Some(*usage),
            _ => None,
        })
    }

    /// The reasons of the status events, in order.
    fn statuses(&self) -> Vec<&str> {
        let reasons = self.events.iter().filter_map(|event| match event {
            AgentEvent::Status { reason, .. } => reason.as_deref(),
            _ => None,
        });
        reasons.collect()
    }

    fn faults(&self) -> Vec<&str> {
        let faults = self.events.iter().filter_map(|event| match event {
            AgentEvent::Fault { message, .. } => Some(message.as_str()),
            _ => None,
        });
        faults.collect()
    }

    /// The error's code and message.
    #[track_caller]
    fn error(&self) -> (&str, &str) {
        match &self.outcome {
            Outcome::Failed(error) => (&error.code, &error.message),
            other => panic!("it ended with {other:?}"),
        }
    }

    #[track_caller]
    fn completed(&self) -> &Self {
        assert_eq!(self.outcome, Outcome::Completed { reason: None });
        self
    }
}

/// Every word stands in the text.
#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}
