//! A commit on its way: what it was decided on, and what follows when it is on the disk, or is not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{AsyncContext as _, Context, SpawnHandle};
use tokio::sync::oneshot;

use super::{
    SessionActor,
    actor::beside,
    command::Done,
    draft::{Draft, Effect},
    lane::Input,
    messages::Fate,
    outbox::Latest,
    state::State,
};
use crate::{
    error::{ApiError, Code},
    metrics::Settled,
    protocol::{
        Control,
        frame::{Batch, EndReason},
    },
    store::{Append, AppendError},
};

/// Commits in a row that the store may refuse for what they say; then what is in memory does not fit what is stored.
const REFUSALS: u32 = 5;
/// The first and the longest pause before a failed commit is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A commit under way.
pub(super) struct Commit {
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

impl Commit {
    /// What was decided, as it goes to the store; without an append there is nothing to store.
    pub(super) fn new(
        draft: Draft,
        append: Option<&Append>,
        replies: Vec<(oneshot::Sender<Result<Done, ApiError>>, Done)>,
        retained: Vec<Input>,
    ) -> Self {
        let batch = append.map_or_else(|| Batch::new(Vec::new()), |append| Arc::clone(&append.events));
        let settled = append.map(Settled::of).unwrap_or_default();
        Self { draft, batch, replies, retained, settled, early: None }
    }

    /// True once an agent works on it although it is not on the disk.
    fn has_begun(&self) -> bool {
        matches!(self.draft.effects.first(), Some(Effect::Prompted))
    }

    /// Lets the agent begin once it is written: it works while the disk does. The sender is for the store.
    pub(super) fn begin_when_written(&mut self, ctx: &mut Context<SessionActor>) -> oneshot::Sender<()> {
        let (sender, written) = oneshot::channel();
        self.early = Some(beside(ctx, written, |actor, written, ctx| {
            if let Some(mut commit) = actor.lane.commit.take_if(|_| written.is_ok()) {
                actor.prompt_early(&mut commit.draft.effects, ctx);
                actor.lane.commit = Some(commit);
            }
        }));
        sender
    }
}

impl SessionActor {
    /// The commit under way has an outcome.
    pub(super) fn landed(&mut self, outcome: Result<(), AppendError>, ctx: &mut Context<Self>) {
        let Some(commit) = self.lane.commit.take() else { return };
        if let Some(early) = commit.early {
            ctx.cancel_future(early);
        }
        match outcome {
            Ok(()) => self.committed(*commit, ctx),
            Err(AppendError::Fenced) => self.fenced(*commit, ctx),
            Err(AppendError::Store(error)) => self.failed(*commit, error.into(), ctx),
        }
    }

    /// What was decided is on disk: now it is true, and can be told.
    pub(super) fn committed(&mut self, mut commit: Commit, ctx: &mut Context<Self>) {
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
        let (at_the_end, replies): (Vec<_>, Vec<_>) =
            commit.replies.into_iter().partition(|(_, done)| matches!(done, Done::Later));
        self.enders.extend(at_the_end.into_iter().map(|(reply, _)| reply));
        let effects = std::mem::take(&mut commit.draft.effects);
        for effect in effects {
            self.perform(effect, ctx);
        }
        // What the agent said meanwhile goes to the store before those are woken who only want to know that it is stored.
        self.after_commit(ctx);
        self.answer(replies);
        if commit.draft.visible {
            self.show_state();
        }
    }

    fn answer(&self, replies: Vec<(oneshot::Sender<Result<Done, ApiError>>, Done)>) {
        for (reply, done) in replies {
            let done = match (done, &self.state) {
                (Done::Snapshot(_), Some(state)) => {
                    Ok(Done::Snapshot(Box::new(state.snapshot(self.subscribers.len()))))
                }
                (Done::Snapshot(_), None) => Err(super::turns::no_session()),
                (done, _) => Ok(done),
            };
            // Whoever asked may have given up.
            drop(reply.send(done));
        }
    }

    fn show_state(&self) {
        let count = self.subscribers.len();
        if let Some(state) = self.state.as_ref().filter(|_| count > 0) {
            let state = Control::State { snapshot: Box::new(state.snapshot(count)) };
            self.subscribers.set_state(&Latest::new(self.key.clone(), state));
        }
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
        self.lane.shrink();
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
        let begun = commit.has_begun();
        for (reply, _) in commit.replies {
            drop(reply.send(Err(error.clone())));
        }
        if begun {
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
        self.lane.put_back(commit.retained);
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
