//! An agent that is started before it has a turn. Decisions on a [`Draft`]; pure.

use super::{
    draft::{Draft, Effect},
    state::{State, Warm},
};
use crate::agents::Opened;

impl State {
    /// True while nothing is in the way of the next message, so that an agent may be started ahead of it.
    pub(super) fn awaits_message(&self) -> bool {
        let settled = !self.busy() && self.pending_end.is_none();
        settled && !self.draining && !self.record.snapshot.archived
    }
}

impl Draft {
    /// Takes up that an agent is ready that no turn has asked for. Its own id of the conversation is not kept before it has
    /// had a turn: a conversation that was made for nothing must not be taken for the one that is to be gone on with.
    pub fn prewarmed(&mut self, agent: String, opened: Opened) {
        let Some(state) = &mut self.state else { return };
        state.warm = Some(Warm { agent, unused: Some(opened) });
        // Also where a turn came meanwhile: that takes it up as soon as it may run.
        self.effects.push(Effect::AgentRests);
    }

    /// Lets an agent go that was started before its turn, and so before the conversation was as it is now.
    pub(super) fn forget_prewarmed(&mut self) {
        let Some(state) = &mut self.state else { return };
        state.warm = None;
        self.effects.push(Effect::CloseAgent);
    }
}
