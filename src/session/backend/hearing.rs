//! What the agent says, on its way into the lane: taken in batches, and not taken while the lane is congested.

use std::{sync::Arc, time::Instant};

use actix::{AsyncContext as _, Context};
use tokio::sync::mpsc;

use super::super::{SessionActor, actor::beside, lane::Input};
use crate::agents::{AgentEvent, pool::Lease};

/// Events that are taken from an agent at once.
const HEARD_AT_ONCE: usize = 128;

impl SessionActor {
    /// Takes what the agent says, one batch after the other. The place in the pool is held until the agent is gone.
    pub(super) fn listen(
        &self,
        generation: u64,
        mut events: mpsc::Receiver<AgentEvent>,
        lease: Option<Arc<Lease>>,
        ctx: &mut Context<Self>,
    ) {
        let take = async move {
            let mut batch = Vec::new();
            events.recv_many(&mut batch, HEARD_AT_ONCE).await;
            (events, batch)
        };
        beside(ctx, take, move |actor, (events, batch), ctx| {
            let slot = actor.backend.slot.as_ref().filter(|slot| slot.generation == generation);
            let (current, over) = (slot.is_some(), slot.is_some_and(|slot| slot.over));
            if batch.is_empty() {
                drop(lease);
                let slot = if current { actor.backend.slot.take() } else { None };
                if let Some(slot) = slot.filter(|slot| slot.prewarmed) {
                    actor.prewarmed_ended(slot.opened, ctx);
                } else if current && !over {
                    actor.hear_end("the agent ended in the middle of the turn".into(), ctx);
                }
            } else if current {
                actor.hear(batch, ctx);
                actor.park_or_listen(events, lease, ctx);
            } else {
                actor.listen(generation, events, lease, ctx);
            }
        });
    }

    fn park_or_listen(
        &mut self,
        events: mpsc::Receiver<AgentEvent>,
        lease: Option<Arc<Lease>>,
        ctx: &mut Context<Self>,
    ) {
        let congested = self.lane.is_congested();
        // The slot can have gone while the batch was decided; then the rest is read to its end and not heard.
        match &mut self.backend.slot {
            Some(slot) if congested => slot.parked = Some(events),
            Some(slot) => {
                let generation = slot.generation;
                self.listen(generation, events, lease, ctx);
            }
            None => self.listen(0, events, lease, ctx),
        }
    }

    /// Goes on listening once the lane has moved on.
    pub(in crate::session) fn listen_again(&mut self, ctx: &mut Context<Self>) {
        if self.lane.is_congested() {
            return;
        }
        let Some(slot) = &mut self.backend.slot else { return };
        if let Some(events) = slot.parked.take() {
            let (generation, lease) = (slot.generation, slot.lease.clone());
            self.listen(generation, events, lease, ctx);
        }
    }

    fn hear(&mut self, batch: Vec<AgentEvent>, ctx: &mut Context<Self>) {
        let Some(slot) = &mut self.backend.slot else { return };
        slot.heard = Instant::now();
        let mut out = Vec::with_capacity(batch.len());
        for event in batch {
            // After a kill the turn ends with the agent, not before: `cancelled` must mean that it has stopped.
            if slot.dying && matches!(event, AgentEvent::Ended(_)) {
                continue;
            }
            // It had no turn, so it ends none, also where one waits for its place.
            if slot.prewarmed && matches!(event, AgentEvent::Ended(_)) {
                slot.over = true;
                continue;
            }
            match &event {
                AgentEvent::Opened(opened) => {
                    slot.opened = true;
                    self.backend.prewarm_failed = false;
                    self.deps.registry.learn(&slot.agent, opened);
                }
                AgentEvent::Mode { modes, .. } => self.deps.registry.learn_modes(&slot.agent, modes),
                AgentEvent::Ended(_) => slot.over = slot.leaving || !slot.opened,
                AgentEvent::Leaving => slot.leaving = true,
                _ => {}
            }
            slot.coalescer.push(event, slot.heard, &mut out);
        }
        let ahead = slot.prewarmed.then(|| (slot.generation, slot.agent.clone()));
        for event in out {
            self.lane.push(match (event, &ahead) {
                (AgentEvent::Opened(opened), Some((generation, agent))) => {
                    Input::Prewarmed(*generation, agent.clone(), opened)
                }
                (event, _) => Input::Agent(event),
            });
        }
        self.flush_later(ctx);
        self.advance(ctx);
    }

    fn flush_later(&mut self, ctx: &mut Context<Self>) {
        let Some(slot) = &mut self.backend.slot else { return };
        let Some(due) = slot.coalescer.due().filter(|_| slot.flush_timer.is_none()) else { return };
        let pause = due.saturating_duration_since(Instant::now());
        slot.flush_timer = Some(ctx.run_later(pause, |actor, ctx| {
            let Some(slot) = &mut actor.backend.slot else { return };
            slot.flush_timer = None;
            if slot.coalescer.due().is_some_and(|due| due > Instant::now()) {
                return actor.flush_later(ctx);
            }
            let mut out = Vec::new();
            slot.coalescer.flush(&mut out);
            out.into_iter().for_each(|event| actor.lane.push(Input::Agent(event)));
            actor.advance(ctx);
        }));
    }

    /// The agent is gone, or never came.
    pub(super) fn hear_end(&mut self, cause: String, ctx: &mut Context<Self>) {
        self.lane.push(Input::AgentGone(cause));
        self.advance(ctx);
    }
}
