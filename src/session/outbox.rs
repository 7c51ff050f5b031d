//! What waits for one subscriber: bounded in bytes, filled by the session, emptied by the subscriber's own task.
//!
//! The session never waits for a subscriber. One that falls behind the byte bound loses its place in the live
//! stream, not its events: what waited is dropped, and it reads on from the store, from its own cursor. One that
//! takes nothing for `stream.max_lag` is cut.
//!
//! This is the one lock of the session code. It is held for a push or a pop and never across an await; the two
//! sides run on different threads, and an actor cannot judge a socket that is not polled.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use bytestring::ByteString;
use tokio::sync::Notify;

use crate::{
    ids::SessionKey,
    metrics,
    protocol::{
        Control,
        frame::{Batch, EndReason},
    },
};

/// Shared by the session (which pushes) and one subscriber (which takes).
#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    ready: Notify,
}

/// Bytes that wait, counted among those of all streams.
#[derive(Debug, Default)]
struct Bytes(usize);

impl Bytes {
    fn set(&mut self, bytes: usize) {
        if let Some(metrics) = metrics::get() {
            let level = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
            metrics.stream_bytes.add(level(bytes) - level(self.0));
        }
        self.0 = bytes;
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<Waiting>,
    bytes: Bytes,
    /// The latest `session.state`; the latest wins, so it takes no place in line.
    state: Option<Arc<Latest>>,
    /// When the oldest thing that waits was pushed.
    since: Option<Instant>,
    lagging: bool,
    end: Option<EndReason>,
}

/// A thing that waits.
#[derive(Debug, Clone)]
pub enum Waiting {
    /// Events.
    Events(Arc<Batch>),
    /// A control frame: its type and its JSON.
    Control(&'static str, ByteString),
}

/// A `session.state`, encoded when the first subscriber takes it: many give way to a later one before that.
#[derive(Debug)]
pub struct Latest {
    key: SessionKey,
    state: Control,
    frame: OnceLock<ByteString>,
}

impl Latest {
    /// How the session of that key is now.
    #[must_use]
    pub fn new(key: SessionKey, state: Control) -> Arc<Self> {
        Arc::new(Self { key, state, frame: OnceLock::new() })
    }

    /// Its JSON.
    #[must_use]
    pub fn frame(&self) -> ByteString {
        self.frame.get_or_init(|| self.state.encode(&self.key, None)).clone()
    }
}

/// What a subscriber gets.
#[derive(Debug)]
pub enum Taken {
    /// The next thing.
    Item(Waiting),
    /// How the session is now; nothing else waits.
    State(Arc<Latest>),
    /// It fell behind: it must read on from the store and join again.
    Lagging,
    /// The stream is over.
    End(EndReason),
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a thing of `bytes` bytes. False when it did not fit under `bound`: then all that waited is dropped and
    /// the subscriber is told to read on from the store.
    pub fn push(&self, item: Waiting, bytes: usize, bound: usize, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.lagging || inner.end.is_some() {
            return false;
        }
        let sum = inner.bytes.0.saturating_add(bytes);
        if !inner.items.is_empty() && sum > bound {
            inner.items.clear();
            inner.bytes.set(0);
            inner.lagging = true;
        } else {
            inner.bytes.set(sum);
            inner.items.push_back(item);
        }
        inner.since.get_or_insert(now);
        let fits = !inner.lagging;
        drop(inner);
        self.ready.notify_one();
        fits
    }

    /// Sets the latest `session.state`.
    pub fn set_state(&self, state: Arc<Latest>) {
        let mut inner = self.lock();
        if inner.lagging || inner.end.is_some() {
            return;
        }
        inner.state = Some(state);
        drop(inner);
        self.ready.notify_one();
    }

    /// Ends the stream. With `drop_waiting` what waits is dropped, so that a stalled subscriber holds no memory.
    pub fn end(&self, reason: EndReason, drop_waiting: bool) {
        let mut inner = self.lock();
        inner.end.get_or_insert(reason);
        if drop_waiting {
            inner.items.clear();
            inner.bytes.set(0);
            inner.state = None;
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Begins anew after the subscriber has joined again.
    pub fn restart(&self) {
        let mut inner = self.lock();
        let end = inner.end;
        *inner = Inner { end, ..Inner::default() };
    }

    /// Since when something waits for the subscriber.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.lock().since
    }

    /// The next thing, if there is one.
    pub fn try_take(&self) -> Option<Taken> {
        let mut inner = self.lock();
        if let Some(item) = inner.items.pop_front() {
            let bytes = match &item {
                Waiting::Events(batch) => batch.bytes(),
                Waiting::Control(_, frame) => frame.len(),
            };
            let left = inner.bytes.0.saturating_sub(bytes);
            inner.bytes.set(left);
            // Taking is progress: the clock of the judge starts again for what is left.
            inner.since = (!inner.items.is_empty()).then(Instant::now);
            return Some(Taken::Item(item));
        }
        if let Some(reason) = inner.end {
            return Some(Taken::End(reason));
        }
        if inner.lagging {
            inner.since = None;
            return Some(Taken::Lagging);
        }
        inner.since = None;
        inner.state.take().map(Taken::State)
    }

    /// Waits for the next thing. Cancel safe.
    pub async fn take(&self) -> Taken {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.ready.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &'static str) -> Waiting {
        Waiting::Control("ping", ByteString::from_static(text))
    }

    #[test]
    fn over_the_bound_it_lags_instead_of_growing() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        assert!(outbox.push(control("12345678"), 8, 10, now));
        assert!(!outbox.push(control("12345678"), 8, 10, now));
        assert!(!outbox.push(control("1"), 1, 10, now));
        assert_eq!(outbox.waiting_since(), Some(now));
        assert!(matches!(outbox.try_take(), Some(Taken::Lagging)));
        assert_eq!(outbox.waiting_since(), None);
        outbox.restart();
        assert!(outbox.try_take().is_none());
        assert!(outbox.push(control("1"), 1, 10, now));
    }

    #[test]
    fn one_thing_over_the_bound_passes_when_nothing_waits() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        assert!(outbox.push(control("123456789012"), 12, 10, now));
        assert!(matches!(outbox.try_take(), Some(Taken::Item(_))));
    }

    #[test]
    fn what_waits_comes_before_the_latest_state_and_before_the_end() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        let state = |cursor: &str| Latest::new("key".parse().unwrap(), Control::Cursor { cursor: cursor.into() });
        outbox.set_state(state("old"));
        outbox.set_state(state("new"));
        outbox.push(control("1"), 1, 10, now);
        assert!(matches!(outbox.try_take(), Some(Taken::Item(Waiting::Control("ping", _)))));
        assert!(matches!(outbox.try_take(), Some(Taken::State(state)) if state.frame().contains("new")));
        assert!(outbox.try_take().is_none(), "the old one gave way");
        outbox.push(control("2"), 1, 10, now);
        outbox.end(EndReason::ShuttingDown, false);
        assert!(matches!(outbox.try_take(), Some(Taken::Item(_))));
        assert!(matches!(outbox.try_take(), Some(Taken::End(EndReason::ShuttingDown))));
    }
}
