//! The task behind one session: one loop over commands, events, the answers to our calls and the clock.
//!
//! Invariants:
//! - It never waits for the session or the server without listening for the kill and for the server's end.
//! - The server outlives it. What it leaves behind does nothing any more: a turn that runs is stopped, and when that cannot
//!   be had the server is killed, under all its sessions.
//! - Every prompt gets exactly one `Ended`.

use std::{
    collections::VecDeque,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};

use super::{
    api::{Api, ApiError, CALL_LIMIT},
    asks::Asks,
    failure::Failure,
    feed::{Event, News},
    ident::Idents,
    server::{Gone, Lease, Place},
    settings::{Settings, ready_reply},
    talk::Talk,
    turn::Turn,
};
use crate::agents::{
    AdapterSide, AgentCommand, AgentEvent, Answer, OpenSpec, Outcome, Prompt,
    program::{Host, Program, Stop, raw},
};

/// How long a turn that is left behind may take to stop before the server is killed.
const QUIET: Duration = Duration::from_secs(3);
/// The pause between two looks whether it has.
const QUIET_LOOK: Duration = Duration::from_millis(100);

/// What a call of ours has come to.
pub(super) enum Posted {
    Prompt(Result<Value, ApiError>),
    Steer { message: String, result: Result<Value, ApiError> },
    Reply { ask_id: String, result: Result<Value, ApiError> },
    Abort(Result<Value, ApiError>),
}

/// Everything about one session.
pub(super) struct Driver {
    pub(super) program: Arc<Program>,
    pub(super) spec: OpenSpec,
    pub(super) lease: Lease,
    pub(super) api: Api,
    pub(super) host: Host,
    /// The session's folder, which every call names.
    pub(super) folder: String,
    /// The agent's own id of the conversation.
    pub(super) session_id: String,
    pub(super) settings: Settings,
    pub(super) idents: Idents,
    pub(super) talk: Talk,
    pub(super) asks: Asks,
    pub(super) turn: Option<Turn>,
    /// The mode that was told last.
    pub(super) mode: Option<String>,
    /// The conversation so far, until a prompt took it along.
    pub(super) replay: Option<String>,
    pub(super) posts: FuturesUnordered<BoxFuture<'static, Posted>>,
    /// A prompt that came too soon.
    waiting: VecDeque<Prompt>,
    /// The server's end, once it was heard of.
    gone: Option<Gone>,
}

/// Runs a session from its start to its end.
pub(super) async fn run(program: Arc<Program>, place: Arc<Place>, spec: OpenSpec, side: AdapterSide) {
    let AdapterSide { mut commands, events, killed } = side;
    let host = Host::new(events, killed);
    let mut lease = place.lease(&spec.processes);
    // The server of the agent goes with the agent, not with its sessions.
    drop(place);
    let ready = tokio::select! {
        biased;
        () = host.killed.cancelled() => return,
        ready = lease.ready() => ready,
    };
    let api = match ready {
        Ok(api) => api,
        Err(gone) => return host.end_unstarted(Stop::failed(gone.code, gone.message)).await,
    };
    let mut driver = Driver {
        folder: spec.cwd.to_string_lossy().into_owned(),
        program,
        spec,
        lease,
        api,
        host,
        session_id: String::new(),
        settings: Settings::default(),
        idents: Idents::default(),
        talk: Talk::default(),
        asks: Asks::default(),
        turn: None,
        mode: None,
        replay: None,
        posts: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        gone: None,
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
        let check_at = self.turn.as_ref().map(|turn| turn.check_at);
        let check = async {
            match check_at {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            gone = self.lease.gone() => Err(self.died(gone)),
            command = commands.recv() => match command {
                Some(command) => self.command(command).await,
                None => Err(Stop::Killed),
            },
            Some(posted) = self.posts.next() => self.posted(posted).await,
            news = self.lease.inbox.next() => match news {
                News::Event(event) => self.event(event).await,
                News::Lost => self.lost().await,
            },
            () = check => self.check().await,
        }
    }

    async fn command(&mut self, command: AgentCommand) -> Result<(), Stop> {
        match command {
            AgentCommand::Prompt(prompt) => self.waiting.push_back(prompt),
            AgentCommand::Steer { id, text } => self.steer(id, &text),
            AgentCommand::Cancel => self.cancel().await?,
            AgentCommand::Answer { ask_id, answer } => self.answer(&ask_id, &answer),
            AgentCommand::SetModel(model) => self.spec.model = Some(model),
            AgentCommand::SetMode(mode) => match self.settings.mode_for(Some(&mode), None, "default") {
                Ok(_) => self.spec.mode = Some(mode),
                Err((code, message)) => self.emit(AgentEvent::Fault { code: code.into(), message }).await?,
            },
            AgentCommand::Close => return Err(Stop::Closed),
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), Stop> {
        let Event { kind, session, properties } = event;
        let of_sub_agent = session != self.session_id;
        let Some(turn) = &mut self.turn else {
            // What comes late belongs to a turn that is over; what is asked then has nobody to answer it.
            return Ok(());
        };
        let part = properties.get("part").unwrap_or(&Value::Null);
        let info = properties.get("info").unwrap_or(&Value::Null);
        let events = match (kind.as_str(), of_sub_agent) {
            ("message.updated", _) => self.talk.message(info, of_sub_agent),
            ("message.part.updated", false) => self.talk.part(part, true),
            ("message.part.delta", false) => self.talk.delta(&properties),
            ("permission.asked", _) => return self.permission(&properties).await,
            ("question.asked", _) => return self.question(&properties).await,
            ("permission.replied" | "question.replied" | "question.rejected", _) => {
                return self.settled(&properties).await;
            }
            ("session.idle", false) => {
                self.talk.set_idle(true);
                Vec::new()
            }
            ("session.status", false) => {
                let status = properties.get("status").unwrap_or(&Value::Null);
                self.talk.set_idle(status.get("type").and_then(Value::as_str) == Some("idle"));
                match turn.status(status, self.program.config.max_retries) {
                    Ok(events) => events,
                    Err(reason) => {
                        self.talk.failed(Failure::Said { text: reason, credentials: false });
                        self.abort();
                        Vec::new()
                    }
                }
            }
            ("session.error", false) => {
                let failure = Failure::read(properties.get("error").unwrap_or(&Value::Null));
                self.talk.failed(failure);
                if !self.talk.is_writing() {
                    // A prompt that fails early leaves no other trace.
                    turn.check_soon();
                }
                Vec::new()
            }
            ("todo.updated", false) => {
                vec![AgentEvent::Plan(properties.get("todos").cloned().unwrap_or_else(|| json!([])))]
            }
            (_, true) | ("session.diff" | "message.removed" | "command.executed", _) => Vec::new(),
            _ => vec![raw(&json!({"type": kind, "properties": properties}))],
        };
        self.emit_all(events).await?;
        if std::mem::take(&mut self.talk.wants_state) {
            return self.lost().await;
        }
        self.end_if_over().await
    }

    /// A permission is asked for: answered at once where the permission mode says how.
    pub(super) async fn permission(&mut self, asked: &Value) -> Result<(), Stop> {
        let call_id = asked.get("tool").and_then(|tool| tool.get("callID")?.as_str());
        let call = call_id.and_then(|id| self.talk.tools.by_provider_id(id));
        let Some(ask) = self.asks.permission(asked, call) else { return Ok(()) };
        let Some(turn) = &self.turn else { return Ok(()) };
        let permission = asked.get("permission").and_then(Value::as_str).unwrap_or_default();
        let ready = if turn.cancelling {
            Some(json!({"reply": "reject"}))
        } else {
            ready_reply(&turn.permission_mode, permission)
        };
        match ready {
            Some(body) => {
                self.asks.settled(&ask.ask_id);
                self.reply(ask.ask_id.clone(), format!("/permission/{}/reply", ask.ask_id), body);
                Ok(())
            }
            None => self.emit(AgentEvent::ChoiceAsked(ask)).await,
        }
    }

    pub(super) async fn question(&mut self, asked: &Value) -> Result<(), Stop> {
        let Some(ask) = self.asks.question(asked) else { return Ok(()) };
        if self.turn.as_ref().is_some_and(|turn| turn.cancelling) {
            self.answer(&ask.ask_id, &Answer::Cancelled);
            return Ok(());
        }
        self.emit(AgentEvent::ChoiceAsked(ask)).await
    }

    /// Something was answered: by us, by another client of the server, or along with another question.
    async fn settled(&mut self, properties: &Value) -> Result<(), Stop> {
        let id = properties.get("requestID").and_then(Value::as_str).unwrap_or_default();
        if self.asks.settled(id) {
            if properties.get("reply").and_then(Value::as_str) == Some("reject")
                && let Some(turn) = &mut self.turn
            {
                turn.rejected = true;
            }
            return self.emit(AgentEvent::ChoiceWithdrawn { ask_id: id.to_owned() }).await;
        }
        Ok(())
    }

    /// Sends an answer.
    pub(super) fn reply(&mut self, ask_id: String, path: String, body: Value) {
        let (api, folder) = (self.api.clone(), self.folder.clone());
        self.posts.push(Box::pin(async move {
            let result = api.post(&path, &folder, &body, Some(CALL_LIMIT)).await;
            Posted::Reply { ask_id, result }
        }));
    }

    /// Waits for a call of ours between other things; the kill and the server's end go before.
    pub(super) async fn wait<T>(&mut self, call: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.host.killed.cancelled() => Err(Stop::Killed),
            gone = self.lease.gone() => Err(self.died(gone)),
            result = call => Ok(result),
        }
    }

    fn died(&mut self, gone: Gone) -> Stop {
        self.gone = Some(gone);
        Stop::Dead
    }

    /// See [`Host::emit`].
    pub(super) async fn emit(&mut self, event: AgentEvent) -> Result<(), Stop> {
        self.host.emit(event).await
    }

    /// See [`Host::emit_all`].
    pub(super) async fn emit_all(&mut self, events: Vec<AgentEvent>) -> Result<(), Stop> {
        self.host.emit_all(events).await
    }

    /// Whether the session has nothing to do, as far as the server knows.
    pub(super) fn status(&self) -> impl Future<Output = Result<Value, ApiError>> + use<> {
        let (api, folder, session) = (self.api.clone(), self.folder.clone(), self.session_id.clone());
        async move { status_of(&api, &folder, &session).await }
    }

    async fn end(mut self, stop: Stop) {
        let name = self.program.name.clone();
        let cancelling = self.turn.as_ref().is_some_and(|turn| turn.cancelling);
        let owed = usize::from(self.turn.is_some()) + self.waiting.len();
        if self.turn.is_some() && !matches!(stop, Stop::Dead) && !self.quieten().await {
            log::warn!(agent = name.as_str(), session = self.spec.session.as_str(); "a turn cannot be stopped: its server is killed");
            self.lease.kill().await;
        }
        let outcome = match stop {
            // It has stopped, and that is what was asked for, in whatever way it did.
            _ if cancelling => Outcome::Cancelled,
            Stop::Failed(outcome) => outcome,
            Stop::Killed => Outcome::failed("agent_error", format!("agent `{name}` was stopped by force")),
            Stop::Closed => Outcome::failed("agent_error", format!("agent `{name}` was closed")),
            Stop::Dead => match &self.gone {
                Some(gone) => Outcome::failed(gone.code, gone.message.clone()),
                None => Outcome::failed("agent_error", format!("agent `{name}` is gone")),
            },
        };
        self.host.end_shared(&outcome, owed).await;
    }

    /// Stops the turn that is left behind; true when it has stopped.
    async fn quieten(&mut self) -> bool {
        let (api, folder, session) = (self.api.clone(), self.folder.clone(), self.session_id.clone());
        let path = format!("/session/{session}/abort");
        let stopped = async {
            loop {
                let aborted = api.post(&path, &folder, &json!({}), Some(QUIET)).await;
                let idle = |status: Value| status.get("type").and_then(Value::as_str) == Some("idle");
                if aborted.is_ok() && status_of(&api, &folder, &session).await.is_ok_and(idle) {
                    return;
                }
                sleep(QUIET_LOOK).await;
            }
        };
        let quiet = tokio::select! {
            done = timeout(QUIET, stopped) => done.is_ok(),
            _ = self.lease.gone() => true,
        };
        if quiet {
            self.reject_all().await;
            self.remove_untaken().await;
        }
        quiet
    }

    /// Answers what still waits: the server would keep it for ever.
    async fn reject_all(&mut self) {
        for reply in self.asks.refusals() {
            super::turn::refuse(&self.api, &self.folder, &reply).await;
        }
    }

    /// When the state of the turn is looked at next, should no event tell it.
    pub(super) fn check_later(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.check_at = Instant::now() + super::turn::CHECK;
        }
    }
}

async fn status_of(api: &Api, folder: &str, session: &str) -> Result<Value, ApiError> {
    let all = api.get("/session/status", Some(folder), CALL_LIMIT).await?;
    // Those that are idle are not in it.
    Ok(all.get(session).cloned().unwrap_or_else(|| json!({"type": "idle"})))
}
