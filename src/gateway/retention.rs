//! Retention: what is too old goes, and what is too much. A round of it every `retention.interval`.
//!
//! In this order: progress of finished turns that is older than `events.keep_deltas`; archived sessions that nobody has
//! touched for `sessions.keep`; while the database is larger than `store.max_size`, the oldest progress whatever its age,
//! then the archived sessions that were touched longest ago. What is freed is given back to the file system, and the log
//! of SQLite is emptied.
//!
//! All of it goes in small steps behind what clients wait for, and rests after each step for as long as that took. Two
//! servers on one database may do it at once: each step finds what is there. A budget that cannot be kept is told, in
//! the log, on `/ready` and as a metric; messages are taken all the same, because a number in a configuration should not
//! stop a service whose disk has room. A disk that has none stops it anyway.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Gateway, Principal};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    metrics,
    session::command::Command,
    store::{PruneStep, StoreError, StoreSize},
    timestamp::Timestamp,
};

/// Turns and sessions that are looked up at once.
const PAGE: i64 = 64;
/// Free bytes that SQLite keeps for what comes next; giving them back would only mean to ask for them again.
const SPARE: u64 = 1 << 20;
/// Pages that are given back in one step.
const PAGES: u32 = 256;
/// A log of SQLite that is smaller is left alone.
const SMALL_LOG: u64 = 4 << 20;
/// The longest rest between two steps.
const REST: Duration = Duration::from_millis(100);
/// How long a call is looked up in `user_spend` at most, in days: more than any report goes back.
const SPENT_DAYS: i64 = 400;

/// What retention knows from round to round.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    account: Mutex<Account>,
    /// Why the budget is not kept.
    over: Mutex<Option<String>>,
}

impl Upkeep {
    /// Why the budget is not kept.
    pub(super) fn over(&self) -> Option<String> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with_account<T>(&self, work: impl FnOnce(&mut Account) -> T) -> T {
        work(&mut self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What of the database's size counts against its budget: all but what is free. Where the database does not tell what
/// is free, what was removed counts as free until it is given back.
#[derive(Debug, Default)]
struct Account {
    removed: u64,
    total: u64,
}

impl Account {
    fn held(&mut self, size: &StoreSize) -> u64 {
        self.removed = self.removed.saturating_sub(self.total.saturating_sub(size.total));
        self.total = size.total;
        size.total.saturating_sub(size.free.unwrap_or(self.removed))
    }

    const fn remove(&mut self, bytes: u64) {
        self.removed = self.removed.saturating_add(bytes);
    }
}

/// Why something goes.
#[derive(Debug, Clone, Copy)]
enum Why {
    Age,
    Size,
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

impl Gateway {
    /// One round. What it could not do is done in the next one.
    pub async fn retain(&self) {
        let done = self.round().await;
        if let Some(metrics) = metrics::get() {
            let outcome = if done.is_ok() { "ok" } else { "failed" };
            metrics.retention_rounds.with_label_values(&[outcome]).inc();
        }
        if let Err(error) = done {
            log::warn!(error:% = error; "what is too old could not be removed; it is tried again");
        }
    }

    async fn round(&self) -> Result<(), ApiError> {
        let config = self.config();
        let before = |keep: Duration| Timestamp(Timestamp::now().0.saturating_sub(Timestamp(0).plus(keep).0));
        let (deltas, sessions) = (config.events.keep_deltas.0, config.sessions.keep.0);
        if !deltas.is_zero() {
            self.prune(Some(before(deltas)), Why::Age, u64::MAX).await?;
        }
        if !sessions.is_zero() {
            self.expire(before(sessions), Why::Age, u64::MAX).await?;
        }
        self.keep_budget(config.store.max_size.0).await?;
        self.deps.store.sweep_spend(crate::session::budget::day_of(Timestamp::now()) - SPENT_DAYS).await?;
        self.tidy().await?;
        Ok(())
    }

    /// Removes the progress of finished turns, oldest first, until the database holds no more than `target` bytes.
    async fn prune(&self, before: Option<Timestamp>, why: Why, target: u64) -> Result<(), ApiError> {
        loop {
            let steps = self.deps.store.prunable(before, PAGE).await?;
            if steps.is_empty() {
                return Ok(());
            }
            for step in steps {
                if self.is_draining() || (target < u64::MAX && self.held().await? <= target) {
                    return Ok(());
                }
                self.prune_turn(step, why).await?;
            }
        }
    }

    async fn prune_turn(&self, mut step: PruneStep, why: Why) -> Result<(), StoreError> {
        loop {
            let begun = Instant::now();
            let done = match self.deps.store.prune(step.clone()).await {
                Ok(done) => done,
                Err(StoreError::Corrupt(cause)) if step.after < u64::MAX => {
                    log::error!(session:% = step.key, turn:% = step.turn, cause; "progress of a turn is kept: its log is damaged");
                    // From the end on there is nothing to do but to note that it is done.
                    step.after = u64::MAX;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.upkeep.with_account(|account| account.remove(done.bytes as u64));
            if let Some(metrics) = metrics::get() {
                metrics.retention_events.with_label_values(&[why.as_str()]).inc_by(done.events as u64);
            }
            match done.next {
                Some(next) => step.after = next,
                None => return Ok(()),
            }
            rest(begun).await;
        }
    }

    /// Deletes archived sessions, the one that was touched longest ago first, until the database holds no more than
    /// `target` bytes. Those that are in memory stay: somebody follows them, or did a moment ago.
    async fn expire(&self, before: Timestamp, why: Why, target: u64) -> Result<(), ApiError> {
        let mut after = Timestamp(0);
        loop {
            let found = self.deps.store.forgotten(after, before, PAGE).await?;
            let Some((_, last)) = found.last() else { return Ok(()) };
            after = *last;
            for (key, touched) in found {
                if self.is_draining() || (target < u64::MAX && self.held().await? <= target) {
                    return Ok(());
                }
                let begun = Instant::now();
                let bytes = self.deps.store.log_bytes(&key).await?;
                if self.forget(&key, touched).await? {
                    log::info!(session:% = key, why = why.as_str(); "an archived session was deleted");
                    // The transcript has the texts once more.
                    self.upkeep.with_account(|account| account.remove(bytes.saturating_mul(2)));
                    if let Some(metrics) = metrics::get() {
                        metrics.retention_sessions.with_label_values(&[why.as_str()]).inc();
                    }
                }
                rest(begun).await;
            }
        }
    }

    /// Deletes a session that is archived and was not touched after `touched`. False when it stays.
    async fn forget(&self, key: &SessionKey, touched: Timestamp) -> Result<bool, ApiError> {
        if self.directory.get(key).is_some() {
            return Ok(false);
        }
        let delete = Command::Delete { force: false, untouched_since: Some(touched) };
        match self.execute(&Principal::server(), key, false, delete).await {
            Ok(_) => Ok(true),
            Err(error) if error.code == Code::StoreUnavailable => Err(error),
            Err(error) => {
                log::debug!("{key}: an archived session stays: {error}");
                Ok(false)
            }
        }
    }

    /// Bytes that count against the budget.
    async fn held(&self) -> Result<u64, StoreError> {
        let size = self.deps.store.size().await?;
        Ok(self.upkeep.with_account(|account| account.held(&size)))
    }

    async fn keep_budget(&self, budget: u64) -> Result<(), ApiError> {
        if budget > 0 && self.held().await? > budget {
            self.prune(None, Why::Size, budget).await?;
            self.expire(Timestamp(i64::MAX), Why::Size, budget).await?;
        }
        let held = self.held().await?;
        let over = (budget > 0 && held > budget).then(|| {
            let of = |bytes: u64| bytesize::ByteSize(bytes).to_string();
            format!(
                "the database holds {}, over store.max_size ({}), and nothing is left to prune",
                of(held),
                of(budget)
            )
        });
        if let Some(metrics) = metrics::get() {
            metrics.store_over_budget.set(over.is_some().into());
        }
        let mut known = self.upkeep.over.lock().unwrap_or_else(PoisonError::into_inner);
        match (&over, known.is_some()) {
            (Some(over), false) => log::warn!("{over}; archive sessions, or raise it"),
            (None, true) => log::info!("the database is within store.max_size again"),
            _ => {}
        }
        *known = over;
        Ok(())
    }

    /// Gives back what is free, empties the log, and shows how large it all is.
    async fn tidy(&self) -> Result<(), StoreError> {
        let store = &self.deps.store;
        let mut size = store.size().await?;
        while size.gives_back && size.free.is_some_and(|free| free > SPARE) && !self.is_draining() {
            let begun = Instant::now();
            store.give_back(PAGES).await?;
            let now = store.size().await?;
            if now.total >= size.total {
                break;
            }
            size = now;
            rest(begun).await;
        }
        if size.log > SMALL_LOG {
            store.empty_log().await?;
        }
        if let Some(metrics) = metrics::get() {
            let free = size.free.unwrap_or(0);
            for (part, bytes) in [("used", size.total.saturating_sub(free)), ("free", free), ("log", size.log)] {
                metrics.store_bytes.with_label_values(&[part]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        Ok(())
    }
}

/// Leaves the writer to others for as long as it was taken.
async fn rest(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(REST)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_does_not_count() {
        let mut account = Account::default();
        let size = StoreSize { total: 100, free: Some(30), ..StoreSize::default() };
        account.remove(50);
        assert_eq!(account.held(&size), 70, "the database's own word wins");
    }

    #[test]
    fn where_it_is_not_told_what_was_removed_counts_as_free_until_it_is_given_back() {
        let mut account = Account::default();
        let at = |total| StoreSize { total, ..StoreSize::default() };
        assert_eq!(account.held(&at(100)), 100);
        account.remove(40);
        assert_eq!(account.held(&at(100)), 60);
        assert_eq!(account.held(&at(110)), 70, "it grows all the same: that room was not to be used again");
        assert_eq!(account.held(&at(80)), 70, "30 were given back, 10 of what was removed are left");
    }
}
