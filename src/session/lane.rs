//! The lane: one commit of a session at a time. What comes while one is under way waits, and is then decided
//! together on what was committed, so a decision never rests on something that may fail.

use std::{cell::RefCell, collections::VecDeque, sync::Arc, time::Duration};

use actix::Context;
use tokio::sync::oneshot;

use super::{
    SessionActor,
    actor::beside,
    audit,
    command::{Command, Done},
    commit::Commit,
    draft::Draft,
    env::{Env, RandomIds},
};
use crate::{
    access::{Deed, Principal},
    agents::{AgentEvent, Opened},
    error::{ApiError, Code},
    metrics,
    protocol::TurnState,
    store::Audience,
    timestamp::Timestamp,
};

/// Inputs that go into one commit at most.
const BATCH: usize = 1024;
/// With so many inputs waiting, the agent is not listened to until the lane has moved on.
pub(super) const CONGESTED: usize = 512;
/// With so many inputs waiting, clients are turned away.
const FULL: usize = 2048;

/// Something to decide.
#[derive(Debug)]
pub(super) enum Input {
    /// A client asks.
    Command(Arc<Principal>, Command, oneshot::Sender<Result<Done, ApiError>>),
    /// The agent tells.
    Agent(AgentEvent),
    /// The agent that was started as that number, ahead of a turn, is ready.
    Prewarmed(u64, String, Opened),
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
    pub(super) commit: Option<Box<Commit>>,
    /// True between a failed commit and the next try.
    pub(super) resting: bool,
    pub(super) pause: Option<Duration>,
    /// Commits in a row that were refused for what they say.
    pub(super) refused: u32,
}

impl Lane {
    pub(super) fn push(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    /// Puts back what was taken, before everything that came since.
    pub(super) fn put_back(&mut self, inputs: Vec<Input>) {
        inputs.into_iter().rev().for_each(|input| self.inbox.push_front(input));
    }

    /// Gives back the room that a busy moment needed, once it is over.
    pub(super) fn shrink(&mut self) {
        if self.inbox.is_empty() {
            self.inbox.shrink_to(4);
        }
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
        let leased = self.backend.has_lease();
        let keep = || !(leased && deps.pool.is_contended());
        let (ids, settings) = (&mut RandomIds, &config.settings);
        let mut env = Env { now, ids, agents: &agents, admit: &admit, keep: &keep, spent: &spent, settings };
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
                Input::Prewarmed(generation, agent, opened) => {
                    if self.is_current(generation) {
                        draft.prewarmed(agent.clone(), opened.clone());
                    }
                    retained.push(Input::Prewarmed(generation, agent, opened));
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
        let begins = draft.begins_early().is_some_and(|agent| self.is_warm(agent));
        let append = (!draft.is_empty()).then(|| draft.take_append(self.epoch, now, !replies.is_empty()));
        let mut commit = Commit::new(draft, append.as_ref(), replies, retained);
        let Some(mut append) = append else { return self.committed(commit, ctx) };
        if append.audience.is_none() {
            append.audience = self.state.as_ref().map(|state| Audience::of(&state.record.snapshot));
        }
        // An agent that waits for its prompt gets it as soon as a kill takes the turn back no more.
        let written = begins.then(|| commit.begin_when_written(ctx));
        self.lane.commit = Some(Box::new(commit));
        let outbound = self.deps.outbound.clone();
        beside(ctx, async move { outbound.append(append, written).await }, Self::landed);
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
