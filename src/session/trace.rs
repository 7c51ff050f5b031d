//! Which request sent which turn, so that every log line of a turn can be found by it.

use std::{collections::HashMap, sync::Arc};

use super::state::State;
use crate::{
    ids::{SessionKey, TurnId},
    logs::{self, TurnTag},
    protocol::Turn,
};

/// The requests of one session's turns that are not over. Memory only: a turn from before a restart has none.
#[derive(Debug)]
pub(super) struct Trace {
    key: SessionKey,
    senders: HashMap<TurnId, Arc<str>>,
    running: Option<TurnId>,
}

impl Trace {
    pub(super) fn new(key: SessionKey) -> Self {
        Self { key, senders: HashMap::new(), running: None }
    }

    /// A request has sent a turn.
    pub(super) fn sent(&mut self, turn: TurnId, request: Option<&Arc<str>>) {
        if let Some(request) = request {
            self.senders.insert(turn, Arc::clone(request));
        }
    }

    /// Follows the session to its state after a commit in which these turns have ended.
    pub(super) fn follow<'a>(&mut self, state: Option<&State>, ended: impl Iterator<Item = &'a Turn>) {
        for turn in ended {
            self.tell_end(turn);
            self.senders.remove(&turn.id);
        }
        if self.senders.is_empty() {
            self.senders.shrink_to(4);
        }
        let running = state.and_then(|state| state.running.as_ref()).map(|running| running.turn.turn.id);
        if running == self.running {
            return;
        }
        self.running = running;
        match running {
            Some(turn) => {
                logs::tag(&self.key, TurnTag { turn, request: self.senders.get(&turn).cloned() });
                log::debug!(session:% = self.key; "a turn begins");
            }
            None => logs::untag(&self.key),
        }
    }

    /// One line for the end of a turn, at `info` when it failed.
    fn tell_end(&self, turn: &Turn) {
        let level = if turn.error.is_some() { log::Level::Info } else { log::Level::Debug };
        let code = turn.error.as_ref().map_or("", |error| error.code.as_str());
        let request = self.senders.get(&turn.id).map_or("", |request| request);
        let (state, agent) = (turn.state.as_str(), turn.agent.as_str());
        log::log!(level, session:% = self.key, turn:% = turn.id, request_id = request, agent, state, code; "a turn has ended");
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.running.is_some() {
            logs::untag(&self.key);
        }
    }
}
