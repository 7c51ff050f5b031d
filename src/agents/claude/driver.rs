//! The task behind one session: one loop over commands, the agent and the clock, and the way to the end.
//!
//! Invariants:
//! - It never waits for the session or the agent without listening for the kill. Outside a turn it waits for the agent
//!   within a limit; how long an agent may be silent in a turn, the session decides.
//! - Its end of the event channel is dropped only when the process group is gone.
//! - Every prompt gets exactly one `Ended`, also when the agent dies or is killed under it.
//! - Nothing but whole JSON objects is written: one line that is none ends the agent.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    apply::{Applied, ModeRequest},
    outcome,
    permission::Pending,
    settings::{self, Settings},
    turn::Turn,
    usage::Meter,
    wire::{self, Message, text},
};
use crate::{
    agents::{
        AdapterSide, AgentCommand, AgentEvent, OpenSpec, Prompt,
        program::{Host, Incoming, JsonLines, Program, Stop, raw},
    },
    protocol::session::AgentStatus,
};

/// From this try on, a refusal of the credentials is final: the agent goes on trying for minutes.
const LAST_LOGIN_TRY: u64 = 2;

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The agent said no.
    Refused(String),
    /// It was not asked, because it cannot be: a code of the error table, and what there is, for a person.
    Unfit(&'static str, String),
    /// It said nothing in time.
    Timeout,
    /// There is nobody to ask.
    Stop(Stop),
}

/// Everything about one session's agent.
pub(super) struct Driver {
    pub(super) program: Arc<Program>,
    pub(super) spec: OpenSpec,
    pub(super) lines: JsonLines,
    pub(super) host: Host,
    /// Makes ask ids unique over processes.
    pub(super) instance: String,
    /// The agent's own id of the conversation.
    pub(super) session_id: String,
    pub(super) settings: Settings,
    /// The settings that were asked for last.
    pub(super) applied: Applied,
    pub(super) mode_request: Option<ModeRequest>,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    pub(super) pending: Pending,
    pub(super) meter: Meter,
    pub(super) turn: Option<Turn>,
    /// True once this process has said how far a line of ours is; older ones do not.
    pub(super) signs: bool,
    /// What it said before it was open: why it ends.
    pub(super) last_words: Option<String>,
    /// A prompt that came too soon: a second one is never given to a busy agent.
    waiting: VecDeque<Prompt>,
    /// True while it tries a call to its model again.
    retrying: bool,
    next_id: u64,
}

/// Runs an agent from its start to its end.
pub(super) async fn run(program: Arc<Program>, mut spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let host = Host::new(events, killed);
    let resume = spec.native_id.take().filter(|_| program.config.native_resume);
    let (session_id, args) = super::open::arguments(&program, resume.as_deref());
    let process = match program.start(args, &spec) {
        Ok(process) => process,
        Err(stop) => return host.end_unstarted(stop).await,
    };
    let mut driver = Driver {
        program,
        spec,
        lines: JsonLines::new(process),
        host,
        instance: uuid::Uuid::now_v7().simple().to_string(),
        session_id,
        settings: Settings::default(),
        applied: Applied::default(),
        mode_request: None,
        replay: None,
        pending: Pending::default(),
        meter: Meter::default(),
        turn: None,
        signs: false,
        last_words: None,
        waiting: VecDeque::new(),
        retrying: false,
        next_id: 1,
    };
    let stop = match driver.open(resume.is_some()).await {
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
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            input = self.lines.next() => self.input(input).await,
        }
    }

    async fn command(&mut self, command: AgentCommand) -> Result<(), Stop> {
        match command {
            AgentCommand::Prompt(prompt) => self.waiting.push_back(prompt),
            AgentCommand::Cancel => self.cancel().await?,
            AgentCommand::Answer { ask_id, answer } => self.answer(&ask_id, &answer),
            AgentCommand::SetModel(model) => self.spec.model = Some(model),
            AgentCommand::SetMode(mode) => self.set_mode(mode).await?,
            AgentCommand::Close => return Err(Stop::Closed),
            AgentCommand::Steer { id, text } => self.steer(id, text),
        }
        Ok(())
    }

    async fn input(&mut self, input: Incoming) -> Result<(), Stop> {
        let object = match input {
            Incoming::Object(object) => object,
            Incoming::Noise(line) => return self.host.noise(&self.program, &line).await,
            Incoming::TooLong => return self.host.too_long(&self.program).await,
            Incoming::Closed => return Err(Stop::Dead),
        };
        match wire::read(object) {
            Message::Request { id, request } => self.request(id, &request).await,
            Message::Withdrawn(id) => match self.pending.withdraw(&id) {
                Some(ask_id) => self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await,
                None => Ok(()),
            },
            Message::Response { id, result } => self.mode_answered(&id, result).await,
            Message::Lifecycle { uuid, state } => self.lifecycle(&uuid, state).await,
            Message::Result(result) => self.result(&result).await,
            Message::KeepAlive => Ok(()),
            Message::Told(message) => self.told(&message).await,
        }
    }

    /// What is told of the answer, or of the agent itself.
    async fn told(&mut self, message: &Value) -> Result<(), Stop> {
        match text(message, "type") {
            "system" => self.system(message).await,
            "rate_limit_event" => self.rate_limit(message).await,
            "stream_event" | "assistant" | "user" => {
                let signs = self.signs;
                // Outside a turn it speaks late, or of a turn of its own.
                let Some(turn) = &mut self.turn else { return Ok(()) };
                if !turn.course.is_running(signs) {
                    return Ok(());
                }
                let mut events = turn.narrator.tell(message);
                let main = message.get("parent_tool_use_id").is_none_or(Value::is_null);
                let usage = message.get("event").filter(|_| main).and_then(|event| self.meter.piece(event));
                events.extend(usage.map(AgentEvent::Usage));
                if !events.is_empty() && std::mem::take(&mut self.retrying) {
                    events.insert(0, AgentEvent::Status { status: AgentStatus::Working, reason: None });
                }
                self.host.emit_all(events).await
            }
            _ => self.emit(raw(message)).await,
        }
    }

    async fn system(&mut self, message: &Value) -> Result<(), Stop> {
        match text(message, "subtype") {
            "init" => {
                self.mode_is(text(message, "permissionMode")).await?;
                self.model_is(text(message, "model")).await
            }
            "status" => {
                self.mode_is(text(message, "permissionMode")).await?;
                match text(message, "status") {
                    "compacting" => self.status("the conversation is made shorter".to_owned()).await,
                    _ => Ok(()),
                }
            }
            "commands_changed" => match message.get("commands") {
                commands @ Some(_) => self.emit(settings::commands(commands)).await,
                None => self.emit(raw(message)).await,
            },
            "api_retry" => self.retry(message).await,
            "compact_boundary" => {
                let metadata = message.get("compact_metadata");
                self.meter.compacted(metadata.and_then(|metadata| metadata.get("post_tokens")?.as_u64()));
                self.emit(raw(message)).await
            }
            // One for each piece of a thought.
            "thinking_tokens" => Ok(()),
            _ => self.emit(raw(message)).await,
        }
    }

    /// It tries a call to its model again. Where that cannot help, the turn is stopped.
    async fn retry(&mut self, message: &Value) -> Result<(), Stop> {
        let number = |field: &str| message.get(field).and_then(Value::as_u64);
        let attempt = number("attempt").unwrap_or(1);
        let mut reason = format!("retry {attempt} of {}", number("max_retries").unwrap_or(attempt));
        if let Some(delay) = number("retry_delay_ms") {
            reason.push_str(&format!(" in {:?}", Duration::from_millis(delay)));
        }
        let status = number("error_status");
        let status_text = status.map(|status| status.to_string());
        let why = [status_text.as_deref().unwrap_or_default(), text(message, "error")];
        let why = why.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        reason.push_str(&format!(": {}", if why.is_empty() { "no connection" } else { &why }));
        self.retrying = true;
        self.status(reason).await?;
        let hopeless = matches!(status, Some(401 | 403)) && attempt >= LAST_LOGIN_TRY;
        if let Some(turn) = self.turn.as_mut().filter(|turn| hopeless && turn.failing.is_none()) {
            let (agent, login) = (self.program.name.as_str(), self.program.login_hint());
            let judged = outcome::Judged { agent, login, cancelling: false, refused: None };
            turn.failing = Some(outcome::credentials(judged, &why));
            self.interrupt();
        }
        Ok(())
    }

    async fn rate_limit(&mut self, message: &Value) -> Result<(), Stop> {
        let info = message.get("rate_limit_info").unwrap_or(&Value::Null);
        let status = text(info, "status");
        if matches!(status, "allowed" | "") {
            return self.emit(raw(message)).await;
        }
        let what = if status == "rejected" { "is used up" } else { "is nearly used up" };
        self.status(format!("the limit {} {what}", text(info, "rateLimitType"))).await
    }

    pub(super) async fn status(&mut self, reason: String) -> Result<(), Stop> {
        self.emit(AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason) }).await
    }

    /// Asks the agent and returns the id of the request. Nothing leaves before the next read.
    pub(super) fn ask(&mut self, request: &Value) -> String {
        let id = format!("greenroom-{}", self.next_id);
        self.next_id += 1;
        self.lines.send(&wire::request(&id, request));
        id
    }

    /// Asks the agent and waits for its answer; what else it says meanwhile is handled. Only between turns.
    pub(super) async fn call(&mut self, request: &Value, limit: Duration) -> Result<Value, CallError> {
        let id = self.ask(request);
        let deadline = Instant::now() + limit;
        loop {
            let input = tokio::select! {
                biased;
                () = self.host.killed.cancelled() => return Err(CallError::Stop(Stop::Killed)),
                input = self.lines.next() => input,
                () = sleep_until(deadline.into()) => return Err(CallError::Timeout),
            };
            if let Incoming::Object(object) = &input
                && text(object.get("response").unwrap_or(&Value::Null), "request_id") == id
                && let Message::Response { result, .. } = wire::read(object.clone())
            {
                return result.map_err(CallError::Refused);
            }
            self.input(input).await.map_err(CallError::Stop)?;
        }
    }

    /// See [`Host::emit`].
    pub(super) async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        self.host.emit(event).await
    }

    async fn end(self, stop: Stop) {
        let cancelling = self.turn.as_ref().is_some_and(|turn| turn.cancelling);
        let prompts = usize::from(self.turn.is_some()) + self.waiting.len();
        self.host.end(&self.program, self.lines.process, stop, prompts, cancelling).await;
    }
}
