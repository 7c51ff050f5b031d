//! The writer: one thread that commits what waits in one transaction and answers after the commit.
//!
//! It blocks for the first job and then takes whatever has queued up meanwhile, so batches grow with load and no
//! timer adds latency. It survives everything that a job or a database can do: a batch that fails is done again job
//! by job, so that one bad job fails alone; a panic counts as a bad job; a lost connection is made again.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use diesel::{RunQueryDsl as _, prelude::*, sql_query};
use tokio::sync::{mpsc, oneshot};

use super::{
    StoreError, budgets,
    connection::{self, AnyConnection, Role, Target},
    endpoints,
    fault::Fault,
    feed,
    health::Health,
    intake::{Intake, MAX_BATCH},
    job::{Job, Reply, Write, one_by_one},
    merge, retention,
    wal::{Progress, Wal},
};
use crate::{
    feed::{Published, Ring},
    metrics,
};

/// How often a batch is tried that finds the database busy or its connection gone.
const ATTEMPTS: u32 = 5;
/// How often a commit whose answer got lost is asked after.
const INQUIRIES: u32 = 50;

/// How a transaction ended that did not end well.
#[derive(Debug)]
enum Failure {
    /// Nothing is written.
    Fault(Fault),
    /// A job panicked; nothing is written.
    Panic,
    /// The connection was lost while it committed the transaction of that number.
    Unknown { transaction: i64, replies: Vec<Reply>, cause: String },
}

impl<E: Into<Fault>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// The writer's side of the channel.
pub(super) struct Writer {
    target: Target,
    /// None after a failure that the connection may have suffered from.
    connection: Option<AnyConnection>,
    /// The lane of the feed that the connection holds.
    lane: Option<i32>,
    health: Arc<Health>,
    ring: Arc<Ring>,
    /// What a commit has to be brought to the disk of, where the database does not do it itself.
    wal: Option<Wal>,
}

impl Writer {
    /// A writer that begins with `connection`, where there is one already.
    pub(super) fn new(
        target: Target,
        connection: Option<AnyConnection>,
        health: Arc<Health>,
        ring: Arc<Ring>,
        progress: &Arc<Progress>,
    ) -> Self {
        let wal = target.wal(Arc::clone(progress));
        Self { target, connection, lane: None, health, ring, wal }
    }

    /// Works until every sender is gone and all jobs are done. A panic beside the transactions, which have a guard of
    /// their own, costs the batch in hand its answers, and nothing else.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut intake = Intake::default();
        while catch_unwind(AssertUnwindSafe(|| self.work(&mut jobs, &mut intake))).is_err() {
            log::error!("a writer of the store has panicked, and goes on");
            // What the panic left behind is not known.
            self.disconnect();
            self.wal.iter_mut().for_each(Wal::doubt);
            self.health.end(Some("the writer panicked"));
            self.ring.reset();
        }
    }

    fn work(&mut self, jobs: &mut mpsc::Receiver<Job>, intake: &mut Intake) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while intake.next(jobs, &mut batch) {
            self.health.backlog.store(intake.len(), Ordering::Relaxed);
            self.health.begin();
            let begun = Instant::now();
            let (mut writes, mut waiting) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
            for Job { write, reply, written } in batch.drain(..) {
                writes.push(write);
                waiting.push((reply, written));
            }
            let mut results = self.commit(&writes);
            tell_written(&mut waiting, &results);
            self.sync(&mut results);
            if let Some(metrics) = metrics::get() {
                metrics.store_commit.observe(begun.elapsed().as_secs_f64());
                metrics.store_batch.observe(f64::from(u32::try_from(writes.len()).unwrap_or(u32::MAX)));
            }
            self.note(&results);
            self.publish(&writes, &results);
            for ((reply, _), result) in waiting.into_iter().zip(results) {
                let _ = reply.send(result);
            }
            if intake.len() == 0 {
                self.make_room();
            }
            if writes.iter().any(|write| matches!(write, Write::EmptyLog)) {
                self.empty_log();
            }
        }
    }

    fn empty_log(&mut self) {
        if retention::empty_log(self.connection.as_mut()).is_err() {
            // Whether its patience was set back is not known.
            return self.disconnect();
        }
        self.wal.iter_mut().for_each(Wal::emptied);
    }

    /// Keeps some room after the end of the log, in a transaction, so that nobody else writes there. Where there is none, as on
    /// a full disk, it is done without.
    fn make_room(&mut self) {
        let (Some(wal), Some(connection)) = (&mut self.wal, &mut self.connection) else { return };
        if !wal.wants_room() || connection::begin(connection).is_err() {
            return;
        }
        if let Err(error) = wal.make_room() {
            log::debug!("no room is kept after the end of the log: {error}");
        }
        if connection::roll_back(connection).is_err() {
            self.disconnect();
        }
    }

    /// Brings to the disk what was committed. What it does not take may be there after all, and is not told.
    fn sync(&mut self, results: &mut [Result<Reply, StoreError>]) {
        let connected = self.connection.is_some();
        let Some(Err(fault)) = self.wal.as_mut().map(|wal| wal.sync(connected)) else { return };
        self.disconnect();
        let error = StoreError::from(fault);
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(error.clone());
        }
    }

    /// Shows the feed's followers what was committed, before anybody can act on it.
    fn publish(&self, writes: &[Write], results: &[Result<Reply, StoreError>]) {
        let mut batches: Vec<Published> = Vec::new();
        for (write, result) in writes.iter().zip(results) {
            match (write, result) {
                (Write::Append(append), Ok(Reply::Appended(lane, Some(position)))) => batches.push(Published {
                    lane: *lane,
                    position: *position,
                    key: append.key.clone(),
                    audience: append.audience.clone(),
                    batch: Arc::clone(&append.events),
                }),
                (_, Ok(reply)) => {
                    if let Some(lane) = reply.claimed().and_then(|claimed| claimed.lane) {
                        self.ring.session_taken(lane);
                    }
                }
                // It may be committed all the same.
                (Write::Append(_), Err(StoreError::Unavailable(_))) => self.ring.reset(),
                _ => {}
            }
        }
        batches.sort_by_key(|published| published.position);
        self.ring.publish(batches);
    }

    fn note(&self, results: &[Result<Reply, StoreError>]) {
        let cause = results.iter().find_map(|result| match result {
            Err(StoreError::Unavailable(cause)) => Some(cause.as_str()),
            _ => None,
        });
        match (self.health.end(cause), cause) {
            (true, Some(cause)) => log::warn!(cause; "the store cannot be written; it is tried again with every write"),
            (true, None) => log::info!("the store can be written again"),
            (false, _) => {}
        }
    }

    /// Commits the jobs, together or one by one; one result for each, in order.
    fn commit(&mut self, writes: &[Write]) -> Vec<Result<Reply, StoreError>> {
        match self.together(writes) {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(Failure::Fault(Fault::Row(_)) | Failure::Panic) if writes.len() > 1 => {
                writes.iter().flat_map(|write| self.commit(std::slice::from_ref(write))).collect()
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Fault(fault) => StoreError::from(fault),
                    Failure::Panic => StoreError::Corrupt("the writer panicked".into()),
                    Failure::Unknown { cause, .. } => StoreError::Unavailable(cause),
                };
                writes.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Commits the jobs in one transaction, tried again where that makes sense.
    fn together(&mut self, writes: &[Write]) -> Result<Vec<Reply>, Failure> {
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(writes) {
                Ok(replies) => return Ok(replies),
                Err(Failure::Unknown { transaction, replies, cause }) => match self.was_committed(transaction) {
                    Some(true) => return Ok(replies),
                    Some(false) => Failure::Fault(Fault::Lost(cause)),
                    None => return Err(Failure::Unknown { transaction, replies, cause }),
                },
                Err(failure) => failure,
            };
            // A row's own fault leaves the connection sound; anything else may not.
            if !matches!(failure, Failure::Fault(Fault::Row(_) | Fault::Busy(_))) {
                self.disconnect();
            }
            let again = matches!(failure, Failure::Fault(Fault::Lost(_) | Fault::Busy(_)));
            if !again || attempt >= ATTEMPTS {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(5) * 2u32.pow(attempt));
            attempt += 1;
        }
    }

    /// One try.
    fn attempt(&mut self, writes: &[Write]) -> Result<Vec<Reply>, Failure> {
        self.in_transaction(|connection, lane| {
            let replies = match connection {
                AnyConnection::Sqlite(_) => one_by_one(connection, lane, writes)?,
                AnyConnection::Postgres(_) => merge::all(connection, lane, writes)?,
            };
            budgets::add(connection, writes, &replies)?;
            endpoints::count_dropped(connection, writes, &replies)?;
            Ok(replies)
        })
    }

    /// Connects and takes a lane, before the first job. What does not work now is tried again with it.
    pub(super) fn prepare(&mut self) {
        if let Err(fault) = self.seat() {
            log::debug!("a writer of the store has no connection yet: {fault:?}");
        }
    }

    /// The connection, the lane of the feed that it holds, and the log that it writes.
    fn seat(&mut self) -> Result<(&mut AnyConnection, i32, Option<&Wal>), Fault> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.target.connect(Role::Writer)?),
        };
        if let Some(wal) = &mut self.wal {
            wal.heal(connection)?;
        }
        let lane = match self.lane {
            Some(lane) => lane,
            None => {
                let lane = feed::take_lane(connection)?;
                self.ring.lane_taken(lane);
                *self.lane.insert(lane)
            }
        };
        Ok((connection, lane, self.wal.as_ref()))
    }

    /// Gives up the connection, and with it the lane.
    fn disconnect(&mut self) {
        self.connection = None;
        self.wal.iter_mut().for_each(Wal::forget);
        if let Some(lane) = self.lane.take() {
            self.ring.lane_lost(lane);
        }
    }

    fn in_transaction(
        &mut self,
        work: impl FnOnce(&mut AnyConnection, i32) -> Result<Vec<Reply>, Fault>,
    ) -> Result<Vec<Reply>, Failure> {
        let (connection, lane, wal) = self.seat()?;
        connection::begin(connection)?;
        let done = catch_unwind(AssertUnwindSafe(|| -> Result<_, Fault> {
            let replies = work(connection, lane)?;
            Ok((replies, transaction_number(connection)?))
        }));
        let (replies, transaction) = match done {
            Ok(Ok(done)) => done,
            Ok(Err(fault)) => {
                if connection::roll_back(connection).is_err() {
                    self.disconnect();
                }
                return Err(fault.into());
            }
            Err(_) => {
                // What the panic left behind is not known; closing the connection rolls back.
                self.disconnect();
                return Err(Failure::Panic);
            }
        };
        if let Some(wal) = wal {
            wal.begin();
        }
        match (connection::commit(connection), transaction) {
            (Ok(()), _) => Ok(replies),
            (Err(Fault::Lost(cause)), Some(transaction)) => Err(Failure::Unknown { transaction, replies, cause }),
            (Err(fault), _) => Err(fault.into()),
        }
    }

    /// Whether Postgres committed a transaction whose answer got lost; none when it cannot be found out now.
    ///
    /// Asking beats sending again and comparing: it is right for every kind of job, also for one that leaves no mark.
    fn was_committed(&mut self, transaction: i64) -> Option<bool> {
        #[derive(QueryableByName)]
        struct Status {
            #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
            status: Option<String>,
        }
        self.disconnect();
        for _ in 0..INQUIRIES {
            if self.connection.is_none() {
                self.connection = self.target.connect(Role::Writer).ok();
            }
            if let Some(AnyConnection::Postgres(c)) = &mut self.connection {
                let asked = sql_query("SELECT txid_status($1) AS status")
                    .bind::<diesel::sql_types::BigInt, _>(transaction)
                    .get_result::<Status>(c);
                match asked.map(|answer| answer.status) {
                    Ok(Some(status)) if status == "committed" => return Some(true),
                    Ok(Some(status)) if status == "aborted" => return Some(false),
                    // The old connection still works on it.
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(_) => self.connection = None,
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

/// Who waits for a job: for its outcome, and to know that it is written.
type Waiting = (oneshot::Sender<Result<Reply, StoreError>>, Option<oneshot::Sender<()>>);

/// Tells those who want to know that an append is written, before it is synced.
fn tell_written(waiting: &mut [Waiting], results: &[Result<Reply, StoreError>]) {
    let mut told = false;
    for ((_, written), result) in waiting.iter_mut().zip(results) {
        if let (Some(written), Ok(Reply::Appended(..))) = (written.take(), result) {
            // Who no longer waits does not want to know.
            told |= written.send(()).is_ok();
        }
    }
    if told {
        // Often they are woken on this very core, where they would wait until the sync is under way.
        std::thread::yield_now();
    }
}

/// The number under which Postgres remembers how this transaction ends.
fn transaction_number(connection: &mut AnyConnection) -> Result<Option<i64>, Fault> {
    diesel::define_sql_function!(fn txid_current() -> diesel::sql_types::BigInt);
    match connection {
        AnyConnection::Sqlite(_) => Ok(None),
        AnyConnection::Postgres(c) => Ok(Some(diesel::select(txid_current()).get_result(c)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Secret, StoreConfig},
        store::IdempotencyRecord,
        timestamp::Timestamp,
    };

    #[test]
    fn a_panic_writes_nothing_and_the_writer_lives_on() {
        let folder = tempfile::tempdir().unwrap();
        let url = Secret::new(format!("sqlite:{}", folder.path().join("test.db").display()));
        let target = Target::new(&StoreConfig { url: Some(url), ..StoreConfig::default() }).unwrap();
        let mut connection = target.connect(Role::Writer).unwrap();
        super::super::migrate::run(&mut connection).unwrap();
        let mut writer = Writer::new(target, Some(connection), Arc::default(), Arc::default(), &Arc::default());

        let sweep = Write::SweepIdempotency(Timestamp(i64::MAX));
        let call = Write::RememberCall(IdempotencyRecord {
            scope: "s".into(),
            key: "k".into(),
            request_hash: String::new(),
            outcome: String::new(),
            created_at: Timestamp(0),
        });
        let failed = writer.in_transaction(|connection, lane| {
            one_by_one(connection, lane, std::slice::from_ref(&call))?;
            panic!("a job that panics");
        });
        assert!(matches!(failed, Err(Failure::Panic)), "{failed:?}");
        let swept = |writer: &mut Writer| match writer.commit(std::slice::from_ref(&sweep)).remove(0) {
            Ok(Reply::Count(count)) => count,
            other => panic!("{other:?}"),
        };
        assert_eq!(swept(&mut writer), 0, "rolled back");
        writer.commit(std::slice::from_ref(&call)).remove(0).unwrap();
        assert_eq!(swept(&mut writer), 1);
    }

    #[test]
    fn what_was_committed_before_the_connection_went_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let url = Secret::new(format!("sqlite:{}", path.display()));
        let target = Target::new(&StoreConfig { url: Some(url), ..StoreConfig::default() }).unwrap();
        let mut connection = target.connect(Role::Writer).unwrap();
        super::super::migrate::run(&mut connection).unwrap();
        let mut writer = Writer::new(target, Some(connection), Arc::default(), Arc::default(), &Arc::default());
        let mut results = writer.commit(&[Write::SweepIdempotency(Timestamp(0))]);
        // As a job of the same batch does that panics after it.
        writer.disconnect();
        assert!(!super::super::wal::path_of(&path).exists(), "it was the last connection");
        writer.sync(&mut results);
        assert!(matches!(results.as_slice(), [Ok(Reply::Count(0))]), "{results:?}");
    }
}
