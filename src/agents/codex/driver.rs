//! The task behind one session: one loop over commands, the agent and the clock, and the way to the end.
//!
//! Invariants:
//! - It never waits for the session or the agent without listening for the kill. Outside a turn it waits for the agent
//!   within a limit; how long an agent may be silent in a turn, the session decides.
//! - Its end of the event channel is dropped only when the process group is gone.
//! - Every prompt gets exactly one `Ended`, also when the agent dies or is killed under it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    approval::{Pending, Request, read},
    settings::{InForce, Own, Skill, commands, skills},
    text::Texts,
    tools::Tools,
    turn::Turn,
    usage::Meter,
};
use crate::agents::{
    AdapterSide, AgentCommand, AgentEvent, OpenSpec, Prompt,
    program::{Connection, Dialect, Host, Input, Message, Program, RpcError, STDERR_IN_MESSAGE, Stop, raw},
};

/// What makes the program speak over stdin and stdout.
const APP_SERVER: &str = "app-server";

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The agent said no.
    Refused(RpcError),
    /// It said nothing in time.
    Timeout,
    /// There is nobody to ask.
    Stop(Stop),
}

/// Everything about one session's agent.
pub(super) struct Driver {
    pub(super) program: Arc<Program>,
    pub(super) spec: OpenSpec,
    pub(super) connection: Connection,
    pub(super) host: Host,
    /// Makes ids unique over processes.
    pub(super) instance: String,
    /// The thread; empty until there is one.
    pub(super) thread: String,
    /// What the user's own configuration of codex says.
    pub(super) own: Own,
    /// The model of turns that ask for none.
    pub(super) base_model: Option<String>,
    /// Models as codex lists them, hidden ones too.
    pub(super) models: Vec<Value>,
    /// True when the list is of the provider that is used.
    pub(super) models_are_all: bool,
    /// Collaboration modes.
    pub(super) modes: Vec<Value>,
    pub(super) skills: Vec<Skill>,
    pub(super) in_force: InForce,
    pub(super) meter: Meter,
    pub(super) texts: Texts,
    pub(super) tools: Tools,
    pub(super) pending: Pending,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    pub(super) turn: Option<Turn>,
    /// The turn that runs in the agent, also one that began by itself.
    pub(super) active: Option<String>,
    /// True once the agent has shown that it names user messages as they were named by us.
    pub(super) echoes: bool,
    /// Warnings that were told; the agent repeats some with every turn.
    pub(super) warned: HashSet<String>,
    pub(super) skills_request: Option<u64>,
    mode_request: Option<(u64, String)>,
    /// A prompt that came too soon: a second one is never given to a busy agent, which would take it as steering.
    waiting: VecDeque<Prompt>,
}

/// Runs an agent from its start to its end.
pub(super) async fn run(program: Arc<Program>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let host = Host::new(events, killed);
    let process = match program.start(arguments(&program), &spec) {
        Ok(process) => process,
        Err(stop) => return host.end_unstarted(stop).await,
    };
    let mut driver = Driver {
        program,
        spec,
        connection: Connection::new(process, Dialect::Bare),
        host,
        instance: uuid::Uuid::now_v7().simple().to_string(),
        thread: String::new(),
        own: Own::default(),
        base_model: None,
        models: Vec::new(),
        models_are_all: false,
        modes: Vec::new(),
        skills: Vec::new(),
        in_force: InForce::default(),
        meter: Meter::default(),
        texts: Texts::default(),
        tools: Tools::default(),
        pending: Pending::default(),
        replay: None,
        turn: None,
        active: None,
        echoes: false,
        warned: HashSet::new(),
        skills_request: None,
        mode_request: None,
        waiting: VecDeque::new(),
    };
    let stop = match driver.open().await {
        Ok(()) => driver.serve(&mut commands).await,
        Err(stop) => stop,
    };
    driver.end(stop).await;
}

/// What comes after the configured command; nothing where that says it already.
fn arguments(program: &Program) -> Vec<String> {
    if program.config.command.iter().any(|word| word == APP_SERVER) { Vec::new() } else { vec![APP_SERVER.into()] }
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
        if self.turn.as_ref().is_some_and(Turn::is_over) {
            return self.settle().await;
        }
        if self.turn.is_none()
            && let Some(prompt) = self.waiting.pop_front()
        {
            return self.prompt(prompt).await;
        }
        let due = self.tools.due();
        tokio::select! {
            biased;
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                let events = self.tools.flush(Instant::now());
                self.emit_all(events).await
            }
            input = self.connection.next() => self.input(input).await,
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

    /// Goes into a mode now, for what comes after the running turn; the answer is awaited in the loop.
    async fn set_mode(&mut self, mode: String) -> Result<(), Stop> {
        if let Err(message) = self.knows_mode(&mode) {
            return self.emit(AgentEvent::Fault { code: "model_not_found".into(), message }).await;
        }
        if let Some(model) = self.in_force.model.clone().or_else(|| self.base_model.clone()) {
            let wanted = self.in_force.collaboration(&mode, &model);
            let params = json!({"threadId": self.thread, "collaborationMode": wanted});
            let id = self.connection.request("thread/settings/update", &params);
            self.mode_request = Some((id, mode.clone()));
        }
        self.spec.mode = Some(mode);
        Ok(())
    }

    pub(super) async fn input(&mut self, input: Input) -> Result<(), Stop> {
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
        if let Some((_, mode)) = self.mode_request.take_if(|(request, _)| *request == id) {
            return match result {
                Ok(_) => self.mode_is(Some(mode)).await,
                Err(error) => {
                    let message = format!("the agent refused the mode `{mode}`: {}", error.text());
                    self.emit(AgentEvent::Fault { code: "agent_error".into(), message }).await
                }
            };
        }
        if self.skills_request.take_if(|request| *request == id).is_some() {
            return match result {
                Ok(list) => self.skills_are(&list).await,
                Err(_) => Ok(()),
            };
        }
        // Otherwise it is of the turn, or of a call that was given up.
        self.turn_response(id, result).await
    }

    /// Notes the mode that is in force, and tells when it is another one.
    pub(super) async fn mode_is(&mut self, mode: Option<String>) -> Result<(), Stop> {
        if mode.is_none() || mode == self.in_force.mode {
            return Ok(());
        }
        self.in_force.mode = mode;
        self.emit_mode().await
    }

    pub(super) async fn emit_mode(&mut self) -> Result<(), Stop> {
        if self.modes.is_empty() {
            return Ok(());
        }
        let (mode, modes) = (self.in_force.mode.clone(), Value::Array(self.modes.clone()));
        self.emit(AgentEvent::Mode { mode, modes }).await
    }

    /// Notes the skills, and tells the commands when they are others.
    pub(super) async fn skills_are(&mut self, list: &Value) -> Result<(), Stop> {
        let skills = skills(list);
        if skills == self.skills {
            return Ok(());
        }
        self.skills = skills;
        self.emit(AgentEvent::Commands(commands(&self.skills))).await
    }

    /// Asks for the skills; the answer is awaited in the loop.
    pub(super) fn ask_skills(&mut self) {
        let params = json!({"cwds": [self.spec.cwd]});
        self.skills_request = Some(self.connection.request("skills/list", &params));
    }

    async fn request(&mut self, id: Value, method: &str, params: &Value) -> Result<(), Stop> {
        match read(method, params, &self.tools) {
            Request::Unknown => {
                log::debug!(agent = self.program.name.as_str(), method; "agent asks for what this client does not have");
                self.connection.refuse(&id, method);
                Ok(())
            }
            Request::Decline(reply, message) => {
                self.connection.reply(&id, &reply);
                self.emit(AgentEvent::Fault { code: "agent_error".into(), message }).await
            }
            Request::Ask(asked) => {
                let ask = self.pending.ask(&self.instance, id, *asked);
                if self.turn.as_ref().is_none_or(|turn| turn.cancelling) {
                    // Nobody can answer. While the turn is being stopped codex takes the question back by itself.
                    self.answer(&ask.ask_id, &crate::agents::Answer::Cancelled);
                    return Ok(());
                }
                self.emit(AgentEvent::ChoiceAsked(ask)).await
            }
        }
    }

    pub(super) async fn raw(&mut self, method: &str, params: Value) -> Result<(), Stop> {
        self.emit(raw(&json!({"method": method, "params": params}))).await
    }

    /// Asks the agent and waits for its answer; what else it says meanwhile is handled. Never from within
    /// [`Driver::input`].
    pub(super) async fn call(&mut self, method: &str, params: &Value, limit: Duration) -> Result<Value, CallError> {
        let id = self.connection.request(method, params);
        let mut answers = self.gather(&[id], limit).await.map_err(CallError::Stop)?;
        answers.remove(&id).ok_or(CallError::Timeout)?.map_err(CallError::Refused)
    }

    /// Waits for the answers to these requests, as long as the limit allows; some may be missing then.
    pub(super) async fn gather(
        &mut self,
        ids: &[u64],
        limit: Duration,
    ) -> Result<HashMap<u64, Result<Value, RpcError>>, Stop> {
        let deadline = Instant::now() + limit;
        let mut answers = HashMap::new();
        while answers.len() < ids.len() || ids.is_empty() {
            let input = tokio::select! {
                biased;
                () = self.host.killed.cancelled() => return Err(Stop::Killed),
                input = self.connection.next() => input,
                () = sleep_until(deadline.into()) => break,
            };
            match input {
                Input::Message(Message::Response { id, result }) if ids.contains(&id) => {
                    answers.insert(id, result);
                }
                input => self.input(input).await?,
            }
        }
        Ok(answers)
    }

    /// See [`Host::emit`].
    pub(super) async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        self.host.emit(event).await
    }

    /// See [`Host::emit_all`].
    pub(super) async fn emit_all(&mut self, events: impl IntoIterator<Item = AgentEvent>) -> Result<(), Stop> {
        self.host.emit_all(events).await
    }

    /// Starts another process in the place of this one, which is stopped.
    pub(super) async fn respawn(&mut self) -> Result<(), Stop> {
        let fresh = Connection::new(self.program.start(arguments(&self.program), &self.spec)?, Dialect::Bare);
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
