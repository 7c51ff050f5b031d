//! The supervisor: the only way to a session. It opens sessions, so that two first requests for a key meet one
//! actor; it sweeps idle ones, takes up what a crash left, and drains all on the server's stop.
//!
//! A session actor that panicked is opened again from the store, at most a few times a minute; after that its key
//! answers `agent_error` until the minute is over. No other session is touched by it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt as _, Arbiter, ArbiterHandle, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    WrapFuture as _,
};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    directory::Directory,
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{Event, frame::decode_event},
    session::{
        Deps, SessionActor, SessionHandle,
        actor::Origin,
        messages::{Drain, EvictIfIdle, Fate, SessionStopped},
        recovery,
    },
    store::{Claimed, StoreError},
    watchdog,
};

/// Crashes of one session in [`CRASH_WINDOW`] after which it is left alone for the rest of it.
const CRASH_BUDGET: usize = 3;
/// The window of the crash budget.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// The first and the longest pause before a session with unfinished turns that could not be opened is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Sessions that are taken up at once at the server's start.
const RECOVER_AT_ONCE: usize = 64;

/// Finds the actor of a session, and opens it if need be.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<SessionHandle>, ApiError>")]
pub struct Find {
    /// Whose.
    pub key: SessionKey,
    /// Whether an actor is wanted for a key without a session, because the next command makes one.
    pub create: bool,
    /// False to look only among the live ones.
    pub open: bool,
}

/// The actors of those of the keys that are live.
#[derive(Debug, Message)]
#[rtype(result = "Vec<(SessionKey, SessionHandle)>")]
pub struct FindLive(pub Vec<SessionKey>);

/// All live sessions.
#[derive(Debug, Message)]
#[rtype(result = "Vec<(SessionKey, SessionHandle)>")]
pub struct AllLive;

/// How many sessions are live, and whether the recovery at the start is done.
#[derive(Debug, Message)]
#[rtype(result = "(usize, bool)")]
pub struct Count;

/// Opens the sessions with unfinished turns. Answered when all of them are open.
#[derive(Debug, Message)]
#[rtype(result = "Result<usize, ApiError>")]
pub struct Recover;

/// Stops all sessions in order; answered when nothing runs any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DrainAll {
    /// How long running turns may go on.
    pub grace: Duration,
}

type Waiting = oneshot::Sender<Result<Option<SessionHandle>, ApiError>>;

enum Entry {
    /// Being loaded; these wait for it, each with whether it wants an actor for a key without a session.
    Opening(Vec<(bool, Waiting)>),
    Live {
        session: SessionHandle,
        incarnation: u64,
    },
}

/// See the module's text.
pub struct Supervisor {
    deps: Arc<Deps>,
    arbiters: Vec<ArbiterHandle>,
    sessions: HashMap<SessionKey, Entry>,
    directory: Directory,
    next_incarnation: u64,
    crashes: HashMap<SessionKey, Vec<Instant>>,
    /// Keys whose last actor crashed: the reason for the turn that it left.
    crashed: HashMap<SessionKey, Fate>,
    /// Sessions with unfinished turns that could not be opened, with the pause before the next try: somebody must run
    /// them also when nobody asks for them.
    owed: HashMap<SessionKey, Duration>,
    recovered: bool,
    draining: bool,
    /// Tells the server when this actor is gone.
    _gone: DropGuard,
}

impl Supervisor {
    /// A supervisor that spreads sessions over these arbiters and lists them in `directory`. `gone` is cancelled when it
    /// ends, however that comes about.
    #[must_use]
    pub fn new(deps: Arc<Deps>, arbiters: Vec<ArbiterHandle>, directory: Directory, gone: CancellationToken) -> Self {
        Self {
            deps,
            arbiters,
            sessions: HashMap::new(),
            directory,
            next_incarnation: 0,
            crashes: HashMap::new(),
            crashed: HashMap::new(),
            owed: HashMap::new(),
            recovered: false,
            draining: false,
            _gone: gone.drop_guard(),
        }
    }

    /// Starts one arbiter a core for sessions, apart from HTTP workers, so that a busy worker stalls no session.
    #[must_use]
    pub fn arbiters() -> Vec<Arbiter> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores).map(|_| Arbiter::new()).collect()
    }

    fn live(&self, key: &SessionKey) -> Option<&SessionHandle> {
        match self.sessions.get(key) {
            Some(Entry::Live { session, .. }) if session.connected() => Some(session),
            _ => None,
        }
    }

    fn all_live(&self) -> Vec<(SessionKey, SessionHandle)> {
        let live = self.sessions.iter().filter_map(|(key, entry)| match entry {
            Entry::Live { session, .. } => Some((key.clone(), session.clone())),
            Entry::Opening(_) => None,
        });
        live.collect()
    }

    /// Refuses a key that has crashed too often of late.
    fn check_budget(&mut self, key: &SessionKey) -> Result<(), ApiError> {
        let Some(crashes) = self.crashes.get_mut(key) else { return Ok(()) };
        crashes.retain(|at| at.elapsed() < CRASH_WINDOW);
        if crashes.len() >= CRASH_BUDGET {
            let message = format!("the session failed inside {CRASH_BUDGET} times within a minute; try again later");
            let mut error = ApiError::new(Code::AgentError, message);
            error.retry_after = Some(60);
            return Err(error);
        }
        if crashes.is_empty() {
            self.crashes.remove(key);
        }
        Ok(())
    }

    fn open(&mut self, key: SessionKey, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let wanted = key.clone();
        let load = async move { load(&deps, &wanted).await };
        ctx.spawn(load.into_actor(self).map(move |loaded, actor, ctx| actor.opened(key, loaded, ctx)));
    }

    fn opened(&mut self, key: SessionKey, loaded: Result<Loaded, StoreError>, ctx: &mut Context<Self>) {
        let Some(Entry::Opening(waiting)) = self.sessions.remove(&key) else { return };
        let owed = waiting.is_empty() || self.owed.contains_key(&key);
        let answer = match loaded {
            // It will not do better when it is tried again.
            Err(error @ (StoreError::Corrupt(_) | StoreError::Setup(_))) => {
                self.owed.remove(&key);
                Err(unreadable(&key, error))
            }
            Err(error) => {
                if owed {
                    self.owe(key.clone(), ctx);
                }
                Err(ApiError::from(error))
            }
            // A session that is not there gets an actor only for somebody who is about to make it.
            Ok(loaded) if loaded.state.is_none() && !waiting.iter().any(|(create, _)| *create) => Ok(None),
            Ok(loaded) => Ok(Some((loaded.state.is_some(), self.start(key, loaded, ctx)))),
        };
        for (create, waiter) in waiting {
            let answer = match &answer {
                Ok(Some((exists, session))) => Ok(Some(session.clone()).filter(|_| *exists || create)),
                Ok(None) => Ok(None),
                Err(error) => Err(error.clone()),
            };
            // The one who asked may have gone away; that cancels nothing.
            let _ = waiter.send(answer);
        }
    }

    /// Opens a session later, whether anybody asks for it or not.
    fn owe(&mut self, key: SessionKey, ctx: &mut Context<Self>) {
        let pause = self.owed.get(&key).map_or(RETRY.0, |last| (*last * 2).min(RETRY.1));
        self.owed.insert(key.clone(), pause);
        ctx.run_later(pause, move |actor, ctx| {
            let open = actor.draining || actor.live(&key).is_some() || actor.sessions.contains_key(&key);
            if open || !actor.owed.contains_key(&key) {
                actor.owed.remove(&key);
                return;
            }
            watchdog::acted("session_retried");
            actor.sessions.insert(key.clone(), Entry::Opening(Vec::new()));
            actor.open(key, ctx);
        });
    }

    fn start(&mut self, key: SessionKey, loaded: Loaded, ctx: &mut Context<Self>) -> SessionHandle {
        self.owed.remove(&key);
        self.next_incarnation += 1;
        let incarnation = self.next_incarnation;
        let recover = if self.crashed.remove(&key).is_some() { "session_crashed" } else { "server_restart" };
        let Loaded { epoch, last_seq, state } = loaded;
        let origin = Origin { key: key.clone(), incarnation, epoch, last_seq, state, recover };
        let (deps, reports) = (Arc::clone(&self.deps), ctx.address().recipient());
        let turn = usize::try_from(incarnation).unwrap_or(0);
        let arbiter = self.arbiters.get(turn % self.arbiters.len().max(1));
        let session = SessionActor::launch(origin, deps, reports, arbiter);
        self.directory.insert(key.clone(), session.clone());
        self.sessions.insert(key, Entry::Live { session: session.clone(), incarnation });
        session
    }

    fn sweep(&self, ctx: &mut Context<Self>) {
        let idle = self.deps.config().session.idle_timeout.0;
        for (_, session) in self.all_live() {
            // Its end is reported by the actor itself; a session whose mailbox is full is not idle.
            session.notify(EvictIfIdle { idle });
        }
        ctx.run_later(self.deps.config().session.sweep_interval.0, Self::sweep_again);
    }

    fn sweep_again(&mut self, ctx: &mut Context<Self>) {
        self.sweep(ctx);
    }
}

/// What the store knows of a key.
struct Loaded {
    epoch: i64,
    last_seq: u64,
    state: Option<crate::session::state::State>,
}

async fn load(deps: &Deps, key: &SessionKey) -> Result<Loaded, StoreError> {
    let Some(Claimed { epoch, last_seq, oldest_seq, session, .. }) = deps.store.claim(key).await? else {
        return Ok(Loaded { epoch: 0, last_seq: 0, state: None });
    };
    let Some(session) = session else { return Ok(Loaded { epoch, last_seq, state: None }) };
    let mut events: Vec<Event> = Vec::new();
    if let Some(turn) = recovery::cut_off(&session) {
        let mut after = turn.first_seq.saturating_sub(1);
        while after < last_seq {
            let Some(page) = deps.store.events(key, after, 4096, 1 << 20).await? else { break };
            let decoded: Result<Vec<Event>, _> = page.events.iter().map(|event| decode_event(event)).collect();
            let decoded = decoded.map_err(|error| StoreError::Corrupt(format!("an event of {key}: {error}")))?;
            let Some(last) = decoded.last().map(|event| event.seq) else { break };
            after = last;
            events.extend(decoded.into_iter().filter(|event| event.turn_id == Some(turn.turn.id)));
        }
    }
    Ok(Loaded { epoch, last_seq, state: Some(recovery::restore(session, last_seq, oldest_seq, &events)) })
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4096);
        ctx.run_later(self.deps.config().session.sweep_interval.0, Self::sweep_again);
    }
}

impl Handler<Find> for Supervisor {
    type Result = ResponseFuture<Result<Option<SessionHandle>, ApiError>>;

    fn handle(&mut self, find: Find, ctx: &mut Self::Context) -> Self::Result {
        if let Some(session) = self.live(&find.key) {
            let session = session.clone();
            return Box::pin(std::future::ready(Ok(Some(session))));
        }
        if !find.open {
            return Box::pin(std::future::ready(Ok(None)));
        }
        if self.draining {
            return Box::pin(std::future::ready(Err(shutting_down())));
        }
        if let Err(error) = self.check_budget(&find.key) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (waiter, opened) = oneshot::channel();
        let full = self.sessions.len() >= self.deps.config().session.max_live;
        match self.sessions.get_mut(&find.key) {
            Some(Entry::Opening(waiting)) => waiting.push((find.create, waiter)),
            // A dead actor whose end has not been reported yet is replaced; its late report names another incarnation.
            _ if full => {
                let error = ApiError::new(Code::TooManySessions, "too many sessions are live; try again in a moment");
                return Box::pin(std::future::ready(Err(error.with("limit", self.deps.config().session.max_live))));
            }
            _ => {
                self.sessions.insert(find.key.clone(), Entry::Opening(vec![(find.create, waiter)]));
                self.open(find.key, ctx);
            }
        }
        Box::pin(async move { opened.await.unwrap_or_else(|_dropped| Err(shutting_down())) })
    }
}

impl Handler<FindLive> for Supervisor {
    type Result = actix::MessageResult<FindLive>;

    fn handle(&mut self, FindLive(keys): FindLive, _: &mut Self::Context) -> Self::Result {
        let found = keys.into_iter().filter_map(|key| self.live(&key).cloned().map(|session| (key, session)));
        actix::MessageResult(found.collect())
    }
}

impl Handler<AllLive> for Supervisor {
    type Result = actix::MessageResult<AllLive>;

    fn handle(&mut self, _: AllLive, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.all_live())
    }
}

impl Handler<Count> for Supervisor {
    type Result = actix::MessageResult<Count>;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult((self.sessions.len(), self.recovered))
    }
}

impl Handler<SessionStopped> for Supervisor {
    type Result = ();

    fn handle(&mut self, stopped: SessionStopped, ctx: &mut Self::Context) {
        let current = matches!(self.sessions.get(&stopped.key),
            Some(Entry::Live { incarnation, .. }) if *incarnation == stopped.incarnation);
        if current {
            self.directory.remove(&stopped.key);
            self.sessions.remove(&stopped.key);
        }
        if stopped.fate != Fate::Crashed {
            return;
        }
        log::error!(session:% = stopped.key; "a session failed inside");
        self.crashes.entry(stopped.key.clone()).or_default().push(Instant::now());
        self.crashed.insert(stopped.key.clone(), Fate::Crashed);
        // Its queue must go on: open it again at once, or when the budget allows it.
        let wait = if self.check_budget(&stopped.key).is_ok() { Duration::ZERO } else { CRASH_WINDOW };
        ctx.run_later(wait, move |actor, ctx| {
            if !actor.draining && actor.live(&stopped.key).is_none() && !actor.sessions.contains_key(&stopped.key) {
                actor.sessions.insert(stopped.key.clone(), Entry::Opening(Vec::new()));
                actor.open(stopped.key, ctx);
            }
        });
    }
}

impl Handler<Recover> for Supervisor {
    type Result = ResponseFuture<Result<usize, ApiError>>;

    fn handle(&mut self, _: Recover, ctx: &mut Self::Context) -> Self::Result {
        let (me, store) = (ctx.address(), self.deps.store.clone());
        Box::pin(async move {
            let keys = store.unfinished_keys().await?;
            let count = keys.len();
            let opening = futures_util::stream::iter(keys.into_iter().map(|key| {
                let me = me.clone();
                async move { (key.clone(), me.send(Find { key, create: false, open: true }).await) }
            }));
            let mut opening = futures_util::StreamExt::buffer_unordered(opening, RECOVER_AT_ONCE);
            while let Some((key, found)) = futures_util::StreamExt::next(&mut opening).await {
                if let Ok(Err(error)) = found {
                    log::error!(session:% = key, error:% = error; "a session could not be taken up again");
                    if error.code != Code::SessionUnreadable {
                        // Without the supervisor nobody is left to try again.
                        let _ = me.send(Owe(key)).await;
                    }
                }
            }
            let _ = me.send(Recovered).await;
            Ok(count)
        })
    }
}

/// A session with unfinished turns could not be opened: try again later.
#[derive(Message)]
#[rtype(result = "()")]
struct Owe(SessionKey);

impl Handler<Owe> for Supervisor {
    type Result = ();

    fn handle(&mut self, Owe(key): Owe, ctx: &mut Self::Context) {
        self.owe(key, ctx);
    }
}

/// The recovery at the start is done.
#[derive(Message)]
#[rtype(result = "()")]
struct Recovered;

impl Handler<Recovered> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Recovered, _: &mut Self::Context) {
        self.recovered = true;
    }
}

impl Handler<DrainAll> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, DrainAll { grace }: DrainAll, _: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let sessions = self.all_live();
        Box::pin(async move {
            // One that is gone has nothing left to drain.
            let drains =
                sessions.into_iter().map(|(_, session)| async move { session.send(Drain { grace }).await.is_ok() });
            futures_util::future::join_all(drains).await;
        })
    }
}

/// What is told of a session that cannot be loaded; the log has what is wrong with it.
#[must_use]
pub fn unreadable(key: &SessionKey, error: StoreError) -> ApiError {
    if !matches!(error, StoreError::Corrupt(_)) {
        return error.into();
    }
    log::error!(session:% = key, cause:% = error; "a session cannot be read");
    let message =
        "What is stored of this session cannot be read. It can be deleted with ?force=true; no other is touched.";
    ApiError::new(Code::SessionUnreadable, message).with("key", key.as_str())
}

fn shutting_down() -> ApiError {
    ApiError::new(Code::ShuttingDown, "the server is stopping; try again in a moment")
}
