//! The lane: one commit of a session at a time. What comes while one is under way waits, and is then decided
//! together on what was committed, so a decision never rests on something that may fail.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{AsyncContext as _, Context, SpawnHandle};
use tokio::sync::oneshot;

use super::{
    SessionActor,
    actor::beside,
    audit,
    command::{Command, Done},
    draft::{Draft, Effect},
    env::{Env, RandomIds},
    messages::Fate,
    state::State,
};
use crate::{
    access::{Deed, Principal},
    agents::AgentEvent,
    error::{ApiError, Code},
    metrics::{self, Settled},
    protocol::{
        Control, TurnState,
        frame::{Batch, EndReason},
    },
    store::{AppendError, Audience},
    timestamp::Timestamp,
};

/// Inputs that go into one commit at most.
const BATCH: usize = 1024;
/// With so many inputs waiting, the agent is not listened to until the lane has moved on.
pub(super) const CONGESTED: usize = 512;
/// Commits in a row that the store may refuse for what they say; then what is in memory does not fit what is stored.
const REFUSALS: u32 = 5;
/// With so many inputs waiting, clients are turned away.
const FULL: usize = 2048;
/// The first and the longest pause before a failed commit is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Something to decide.
#[derive(Debug)]
pub(super) enum Input {
    /// A client asks.
    Command(Arc<Principal>, Command, oneshot::Sender<Result<Done, ApiError>>),
    /// The agent tells.
    Agent(AgentEvent),
    /// The agent is gone.
    AgentGone(String),
    /// The turn that is starting may run.
    Admitted,
    /// A question may have run out of time.
    ChoicesExpired,
    /// The agent has said nothing for too long.
    Stalled,
    /// Take up what the last incarnation left.
    Recover(&'static str),
    /// Turns wait at a used-up budget: it may have been raised, or a new day may have begun.
    BudgetLooked,
    /// The server stops: start nothing.
    Drain,
    /// The server stops: stop what runs.
    GraceOver,
}

/// What waits for a commit, and whether one is under way.
#[derive(Default)]
pub(super) struct Lane {
    inbox: VecDeque<Input>,
    /// What is under way.
    commit: Option<Box<Commit>>,
    /// True between a failed commit and the next try.
    resting: bool,
    pause: Option<Duration>,
    /// Commits in a row that were refused for what they say.
    refused: u32,
}

impl Lane {
    pub(super) fn push(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.commit.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.inbox.len() >= FULL
    }

    pub(super) fn is_congested(&self) -> bool {
        self.inbox.len() >= CONGESTED
    }
}

/// A commit under way.
struct Commit {
    draft: Draft,
    batch: Arc<Batch>,
    replies: Vec<(oneshot::Sender<Result<Done, ApiError>>, Done)>,
    /// What cannot be asked for again, to be decided anew when the commit fails.
    retained: Vec<Input>,
    /// Turns that end with it.
    settled: Vec<Settled>,
    /// Waits for it to be written.
    early: Option<SpawnHandle>,
}

impl SessionActor {
    /// Decides what waits, unless a commit is under way.
    pub(super) fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.lane.commit.is_some() || self.lane.resting || self.lane.inbox.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let mut draft = Draft::new(self.key.clone(), self.state.clone(), self.last_seq);
        let (mut replies, mut retained) = (Vec::new(), Vec::new());
        let deps = Arc::clone(&self.deps);
        let config = deps.config();
        let agents = |name: &str| deps.registry.capabilities(name);
        let place = RefCell::new(self.backend.place.take());
        let admit = || deps.admission.enter(&place);
        let spent = |user: &str, day| deps.day_sums.of(user, day);
        let mut env =
            Env { now, ids: &mut RandomIds, agents: &agents, admit: &admit, spent: &spent, settings: &config.settings };
        for _ in 0..BATCH {
            let Some(input) = self.lane.inbox.pop_front() else { break };
            match input {
                // One commit makes a session or ends it: rows that are new and rows that go are not mixed.
                Input::Command(_, Command::Delete { .. }, _) if !draft.is_empty() => {
                    self.lane.inbox.push_front(input);
                    break;
                }
                Input::Command(who, command, reply) => match self.decide(&mut draft, &mut env, &who, &command) {
                    Ok(done) => {
                        if let (Command::Enqueue(message), Done::Accepted(accepted)) = (&command, &done) {
                            self.trace.sent(accepted.turn.id, message.request_id.as_ref());
                        }
                        replies.push((reply, done));
                    }
                    Err(refusal) => {
                        if let Some(metrics) = metrics::get().filter(|_| refusal.code == Code::BudgetExceeded) {
                            metrics.budgets.with_label_values(&["refused"]).inc();
                        }
                        drop(reply.send(Err(refusal)));
                    }
                },
                Input::Agent(event) => {
                    retained.push(Input::Agent(event.clone()));
                    draft.agent_event(&mut env, event);
                }
                Input::AgentGone(cause) => {
                    draft.agent_gone(&mut env, &cause);
                    retained.push(Input::AgentGone(cause));
                }
                Input::Admitted => {
                    draft.admitted(&mut env);
                    retained.push(Input::Admitted);
                }
                Input::ChoicesExpired => {
                    draft.expire_choices(&mut env);
                    retained.push(Input::ChoicesExpired);
                }
                Input::Stalled => {
                    let limit = humantime::format_duration(config.agent.stall_timeout.0).to_string();
                    draft.stalled(&mut env, &limit);
                    retained.push(Input::Stalled);
                }
                Input::Recover(reason) => {
                    draft.recover(&mut env, reason);
                    retained.push(Input::Recover(reason));
                }
                Input::BudgetLooked => draft.pump(&mut env),
                Input::Drain => {
                    if let Some(state) = &mut draft.state {
                        state.draining = true;
                    }
                    retained.push(Input::Drain);
                }
                Input::GraceOver => {
                    draft.request_stop(TurnState::Interrupted, "shutdown");
                    retained.push(Input::GraceOver);
                }
            }
            if draft.deletes() {
                break;
            }
        }
        draft.show_budget(&env);
        self.backend.place = place.into_inner();
        if draft.is_empty() {
            let batch = Batch::new(Vec::new());
            return self.committed(Commit { draft, batch, replies, retained, settled: Vec::new(), early: None }, ctx);
        }
        // An agent that waits for its prompt gets it as soon as a kill takes the turn back no more.
        let begins = draft.begins_early().is_some_and(|agent| self.is_warm(agent));
        let mut append = draft.take_append(self.epoch, now, !replies.is_empty());
        if append.audience.is_none() {
            append.audience = self.state.as_ref().map(|state| Audience::of(&state.record.snapshot));
        }
        let batch = Arc::clone(&append.events);
        let (written, early) = begins.then(|| when_written(ctx)).unzip();
        let commit = Commit { draft, batch, replies, retained, settled: Settled::of(&append), early };
        self.lane.commit = Some(Box::new(commit));
        let outbound = self.deps.outbound.clone();
        beside(ctx, async move { outbound.append(append, written).await }, |actor, result, ctx| {
            let Some(commit) = actor.lane.commit.take() else { return };
            if let Some(early) = commit.early {
                ctx.cancel_future(early);
            }
            match result {
                Ok(()) => actor.committed(*commit, ctx),
                Err(AppendError::Fenced) => actor.fenced(*commit, ctx),
                Err(AppendError::Store(error)) => actor.failed(*commit, error.into(), ctx),
            }
        });
    }


    fn decide(
        &mut self,
        draft: &mut Draft,
        env: &mut Env<'_>,
        who: &Principal,
        command: &Command,
    ) -> Result<Done, ApiError> {
        draft.admits(who, command)?;
        let once = match command {
            Command::Enqueue(message) => message.once.as_ref(),
            Command::Create { once, .. } => once.as_ref(),
            Command::Reset(once) => once.as_ref(),
            Command::HandOver(hand_over) => hand_over.message.once.as_ref(),
            _ => None,
        };
        if let Some(once) = once {
            let known = draft.calls.iter().find(|call| call.scope == once.scope && call.key == once.key);
            if let Some(known) = known.or_else(|| self.backend.calls.get(once)) {
                if known.request_hash != once.request_hash {
                    return Err(crate::gateway::key_reused());
                }
                return Ok(Done::Duplicate(known.outcome.clone()));
            }
        }
        let done = draft.decide(env, command)?;
        if let Some((action, detail)) = audit::deed(command, &done, draft) {
            // Of a session that is deleted here, the state before tells whose it was.
            let owner = draft.state.as_ref().or(self.state.as_ref()).map(|state| &state.record.snapshot.owner);
            let owner = owner.map_or(who.user.as_str(), String::as_str);
            draft.audit.push(Deed { action, session: Some(&self.key), owner, detail }.by(who));
        }
        Ok(done)
    }

    /// What was decided is on disk: now it is true, and can be told.
    fn committed(&mut self, mut commit: Commit, ctx: &mut Context<Self>) {
        (self.lane.pause, self.lane.refused) = (None, 0);
        self.last_seq = commit.draft.last_seq();
        if self.epoch == 0 && commit.draft.state.is_some() {
            // The first commit of a key claims it.
            self.epoch = 1;
        }
        for call in commit.draft.calls.drain(..) {
            self.backend.calls.insert(call);
        }
        self.deps.day_sums.add(&commit.draft.spends);
        let before = std::mem::replace(&mut self.state, commit.draft.state.take());
        self.end_strangers(before.as_ref());
        self.tally.follow(self.state.as_ref(), commit.batch.frames());
        commit.settled.iter().for_each(Settled::count);
        self.trace.follow(self.state.as_ref(), commit.settled.iter().map(Settled::turn));
        let now = Instant::now();
        if !commit.batch.frames().is_empty() {
            self.subscribers.publish(&commit.batch, self.deps.config().stream.max_lag_bytes.bytes(), now);
        }
        let count = self.subscribers.len();
        for (reply, done) in commit.replies {
            match done {
                Done::Later => self.enders.push(reply),
                Done::Snapshot(_) => {
                    let done = self.state.as_ref().map(|state| Done::Snapshot(Box::new(state.snapshot(count))));
                    drop(reply.send(done.ok_or_else(super::turns::no_session)));
                }
                done => drop(reply.send(Ok(done))),
            }
        }
        let effects = std::mem::take(&mut commit.draft.effects);
        for effect in effects {
            self.perform(effect, ctx);
        }
        if commit.draft.visible
            && count > 0
            && let Some(state) = &self.state
        {
            let frame = Control::State { snapshot: Box::new(state.snapshot(count)) }.encode(&self.key, None);
            self.subscribers.set_state(&frame);
        }
        self.after_commit(ctx);
    }

    /// Ends the streams of those who may not see the session any more, before they are shown what the commit says.
    fn end_strangers(&self, before: Option<&State>) {
        let (Some(before), Some(now)) = (before, &self.state) else { return };
        let (before, now) = (&before.record.snapshot, &now.record.snapshot);
        if before.visibility != now.visibility || before.org_id != now.org_id || before.owner != now.owner {
            self.deps.access.end_strangers(now);
        }
    }

    fn after_commit(&mut self, ctx: &mut Context<Self>) {
        if self.lane.inbox.is_empty() {
            // An idle session must not keep the room that a busy moment needed.
            self.lane.inbox.shrink_to(4);
        }
        self.watch_choices(ctx);
        self.watch_budget(ctx);
        self.judge_later(ctx);
        self.listen_again(ctx);
        let quiet = self.state.as_ref().is_none_or(|state| state.running.is_none());
        if quiet {
            self.backend.place = None;
        }
        if quiet && self.state.as_ref().is_none_or(|state| state.draining) {
            for waiting in self.drainers.drain(..) {
                // Whoever waited for it may have given up.
                let _ = waiting.send(());
            }
        }
        if quiet && self.state.as_ref().is_some_and(|state| state.draining) {
            self.subscribers.end_all(EndReason::ShuttingDown);
        }
        if self.state.is_none() && self.lane.is_idle() {
            return self.end(Fate::Gone, ctx);
        }
        self.advance(ctx);
    }

    /// Nothing was written. Clients are told and may ask again; what the agent told is decided anew later, since
    /// the agent will not tell it twice.
    fn failed(&mut self, commit: Commit, error: ApiError, ctx: &mut Context<Self>) {
        for (reply, _) in commit.replies {
            drop(reply.send(Err(error.clone())));
        }
        if matches!(commit.draft.effects.first(), Some(Effect::Prompted)) {
            // The agent works on a turn of which nobody knows whether it is stored. Opened anew, the session will.
            log::error!(session:% = self.key; "the disk did not confirm a turn that its agent has begun with: {error}");
            return self.end(Fate::Crashed, ctx);
        }
        // The same again is refused again. A session that goes by what it has in memory would try for ever; opened anew
        // it goes by what is stored.
        self.lane.refused = if error.code == Code::Internal { self.lane.refused + 1 } else { 0 };
        if self.lane.refused >= REFUSALS {
            log::error!(session:% = self.key; "what the session has in memory does not fit what is stored");
            return self.end(Fate::Crashed, ctx);
        }
        for input in commit.retained.into_iter().rev() {
            self.lane.inbox.push_front(input);
        }
        if self.state.as_ref().is_none_or(|state| state.running.is_none()) {
            self.backend.place = None;
        }
        // Doubled with each failure in a row; a success resets it.
        let pause = self.lane.pause.map_or(BACKOFF.0, |last| (last * 2).min(BACKOFF.1));
        self.lane.pause = Some(pause);
        self.lane.resting = true;
        ctx.run_later(pause, |actor, ctx| {
            actor.lane.resting = false;
            actor.advance(ctx);
        });
    }

    /// Somebody else owns the session: this actor's view of it is worth nothing any more.
    fn fenced(&mut self, commit: Commit, ctx: &mut Context<Self>) {
        log::warn!(session:% = self.key, epoch = self.epoch; "another owner has claimed the session");
        for (reply, _) in commit.replies {
            drop(reply.send(Err(ApiError::new(Code::Overloaded, "the session has moved; try again"))));
        }
        self.end(Fate::Fenced, ctx);
    }
}

/// Lets the agent begin once the commit under way is written: it works while the disk does. The sender is for the store.
fn when_written(ctx: &mut Context<SessionActor>) -> (oneshot::Sender<()>, SpawnHandle) {
    let (sender, written) = oneshot::channel();
    let handle = beside(ctx, written, |actor, written, ctx| {
        if let Some(mut commit) = actor.lane.commit.take_if(|_| written.is_ok()) {
            actor.prompt_early(&mut commit.draft.effects, ctx);
            actor.lane.commit = Some(commit);
        }
    });
    (sender, handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_takes_no_calls() {
        let mut lane = Lane::default();
        (0..CONGESTED).for_each(|_| lane.push(Input::BudgetLooked));
        assert!(lane.is_congested() && !lane.is_full(), "the agent is slowed down before clients are turned away");
        (CONGESTED..FULL).for_each(|_| lane.push(Input::BudgetLooked));
        assert!(lane.is_full());
    }
}
