//! The subscribers of a session: who follows, what waits for them, and who is judged too slow.
//!
//! It knows nothing of the session it serves, so that a mirror of a session elsewhere can use it too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytestring::ByteString;

use super::outbox::{Latest, Outbox, Waiting};
use crate::protocol::frame::{Batch, EndReason};

/// Who follows a session.
#[derive(Debug, Default)]
pub struct Subscribers {
    entries: Vec<Entry>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    outbox: Arc<Outbox>,
    raw: bool,
    /// False while it reads from the store and gets nothing from here.
    live: bool,
}

impl Subscribers {
    /// How many follow.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nobody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds one; gives its number. It gets nothing until [`Subscribers::go_live`].
    pub fn add(&mut self, outbox: Arc<Outbox>, raw: bool) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.entries.push(Entry { id, outbox, raw, live: false });
        id
    }

    /// From the next commit on, the subscriber gets all events. False when it is not known (any more).
    pub fn go_live(&mut self, id: u64) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { return false };
        entry.outbox.restart();
        entry.live = true;
        true
    }

    /// True when the number is one of a subscriber that still follows.
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.entries.iter().any(|entry| entry.id == id)
    }

    /// Forgets one.
    pub fn remove(&mut self, id: u64) {
        self.entries.retain(|entry| entry.id != id);
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
    }

    /// Hands the events of a commit to all that are live.
    pub fn publish(&mut self, batch: &Arc<Batch>, bound: usize, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.live) {
            entry.live = entry.outbox.push(Waiting::Events(Arc::clone(batch)), batch.bytes(), bound, now);
        }
    }

    /// Hands the latest snapshot to all that are live.
    pub fn set_state(&self, state: &Arc<Latest>) {
        self.entries.iter().filter(|entry| entry.live).for_each(|entry| entry.outbox.set_state(Arc::clone(state)));
    }

    /// True when somebody wants the agent's own messages.
    #[must_use]
    pub fn want_raw(&self) -> bool {
        self.entries.iter().any(|entry| entry.raw && entry.live)
    }

    /// Hands a message of the agent to those that want it.
    pub fn publish_raw(&mut self, frame: &ByteString, bound: usize, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.raw && entry.live) {
            let item = Waiting::Control("agent.raw", frame.clone());
            entry.live = entry.outbox.push(item, frame.len(), bound, now);
        }
    }

    /// Cuts those for whom something has waited longer than `limit`; gives how many.
    pub fn cut_stalled(&mut self, limit: Duration, now: Instant) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let stalled = entry.outbox.waiting_since().is_some_and(|since| now.duration_since(since) > limit);
            if stalled {
                entry.outbox.end(EndReason::TooSlow, true);
            }
            !stalled
        });
        before - self.entries.len()
    }

    /// True when something waits for anybody, so that there is something to judge.
    #[must_use]
    pub fn any_waiting(&self) -> bool {
        self.entries.iter().any(|entry| entry.outbox.waiting_since().is_some())
    }

    /// Ends all streams after what waits for them.
    pub fn end_all(&mut self, reason: EndReason) {
        self.entries.drain(..).for_each(|entry| entry.outbox.end(reason, false));
    }
}
