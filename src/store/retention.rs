//! What retention asks of the store: what may go, that it goes, and how large the database is.

use diesel::{QueryableByName, dsl::not, prelude::*, sql_query, sql_types::BigInt};

use super::{
    Store, StoreError,
    codec::{parse, unsigned},
    connection::AnyConnection,
    fault::Fault,
    job::{Reply, Write},
    schema::{event_batches, sessions, turns, user_spend},
};
use crate::{
    ids::{SessionKey, TurnId},
    timestamp::Timestamp,
};

/// A part of the work of taking a finished turn's progress out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneStep {
    /// Whose log.
    pub key: SessionKey,
    /// The turn, which is finished.
    pub turn: TurnId,
    /// Everything up to this `seq` is done.
    pub after: u64,
}

/// What a step has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Where the next step goes on; none when the turn is done.
    pub next: Option<u64>,
    /// Events that were removed.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// How large the database is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// All of it, as the database counts: on SQLite the file, on Postgres what it holds of this database.
    pub total: u64,
    /// The part of it that is free and will be used again; none on Postgres, which does not tell.
    pub free: Option<u64>,
    /// SQLite's log beside the file.
    pub log: u64,
    /// Whether free pages can be given back while the server works.
    pub gives_back: bool,
}

/// SQLite's own word for [`StoreSize::gives_back`].
const INCREMENTAL: i64 = 2;

impl Store {
    /// Finished turns whose progress is in the log, the one that ended first first; with `before` those that ended
    /// before then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn prunable(&self, before: Option<Timestamp>, limit: i64) -> Result<Vec<PruneStep>, StoreError> {
        let before = before.map_or(i64::MAX, |before| before.0);
        self.read(move |connection| {
            let rows = turns::table
                .filter(turns::finished_at.is_not_null())
                .filter(turns::steers.is_null())
                .filter(not(turns::pruned))
                .filter(turns::finished_at.lt(before))
                .order(turns::finished_at.asc())
                .limit(limit)
                .select((turns::key, turns::id, turns::first_seq))
                .load::<(String, String, i64)>(connection)?;
            let step = |(key, id, first): (String, String, i64)| {
                let after = unsigned("turns.first_seq", first)?.saturating_sub(1);
                Ok(PruneStep { key: parse("turns.key", &key)?, turn: parse("turns.id", &id)?, after })
            };
            rows.into_iter().map(step).collect()
        })
        .await
    }

    /// Makes one step. It waits behind everything that a client waits for.
    ///
    /// # Errors
    /// When the store fails; then nothing of the step is done.
    pub async fn prune(&self, step: PruneStep) -> Result<Pruned, StoreError> {
        match self.write(Write::Prune(Box::new(step))).await? {
            Reply::Pruned(pruned) => Ok(pruned),
            _ => Err(StoreError::Corrupt("a step of retention was mistaken".into())),
        }
    }

    /// The keys of archived sessions that were touched last between two moments, the one that was touched longest ago
    /// first. Never the primary one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forgotten(
        &self,
        after: Timestamp,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(SessionKey, Timestamp)>, StoreError> {
        self.read(move |connection| {
            let rows = sessions::table
                .filter(sessions::is_current)
                .filter(sessions::archived)
                .filter(sessions::updated_at.gt(after.0))
                .filter(sessions::updated_at.lt(before.0))
                .filter(not(sessions::is_primary))
                .filter(not(sessions::busy))
                .order(sessions::updated_at.asc())
                .limit(limit)
                .select((sessions::key, sessions::updated_at))
                .load::<(String, i64)>(connection)?;
            rows.into_iter().map(|(key, at)| Ok((parse("sessions.key", &key)?, Timestamp(at)))).collect()
        })
        .await
    }

    /// Bytes of the log of a key.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn log_bytes(&self, key: &SessionKey) -> Result<u64, StoreError> {
        let key = key.to_string();
        self.read(move |connection| {
            let sizes = event_batches::table.filter(event_batches::key.eq(&key)).select(event_batches::bytes);
            let sizes = sizes.load::<i64>(connection)?;
            Ok(sizes.into_iter().fold(0u64, |sum, size| sum.saturating_add(u64::try_from(size).unwrap_or(0))))
        })
        .await
    }

    /// Forgets what users used before a day.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_spend(&self, before: i64) -> Result<(), StoreError> {
        self.write(Write::SweepSpend(before)).await.map(drop)
    }

    /// How large the database is now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn size(&self) -> Result<StoreSize, StoreError> {
        let log = self.0.pool.target().log_size();
        self.read(move |connection| size(connection, log)).await
    }

    /// Gives free pages back to the file system, at most so many. Does nothing on Postgres,
    /// whose autovacuum works by itself, and where the file was not made for it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn give_back(&self, pages: u32) -> Result<(), StoreError> {
        self.write(Write::GiveBack(pages)).await.map(drop)
    }

    /// Writes SQLite's log into the file and empties it, once what waits is written and unless a reader is in the way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn empty_log(&self) -> Result<(), StoreError> {
        self.write(Write::EmptyLog).await.map(drop)
    }
}

fn size(connection: &mut AnyConnection, log: u64) -> Result<StoreSize, Fault> {
    #[derive(QueryableByName)]
    struct Pages {
        #[diesel(sql_type = BigInt)]
        pages: i64,
        #[diesel(sql_type = BigInt)]
        free: i64,
        #[diesel(sql_type = BigInt)]
        bytes: i64,
        #[diesel(sql_type = BigInt)]
        vacuum: i64,
    }
    #[derive(QueryableByName)]
    struct Held {
        #[diesel(sql_type = BigInt)]
        bytes: i64,
    }
    match connection {
        AnyConnection::Sqlite(c) => {
            let sql = "SELECT (SELECT page_count FROM pragma_page_count()) AS pages, \
                       (SELECT freelist_count FROM pragma_freelist_count()) AS free, \
                       (SELECT page_size FROM pragma_page_size()) AS bytes, \
                       (SELECT auto_vacuum FROM pragma_auto_vacuum()) AS vacuum";
            let Pages { pages, free, bytes, vacuum } = sql_query(sql).get_result(c)?;
            let of = |pages: i64| u64::try_from(pages.saturating_mul(bytes)).unwrap_or(0);
            Ok(StoreSize { total: of(pages), free: Some(of(free)), log, gives_back: vacuum == INCREMENTAL })
        }
        AnyConnection::Postgres(c) => {
            let sql = "SELECT pg_database_size(current_database()) AS bytes";
            let Held { bytes } = sql_query(sql).get_result(c)?;
            Ok(StoreSize { total: u64::try_from(bytes).unwrap_or(0), ..StoreSize::default() })
        }
    }
}

/// Forgets what users used before a day.
pub(super) fn sweep_spend(connection: &mut AnyConnection, before: i64) -> Result<usize, Fault> {
    Ok(diesel::delete(user_spend::table.filter(user_spend::day.lt(before))).execute(connection)?)
}

/// Gives pages back, inside the writer's transaction.
pub(super) fn give_back(connection: &mut AnyConnection, pages: u32) -> Result<(), Fault> {
    use diesel::connection::SimpleConnection as _;
    match connection {
        // One page a step of the statement: it has to be run to its end, which a query that is asked for rows is not.
        AnyConnection::Sqlite(c) => Ok(c.batch_execute(&format!("PRAGMA incremental_vacuum({pages})"))?),
        AnyConnection::Postgres(_) => Ok(()),
    }
}

/// Writes SQLite's log into the file and cuts it down to nothing, outside of a transaction. A reader that is in the way
/// is not waited for: the log is cut another time.
pub(super) fn empty_log(connection: Option<&mut AnyConnection>) -> Result<(), Fault> {
    use diesel::connection::SimpleConnection as _;
    match connection {
        Some(AnyConnection::Sqlite(c)) => Ok(
            c.batch_execute("PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout = 5000;")?
        ),
        _ => Ok(()),
    }
}
