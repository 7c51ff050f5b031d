//! The newest batches of all sessions, for those that follow the feed live: one copy for all, bounded in bytes.
//!
//! Writers publish what they have committed and wait for nobody. A follower has a place in the ring; when the ring has
//! moved on without it, it is told so and reads on from the store. So a slow follower costs nothing here.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{ids::SessionKey, protocol::frame::Batch, store::Audience};

/// Bytes of JSON that the ring keeps.
const MAX_BYTES: usize = 4 << 20;
/// Batches and bytes that a follower takes at once.
const TAKEN_AT_ONCE: (usize, usize) = (256, 256 * 1024);

/// A committed batch with its place in the feed.
#[derive(Debug, Clone)]
pub struct Published {
    /// The lane of its writer.
    pub lane: i32,
    /// Its place there.
    pub position: i64,
    /// Whose events.
    pub key: SessionKey,
    /// Who may see the session, as of this commit; none when not known.
    pub audience: Option<Audience>,
    /// The events.
    pub batch: Arc<Batch>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ring {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Arc<Published>>,
    bytes: usize,
    /// The number of the oldest entry.
    first: u64,
    listeners: usize,
    /// The lanes that are written here now: what is committed in them is shown here.
    lanes: BTreeSet<i32>,
}

impl Ring {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what was committed, in the order of each lane. Nothing is kept while nobody follows.
    pub fn publish(&self, batches: impl IntoIterator<Item = Published>) {
        let mut inner = self.lock();
        if inner.listeners == 0 {
            return;
        }
        for published in batches {
            inner.bytes += published.batch.bytes();
            inner.entries.push_back(Arc::new(published));
        }
        while inner.bytes > MAX_BYTES && inner.entries.len() > 1 {
            inner.drop_oldest();
        }
        drop(inner);
        self.news.notify_waiters();
    }

    /// Sends everybody back to the store: something may be committed that was not shown here.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.first += inner.entries.len() as u64 + 1;
        inner.entries.clear();
        inner.bytes = 0;
        drop(inner);
        self.news.notify_waiters();
    }

    /// A writer has this lane from now on. What the lane's last holder had under way is over, and may be committed
    /// without having been shown.
    pub fn lane_taken(&self, lane: i32) {
        self.lock().lanes.insert(lane);
        self.reset();
    }

    /// A writer does not have this lane any more.
    pub fn lane_lost(&self, lane: i32) {
        self.lock().lanes.remove(&lane);
    }

    /// A session has come to this server, with its newest events in this lane. Those of another server were not shown
    /// here, and have to be before what comes next: that server may have died under a commit which the database finished
    /// later.
    pub fn session_taken(&self, lane: i32) {
        if !self.lock().lanes.contains(&lane) {
            self.reset();
        }
    }

    /// How many follow.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.lock().listeners
    }

    /// Bytes that are kept, and the most that may be.
    #[must_use]
    pub fn fill(&self) -> (usize, usize) {
        (self.lock().bytes, MAX_BYTES)
    }
}

impl Inner {
    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes -= oldest.batch.bytes();
            self.first += 1;
        }
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// A follower's place in the ring.
#[derive(Debug)]
pub struct Listener {
    ring: Arc<Ring>,
    next: u64,
}

impl Listener {
    /// A place at the end: everything that is published from now on.
    #[must_use]
    pub fn new(ring: Arc<Ring>) -> Self {
        let mut inner = ring.lock();
        inner.listeners += 1;
        let next = inner.end();
        drop(inner);
        Self { ring, next }
    }

    /// Goes to the end of the ring.
    pub fn rejoin(&mut self) {
        self.next = self.ring.lock().end();
    }

    /// The next batches, at least one; none when the ring has moved on without this follower. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Arc<Published>>> {
        loop {
            let ring = Arc::clone(&self.ring);
            let news = ring.news.notified();
            tokio::pin!(news);
            // Asked for before looking, so that nothing is missed in between.
            news.as_mut().enable();
            match self.ready() {
                Some(batches) if batches.is_empty() => news.await,
                some => return some,
            }
        }
    }

    fn ready(&mut self) -> Option<Vec<Arc<Published>>> {
        let inner = self.ring.lock();
        let skip = self.next.checked_sub(inner.first)?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for entry in inner.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            if taken.len() >= TAKEN_AT_ONCE.0 || bytes >= TAKEN_AT_ONCE.1 {
                break;
            }
            bytes += entry.batch.bytes();
            taken.push(Arc::clone(entry));
        }
        drop(inner);
        self.next += taken.len() as u64;
        Some(taken)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.ring.lock();
        inner.listeners -= 1;
        if inner.listeners == 0 {
            inner.first += inner.entries.len() as u64;
            inner.entries = VecDeque::new();
            inner.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Event, EventBody, Frame},
        timestamp::Timestamp,
    };

    fn batch(position: i64, bytes: usize) -> Published {
        let body = EventBody::Error { code: "x".into(), message: "x".repeat(bytes) };
        let event = Event { seq: 1, body, session: "k".parse().unwrap(), turn_id: None, at: Timestamp(0) };
        let batch = Batch::new(vec![Frame::encode(&event)]);
        Published { lane: 0, position, key: "k".parse().unwrap(), audience: None, batch }
    }

    async fn positions(listener: &mut Listener) -> Option<Vec<i64>> {
        listener.next().await.map(|batches| batches.iter().map(|batch| batch.position).collect())
    }

    #[tokio::test]
    async fn a_follower_gets_what_comes_and_wakes_for_it() {
        let ring = Arc::new(Ring::default());
        ring.publish([batch(1, 1)]);
        let mut listener = Listener::new(Arc::clone(&ring));
        ring.publish([batch(2, 1), batch(3, 1)]);
        assert_eq!(positions(&mut listener).await, Some(vec![2, 3]));
        let waiting = tokio::spawn(async move { positions(&mut listener).await });
        tokio::task::yield_now().await;
        ring.publish([batch(4, 1)]);
        assert_eq!(waiting.await.unwrap(), Some(vec![4]));
        assert_eq!((ring.listeners(), ring.fill().0), (0, 0), "nothing is kept for nobody");
    }

    #[tokio::test]
    async fn over_its_bytes_the_ring_moves_on_and_says_so() {
        let ring = Arc::new(Ring::default());
        let mut slow = Listener::new(Arc::clone(&ring));
        for position in 1..=6 {
            ring.publish([batch(position, 1 << 20)]);
        }
        assert!(ring.fill().0 <= MAX_BYTES);
        assert_eq!(positions(&mut slow).await, None);
        slow.rejoin();
        ring.publish([batch(7, 1)]);
        assert_eq!(positions(&mut slow).await, Some(vec![7]));
    }

    #[tokio::test]
    async fn a_reset_sends_everybody_to_the_store() {
        let ring = Arc::new(Ring::default());
        let mut listener = Listener::new(Arc::clone(&ring));
        ring.reset();
        assert_eq!(positions(&mut listener).await, None);
        listener.rejoin();
        ring.publish([batch(1, 1)]);
        assert_eq!(positions(&mut listener).await, Some(vec![1]));
    }
}
