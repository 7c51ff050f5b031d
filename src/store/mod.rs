//! The store: everything that must survive, in SQLite or Postgres, behind verbs by intent.
//!
//! Writes go through one writer thread (on Postgres: several, sharded by session key) that commits what waits in
//! one transaction and acknowledges after COMMIT; reads use a small pool beside it. No diesel type leaves this
//! room.
//!
//! Invariants:
//! - An append is a compare-and-set on `(epoch, last_seq)` of its key, in the transaction that appends. When
//!   somebody else has claimed the key since, it answers [`AppendError::Fenced`] and writes nothing.
//! - What was acknowledged is on disk (`durability = "full"`) or at least out of this process (`"normal"`).
//! - An event is never rewritten. The progress of finished turns may be pruned (`prune.rs`); what stays keeps its bytes
//!   and its place. A deleted key keeps its last `seq`, so numbering goes on.

mod accounts;
mod append;
mod audit;
mod backup;
mod budgets;
mod choices;
mod codec;
mod connection;
mod deliveries;
mod endpoints;
mod events;
mod fault;
mod feed;
mod health;
mod hot;
mod intake;
mod job;
mod ledger;
mod memory;
mod merge;
mod messages;
mod migrate;
mod page;
mod pool;
mod postgres_url;
mod prune;
mod records;
mod retention;
mod schema;
mod sessions;
mod turns;
mod vacuum;
mod wal;
mod writer;

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use diesel::{IntoSql as _, RunQueryDsl as _};
use tokio::sync::{
    mpsc::{self, error::SendTimeoutError},
    oneshot,
};

pub use accounts::{AccountChange, Accounts, LoginRecord};
pub use audit::AuditFilter;
pub use backup::{Backup, backup};
pub use budgets::{BudgetMark, BudgetMarkKind, BudgetRecord, BudgetScope, BudgetUnit, DayRaise, Spend};
pub use deliveries::{AttemptRecord, DeliveryWrite, PendingDelivery};
pub use endpoints::{EndpointChange, EndpointRecord};
pub use records::*;
pub use retention::{PruneStep, Pruned, StoreSize};
pub use vacuum::{Vacuumed, vacuum};

use crate::{config::StoreConfig, feed::Ring, ids::SessionKey};
use connection::{AnyConnection, Role, Target};
use fault::Fault;
use health::Health;
use job::{Job, Reply, Write};
use pool::Pool;
use wal::Progress;
use writer::Writer;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is full, locked or read-only. Trying again later makes sense.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database answered something that cannot be right; a bug, or a file changed by hand.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
    /// The database cannot be opened or migrated: the text says what to do.
    #[error("{0}")]
    Setup(String),
}

/// Why an append was not made. In each case nothing of it was written, but for two: when the connection to Postgres was
/// lost in the middle of a commit and could not be made again, and when the disk failed to confirm a commit of SQLite. The
/// answer is [`StoreError::Unavailable`] then, and only the next claim tells.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Somebody else has claimed the key, or the log has moved on: the caller is no longer its owner.
    #[error("the session is owned by somebody else")]
    Fenced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handle on the store; cheap to clone. When the last one is dropped, what was taken is still written.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// One sender for each writer; none once the store is closed.
    senders: RwLock<Option<Arc<[mpsc::Sender<Job>]>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    health: Vec<Arc<Health>>,
    ring: Arc<Ring>,
    pool: Arc<Pool>,
    timeout: Duration,
    /// Jobs that may wait for all writers together.
    room: usize,
    /// True when other servers may work on the same database.
    shared: bool,
    /// Held until nothing of this store runs any more.
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Connects, migrates and starts the writers. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`StoreError::Setup`] with one line for a person: no such database, one of a newer version, one that another
    /// server uses. A password is never part of it.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let target = Target::new(config)?;
        let lock = target.lock()?;
        Self::start(config, target, lock, true)
    }

    /// The same beside a server that may run on the database, for small changes of accounts. True when one may run:
    /// then nothing is migrated.
    ///
    /// # Errors
    /// As [`Self::open`], but for a second server.
    pub fn open_beside(config: &StoreConfig) -> Result<(Self, bool), StoreError> {
        let target = Target::new(config)?;
        let lock = target.try_lock()?;
        let shared = target.is_sqlite() && lock.is_none();
        let may_run = shared || !target.is_sqlite();
        Ok((Self::start(config, target, lock, !shared)?, may_run))
    }

    fn start(config: &StoreConfig, target: Target, lock: Option<File>, migrate: bool) -> Result<Self, StoreError> {
        let setup = |fault: Fault| match StoreError::from(fault) {
            StoreError::Unavailable(cause) | StoreError::Corrupt(cause) | StoreError::Setup(cause) => {
                StoreError::Setup(format!("the database cannot be opened: {cause}"))
            }
        };
        let mut first = target.connect(Role::Writer).map_err(setup)?;
        if migrate {
            migrate::run(&mut first)?;
        } else {
            migrate::check(&mut first)?;
        }
        let mut first = Some(first);
        let writers = if target.is_sqlite() { 1 } else { config.writers.max(1) };
        let (mut senders, mut threads, mut health) = (Vec::new(), Vec::new(), Vec::new());
        let ring = Arc::new(Ring::default());
        let progress = Arc::new(Progress::default());
        for _ in 0..writers {
            let (sender, jobs) = mpsc::channel(config.queue.max(1));
            let state = Arc::new(Health::default());
            let mut writer =
                Writer::new(target.clone(), first.take(), Arc::clone(&state), Arc::clone(&ring), &progress);
            writer.prepare();
            let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(jobs));
            threads.push(thread.map_err(|error| StoreError::Setup(format!("no thread for the store: {error}")))?);
            senders.push(sender);
            health.push(state);
        }
        let (timeout, shared) = (config.timeout.0, !target.is_sqlite());
        Ok(Self(Arc::new(Inner {
            senders: RwLock::new(Some(senders.into())),
            threads: Mutex::new(threads),
            health,
            ring,
            pool: Pool::new(target, config.readers, timeout, progress),
            timeout,
            room: config.queue.max(1).saturating_mul(usize::try_from(writers).unwrap_or(1)),
            shared,
            lock: Mutex::new(lock),
        })))
    }

    /// Takes a key over: from now on every append of its previous owner is fenced. None when the key was never used;
    /// then nothing is written.
    ///
    /// # Errors
    /// When the store fails. After [`StoreError::Unavailable`] the key may be claimed all the same; claim it again.
    pub async fn claim(&self, key: &SessionKey) -> Result<Option<Claimed>, StoreError> {
        match self.write(Write::Claim(key.clone())).await? {
            Reply::Claimed(claimed) => Ok(claimed.map(|claimed| *claimed)),
            _ => Err(StoreError::Corrupt("a claim was mistaken".into())),
        }
    }

    /// Takes a key over without reading what is stored under it, for its removal: the claim, and whose it is. None when it
    /// has no session.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claim_for_removal(&self, key: &SessionKey) -> Result<Option<(Claimed, Audience)>, StoreError> {
        match self.write(Write::ClaimForRemoval(key.clone())).await? {
            Reply::ClaimedForRemoval(claimed) => Ok(claimed.map(|claimed| *claimed)),
            _ => Err(StoreError::Corrupt("a claim was mistaken".into())),
        }
    }

    /// Commits all of `append`, or nothing of it. After [`SessionWrite::Create`] with epoch 0 the epoch is 1.
    ///
    /// Dropping the future takes nothing back that the writer has already got.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] when somebody else has claimed the key or the log has moved on; otherwise the store
    /// failed, see [`AppendError::Store`].
    pub async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.append_with_notice(append, None).await
    }

    /// The same, and tells `written` once nothing but the disk's confirmation is missing: a kill of this process takes the
    /// append back no more, a power failure may. When that fails, the answer is [`StoreError::Unavailable`] and what is
    /// stored is known only to the next claim. Where both are one step, as on Postgres, `written` is not told.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_with_notice(
        &self,
        append: Append,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), AppendError> {
        match self.write_with_notice(Write::Append(Box::new(append)), written).await? {
            Reply::Appended(..) => Ok(()),
            Reply::Fenced => Err(AppendError::Fenced),
            _ => Err(StoreError::Corrupt("an append was mistaken".into()).into()),
        }
    }

    /// Whether the database can be read and the last writes went well.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the cause. A failed write counts for as long as `store.timeout`, so that
    /// the next write can find out whether it is over; a damaged database counts until the next start.
    pub async fn health(&self) -> Result<(), StoreError> {
        let writers = self.0.health.iter().find_map(|health| health.trouble(self.0.timeout));
        if let Some(cause) = writers.or_else(|| self.0.pool.damage()) {
            return Err(StoreError::Unavailable(cause));
        }
        self.read(|connection| {
            diesel::select(1i32.into_sql::<diesel::sql_types::Integer>()).get_result::<i32>(connection)?;
            Ok(())
        })
        .await
    }

    /// Waits until everything that was taken is written, and ends the threads. Calls that come later get
    /// [`StoreError::Unavailable`]; another server may then use the database.
    pub async fn flush_and_close(&self) {
        let inner = Arc::clone(&self.0);
        // Joining threads blocks. If it panics there is nothing left to wait for.
        let _ = tokio::task::spawn_blocking(move || inner.close()).await;
    }

    /// Jobs that wait for the writers, and reads that have a connection.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let senders = self.0.senders.read().unwrap_or_else(PoisonError::into_inner).clone();
        let waiting = senders.iter().flat_map(|senders| senders.iter());
        let waiting: usize = waiting.map(|sender| sender.max_capacity() - sender.capacity()).sum();
        let taken: usize = self.0.health.iter().map(|health| health.backlog.load(Ordering::Relaxed)).sum();
        (waiting + taken, self.0.pool.in_use())
    }

    /// True while as many jobs wait for the writers as may: who can be told to come back later should be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.load().0 >= self.0.room
    }

    /// True when other servers may work on the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.shared
    }

    /// The disk, to make it hang (while it is held) or fail (where it is true).
    #[cfg(test)]
    pub(crate) fn disk(&self) -> &tokio::sync::Mutex<bool> {
        self.0.pool.disk()
    }

    async fn write(&self, write: Write) -> Result<Reply, StoreError> {
        self.write_with_notice(write, None).await
    }

    async fn write_with_notice(&self, write: Write, written: Option<oneshot::Sender<()>>) -> Result<Reply, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let senders = self.0.senders.read().unwrap_or_else(PoisonError::into_inner).clone();
        let senders = senders.ok_or_else(closed)?;
        let sender = senders.get(shard(write.key(), senders.len())).cloned().ok_or_else(closed)?;
        drop(senders);
        let (reply, answer) = oneshot::channel();
        match sender.send_timeout(Job { write, reply, written }, self.0.timeout).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => {
                return Err(StoreError::Unavailable("too many writes wait for the database".into()));
            }
            Err(SendTimeoutError::Closed(_)) => return Err(closed()),
        }
        drop(sender);
        answer.await.map_err(|_gone| closed())?
    }

    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Fault> + Send + 'static,
    {
        self.0.pool.read(read).await
    }
}

/// The writer of a key: always the same one, so that its writes keep their order.
fn shard(key: Option<&SessionKey>, writers: usize) -> usize {
    let Some(key) = key.filter(|_| writers > 1) else { return 0 };
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % u64::try_from(writers).unwrap_or(1)).unwrap_or(0)
}

impl Inner {
    fn close(&self) {
        // The writers end when the last sender is gone and all jobs are done.
        *self.senders.write().unwrap_or_else(PoisonError::into_inner) = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a writer thread of the store has panicked");
            }
        }
        self.pool.close();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
