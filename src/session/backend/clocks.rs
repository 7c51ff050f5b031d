//! The clocks of a turn: how long its agent may say nothing, and how long its questions wait.

use std::time::{Duration, Instant};

use actix::{AsyncContext as _, Context};

use super::super::{SessionActor, lane::Input, state::State};
use crate::{timestamp::Timestamp, watchdog};

/// How often turns that wait at a used-up budget are looked at.
const BUDGET_LOOK: Duration = Duration::from_secs(5);

impl SessionActor {
    /// Looks whether the agent has said anything, as long as a turn runs. Waiting for an answer is no stall.
    pub(super) fn watch_stall(&mut self, ctx: &mut Context<Self>) {
        let limit = self.deps.config().agent.stall_timeout.0;
        let Some(slot) = &mut self.backend.slot else { return };
        let pause = limit.saturating_sub(slot.heard.elapsed()).max(Duration::from_millis(10));
        if let Some(timer) = slot.stall_timer.take() {
            ctx.cancel_future(timer);
        }
        slot.stall_timer = Some(ctx.run_later(pause, move |actor, ctx| {
            let running = actor.state.as_ref().and_then(|state| state.running.as_ref());
            let asking = running.is_some_and(|running| !running.choices.is_empty());
            let Some(slot) = &mut actor.backend.slot else { return };
            if asking {
                slot.heard = Instant::now();
            }
            if slot.heard.elapsed() >= limit && slot.prewarmed {
                // No turn has it yet that could be told.
                actor.backend.prewarm_failed = true;
                actor.close_agent();
            } else if slot.heard.elapsed() >= limit {
                actor.lane.push(Input::Stalled);
                actor.advance(ctx);
            } else {
                actor.watch_stall(ctx);
            }
        }));
    }

    /// Nothing is busy without an owner: a turn that runs has an agent, or something is on its way that gives it one or
    /// ends it. Where that is not so at two looks in a row, which no way through this code should lead to, the turn ends.
    pub(in crate::session) fn watch_owner(&mut self, ctx: &mut Context<Self>) {
        let runs = self.state.as_ref().is_some_and(|state| state.running.is_some());
        let owned = self.backend.slot.is_some() || self.backend.acquiring.is_some() || !self.lane.is_idle();
        let orphaned = runs && !owned;
        if orphaned && std::mem::replace(&mut self.orphaned, false) {
            watchdog::acted("turn_without_agent");
            log::error!(session:% = self.key; "a turn ran that no agent had; it is ended");
            self.lane.push(Input::AgentGone("the agent was lost".into()));
            return self.advance(ctx);
        }
        self.orphaned = orphaned;
    }

    /// Looks again soon where turns wait at a used-up budget: the day ends, and settings may change.
    pub(in crate::session) fn watch_budget(&mut self, ctx: &mut Context<Self>) {
        let waits = |state: &State| state.running.is_none() && !state.draining && !state.queue.is_empty();
        if self.backend.looking_at_budget || !self.state.as_ref().is_some_and(waits) {
            return;
        }
        self.backend.looking_at_budget = true;
        ctx.run_later(BUDGET_LOOK, |actor, ctx| {
            actor.backend.looking_at_budget = false;
            actor.lane.push(Input::BudgetLooked);
            actor.advance(ctx);
        });
    }

    /// Sets the clock for the question that runs out first.
    pub(in crate::session) fn watch_choices(&mut self, ctx: &mut Context<Self>) {
        let running = self.state.as_ref().and_then(|state| state.running.as_ref());
        let due = running.and_then(|running| running.choices.iter().map(|pending| pending.choice.expires_at).min());
        if self.backend.choice_timer.map(|(_, at)| at) == due {
            return;
        }
        if let Some((timer, _)) = self.backend.choice_timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(due) = due else { return };
        let pause = due.since(Timestamp::now());
        let timer = ctx.run_later(pause, |actor, ctx| {
            actor.backend.choice_timer = None;
            actor.lane.push(Input::ChoicesExpired);
            actor.advance(ctx);
            actor.watch_choices(ctx);
        });
        self.backend.choice_timer = Some((timer, due));
    }
}
