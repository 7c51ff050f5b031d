//! An agent that is started when somebody opens the session, ahead of the first message: `pool.prewarm`.

use actix::{AsyncContext as _, Context};

use super::{
    super::{SessionActor, lane::Input},
    Slot,
};
use crate::agents::AgentEvent;

impl SessionActor {
    /// Starts the session's agent where that is wanted, nothing is in the way, and there is a place that nobody else has or
    /// waits for. What goes wrong is told by the turn that starts it again; until one has, it is not tried again here.
    pub(in crate::session) fn prewarm(&mut self, ctx: &mut Context<Self>) {
        let there = self.backend.slot.is_some() || self.backend.acquiring.is_some() || !self.lane.is_idle();
        if there || self.backend.prewarm_failed || !self.deps.config().pool.prewarm {
            return;
        }
        let Some(state) = self.state.as_ref().filter(|state| state.awaits_message()) else { return };
        let agent = state.record.snapshot.agent.clone();
        let Some(capabilities) = self.deps.registry.capabilities(&agent) else { return };
        if capabilities.stateless || capabilities.per_turn {
            return;
        }
        let lease = (!capabilities.shared).then(|| self.deps.pool.take(Some(ctx.address().recipient())));
        if let Some(None) = lease {
            return;
        }
        self.start_agent(&agent, lease.flatten(), ctx);
        if let Some(slot) = &mut self.backend.slot {
            slot.prewarmed = true;
        }
    }

    /// The agent that was started ahead of a turn has ended without one: no turn ends with it.
    pub(super) fn prewarmed_ended(&mut self, opened: bool, ctx: &mut Context<Self>) {
        if !opened {
            log::info!(session:% = self.key; "an agent did not start ahead of a turn; the next turn starts it, and says why");
            self.backend.prewarm_failed = true;
        }
        self.lane.push(Input::Agent(AgentEvent::Leaving));
        self.advance(ctx);
    }

    /// True while the agent that was started as that number is there.
    pub(in crate::session) fn is_current(&self, generation: u64) -> bool {
        self.backend.slot.as_ref().is_some_and(|slot| slot.generation == generation)
    }

    /// Gives a turn the agent that was started ahead of it, where there is one. False where it has to be started.
    pub(super) fn take_prewarmed(&mut self, agent: &str, ctx: &mut Context<Self>) -> bool {
        let ready = |slot: &&mut Slot| slot.agent == agent && !slot.leaving && !slot.over && !slot.dying;
        let Some(slot) = self.backend.slot.as_mut().filter(|slot| slot.prewarmed).filter(ready) else { return false };
        slot.prewarmed = false;
        if slot.opened {
            // What it said is in the lane, or has just been decided, with the turn.
            self.lane.push(Input::Admitted);
            self.advance(ctx);
        }
        true
    }
}
