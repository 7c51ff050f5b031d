//! The task behind one session: one loop over commands, pi and the clock, and the way to the end.
//!
//! Invariants: as for every adapter, each prompt gets exactly one `Ended`; the event channel is dropped only when the
//! process group is gone; nothing waits without listening for the kill.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    dialogs::{Dialogs, cancelled, is_dialog},
    events::Line,
    models::{Models, Settings},
    turn::Turn,
};
use crate::agents::{
    AdapterSide, AgentCommand, AgentEvent, OpenSpec, Prompt, json, process,
    program::{Host, JsonLines, Program, Stop, raw},
};

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// pi said no, in these words.
    Refused(String),
    /// It said nothing in time.
    Timeout,
    /// There is nobody to ask.
    Stop(Stop),
}

/// Everything about one session's pi.
pub(super) struct Driver {
    pub(super) program: Arc<Program>,
    pub(super) spec: OpenSpec,
    pub(super) lines: JsonLines,
    pub(super) host: Host,
    /// Makes ask ids unique over processes.
    instance: String,
    /// The file of the conversation, which is pi's id of it; empty until it is known.
    pub(super) file: String,
    pub(super) models: Models,
    /// What the process was started with.
    pub(super) settings: Settings,
    /// The model that pi chose by itself.
    pub(super) initial: Option<String>,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    pub(super) dialogs: Dialogs,
    pub(super) turn: Option<Turn>,
    /// A prompt that came too soon.
    waiting: VecDeque<Prompt>,
    next_id: u64,
}

/// Runs pi from its start to its end.
pub(super) async fn run(program: Arc<Program>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let host = Host::new(events, killed);
    let settings = Settings::asked(&spec, &program.config);
    let file = stored(&program, &spec);
    let process = match program.start(settings.arguments(file.as_deref()), &spec) {
        Ok(process) => process,
        Err(stop) => return host.end_unstarted(stop).await,
    };
    let mut driver = Driver {
        program,
        spec,
        lines: JsonLines::new(process),
        host,
        instance: uuid::Uuid::now_v7().simple().to_string(),
        file: file.unwrap_or_default(),
        models: Models::default(),
        settings,
        initial: None,
        replay: None,
        dialogs: Dialogs::default(),
        turn: None,
        waiting: VecDeque::new(),
        next_id: 0,
    };
    let stop = match driver.open().await {
        Ok(()) => driver.serve(&mut commands).await,
        Err(stop) => stop,
    };
    driver.end(stop).await;
}

/// The conversation to go on with: a file that is there. pi begins a new one in a file that it cannot read.
fn stored(program: &Program, spec: &OpenSpec) -> Option<String> {
    let file = spec.native_id.as_ref().filter(|_| program.config.native_resume)?;
    let path = std::path::Path::new(file);
    (path.is_absolute() && path.is_file()).then(|| file.clone())
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
        let recheck = self.turn.as_ref().and_then(|turn| turn.recheck);
        tokio::select! {
            biased;
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            line = self.lines.next_line() => self.line(line).await,
            () = sleep_until(recheck.unwrap_or_else(Instant::now).into()), if recheck.is_some() => {
                self.check();
                Ok(())
            }
        }
    }

    async fn command(&mut self, command: AgentCommand) -> Result<(), Stop> {
        match command {
            AgentCommand::Prompt(prompt) => self.waiting.push_back(prompt),
            AgentCommand::Steer { id, text } => self.steer(id, text),
            AgentCommand::Cancel => self.cancel().await?,
            AgentCommand::Answer { ask_id, answer } => {
                if let Some(response) = self.dialogs.answer(&ask_id, &answer) {
                    self.lines.answer(&response);
                }
            }
            AgentCommand::SetModel(model) => self.spec.model = Some(model),
            AgentCommand::SetMode(mode) => self.spec.mode = Some(mode),
            AgentCommand::Close => return Err(Stop::Closed),
        }
        Ok(())
    }

    /// Sends a command and returns its id. Nothing leaves before the next line is waited for.
    pub(super) fn request(&mut self, kind: &str, mut fields: Map<String, Value>) -> String {
        self.next_id += 1;
        let id = self.next_id.to_string();
        fields.insert("id".into(), json!(id));
        fields.insert("type".into(), json!(kind));
        self.lines.send(&Value::Object(fields));
        id
    }

    /// Takes a line; the answer to a command of ours, with its id, where it is one.
    async fn read(&mut self, line: Option<process::Line>) -> Result<Option<(String, Result<Value, String>)>, Stop> {
        let line = match line {
            Some(process::Line::Text(line)) => line,
            Some(process::Line::TooLong) => {
                self.host.too_long(&self.program).await?;
                return Ok(None);
            }
            None => return Err(Stop::Dead),
        };
        let read = match &mut self.turn {
            Some(turn) => turn.events.line(&line),
            None => json::parse(&line).map_or(Line::Noise, Line::Object),
        };
        let mut object = match read {
            Line::Pieces(events) => {
                self.host.emit_all(events).await?;
                return Ok(None);
            }
            Line::Object(object) => object,
            Line::Noise => {
                if !line.trim().is_empty() {
                    self.host.noise(&self.program, &line).await?;
                }
                return Ok(None);
            }
        };
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            "response" => {
                let Some(id) = object.get("id").and_then(Value::as_str).map(str::to_owned) else { return Ok(None) };
                let error = object.get("error").and_then(Value::as_str).unwrap_or("it gave no reason").to_owned();
                let good = object.get("success").and_then(Value::as_bool).unwrap_or(false);
                let data = object.remove("data").unwrap_or(Value::Null);
                return Ok(Some((id, if good { Ok(data) } else { Err(error) })));
            }
            "extension_ui_request" => self.dialog(&object).await?,
            _ if self.turn.is_some() => self.turn_event(&kind, object).await?,
            _ => self.host.emit(raw(&Value::Object(object))).await?,
        }
        Ok(None)
    }

    async fn line(&mut self, line: Option<process::Line>) -> Result<(), Stop> {
        match self.read(line).await? {
            Some((id, answer)) => self.answered(&id, answer).await,
            None => Ok(()),
        }
    }

    /// An extension asks, or shows something. Nobody is there to answer outside of a turn.
    async fn dialog(&mut self, request: &Map<String, Value>) -> Result<(), Stop> {
        let asks = self.turn.as_ref().is_some_and(|turn| !turn.cancelling);
        if asks && let Some(ask) = self.dialogs.ask(&self.instance, request) {
            return self.host.emit(AgentEvent::ChoiceAsked(ask)).await;
        }
        if is_dialog(request) {
            let id = request.get("id").and_then(Value::as_str).unwrap_or_default();
            self.lines.answer(&cancelled(id));
            return Ok(());
        }
        self.host.emit(raw(&Value::Object(request.clone()))).await
    }

    /// Sends a command and waits for its answer; what else comes meanwhile is handled. Not while a turn runs.
    pub(super) async fn call(
        &mut self,
        kind: &str,
        fields: Map<String, Value>,
        limit: Duration,
    ) -> Result<Value, CallError> {
        let id = self.request(kind, fields);
        let deadline = Instant::now() + limit;
        loop {
            let line = tokio::select! {
                biased;
                () = self.host.killed.cancelled() => return Err(CallError::Stop(Stop::Killed)),
                line = self.lines.next_line() => line,
                () = sleep_until(deadline.into()) => return Err(CallError::Timeout),
            };
            match self.read(line).await.map_err(CallError::Stop)? {
                Some((answered, answer)) if answered == id => return answer.map_err(CallError::Refused),
                _ => {}
            }
        }
    }

    async fn end(self, stop: Stop) {
        let cancelling = self.turn.as_ref().is_some_and(|turn| turn.cancelling);
        let prompts = usize::from(self.turn.is_some()) + self.waiting.len();
        self.host.end(&self.program, self.lines.process, stop, prompts, cancelling).await;
    }
}
