//! Another agent for a turn whose own cannot be started. Decisions on a [`Draft`]; pure.

use std::sync::Arc;

use super::{draft::Draft, env::Env};
use crate::{
    agents::Outcome,
    error::Code,
    protocol::{EventBody, TurnState},
};

impl Draft {
    /// Gives a turn that is starting to the fallback of its agent, when that is what the outcome calls for: the agent is not
    /// available, nobody has asked to stop, and the fallback was not tried yet, so that a circle of them ends. False when
    /// the turn ends with the outcome.
    pub(super) fn fall_back(&mut self, env: &mut Env<'_>, outcome: &Outcome) -> bool {
        let Outcome::Failed(error) = outcome else { return false };
        let Some(running) = self.running() else { return false };
        let waits = running.stop.is_none() && running.turn.turn.state == TurnState::Starting;
        if !waits || error.code != Code::AgentUnavailable.as_str() {
            return false;
        }
        let agent = running.turn.turn.agent.clone();
        let Some(fallback) = env.settings.fallbacks.get(&agent).cloned() else { return false };
        running.unavailable.push(agent.clone());
        if running.unavailable.contains(&fallback) || (env.agents)(&fallback).is_none() {
            return false;
        }
        let turn = Arc::make_mut(&mut running.turn);
        turn.turn.agent.clone_from(&fallback);
        // Models and modes have other names there.
        (turn.turn.model, turn.mode) = (None, None);
        let turn = Arc::clone(&running.turn);
        let message = format!("the turn runs on agent `{fallback}`, as `{agent}` is not available: {}", error.message);
        let body = EventBody::Error { code: "agent_fallback".into(), message };
        self.emit(env.now, Some(turn.turn.id), body);
        self.put_turn(&turn, false);
        self.admitted(env);
        true
    }
}
