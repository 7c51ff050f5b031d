//! The agent of a session: started when a turn needs it, listened to, bounded in time, let go when idle.
//!
//! Agent, session and time limits meet here and nowhere else. A generation number tells a live agent from one that
//! is on its way out; what an agent says after it was given up is not heard.

mod calls;
mod clocks;
mod hearing;
mod prewarm;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{AsyncContext as _, Context, SpawnHandle};
use calls::Calls;
use tokio::{sync::mpsc, time::timeout};

use super::{
    SessionActor, actor::beside, admission::Admitted, coalesce::Coalescer, draft::Effect, lane::Input, workspace,
};
use crate::{
    agents::{AgentCommand, AgentEvent, KillOnDrop, Live, OpenSpec, pool::Lease},
    metrics,
    protocol::{Control, frame::EndReason},
    timestamp::Timestamp,
};

/// How long after a kill the end of the event channel is waited for, beyond the grace of the kill itself.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The agent of a session.
#[derive(Default)]
pub(super) struct Backend {
    slot: Option<Slot>,
    generation: u64,
    /// The place of the running turn among all that run.
    pub(super) place: Option<Admitted>,
    /// A place, among the running turns or in the pool, is being waited for.
    acquiring: Option<SpawnHandle>,
    /// Fires when the oldest question runs out of time.
    choice_timer: Option<(SpawnHandle, Timestamp)>,
    /// True after an agent that was started ahead of a turn went without being ready, until one is.
    prewarm_failed: bool,
    /// True while a look at the budget is due, for turns that wait at it.
    looking_at_budget: bool,
    pub(super) calls: Calls,
}

struct Slot {
    generation: u64,
    agent: String,
    /// It goes with its turn: it keeps nothing, or its process ends.
    for_one_turn: bool,
    commands: mpsc::Sender<AgentCommand>,
    /// Commands that the agent has not taken yet; bounded by what one turn can ask of it.
    outgoing: VecDeque<AgentCommand>,
    /// True while room in the command channel is waited for.
    sending: bool,
    kill: KillOnDrop,
    opened: bool,
    /// True while it was started ahead of a turn and has had none.
    prewarmed: bool,
    /// True once it has said that it goes.
    leaving: bool,
    /// True once it has said how its last turn, or its start, has ended: its own end is no news then, and another agent
    /// may run a turn already.
    over: bool,
    /// True once it was killed: only its end counts from then on.
    dying: bool,
    coalescer: Coalescer,
    flush_timer: Option<SpawnHandle>,
    /// When it last said something, or was given its prompt: its silence counts from then.
    heard: Instant,
    /// Where its events wait while the lane is congested.
    parked: Option<mpsc::Receiver<AgentEvent>>,
    lease: Option<Arc<Lease>>,
    /// Limits of the running turn.
    stall_timer: Option<SpawnHandle>,
    cancel_timer: Option<SpawnHandle>,
    /// Lets it go when nothing has run for a while.
    idle_timer: Option<SpawnHandle>,
}

impl Backend {
    /// True while its agent has a place in the pool that others could want.
    pub(super) fn has_lease(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.lease.is_some())
    }
}

impl SessionActor {
    /// Does what a commit has made due.
    pub(super) fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::AwaitAdmission => self.await_admission(ctx),
            Effect::OpenAgent(agent) => self.open_agent(agent, ctx),
            Effect::Prompt(prompt) => {
                self.ready_for_turn(ctx);
                self.tell(AgentCommand::Prompt(*prompt), ctx);
                self.watch_stall(ctx);
            }
            Effect::Prompted => {
                self.ready_for_turn(ctx);
                self.watch_stall(ctx);
            }
            Effect::GoOn(prompt) => {
                if let Some(timer) = self.backend.slot.as_mut().and_then(|slot| slot.cancel_timer.take()) {
                    ctx.cancel_future(timer);
                }
                self.tell(AgentCommand::Prompt(*prompt), ctx);
                self.watch_stall(ctx);
            }
            Effect::Steer(id, text) => self.tell(AgentCommand::Steer { id, text }, ctx),
            Effect::CancelAgent => self.cancel_agent(ctx),
            Effect::KillAgent => self.kill_agent(ctx),
            Effect::CloseAgent => self.close_agent(),
            Effect::Answer(ask_id, answer) => self.tell(AgentCommand::Answer { ask_id, answer }, ctx),
            Effect::AgentRests => self.agent_rests(ctx),
            Effect::Finished(finished) => {
                for waiter in self.waiters.remove(&finished.turn.id).into_iter().flatten() {
                    drop(waiter.send((*finished).clone()));
                }
            }
            Effect::Budget(outcome) => {
                if let Some(metrics) = metrics::get() {
                    metrics.budgets.with_label_values(&[outcome]).inc();
                }
            }
            Effect::ResetDone => {
                let count = self.subscribers.len();
                let done =
                    self.state.as_ref().map(|state| super::command::Done::Snapshot(Box::new(state.snapshot(count))));
                for ender in self.enders.drain(..) {
                    drop(ender.send(done.clone().ok_or_else(super::turns::no_session)));
                }
            }
            Effect::ForgetWorkspace => workspace::forget(&self.deps.config(), &self.key),
            Effect::Deleted => {
                // Also where the actor lives on, because somebody makes the session anew at this moment.
                self.subscribers.end_all(EndReason::SessionDeleted);
                self.backend.calls = Calls::default();
                self.enders.drain(..).for_each(|ender| drop(ender.send(Ok(super::command::Done::Unit))));
            }
            Effect::Raw(turn, message) => {
                if self.subscribers.want_raw() {
                    let frame = Control::Raw { message }.encode(&self.key, turn);
                    let bound = self.deps.config().stream.max_lag_bytes.bytes();
                    self.subscribers.publish_raw(&frame, bound, Instant::now());
                }
            }
        }
    }

    /// Goes on once one more turn may run.
    fn await_admission(&mut self, ctx: &mut Context<Self>) {
        let admission = self.deps.admission.clone();
        let limit = self.deps.config().pool.max_wait;
        let wait = async move { timeout(limit.0, admission.wait()).await };
        let handle = beside(ctx, wait, move |actor, place, ctx| {
            actor.backend.acquiring = None;
            match place {
                Ok(Ok(place)) => {
                    actor.backend.place = Some(place);
                    actor.lane.push(Input::Admitted);
                    actor.advance(ctx);
                }
                _ => actor.hear_end(format!("too many turns run: no place within {limit} (pool.max_wait)"), ctx),
            }
        });
        self.backend.acquiring = Some(handle);
    }

    /// Starts an agent once there is a place for it.
    fn open_agent(&mut self, agent: String, ctx: &mut Context<Self>) {
        if self.take_prewarmed(&agent, ctx) {
            return;
        }
        self.close_agent();
        if self.deps.registry.capabilities(&agent).is_some_and(|agent| agent.shared) {
            return self.start_agent(&agent, None, ctx);
        }
        let pool = self.deps.pool.clone();
        let owner = ctx.address().recipient();
        let limit = self.deps.config().pool.max_wait;
        let wait = async move { timeout(limit.0, pool.acquire(Some(owner))).await };
        let handle = beside(ctx, wait, move |actor, lease, ctx| {
            actor.backend.acquiring = None;
            match lease {
                Ok(Ok(lease)) => actor.start_agent(&agent, Some(lease), ctx),
                _ => actor.hear_end(format!("too many agents work: no place within {limit} (pool.max_wait)"), ctx),
            }
        });
        self.backend.acquiring = Some(handle);
    }

    fn start_agent(&mut self, name: &str, lease: Option<Lease>, ctx: &mut Context<Self>) {
        let Some(agent) = self.deps.registry.get(name) else {
            return self.hear_end(format!("no agent {name:?} is configured any more"), ctx);
        };
        let Some(state) = &self.state else { return };
        let turn = state.running.as_ref().map(|running| Arc::clone(&running.turn));
        let session = &state.record.snapshot;
        let cwd = match workspace::prepare(&self.deps.config(), name, &self.key) {
            Ok(cwd) => cwd,
            Err(cause) => return self.hear_end(cause, ctx),
        };
        let own = session.agent == name;
        let pick = |turn: Option<String>, session: &Option<String>| turn.or_else(|| session.clone().filter(|_| own));
        let spec = OpenSpec {
            session: self.key.clone(),
            conversation: session.id,
            cwd,
            model: pick(turn.as_ref().and_then(|turn| turn.turn.model.clone()), &session.model),
            mode: pick(turn.as_ref().and_then(|turn| turn.mode.clone()), &session.mode),
            permission_mode: turn
                .as_ref()
                .and_then(|turn| turn.permission_mode.clone())
                .unwrap_or_else(|| session.permission_mode.clone()),
            native_id: state.native_ids.get(name).cloned(),
            transcript: workspace::transcript(&self.deps.store, &self.key, session.id, turn.map(|turn| turn.turn.id)),
            processes: Arc::clone(&self.deps.ledger),
        };
        self.backend.generation += 1;
        let generation = self.backend.generation;
        let Live { commands, events, kill } = agent.start(spec);
        let capabilities = agent.capabilities();
        let lease = lease.map(Arc::new);
        self.backend.slot = Some(Slot {
            generation,
            agent: name.to_owned(),
            for_one_turn: capabilities.stateless || capabilities.per_turn,
            commands,
            outgoing: VecDeque::new(),
            sending: false,
            kill,
            opened: false,
            prewarmed: false,
            leaving: false,
            over: false,
            dying: false,
            coalescer: Coalescer::new(self.deps.config().stream.flush_interval.0),
            flush_timer: None,
            heard: Instant::now(),
            parked: None,
            lease: lease.clone(),
            stall_timer: None,
            cancel_timer: None,
            idle_timer: None,
        });
        self.listen(generation, events, lease, ctx);
        self.watch_stall(ctx);
    }

    /// A turn is about to run: a stateless agent is started for it, a warm one is kept.
    fn ready_for_turn(&mut self, ctx: &mut Context<Self>) {
        let Some(name) =
            self.state.as_ref().and_then(|state| state.running.as_ref()).map(|r| r.turn.turn.agent.clone())
        else {
            return;
        };
        let stateless = self.deps.registry.capabilities(&name).is_some_and(|agent| agent.stateless);
        if let Some(slot) = self.backend.slot.as_mut().filter(|slot| slot.agent == name && !stateless) {
            if let Some(timer) = slot.idle_timer.take() {
                ctx.cancel_future(timer);
            }
            if let Some(lease) = &slot.lease {
                lease.busy();
            }
            return;
        }
        if stateless {
            self.close_agent();
            self.start_agent(&name, None, ctx);
        }
    }

    /// True when this agent is there and waits for its next turn.
    pub(super) fn is_warm(&self, agent: &str) -> bool {
        self.backend.slot.as_ref().is_some_and(|slot| {
            slot.agent == agent && slot.opened && !slot.for_one_turn && !slot.leaving && !slot.over && !slot.dying
        })
    }

    /// Gives the agent the prompt of a commit that is written and not on the disk yet. What it says waits in the lane.
    pub(super) fn prompt_early(&mut self, effects: &mut [Effect], ctx: &mut Context<Self>) {
        let Some(first) = effects.first_mut() else { return };
        match std::mem::replace(first, Effect::Prompted) {
            Effect::Prompt(prompt) => self.tell(AgentCommand::Prompt(*prompt), ctx),
            other => *first = other,
        }
    }

    fn tell(&mut self, command: AgentCommand, ctx: &mut Context<Self>) {
        let Some(slot) = &mut self.backend.slot else {
            if matches!(command, AgentCommand::Prompt(_)) {
                self.lane.push(Input::AgentGone("the agent ended before it got the prompt".into()));
            }
            return;
        };
        if matches!(command, AgentCommand::Prompt(_)) {
            slot.heard = Instant::now();
            slot.prewarmed = false;
        }
        slot.outgoing.push_back(command);
        self.send_outgoing(ctx);
    }

    /// Sends what is due to the agent, in order; waits beside the actor while the agent is slow to listen.
    fn send_outgoing(&mut self, ctx: &mut Context<Self>) {
        let Some(slot) = self.backend.slot.as_mut().filter(|slot| !slot.sending) else { return };
        while let Some(command) = slot.outgoing.pop_front() {
            match slot.commands.try_send(command) {
                Ok(()) => {}
                // Its end is on the way through the other channel.
                Err(mpsc::error::TrySendError::Closed(_)) => slot.outgoing.clear(),
                Err(mpsc::error::TrySendError::Full(command)) => {
                    slot.outgoing.push_front(command);
                    slot.sending = true;
                    let (commands, generation) = (slot.commands.clone(), slot.generation);
                    beside(ctx, async move { drop(commands.reserve().await) }, move |actor, (), ctx| {
                        if let Some(slot) = actor.backend.slot.as_mut().filter(|slot| slot.generation == generation) {
                            slot.sending = false;
                            actor.send_outgoing(ctx);
                        }
                    });
                    return;
                }
            }
        }
    }

    /// Politely first; by force when that takes too long.
    fn cancel_agent(&mut self, ctx: &mut Context<Self>) {
        self.tell(AgentCommand::Cancel, ctx);
        let patience = self.deps.config().agent.cancel_timeout.0;
        let Some(slot) = &mut self.backend.slot else {
            self.lane.push(Input::AgentGone("the agent was gone already".into()));
            return;
        };
        if let Some(timer) = slot.cancel_timer.take() {
            ctx.cancel_future(timer);
        }
        slot.cancel_timer = Some(ctx.run_later(patience, |actor, ctx| {
            log::info!(session:% = actor.key; "the agent did not stop in time and is killed");
            actor.kill_agent(ctx);
        }));
    }

    fn kill_agent(&mut self, ctx: &mut Context<Self>) {
        if let Some(handle) = self.backend.acquiring.take() {
            ctx.cancel_future(handle);
            self.lane.push(Input::AgentGone("it was stopped before its agent was started".into()));
            return;
        }
        let Some(slot) = &mut self.backend.slot else {
            self.lane.push(Input::AgentGone("the agent was gone already".into()));
            return;
        };
        slot.dying = true;
        slot.kill.kill();
        let generation = slot.generation;
        ctx.run_later(self.deps.config().agent.kill_grace.0 + KILL_PATIENCE, move |actor, ctx| {
            if actor.backend.slot.as_ref().is_some_and(|slot| slot.generation == generation) {
                log::error!(session:% = actor.key; "an agent could not be killed; it is left behind");
                actor.backend.slot = None;
                actor.hear_end("the agent could not be killed; a process may be left behind".into(), ctx);
            }
        });
    }

    /// Lets the agent go. Dropping its slot kills it in order; its place in the pool is free once it is gone.
    pub(super) fn close_agent(&mut self) {
        self.backend.slot = None;
        if let Some(state) = &mut self.state {
            state.warm = None;
        }
    }

    fn agent_rests(&mut self, ctx: &mut Context<Self>) {
        let idle_timeout = self.deps.config().pool.idle_timeout.0;
        let Some(slot) = &mut self.backend.slot else { return };
        for timer in [slot.stall_timer.take(), slot.cancel_timer.take(), slot.flush_timer.take()].into_iter().flatten()
        {
            ctx.cancel_future(timer);
        }
        if slot.for_one_turn {
            self.backend.slot = None;
            return;
        }
        if let Some(lease) = &slot.lease {
            lease.idle();
        }
        let generation = slot.generation;
        slot.idle_timer = Some(ctx.run_later(idle_timeout, move |actor, _| {
            let same = actor.backend.slot.as_ref().is_some_and(|slot| slot.generation == generation);
            if same && actor.lane.is_idle() && actor.state.as_ref().is_none_or(|state| state.running.is_none()) {
                actor.close_agent();
            }
        }));
    }
}
