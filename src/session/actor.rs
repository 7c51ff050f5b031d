//! The session actor: takes messages, hands them to the lane, and tells those that wait. Glue only.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, ArbiterHandle, AsyncContext as _, Context, Handler,
    MessageResult, Recipient, ResponseFuture,
};
use tokio::sync::oneshot;

use super::{
    admission::Admission,
    backend::Backend,
    command::Done,
    day_sums::DaySums,
    env::Settings,
    lane::{Input, Lane},
    messages::{
        AwaitTurn, Drain, EvictIfIdle, Execute, Expect, Fate, GetView, Join, Joined, Leave, SessionStopped, View,
    },
    spending,
    state::State,
    subscribers::Subscribers,
    trace::Trace,
};
use crate::{
    access::Access,
    agents::{
        ProcessLedger, Registry,
        pool::{Pool, ReleaseAgent},
    },
    config::Config,
    error::{ApiError, Code},
    gateway::Finished,
    ids::{SessionKey, TurnId},
    metrics::{self, Tally},
    protocol::frame::EndReason,
    store::Store,
    timestamp::Timestamp,
    webhooks::outbound::Outbound,
};

/// Messages that may wait for one session.
const MAILBOX: usize = 256;
/// How long it stays in memory for somebody who is about to follow it and does not come.
const EXPECTED: Duration = Duration::from_secs(5);

/// What all sessions share.
pub struct Deps {
    /// The configuration now.
    pub effective: RwLock<Arc<Effective>>,
    /// The store.
    pub store: Store,
    /// The way to the store with the webhooks of what is stored.
    pub outbound: Outbound,
    /// The agents.
    pub registry: Registry,
    /// Places for agent processes.
    pub pool: Pool,
    /// How many turns run at once.
    pub admission: Admission,
    /// What users have used today.
    pub day_sums: DaySums,
    /// Whose streams end when a session goes out of their sight.
    pub access: Arc<Access>,
    /// Remembers process groups.
    pub ledger: Arc<dyn ProcessLedger>,
}

/// The configuration as it is now, and what decisions take from it.
#[derive(Debug)]
pub struct Effective {
    /// The configuration.
    pub config: Config,
    /// The settings that decisions depend on.
    pub settings: Settings,
}

impl std::ops::Deref for Effective {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl Deps {
    /// The configuration now. It may change at any time, so nobody keeps it.
    #[must_use]
    pub fn config(&self) -> Arc<Effective> {
        Arc::clone(&self.effective.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the configuration, for all that is decided from now on.
    pub fn change(&self, effective: Effective) {
        *self.effective.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(effective);
    }
}

/// One live session.
pub struct SessionActor {
    pub(super) key: SessionKey,
    pub(super) deps: Arc<Deps>,
    /// The claim on the log; 0 until a key that was never used has its first commit.
    pub(super) epoch: i64,
    /// The newest event at the last commit; the state has it too, but a key without a session has no state.
    pub(super) last_seq: u64,
    /// The session at its last commit; none while the key has no session.
    pub(super) state: Option<State>,
    pub(super) lane: Lane,
    pub(super) backend: Backend,
    pub(super) subscribers: Subscribers,
    /// True while a look at the subscribers is due.
    pub(super) judging: bool,
    /// True when a turn ran that nothing could end, at the last look.
    pub(super) orphaned: bool,
    /// Those that wait for the end of a turn.
    pub(super) waiters: HashMap<TurnId, Vec<oneshot::Sender<Finished>>>,
    /// Those that wait for a reset or delete.
    pub(super) enders: Vec<oneshot::Sender<Result<Done, ApiError>>>,
    /// Those that wait until nothing runs, for the server's stop.
    pub(super) drainers: Vec<oneshot::Sender<()>>,
    /// What it counts for in the metrics.
    pub(super) tally: Tally,
    pub(super) trace: Trace,
    /// When a client last asked for anything.
    touched: Instant,
    /// Since when somebody is about to follow it.
    expected: Option<Instant>,
    incarnation: u64,
    supervisor: Recipient<SessionStopped>,
    /// How it ended, once it has ended on purpose. Shared with the handles.
    fate: Arc<OnceLock<Fate>>,
}

/// How to reach a live session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    addr: Addr<SessionActor>,
    fate: Arc<OnceLock<Fate>>,
}

/// Why a message got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The session left memory before it took the message: look for it again and send it there.
    Gone,
    /// It failed inside; whether the message took effect is not known.
    Failed,
}

impl SessionHandle {
    /// True while the actor is there.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.addr.connected()
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn send<M>(&self, message: M) -> Result<M::Result, Undelivered>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        SessionActor: Handler<M>,
    {
        // An actor ends on purpose only when nothing that it took is undone, so what was still in its mailbox was
        // not taken.
        let undelivered = || match self.fate.get() {
            Some(Fate::Crashed) | None => Undelivered::Failed,
            Some(_) => Undelivered::Gone,
        };
        self.addr.send(message).await.map_err(|_closed| undelivered())
    }

    /// Sends a notice that nobody answers and that may be lost when the mailbox is full.
    pub fn notify<M>(&self, message: M)
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        SessionActor: Handler<M>,
    {
        let _ = self.addr.try_send(message);
    }

    /// Sends a notice about lifecycle, which must not be lost to a full mailbox.
    pub fn tell<M>(&self, message: M)
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        SessionActor: Handler<M>,
    {
        self.addr.do_send(message);
    }
}

/// What a session actor starts from.
pub struct Origin {
    /// Its key.
    pub key: SessionKey,
    /// Which incarnation, for the supervisor.
    pub incarnation: u64,
    /// The claim on the log.
    pub epoch: i64,
    /// The newest event.
    pub last_seq: u64,
    /// The session, unless the key has none yet.
    pub state: Option<State>,
    /// Why the last incarnation ended, when it left a turn behind: the reason of its `turn.finished`.
    pub recover: &'static str,
}

impl SessionActor {
    /// Starts an actor, on `arbiter` or else on the current one.
    #[must_use]
    pub fn launch(
        origin: Origin,
        deps: Arc<Deps>,
        supervisor: Recipient<SessionStopped>,
        arbiter: Option<&ArbiterHandle>,
    ) -> SessionHandle {
        let fate: Arc<OnceLock<Fate>> = Arc::default();
        let shared = Arc::clone(&fate);
        let addr = match arbiter {
            Some(arbiter) => Self::start_in_arbiter(arbiter, move |_| Self::new(origin, deps, supervisor, shared)),
            None => Self::new(origin, deps, supervisor, shared).start(),
        };
        SessionHandle { addr, fate }
    }

    fn new(origin: Origin, deps: Arc<Deps>, supervisor: Recipient<SessionStopped>, fate: Arc<OnceLock<Fate>>) -> Self {
        let mut lane = Lane::default();
        if origin.state.is_some() {
            lane.push(Input::Recover(origin.recover));
        }
        Self {
            trace: Trace::new(origin.key.clone()),
            key: origin.key,
            deps,
            epoch: origin.epoch,
            last_seq: origin.last_seq,
            state: origin.state,
            lane,
            backend: Backend::default(),
            subscribers: Subscribers::default(),
            judging: false,
            orphaned: false,
            waiters: HashMap::new(),
            enders: Vec::new(),
            drainers: Vec::new(),
            tally: Tally::default(),
            touched: Instant::now(),
            expected: None,
            incarnation: origin.incarnation,
            supervisor,
            fate,
        }
    }

    fn idle(&self) -> bool {
        !self.state.as_ref().is_some_and(|state| state.busy() || state.pending_end.is_some())
            && self.lane.is_idle()
            && self.subscribers.is_empty()
            && self.waiters.is_empty()
            && self.enders.is_empty()
            && self.expected.is_none_or(|since| since.elapsed() > EXPECTED)
    }

    /// Brings what is shown of the budget up to date: other sessions of the owner use it up, too.
    fn refresh_budget(&mut self) {
        if let Some(state) = &mut self.state {
            let config = self.deps.config();
            spending::show(state, &config.settings.budget, &self.deps.day_sums, Timestamp::now());
        }
    }

    pub(super) fn end(&mut self, fate: Fate, ctx: &mut Context<Self>) {
        // Set once: the first end is the true one.
        let _ = self.fate.set(fate);
        let reason = if fate == Fate::Gone { EndReason::SessionDeleted } else { EndReason::SessionFailed };
        self.subscribers.end_all(reason);
        ctx.stop();
    }

    /// Looks at the subscribers again soon, if anything waits for any of them.
    pub(super) fn judge_later(&mut self, ctx: &mut Context<Self>) {
        if self.judging || !self.subscribers.any_waiting() {
            return;
        }
        self.judging = true;
        let limit = self.deps.config().stream.max_lag.0;
        let pause = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        ctx.run_later(pause, move |actor, ctx| {
            actor.judging = false;
            let cut = actor.subscribers.cut_stalled(limit, Instant::now());
            if cut > 0 {
                if let Some(metrics) = metrics::get() {
                    metrics.cut_streams.inc_by(u64::try_from(cut).unwrap_or(0));
                }
                log::info!(session:% = actor.key, cut; "subscribers were cut: they took nothing for too long");
            }
            actor.judge_later(ctx);
        });
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.advance(ctx);
    }
}

impl Drop for SessionActor {
    /// The one place that reports the end, because it also runs while a panic unwinds.
    fn drop(&mut self) {
        // Without a panic and without a reason its thread has ended: the server stops.
        let unsaid = if std::thread::panicking() { Fate::Crashed } else { Fate::Evicted };
        let fate = self.fate.get().copied().unwrap_or(unsaid);
        self.subscribers.end_all(EndReason::SessionFailed);
        self.supervisor.do_send(SessionStopped { key: self.key.clone(), incarnation: self.incarnation, fate });
    }
}

impl Handler<Execute> for SessionActor {
    type Result = ResponseFuture<Result<Done, ApiError>>;

    fn handle(&mut self, Execute(asker, command): Execute, ctx: &mut Self::Context) -> Self::Result {
        self.touched = Instant::now();
        if self.lane.is_full() {
            let message = "too many calls wait for this session; nothing was done, try again in a moment";
            return Box::pin(std::future::ready(Err(ApiError::new(Code::Overloaded, message))));
        }
        let (reply, done) = oneshot::channel();
        self.lane.push(Input::Command(asker, command, reply));
        self.advance(ctx);
        Box::pin(async move {
            let ended =
                || ApiError::new(Code::Internal, "the session ended inside; whether the call took effect is not known");
            done.await.unwrap_or_else(|_dropped| Err(ended()))
        })
    }
}

impl Handler<Join> for SessionActor {
    type Result = Joined;

    fn handle(&mut self, join: Join, ctx: &mut Self::Context) -> Joined {
        self.touched = Instant::now();
        let oldest_seq = self.state.as_ref().map_or(self.last_seq + 1, |state| state.oldest_seq);
        self.expected = None;
        let known = join.id.filter(|id| self.subscribers.knows(*id));
        let id = known.unwrap_or_else(|| self.subscribers.add(join.outbox, join.raw));
        let behind = join.after.map_or(0, |after| self.last_seq.saturating_sub(after));
        let live = behind <= join.near && self.subscribers.go_live(id);
        if join.hello {
            self.prewarm(ctx);
        }
        let count = self.subscribers.len();
        self.refresh_budget();
        let snapshot = self.state.as_ref().filter(|_| join.hello).map(|state| Box::new(state.snapshot(count)));
        self.judge_later(ctx);
        Joined { id, oldest_seq, last_seq: self.last_seq, live, snapshot }
    }
}

impl Handler<Leave> for SessionActor {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Self::Context) {
        self.touched = Instant::now();
        self.subscribers.remove(leave.id);
    }
}

impl Handler<GetView> for SessionActor {
    type Result = MessageResult<GetView>;

    fn handle(&mut self, _: GetView, _: &mut Self::Context) -> Self::Result {
        let subscribers = self.subscribers.len();
        self.refresh_budget();
        MessageResult(self.state.clone().map(|state| View { state, subscribers }))
    }
}

impl Handler<Expect> for SessionActor {
    type Result = usize;

    fn handle(&mut self, _: Expect, _: &mut Self::Context) -> usize {
        self.expected = Some(Instant::now());
        self.subscribers.len()
    }
}

impl Handler<AwaitTurn> for SessionActor {
    type Result = MessageResult<AwaitTurn>;

    fn handle(&mut self, AwaitTurn(id): AwaitTurn, _: &mut Self::Context) -> Self::Result {
        self.touched = Instant::now();
        let known = self.state.as_ref().is_some_and(|state| state.turn(id).is_some());
        MessageResult(known.then(|| {
            let (sender, receiver) = oneshot::channel();
            let waiting = self.waiters.entry(id).or_default();
            // A client that asks again and again must not pile up what nobody waits for any more.
            waiting.retain(|waiter: &oneshot::Sender<Finished>| !waiter.is_closed());
            waiting.push(sender);
            receiver
        }))
    }
}

impl Handler<EvictIfIdle> for SessionActor {
    type Result = bool;

    fn handle(&mut self, EvictIfIdle { idle }: EvictIfIdle, ctx: &mut Self::Context) -> bool {
        self.waiters.retain(|_, waiting| waiting.iter().any(|waiter| !waiter.is_closed()));
        self.watch_owner(ctx);
        let primary = self.state.as_ref().is_some_and(|state| state.record.snapshot.primary);
        let evict = !primary && self.idle() && self.touched.elapsed() >= idle;
        if evict {
            self.end(Fate::Evicted, ctx);
        }
        evict
    }
}

impl Handler<ReleaseAgent> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: ReleaseAgent, _: &mut Self::Context) {
        if self.state.as_ref().is_none_or(|state| state.running.is_none()) && self.lane.is_idle() {
            self.close_agent();
        }
    }
}

impl Handler<Drain> for SessionActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain { grace }: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (sender, drained) = oneshot::channel();
        self.drainers.push(sender);
        self.lane.push(Input::Drain);
        ctx.run_later(grace, |actor, ctx| {
            actor.lane.push(Input::GraceOver);
            actor.advance(ctx);
        });
        self.advance(ctx);
        Box::pin(async move {
            // Dropped means that the actor has ended, and then nothing runs either.
            let _ = drained.await;
        })
    }
}

/// Runs a future beside the actor and hands its output to `then`, on the actor.
pub(super) fn beside<F, T>(
    ctx: &mut Context<SessionActor>,
    future: F,
    then: impl FnOnce(&mut SessionActor, T, &mut Context<SessionActor>) + 'static,
) -> actix::SpawnHandle
where
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let mut then = Some(then);
    ctx.spawn(actix::fut::wrap_future::<_, SessionActor>(future).map(move |output, actor, ctx| {
        if let Some(then) = then.take() {
            then(actor, output, ctx);
        }
    }))
}
