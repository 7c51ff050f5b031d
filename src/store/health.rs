//! How a writer is doing, for others to see: written by its thread, read by health checks.

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

/// What others can see of a writer.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<HealthState>,
    /// Jobs that it has taken and not begun.
    pub(super) backlog: AtomicUsize,
}

#[derive(Debug, Default)]
struct HealthState {
    busy_since: Option<Instant>,
    failed: Option<(Instant, String)>,
}

impl Health {
    /// What is wrong: a failure within `recent`, with no success since, or a batch that has taken longer than that.
    pub(super) fn trouble(&self, recent: Duration) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.busy_since.is_some_and(|since| since.elapsed() > recent) {
            return Some("the database does not answer".into());
        }
        let failed = state.failed.as_ref().filter(|(at, _)| at.elapsed() <= recent);
        failed.map(|(_, cause)| cause.clone())
    }

    /// Notes the beginning of a batch.
    pub(super) fn begin(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).busy_since = Some(Instant::now());
    }

    /// Notes the end of a batch, and what failed; true when going from well to badly or back.
    pub(super) fn end(&self, failure: Option<&str>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.busy_since = None;
        let news = state.failed.is_some() != failure.is_some();
        state.failed = failure.map(|cause| (Instant::now(), cause.to_owned()));
        news
    }
}
