//! What is counted of turns, out of what a session commits.

use std::time::Duration;

use crate::{
    ids::TurnId,
    protocol::{Frame, Turn, TurnState, Usage},
    session::state::State,
    store::{Append, TurnWrite},
    timestamp::Timestamp,
};

/// Events that are the agent's own words or deeds.
const OUTPUT: [&str; 2] = ["message.delta", "tool.started"];

/// A turn that ends with a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled(Turn);

impl Settled {
    /// The turns that end with an append.
    #[must_use]
    pub fn of(append: &Append) -> Vec<Self> {
        let records = append.turns.iter().filter_map(|write| match write {
            TurnWrite::Insert(record) | TurnWrite::Update(record) => Some(record.as_ref()),
            TurnWrite::Text(..) | TurnWrite::Remove(_) => None,
        });
        // What it was asked is not needed, and may be long.
        let ended = records.filter(|record| record.turn.state.is_terminal() && record.steers.is_none());
        ended.map(|record| Self(Turn { text: String::new(), ..record.turn.clone() })).collect()
    }

    /// The turn, without its text.
    #[must_use]
    pub const fn turn(&self) -> &Turn {
        &self.0
    }

    /// Counts it, once it is committed.
    pub fn count(&self) {
        let turn = &self.0;
        let took = turn.started_at.zip(turn.finished_at).map(|(from, to)| to.since(from));
        ended(&turn.agent, turn.state, took, &turn.usage);
    }
}

/// Counts the end of a turn, or of a call without a session; `took` is the time since it started, where it did.
pub fn ended(agent: &str, state: TurnState, took: Option<Duration>, usage: &Usage) {
    let Some(metrics) = super::get() else { return };
    let labels = [agent, state.as_str()];
    metrics.turns.with_label_values(&labels).inc();
    if let Some(took) = took {
        metrics.turn_duration.with_label_values(&labels).observe(took.as_secs_f64());
    }
    for (kind, count) in [
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cached", usage.cached_tokens),
        ("reasoning", usage.reasoning_tokens),
    ] {
        metrics.tokens.with_label_values(&[agent, kind]).inc_by(count);
    }
    if let Some(cost) = usage.cost_usd.filter(|cost| *cost > 0.0) {
        metrics.cost.with_label_values(&[agent]).inc_by(cost);
    }
}

/// One that runs and is in no session, while it is held.
#[derive(Debug)]
pub struct Running(());

impl Running {
    /// Counts it.
    #[must_use]
    pub fn one() -> Self {
        if let Some(metrics) = super::get() {
            metrics.running_turns.inc();
        }
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(metrics) = super::get() {
            metrics.running_turns.dec();
        }
    }
}

/// What one live session has added to the gauges; takes it back when it leaves memory.
#[derive(Debug, Default)]
pub struct Tally {
    queued: i64,
    running: i64,
    /// The turn whose start was counted last.
    last: Option<Started>,
}

#[derive(Debug)]
struct Started {
    id: TurnId,
    agent: String,
    at: Timestamp,
    spoke: bool,
}

impl Tally {
    /// Follows the session to its state after a commit of these events.
    pub fn follow(&mut self, state: Option<&State>, events: &[Frame]) {
        let Some(metrics) = super::get() else { return };
        let running = state.and_then(|state| state.running.as_ref());
        let queued = state.map_or(0, |state| i64::try_from(state.queue.len()).unwrap_or(i64::MAX));
        metrics.queued_turns.add(queued - self.queued);
        metrics.running_turns.add(i64::from(running.is_some()) - self.running);
        self.queued = queued;
        self.running = i64::from(running.is_some());
        if let Some(turn) = running.map(|running| &running.turn.turn)
            && let Some(at) = turn.started_at
            && self.last.as_ref().is_none_or(|last| last.id != turn.id)
        {
            let waited = at.since(turn.created_at).as_secs_f64();
            metrics.queue_wait.with_label_values(&[turn.agent.as_str()]).observe(waited);
            self.last = Some(Started { id: turn.id, agent: turn.agent.clone(), at, spoke: false });
        }
        let Some(last) = self.last.as_mut().filter(|last| !last.spoke) else { return };
        let output = |event: &Frame| event.turn_id == Some(last.id) && OUTPUT.contains(&&*event.kind);
        if events.iter().any(output) {
            last.spoke = true;
            let seconds = Timestamp::now().since(last.at).as_secs_f64();
            metrics.first_token.with_label_values(&[last.agent.as_str()]).observe(seconds);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(metrics) = super::get() {
            metrics.queued_turns.sub(self.queued);
            metrics.running_turns.sub(self.running);
        }
    }
}
