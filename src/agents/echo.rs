//! The echo agent: an honest stand-in that needs no model, for a first run, demonstrations, load and tests.
//!
//! It answers with the prompt's own text, in deltas of a word each. A prompt that begins with `/script ` and a JSON
//! object does exactly what that says: reasoning, a tool call, a question, deltas, a text, a failure, or waiting for ever.

use std::sync::Arc;
use std::{collections::VecDeque, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    AdapterSide, Agent, AgentCommand, AgentEvent, Answer, Ask, Capabilities, Live, Mode, OpenSpec, Opened, Outcome,
    Probe, ProcessLedger, Prompt, ToolCall, channel,
};
use crate::protocol::{ChoiceKind, ChoiceOption, OptionKind, Question, QuestionOption, Usage, event::DeltaKind};

/// The largest number of deltas, and of characters in one, that a script may ask for.
const MAX_SCRIPT: u64 = 10_000_000;

/// What a prompt can ask of the echo agent, in the order in which it happens.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Script {
    /// So many reasoning deltas.
    reasoning: u64,
    /// A tool call.
    tool: Option<ScriptTool>,
    /// A choice; the outcome is told as a delta.
    ask: Option<ChoiceKind>,
    /// So many text deltas: number i is `{i:06} ` padded with `x` to `bytes`.
    deltas: u64,
    /// Characters in each of them.
    bytes: Option<u64>,
    /// Milliseconds before each delta.
    delay_ms: u64,
    /// A delta with this text.
    text: Option<String>,
    /// The turn ends `failed` with this message.
    fail: Option<String>,
    /// It waits until it is cancelled.
    hang: bool,
    /// Tells after each delta what was used so far, not only at the end.
    report_usage: bool,
    /// A cancel is not heard: only force stops it.
    ignore_cancel: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptTool {
    name: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    output: Value,
    #[serde(default)]
    is_error: bool,
}

/// The built-in agent.
#[derive(Debug, Clone)]
pub struct Echo {
    id: String,
}

impl Echo {
    /// An echo agent of that name.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }
}

impl Agent for Echo {
    fn id(&self) -> &str {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "echo"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { stateless: true, steer: true, choices: true, ..Capabilities::default() }
    }

    fn modes(&self) -> Option<Vec<Mode>> {
        Some(Vec::new())
    }

    fn start(&self, _spec: OpenSpec) -> Live {
        let (live, side) = channel();
        let killed = side.killed.clone();
        tokio::spawn(async move {
            // Nothing outlives this task, so being dropped is all that a kill needs.
            let mut turn = Run { side, said: 0, report_usage: false, steers: VecDeque::new() };
            let _ = killed.run_until_cancelled(turn.serve()).await;
        });
        live
    }

    fn probe(&self, _processes: Arc<dyn ProcessLedger>) -> BoxFuture<'_, Probe> {
        let version = Some(env!("CARGO_PKG_VERSION").to_owned());
        std::future::ready(Probe { available: true, version, ..Probe::default() }).boxed()
    }
}

struct Run {
    side: AdapterSide,
    /// Deltas so far in this turn; each counts as a token.
    said: u64,
    /// Whether that is told after each of them.
    report_usage: bool,
    steers: VecDeque<(u64, String)>,
}

/// The turn is over, or the session has let go.
enum Stop {
    Ended(Outcome),
    Gone,
}

impl Run {
    async fn serve(&mut self) {
        if self.send(AgentEvent::Opened(Opened::default())).await.is_err() {
            return;
        }
        while let Some(command) = self.side.commands.recv().await {
            match command {
                AgentCommand::Prompt(prompt) => {
                    (self.said, self.report_usage) = (0, false);
                    let outcome = match self.turn(&prompt).await {
                        Ok(()) => Outcome::Completed { reason: None },
                        Err(Stop::Ended(outcome)) => outcome,
                        Err(Stop::Gone) => return,
                    };
                    let usage = Usage { output_tokens: self.said, ..Usage::default() };
                    for event in [AgentEvent::Usage(usage), AgentEvent::Ended(outcome)] {
                        if self.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                AgentCommand::Close => return,
                _ => {}
            }
        }
    }

    async fn turn(&mut self, prompt: &Prompt) -> Result<(), Stop> {
        let Some(script) = prompt.text.strip_prefix("/script ") else {
            for word in prompt.text.split_inclusive(char::is_whitespace) {
                self.say(DeltaKind::Text, word.to_owned(), Duration::ZERO, false).await?;
            }
            return self.take_steers().await;
        };
        if !script.trim_start().starts_with('{') {
            // A struct would also be read from an array, by position.
            return Err(Stop::Ended(bad_script("it is no object")));
        }
        match serde_json::from_str::<Script>(script) {
            Ok(script) if script.deltas.saturating_mul(script.bytes.unwrap_or(20)) > MAX_SCRIPT * 100 => {
                Err(Stop::Ended(bad_script("deltas times bytes is too much")))
            }
            Ok(script) => self.play(script).await,
            Err(error) => Err(Stop::Ended(bad_script(&error.to_string()))),
        }
    }

    async fn play(&mut self, script: Script) -> Result<(), Stop> {
        self.report_usage = script.report_usage;
        let (delay, deaf) = (Duration::from_millis(script.delay_ms), script.ignore_cancel);
        for i in 0..script.reasoning {
            self.say(DeltaKind::Reasoning, format!("thought {i} "), delay, deaf).await?;
        }
        if let Some(tool) = script.tool {
            let call_id = format!("call_{}", uuid::Uuid::now_v7().simple());
            let call = ToolCall { call_id: call_id.clone(), name: tool.name, input: tool.input, ..ToolCall::default() };
            self.send(AgentEvent::ToolStarted(call)).await?;
            let (output, is_error) = (tool.output, tool.is_error);
            self.send(AgentEvent::ToolFinished { call_id, output, is_error }).await?;
        }
        if let Some(kind) = script.ask {
            self.ask(kind, deaf).await?;
        }
        let width = usize::try_from(script.bytes.unwrap_or(20)).unwrap_or(usize::MAX);
        for i in 0..script.deltas {
            let mut text = format!("{i:06} ");
            while text.len() < width {
                text.push('x');
            }
            text.truncate(width.max(1));
            self.say(DeltaKind::Text, text, delay, deaf).await?;
        }
        if let Some(text) = script.text {
            self.say(DeltaKind::Text, text, delay, deaf).await?;
        }
        self.take_steers().await?;
        if let Some(message) = script.fail {
            return Err(Stop::Ended(Outcome::failed("agent_error", message)));
        }
        if script.hang {
            return Err(self.hang(deaf).await);
        }
        Ok(())
    }

    /// Goes on until it is stopped: only that ends it.
    async fn hang(&mut self, deaf: bool) -> Stop {
        loop {
            let heard = match self.side.commands.recv().await {
                Some(command) => self.hear(command, deaf),
                None => return Stop::Gone,
            };
            let taken = match heard {
                Ok(()) => self.take_steers().await,
                stopped => stopped,
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
    }

    async fn ask(&mut self, kind: ChoiceKind, deaf: bool) -> Result<(), Stop> {
        let ask_id = uuid::Uuid::now_v7().simple().to_string();
        let option = |id: &str, label: &str, kind| ChoiceOption { id: id.into(), label: label.into(), kind };
        let question = || Question {
            id: "answer".into(),
            question: "Which one?".into(),
            header: Some("Echo asks".into()),
            multi: false,
            options: ["this", "that"].map(|label| QuestionOption { label: label.into(), description: None }).into(),
        };
        let permission = kind == ChoiceKind::Permission;
        let ask = Ask {
            ask_id: ask_id.clone(),
            kind,
            title: if permission { "May echo go on?".into() } else { "Echo has a question".into() },
            tool: permission.then(|| "echo".into()),
            input_summary: None,
            options: if permission {
                vec![
                    option("allow", "Yes", OptionKind::AllowOnce),
                    option("always", "Yes, always", OptionKind::AllowAlways),
                    option("reject", "No", OptionKind::RejectOnce),
                ]
            } else {
                Vec::new()
            },
            questions: if permission { Vec::new() } else { vec![question()] },
        };
        self.send(AgentEvent::ChoiceAsked(ask)).await?;
        loop {
            let Some(answer) = self.answer_to(&ask_id, deaf).await? else { continue };
            let told = match answer {
                Answer::Option { id } => format!("permission: {id} "),
                Answer::Answers(answers) => format!("answers: {} ", json!(answers)),
                Answer::Cancelled => "cancelled ".into(),
            };
            return self.say(DeltaKind::Text, told, Duration::ZERO, deaf).await;
        }
    }

    /// One command: the answer if it was that one.
    async fn answer_to(&mut self, wanted: &str, deaf: bool) -> Result<Option<Answer>, Stop> {
        match self.side.commands.recv().await {
            Some(AgentCommand::Answer { ask_id, answer }) if ask_id == wanted => Ok(Some(answer)),
            Some(command) => self.hear(command, deaf).map(|()| None),
            None => Err(Stop::Gone),
        }
    }

    async fn say(&mut self, kind: DeltaKind, text: String, delay: Duration, deaf: bool) -> Result<(), Stop> {
        if delay.is_zero() {
            while let Ok(command) = self.side.commands.try_recv() {
                self.hear(command, deaf)?;
            }
        } else {
            let timer = sleep(delay);
            tokio::pin!(timer);
            loop {
                tokio::select! {
                    () = &mut timer => break,
                    command = self.side.commands.recv() => match command {
                        Some(command) => self.hear(command, deaf)?,
                        None => return Err(Stop::Gone),
                    },
                }
            }
        }
        self.said += 1;
        self.send(AgentEvent::Delta { kind, text }).await?;
        if self.report_usage {
            self.send(AgentEvent::Usage(Usage { output_tokens: self.said, ..Usage::default() })).await?;
        }
        self.take_steers().await
    }

    fn hear(&mut self, command: AgentCommand, deaf: bool) -> Result<(), Stop> {
        match command {
            AgentCommand::Cancel if !deaf => Err(Stop::Ended(Outcome::Cancelled)),
            AgentCommand::Steer { id, text } => {
                self.steers.push_back((id, text));
                Ok(())
            }
            AgentCommand::Close => Err(Stop::Gone),
            _ => Ok(()),
        }
    }

    async fn take_steers(&mut self) -> Result<(), Stop> {
        while let Some((id, text)) = self.steers.pop_front() {
            self.send(AgentEvent::Steered { id }).await?;
            self.said += 1;
            self.send(AgentEvent::Delta { kind: DeltaKind::Text, text: format!("steered: {text}") }).await?;
        }
        Ok(())
    }

    async fn send(&self, event: AgentEvent) -> Result<(), Stop> {
        self.side.events.send(event).await.map_err(|_closed| Stop::Gone)
    }
}

fn bad_script(what: &str) -> Outcome {
    let example = r#"{"deltas": 5, "delay_ms": 100}"#;
    Outcome::failed(
        "agent_error",
        format!("the script cannot be played: {what}; it is a JSON object such as {example}"),
    )
}
