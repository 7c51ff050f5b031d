//! A call without a session: one prompt to one agent, with what was said before, and nothing that stays.
//!
//! It takes the same places, folders, limits and records of processes as a turn of a session, and tells the same events,
//! which are not stored. Nobody can see it but its caller: when that one has left, it is stopped; what the agent asks is
//! decided at once, as if time were up.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{actor::Deps, budget::day_of, progress::option_for, workspace};
use crate::{
    agents::{AgentCommand, AgentEvent, Answer, Ask, Live, OpenSpec, Outcome, Prompt, Transcript},
    config::TimeoutOutcome,
    error::Code,
    ids::{MessageId, SessionId, SessionKey, TurnId},
    metrics,
    protocol::{
        Attachment, ChoiceKind, Event, EventBody, Frame, Message, TurnError, TurnState, Usage, event::DeltaKind,
    },
    store::Spend,
    timestamp::Timestamp,
};

/// Events that are taken from an agent at once.
const HEARD_AT_ONCE: usize = 128;

/// What is asked of an agent.
#[derive(Debug)]
pub struct Call {
    /// Who asks: the one whose budget counts.
    pub user: String,
    /// The agent; known.
    pub agent: String,
    /// The model; none is the agent's default.
    pub model: Option<String>,
    /// What was said before.
    pub before: Vec<Message>,
    /// The new input.
    pub text: String,
    /// Its files.
    pub files: Arc<Vec<Attachment>>,
}

/// What a call tells.
#[derive(Debug)]
pub enum Piece {
    /// Events, in order. They count among the bytes that may wait until the second is dropped.
    Frames(Vec<Frame>, Option<OwnedSemaphorePermit>),
    /// The caller took too little for too long: the last piece, and the end is not told.
    TooSlow,
}

/// A call that runs. Dropping `pieces` stops it.
#[derive(Debug)]
pub struct Begun {
    /// What its events call it.
    pub turn: TurnId,
    /// Since when.
    pub at: Timestamp,
    /// Its events, from `turn.started` to `turn.finished`.
    pub pieces: mpsc::UnboundedReceiver<Piece>,
}

/// Begins a call. `held` is kept until its agent is gone.
#[must_use]
pub fn begin(deps: Arc<Deps>, call: Call, held: impl Send + 'static) -> Begun {
    // What waits is bounded by its bytes, so that the last piece can be told to a caller who takes nothing, too.
    let (out, pieces) = mpsc::unbounded_channel();
    let bound = u32::try_from(deps.config().stream.max_lag_bytes.bytes()).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(bound as usize));
    let (turn, at) = (TurnId::new(), Timestamp::now());
    let running = Running {
        deps,
        key: SessionKey::generate(),
        turn,
        started: None,
        seq: 0,
        message: MessageId::new(),
        part: 0,
        kind: None,
        usage: Usage::default(),
        out,
        bound,
        room,
        call,
    };
    tokio::spawn(async move {
        running.run().await;
        drop(held);
    });
    Begun { turn, at, pieces }
}

/// How a call ended.
enum End {
    /// The agent has said so.
    Told(Outcome),
    /// The caller has left.
    Left,
    /// The caller is there and takes nothing.
    TooSlow,
}

impl End {
    fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::Told(Outcome::failed(code.as_str(), message))
    }
}

struct Running {
    deps: Arc<Deps>,
    call: Call,
    key: SessionKey,
    turn: TurnId,
    /// When it got its place.
    started: Option<Timestamp>,
    seq: u64,
    message: MessageId,
    part: u32,
    /// What the part is that is being told.
    kind: Option<DeltaKind>,
    usage: Usage,
    out: mpsc::UnboundedSender<Piece>,
    /// Bytes that may wait for the caller, and those of them that are free.
    bound: u32,
    room: Arc<Semaphore>,
}

impl Running {
    async fn run(mut self) {
        let gone = self.out.clone();
        let mut left = pin!(gone.closed());
        let limit = self.deps.config().pool.max_wait;
        let places = tokio::select! {
            () = &mut left => return self.finish(End::Left).await,
            places = timeout(limit.0, self.places()) => places,
        };
        let Ok(Some(_places)) = places else {
            let message = format!("too many turns run: no place within {limit} (pool.max_wait)");
            return self.finish(End::failed(Code::AgentUnavailable, message)).await;
        };
        let folder = workspace::prepare_call(&self.deps.config(), &self.call.agent, self.turn);
        let folder = match folder {
            Ok(folder) => folder,
            Err(cause) => return self.finish(End::failed(Code::AgentUnavailable, cause)).await,
        };
        let Some(agent) = self.deps.registry.get(&self.call.agent) else {
            return self.finish(End::failed(Code::AgentUnavailable, "the agent is not configured any more")).await;
        };
        self.started = Some(Timestamp::now());
        let _counted = metrics::Running::one();
        let mut live = agent.start(self.spec(folder.path().to_owned()));
        let end = tokio::select! {
            () = &mut left => End::Left,
            end = self.talk(&mut live) => end,
        };
        if matches!(end, End::Left | End::TooSlow) {
            self.cancel(&mut live).await;
        }
        self.finish(end).await;
        self.let_go(live).await;
        folder.remove();
    }

    /// A place among all turns that run, and one for the agent's process where it has one of its own.
    async fn places(&self) -> Option<impl Send + use<>> {
        let running = self.deps.admission.wait().await.ok()?;
        let capabilities = self.deps.registry.capabilities(&self.call.agent)?;
        let process = match capabilities.stateless || capabilities.shared {
            true => None,
            false => Some(self.deps.pool.acquire(None).await.ok()?),
        };
        Some((running, process))
    }

    fn spec(&mut self, cwd: std::path::PathBuf) -> OpenSpec {
        OpenSpec {
            session: self.key.clone(),
            conversation: SessionId::new(),
            cwd,
            model: self.call.model.clone(),
            mode: None,
            permission_mode: "default".into(),
            native_id: None,
            transcript: Arc::new(Told(std::mem::take(&mut self.call.before).into())),
            processes: Arc::clone(&self.deps.ledger),
        }
    }

    /// Gives the agent the prompt once it is ready, and tells what it says, to the end of the turn.
    async fn talk(&mut self, live: &mut Live) -> End {
        let stall = self.deps.config().agent.stall_timeout;
        let mut opened = false;
        loop {
            let mut heard = Vec::new();
            match timeout(stall.0, live.events.recv_many(&mut heard, HEARD_AT_ONCE)).await {
                Err(_silent) => {
                    let message = format!("the agent has said nothing for {stall} (agent.stall_timeout)");
                    return End::failed(Code::AgentTimeout, message);
                }
                Ok(0) => return End::failed(Code::AgentError, "the agent ended in the middle of the turn"),
                Ok(_) => {}
            }
            let (mut frames, mut end) = (Vec::new(), None);
            let mut said: Option<(DeltaKind, String)> = None;
            for event in heard {
                match event {
                    // Neighbours are one piece: what came at once goes on at once.
                    AgentEvent::Delta { kind, text } => match &mut said {
                        Some((last, so_far)) if *last == kind => so_far.push_str(&text),
                        _ => {
                            self.delta(said.replace((kind, text)), &mut frames);
                        }
                    },
                    AgentEvent::Ended(outcome) => end = Some(End::Told(outcome)),
                    AgentEvent::Opened(told) if !opened => {
                        opened = true;
                        self.deps.registry.learn(&self.call.agent, &told);
                        let begin = EventBody::TurnStarted {
                            agent: self.call.agent.clone(),
                            model: told.model.or_else(|| self.call.model.clone()),
                            cold_start: true,
                            resumed: told.resumed,
                        };
                        frames.push(self.frame(begin));
                        let prompt = AgentCommand::Prompt(self.prompt());
                        if live.commands.send(prompt).await.is_err() {
                            end = Some(End::failed(Code::AgentError, "the agent ended before it got the prompt"));
                        }
                    }
                    AgentEvent::ChoiceAsked(ask) => {
                        let answer = self.answer(&ask);
                        // An agent that is gone has ended; that is told by the other channel.
                        drop(live.commands.send(AgentCommand::Answer { ask_id: ask.ask_id, answer }).await);
                    }
                    AgentEvent::Usage(usage) => self.usage = Usage::default().plus(usage),
                    AgentEvent::ToolStarted(_) => {
                        self.delta(said.take(), &mut frames);
                        self.kind = None;
                    }
                    _ => {}
                }
            }
            self.delta(said, &mut frames);
            if let Err(end) = self.show(frames).await {
                return end;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn prompt(&self) -> Prompt {
        Prompt {
            text: self.call.text.clone(),
            attachments: Arc::clone(&self.call.files),
            model: self.call.model.clone(),
            mode: None,
            permission_mode: "default".into(),
        }
    }

    /// Nobody can be asked: what the configuration says for a question whose time is up.
    fn answer(&self, ask: &Ask) -> Answer {
        log::info!(agent = self.call.agent.as_str(); "a call without a session was asked, and nobody can answer: {}", ask.title);
        let allow = self.deps.config().choice.on_timeout == TimeoutOutcome::Allow;
        match option_for(&ask.options, allow).filter(|_| ask.kind == ChoiceKind::Permission) {
            Some(option) => Answer::Option { id: option.id.clone() },
            None => Answer::Cancelled,
        }
    }

    fn delta(&mut self, said: Option<(DeltaKind, String)>, frames: &mut Vec<Frame>) {
        let Some((kind, delta)) = said else { return };
        if self.kind.is_some_and(|last| last != kind) {
            self.part += 1;
        }
        self.kind = Some(kind);
        let (message_id, part) = (self.message, self.part);
        frames.push(self.frame(EventBody::MessageDelta { message_id, part, kind, delta }));
    }

    fn frame(&mut self, body: EventBody) -> Frame {
        self.seq += 1;
        Frame::encode(&Event {
            seq: self.seq,
            body,
            session: self.key.clone(),
            turn_id: Some(self.turn),
            at: Timestamp::now(),
        })
    }

    async fn show(&self, frames: Vec<Frame>) -> Result<(), End> {
        if frames.is_empty() {
            return Ok(());
        }
        let limit = self.deps.config().stream.max_lag.0;
        let bytes: usize = frames.iter().map(|frame| frame.json.len()).sum();
        // A piece that is larger than the bound waits alone.
        let needed = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bound);
        let room =
            timeout(limit, Arc::clone(&self.room).acquire_many_owned(needed)).await.map_err(|_late| End::TooSlow)?;
        self.out.send(Piece::Frames(frames, room.ok())).map_err(|_closed| End::Left)
    }

    /// Asks politely, and waits a moment for the agent to have stopped.
    async fn cancel(&self, live: &mut Live) {
        let patience = self.deps.config().agent.cancel_timeout.0;
        let stopped = async {
            if live.commands.send(AgentCommand::Cancel).await.is_err() {
                return;
            }
            while let Some(event) = live.events.recv().await {
                if matches!(event, AgentEvent::Ended(_)) {
                    return;
                }
            }
        };
        if timeout(patience, stopped).await.is_err() {
            log::info!(agent = self.call.agent.as_str(); "the agent of a call did not stop in time and is killed");
        }
    }

    /// Tells the end, and counts what was used.
    async fn finish(&mut self, end: End) {
        let is_too_slow = matches!(end, End::TooSlow);
        let (state, reason, error) = match end {
            End::Told(Outcome::Completed { reason }) => (TurnState::Completed, reason, None),
            End::Told(Outcome::Failed(error)) => (TurnState::Failed, None, Some(error)),
            End::Told(Outcome::Cancelled) | End::Left | End::TooSlow => {
                (TurnState::Cancelled, Some("cancelled".into()), None)
            }
        };
        if let Some(TurnError { code, message }) = &error {
            log::info!(agent = self.call.agent.as_str(), code = code.as_str(); "a call without a session has failed: {message}");
        }
        let took = self.started.map(|from| Timestamp::now().since(from));
        metrics::ended(&self.call.agent, state, took, &self.usage);
        self.spend().await;
        let over = EventBody::TurnFinished { state, reason, error, usage: self.usage, summary: None };
        let frame = self.frame(over);
        let last = if is_too_slow { Piece::TooSlow } else { Piece::Frames(vec![frame], None) };
        // Where the caller has left there is nobody to tell.
        let _ = self.out.send(last);
    }

    /// Counts it for the caller's day, where days have a bound.
    async fn spend(&self) {
        let bounds = self.deps.config().budget.of(&self.call.user);
        let amount = super::budget::Amount::of(&self.usage);
        if amount.is_zero() || (bounds.user_day_tokens.is_none() && bounds.user_day_cost_usd.is_none()) {
            return;
        }
        let (user, day) = (self.call.user.clone(), day_of(Timestamp::now()));
        let spend = Spend { user, day, tokens: amount.tokens, cost_usd: amount.cost_usd };
        self.deps.day_sums.add(std::slice::from_ref(&spend));
        if let Err(error) = self.deps.store.spend(spend).await {
            log::warn!(error:% = error; "what a call has used could not be written down; it counts until the server stops");
        }
    }

    /// Ends the agent, and waits until it is gone.
    async fn let_go(self, mut live: Live) {
        // The caller has it all.
        drop(self.out);
        live.kill.kill();
        let gone = async { while live.events.recv().await.is_some() {} };
        if timeout(self.deps.config().agent.kill_grace.0 + super::backend::KILL_PATIENCE, gone).await.is_err() {
            log::error!(agent = self.call.agent.as_str(); "the agent of a call could not be killed; it is left behind");
        }
    }
}

/// What was said before, as the request told it.
struct Told(Arc<[Message]>);

impl Transcript for Told {
    fn load(&self) -> BoxFuture<'static, Result<Vec<Message>, String>> {
        std::future::ready(Ok(self.0.to_vec())).boxed()
    }
}
