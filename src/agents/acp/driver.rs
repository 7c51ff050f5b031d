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
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    chunk::Chunk,
    content::Accepts,
    permission::{Answered, Pending, cancelled},
    profile::Profile,
    turn::{Applied, Turn},
    updates::Conversation,
};
use crate::agents::{
    AdapterSide, AgentCommand, AgentEvent, Answer, OpenSpec, Prompt,
    program::{Connection, Dialect, Host, Input, Message, Program, RpcError, STDERR_IN_MESSAGE, Stop, raw},
};

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
    pub(super) program: Arc<Program>,
    pub(super) spec: OpenSpec,
    pub(super) connection: Connection,
    pub(super) host: Host,
    /// Makes ask ids unique over processes.
    pub(super) instance: String,
    /// The agent's own id of the conversation; empty until there is one.
    pub(super) session_id: String,
    pub(super) profile: Profile,
    pub(super) accepts: Accepts,
    pub(super) conversation: Conversation,
    /// The settings that were asked for last and are in force, unless the agent has changed them since by itself.
    pub(super) applied: Applied,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    pub(super) pending: Pending,
    pub(super) turn: Option<Turn>,
    mode_request: Option<ModeRequest>,
    /// A prompt that came too soon: a second one is never given to a busy agent.
    waiting: VecDeque<Prompt>,
}

/// Runs an agent from its start to its end.
pub(super) async fn run(program: Arc<Program>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let host = Host::new(events, killed);
    let process = match program.start(Vec::new(), &spec) {
        Ok(process) => process,
        Err(stop) => return host.end_unstarted(stop).await,
    };
    let mut driver = Driver {
        program,
        spec,
        connection: Connection::new(process, Dialect::Named),
        host,
        instance: uuid::Uuid::now_v7().simple().to_string(),
        session_id: String::new(),
        profile: Profile::default(),
        accepts: Accepts::default(),
        conversation: Conversation::default(),
        applied: Applied::default(),
        replay: None,
        pending: Pending::default(),
        turn: None,
        mode_request: None,
        waiting: VecDeque::new(),
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
        // Outside a turn pieces of text are not shown.
        let session = self.turn.as_ref().map(|_| self.session_id.as_str());
        let piece = |line: &str| Chunk::read(line, session?);
        tokio::select! {
            biased;
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            input = self.connection.next_unless(piece) => match input {
                Ok(Chunk { kind, text }) => {
                    self.end_rejected().await?;
                    self.emit(AgentEvent::Delta { kind, text }).await
                }
                Err(input) => self.input(input).await,
            },
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
            Input::Noise(line) => self.host.noise(&self.program, &line).await,
            Input::TooLong => self.host.too_long(&self.program).await,
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
        let back = match method {
            "session/request_permission" => cancelled(),
            "elicitation/create" => json!({"action": "cancel"}),
            _ => {
                log::debug!(agent = self.program.name.as_str(), method; "agent asks for what this client does not have");
                self.connection.refuse(&id, method);
                return Ok(());
            }
        };
        if self.turn.as_ref().is_none_or(|turn| turn.cancelling) {
            self.connection.reply(&id, &back);
            return Ok(());
        }
        // Some agents announce no call before they ask.
        if let Some(call) = params.get("toolCall") {
            let events = self.conversation.tools.announce(call);
            self.emit_all(events).await?;
        }
        let ask = match method {
            "elicitation/create" => self.pending.elicit(&self.instance, id, params),
            _ => self.pending.ask(&self.instance, id, params, &self.conversation.tools),
        };
        match ask {
            Ok(ask) => self.emit(AgentEvent::ChoiceAsked(ask)).await,
            Err(id) => {
                self.connection.reply(&id, &back);
                let message = "the agent asked for something that cannot be answered".to_owned();
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
                if let Some(Answered { reply, .. }) = self.pending.answer(&ask_id, &Answer::Cancelled) {
                    self.connection.reply(id, &reply);
                }
                self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await
            }
            _ => self.emit(raw(&json!({"method": method, "params": params}))).await,
        }
    }

    /// Asks the agent and waits for its answer; what else it says meanwhile is handled. Only between turns.
    pub(super) async fn call(&mut self, method: &str, params: &Value, limit: Duration) -> Result<Value, CallError> {
        let id = self.connection.request(method, params);
        let deadline = Instant::now() + limit;
        loop {
            let input = tokio::select! {
                biased;
                () = self.host.killed.cancelled() => return Err(CallError::Stop(Stop::Killed)),
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

    /// See [`Host::emit`].
    pub(super) async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        self.host.emit(event).await
    }

    /// See [`Host::emit_all`].
    pub(super) async fn emit_all(&mut self, events: Vec<AgentEvent>) -> Result<(), Stop> {
        self.host.emit_all(events).await
    }

    /// Starts another process in the place of this one, which is stopped.
    pub(super) async fn respawn(&mut self) -> Result<(), Stop> {
        let fresh = Connection::new(self.program.start(Vec::new(), &self.spec)?, Dialect::Named);
        let old = std::mem::replace(&mut self.connection, fresh);
        let stopped = old.lines.process.stop(STDERR_IN_MESSAGE).await;
        log::warn!(agent = self.program.name.as_str(); "agent is started anew: it {}", stopped.describe());
        Ok(())
    }

    async fn end(self, stop: Stop) {
        let cancelling = self.turn.as_ref().is_some_and(|turn| turn.cancelling);
        let prompts = usize::from(self.turn.is_some()) + self.waiting.len();
        self.host.end(&self.program, self.connection.lines.process, stop, prompts, cancelling).await;
    }
}
