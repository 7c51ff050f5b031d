//! The task behind one session: one loop over commands, the agent and the clock, and the way to the end.
//!
//! Invariants:
//! - It never waits for the session or the agent without listening for the kill. Outside a turn it waits for the agent
//!   within a limit; how long an agent may be silent in a turn, the session decides.
//! - Its end of the event channel is dropped only when the process group is gone.
//! - Every prompt gets exactly one `Ended`, also when the agent dies or is killed under it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Setup,
    connection::{Connection, Input},
    content::Accepts,
    permission::{Pending, cancelled},
    rpc::{Message, RpcError},
    turn::{Applied, Turn},
    updates::{Conversation, raw},
};
use crate::agents::{
    AdapterSide, AgentCommand, AgentEvent, Answer, OpenSpec, Outcome, Prompt,
    process::{Process, readable},
};

/// How long an agent may take to end by itself after its stdin was closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the last event waits for a session that does not read.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The most of stderr in a message for a person, in bytes; all that is kept goes to the log.
const STDERR_IN_MESSAGE: usize = 4000;
/// Lines that are no messages are logged this many times for each process.
const NOISE_LOGGED: u32 = 20;
/// Events that wait for `Opened`.
const MAX_EARLY: usize = 32;

/// Why the loop is over.
#[derive(Debug)]
pub(super) enum Stop {
    /// Somebody asked for the kill, or dropped the session's side.
    Killed,
    /// The process has ended, or closed its stdout.
    Dead,
    /// The session lets it go in order.
    Closed,
    /// It cannot go on.
    Failed(Outcome),
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The agent said no.
    Refused(RpcError),
    /// It was not asked, because it cannot be: a code of the error table, and what there is, for a person.
    Unfit(&'static str, String),
    /// It said nothing in time.
    Timeout,
    /// There is nobody to ask.
    Stop(Stop),
}

/// A request of ours whose answer comes while a turn may run.
#[derive(Debug, PartialEq, Eq)]
struct ModeRequest {
    id: u64,
    mode: String,
}

/// Everything about one session's agent.
pub(super) struct Driver {
    pub(super) setup: Arc<Setup>,
    pub(super) spec: OpenSpec,
    pub(super) connection: Connection,
    events: mpsc::Sender<AgentEvent>,
    pub(super) killed: CancellationToken,
    /// Makes ask ids unique over processes.
    pub(super) instance: String,
    /// The agent's own id of the conversation; empty until there is one.
    pub(super) session_id: String,
    pub(super) accepts: Accepts,
    pub(super) conversation: Conversation,
    /// The settings that were asked for last and are in force, unless the agent has changed them since by itself.
    pub(super) applied: Applied,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    /// False until `Opened` was sent; events before it wait in `early`.
    opened: bool,
    early: Vec<AgentEvent>,
    pub(super) pending: Pending,
    pub(super) turn: Option<Turn>,
    mode_request: Option<ModeRequest>,
    /// A prompt that came too soon: a second one is never given to a busy agent.
    waiting: VecDeque<Prompt>,
    noise: u32,
}

/// Runs an agent from its start to its end.
pub(super) async fn run(setup: Arc<Setup>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let spawn = setup.spawn(spec.session.as_str(), spec.cwd.clone(), Arc::clone(&spec.processes));
    let process = match Process::spawn(spawn) {
        Ok(process) => process,
        Err(error) => {
            let failed = Outcome::failed("agent_unavailable", setup.unavailable(&error));
            tokio::select! { _ = events.send(AgentEvent::Ended(failed)) => {}, () = killed.cancelled() => {} }
            return;
        }
    };
    let mut driver = Driver {
        setup,
        spec,
        connection: Connection::new(process),
        events,
        killed,
        instance: uuid::Uuid::now_v7().simple().to_string(),
        session_id: String::new(),
        accepts: Accepts::default(),
        conversation: Conversation::default(),
        applied: Applied::default(),
        replay: None,
        opened: false,
        early: Vec::new(),
        pending: Pending::default(),
        turn: None,
        mode_request: None,
        waiting: VecDeque::new(),
        noise: 0,
    };
    let stop = match driver.open().await {
        Ok(()) => driver.serve(&mut commands).await,
        Err(stop) => stop,
    };
    driver.end(stop).await;
}

impl Driver {
    async fn serve(&mut self, commands: &mut mpsc::Receiver<AgentCommand>) -> Stop {
        loop {
            if let Err(stop) = self.step(commands).await {
                return stop;
            }
        }
    }

    /// One thing that happens.
    async fn step(&mut self, commands: &mut mpsc::Receiver<AgentCommand>) -> Result<(), Stop> {
        if self.turn.is_none()
            && let Some(prompt) = self.waiting.pop_front()
        {
            return self.prompt(prompt).await;
        }
        tokio::select! {
            biased;
            () = self.killed.cancelled() => Err(Stop::Killed),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            input = self.connection.next() => self.input(input).await,
        }
    }

    async fn command(&mut self, command: AgentCommand) -> Result<(), Stop> {
        match command {
            AgentCommand::Prompt(prompt) => self.waiting.push_back(prompt),
            AgentCommand::Cancel => self.cancel().await?,
            AgentCommand::Answer { ask_id, answer } => self.answer(&ask_id, &answer).await?,
            AgentCommand::SetModel(model) => self.spec.model = Some(model),
            AgentCommand::SetMode(mode) => self.set_mode(mode).await?,
            AgentCommand::Close => return Err(Stop::Closed),
            // Not among the capabilities: the session makes a turn of its own out of it.
            AgentCommand::Steer { id, .. } => log::debug!(id; "acp agents cannot be steered"),
        }
        Ok(())
    }

    /// Goes into a mode now, also in the middle of a turn; the answer is awaited in the loop.
    async fn set_mode(&mut self, mode: String) -> Result<(), Stop> {
        let change = match &self.conversation.settings.mode {
            Some(setting) => setting.change("mode", &mode, &self.session_id),
            None => Err("the agent offers no modes".to_owned()),
        };
        match change {
            Ok(Some((method, params))) => {
                let id = self.connection.request(method, &params);
                self.mode_request = Some(ModeRequest { id, mode: mode.clone() });
            }
            Ok(None) => {}
            Err(message) => return self.emit(AgentEvent::Fault { code: "model_not_found".into(), message }).await,
        }
        self.spec.mode = Some(mode);
        Ok(())
    }

    async fn input(&mut self, input: Input) -> Result<(), Stop> {
        match input {
            Input::Message(Message::Response { id, result }) => self.response(id, result).await,
            Input::Message(Message::Request { id, method, params }) => self.request(id, &method, &params).await,
            Input::Message(Message::Notification { method, params }) => self.notification(&method, params).await,
            Input::Noise(line) => self.noise(&line).await,
            Input::TooLong => {
                let message = format!("agent `{}` wrote a line over {}", self.setup.name, self.setup.limits.max_line);
                self.emit(AgentEvent::Fault { code: "line_too_long".into(), message }).await
            }
            Input::Closed => Err(Stop::Dead),
        }
    }

    async fn response(&mut self, id: u64, result: Result<Value, RpcError>) -> Result<(), Stop> {
        if self.turn.as_ref().is_some_and(|turn| turn.request == id) {
            return self.end_turn(result).await;
        }
        match self.mode_request.take_if(|request| request.id == id) {
            Some(request) => match result {
                Ok(result) => {
                    self.mode_is(request.mode, &result);
                    self.emit_mode().await
                }
                Err(error) => {
                    let message = format!("the agent refused the mode `{}`: {}", request.mode, error.text());
                    self.emit(AgentEvent::Fault { code: "agent_error".into(), message }).await
                }
            },
            // The answer to a call that was given up.
            None => Ok(()),
        }
    }

    /// Notes a mode that the agent has confirmed.
    pub(super) fn mode_is(&mut self, id: String, result: &Value) {
        let settings = &mut self.conversation.settings;
        if let Some(setting) = &mut settings.mode {
            setting.current = Some(id);
        }
        if let Some(options) = result.get("configOptions") {
            settings.take_options(options);
        }
    }

    pub(super) async fn emit_mode(&mut self) -> Result<(), Stop> {
        match self.conversation.settings.mode_event() {
            Some(event) => self.emit(event).await,
            None => Ok(()),
        }
    }

    async fn request(&mut self, id: Value, method: &str, params: &Value) -> Result<(), Stop> {
        if method != "session/request_permission" {
            log::debug!(agent = self.setup.name.as_str(), method; "agent asks for what this client does not have");
            self.connection.refuse(&id, method);
            return Ok(());
        }
        if self.turn.as_ref().is_none_or(|turn| turn.cancelling) {
            self.connection.reply(&id, &cancelled());
            return Ok(());
        }
        // Some agents announce no call before they ask.
        if let Some(call) = params.get("toolCall") {
            let events = self.conversation.tools.announce(call);
            self.emit_all(events).await?;
        }
        match self.pending.ask(&self.instance, id, params, &self.conversation.tools) {
            Ok(ask) => self.emit(AgentEvent::ChoiceAsked(ask)).await,
            Err(id) => {
                self.connection.reply(&id, &cancelled());
                let message = "the agent asked for a permission without an option that can be chosen".to_owned();
                self.emit(AgentEvent::Fault { code: "agent_error".into(), message }).await
            }
        }
    }

    async fn notification(&mut self, method: &str, params: Value) -> Result<(), Stop> {
        match method {
            "session/update" => {
                let session = params.get("sessionId").and_then(Value::as_str).unwrap_or_default();
                let ours = self.session_id.is_empty() || session == self.session_id;
                match params.get("update") {
                    Some(update) if ours => {
                        let events = self.conversation.update(update, self.turn.is_some());
                        self.emit_all(events).await
                    }
                    _ => self.emit(raw(&params)).await,
                }
            }
            "$/cancel_request" => {
                let id = params.get("requestId").unwrap_or(&Value::Null);
                let Some(ask_id) = self.pending.by_request(id) else { return Ok(()) };
                self.pending.answer(&ask_id, &Answer::Cancelled);
                self.connection.reply(id, &cancelled());
                self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await
            }
            _ => self.emit(raw(&json!({"method": method, "params": params}))).await,
        }
    }

    async fn noise(&mut self, line: &str) -> Result<(), Stop> {
        let text = readable(line, 1000);
        if self.noise < NOISE_LOGGED {
            self.noise += 1;
            log::debug!(agent = self.setup.name.as_str(), line = text.as_str(); "agent wrote a line that is no message");
        }
        self.emit(AgentEvent::Raw(json!({ "line": text }))).await
    }

    /// Asks the agent and waits for its answer; what else it says meanwhile is handled. Only between turns.
    pub(super) async fn call(&mut self, method: &str, params: &Value, limit: Duration) -> Result<Value, CallError> {
        let id = self.connection.request(method, params);
        let deadline = Instant::now() + limit;
        loop {
            let input = tokio::select! {
                biased;
                () = self.killed.cancelled() => return Err(CallError::Stop(Stop::Killed)),
                input = self.connection.next() => input,
                () = sleep_until(deadline.into()) => return Err(CallError::Timeout),
            };
            match input {
                Input::Message(Message::Response { id: answered, result }) if answered == id => {
                    return result.map_err(CallError::Refused);
                }
                input => self.input(input).await.map_err(CallError::Stop)?,
            }
        }
    }

    /// Tells the session; waits while it is busy.
    pub(super) async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        if !self.opened {
            // The mode is told right after `Opened` in any case.
            if self.early.len() < MAX_EARLY && !matches!(event, AgentEvent::Mode { .. }) {
                self.early.push(event);
            }
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.killed.cancelled() => Err(Stop::Killed),
            sent = self.events.send(event) => sent.map_err(|_closed| Stop::Killed),
        }
    }

    pub(super) async fn emit_all(&mut self, events: Vec<AgentEvent>) -> Result<(), Stop> {
        for event in events {
            self.emit(event).await?;
        }
        Ok(())
    }

    /// Sends `Opened`, which must be the first, and then what waited for it.
    pub(super) async fn emit_opened(&mut self, opened: AgentEvent) -> Result<(), Stop> {
        self.opened = true;
        self.emit(opened).await?;
        let early = std::mem::take(&mut self.early);
        self.emit_all(early).await
    }

    /// Starts another process in the place of this one, which is stopped first.
    pub(super) async fn respawn(&mut self) -> Result<(), Stop> {
        let spec = &self.spec;
        let spawn = self.setup.spawn(spec.session.as_str(), spec.cwd.clone(), Arc::clone(&spec.processes));
        let unavailable = |error| Stop::Failed(Outcome::failed("agent_unavailable", self.setup.unavailable(&error)));
        let fresh = Connection::new(Process::spawn(spawn).map_err(unavailable)?);
        let old = std::mem::replace(&mut self.connection, fresh);
        let stopped = old.process.stop(STDERR_IN_MESSAGE).await;
        log::warn!(agent = self.setup.name.as_str(); "agent is started anew: it {}", stopped.describe());
        Ok(())
    }

    /// Ends the process, then says how the prompt that ran has ended, then lets the channel go.
    async fn end(mut self, stop: Stop) {
        if matches!(stop, Stop::Closed) {
            self.connection.process.finish(CLOSE_PATIENCE).await;
        }
        let stopped = self.connection.process.stop(STDERR_IN_MESSAGE).await;
        let name = &self.setup.name;
        let cancelling = self.turn.as_ref().is_some_and(|turn| turn.cancelling);
        let outcome = match &stop {
            // It has stopped, and that is what was asked for, in whatever way it did.
            _ if cancelling => Outcome::Cancelled,
            Stop::Failed(Outcome::Failed(error)) => {
                let stderr =
                    if stopped.stderr.is_empty() { String::new() } else { format!("; stderr: {}", stopped.stderr) };
                Outcome::failed(&error.code, format!("{}{stderr}", error.message))
            }
            Stop::Failed(outcome) => outcome.clone(),
            Stop::Killed => Outcome::failed("agent_error", format!("agent `{name}` was stopped by force")),
            Stop::Closed => Outcome::failed("agent_error", format!("agent `{name}` was closed")),
            Stop::Dead => Outcome::failed("agent_error", format!("agent `{name}` {}", stopped.describe())),
        };
        let owed = usize::from(self.turn.is_some() || !self.opened) + self.waiting.len();
        if owed == 0 && matches!(stop, Stop::Dead) {
            log::warn!(
                agent = name.as_str(), session = self.spec.session.as_str();
                "agent died between turns: it {}", stopped.describe()
            );
        }
        for _ in 0..owed {
            let last = self.events.send(AgentEvent::Ended(outcome.clone()));
            // A session that was killed may not read any more; it sees the channel close.
            if !matches!(timeout(LAST_WORD, last).await, Ok(Ok(()))) {
                break;
            }
        }
    }
}
