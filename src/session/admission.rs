//! How many turns run at once, over all sessions. Those that wait get their place in the order in which they came.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Places for running turns; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// A place for a running turn; given back when dropped.
#[derive(Debug)]
pub struct Admitted(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

impl Admission {
    /// Room for so many turns.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(limit)), waiting: Arc::default(), limit }
    }

    /// A place, if one is free and nobody waits for it.
    fn take(&self) -> Option<Admitted> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(Admitted)
    }

    /// Makes sure that `place` holds a place for the next turn of a session; false when it has to wait for one. A place
    /// that is left from the turn before is given up when others wait: a session with a long queue must not keep them out.
    pub fn enter(&self, place: &RefCell<Option<Admitted>>) -> bool {
        let mut place = place.borrow_mut();
        if place.is_some() && self.waiting() > 0 {
            *place = None;
            return false;
        }
        if place.is_none() {
            *place = self.take();
        }
        place.is_some()
    }

    /// Waits for a place, behind all who wait already.
    ///
    /// # Errors
    /// Only when the places are closed, which they never are while the server runs.
    pub async fn wait(&self) -> Result<Admitted, AcquireError> {
        let _waiting = Waiting::new(&self.waiting);
        Arc::clone(&self.places).acquire_owned().await.map(Admitted)
    }

    /// Turns that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Turns that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}

/// Counts those that wait, also when the one that waits is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_came_first_gets_the_place_also_before_the_one_that_holds_it() {
        let admission = Admission::new(1);
        let mine = RefCell::default();
        assert!(admission.enter(&mine) && admission.enter(&mine), "nobody waits: it keeps its place");
        assert_eq!(admission.running(), 1);
        let other = RefCell::default();
        assert!(!admission.enter(&other));
        let mut waits = Box::pin(admission.wait());
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(admission.waiting(), 1);
        assert!(!admission.enter(&mine), "kept its place though another waits");
        let place = waits.await.unwrap();
        assert!(mine.borrow().is_none() && !admission.enter(&mine));
        drop(place);
        assert_eq!((admission.waiting(), admission.running()), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let admission = Admission::new(1);
        let mine = RefCell::default();
        assert!(admission.enter(&mine));
        let mut waits = Box::pin(admission.wait());
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(waits);
        assert_eq!(admission.waiting(), 0);
        assert!(admission.enter(&mine));
    }
}
