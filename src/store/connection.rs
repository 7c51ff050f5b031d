//! Connections: which database an URL means, how a connection to it is set up, and transactions on it.
//!
//! Everything else in this room is written once for both databases; `each!` is for the few statements that diesel's
//! `MultiConnection` cannot express, and for the hottest ones.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use diesel::{
    Connection, PgConnection, SqliteConnection,
    connection::{AnsiTransactionManager, SimpleConnection as _, TransactionManager},
};

use super::{
    StoreError,
    fault::Fault,
    postgres_url,
    wal::{self, CHECKPOINT, Progress, Wal},
};
use crate::config::{Durability, Secret, StoreConfig};

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub(super) enum AnyConnection {
    /// SQLite.
    Sqlite(SqliteConnection),
    /// Postgres.
    Postgres(PgConnection),
}

/// Expands an expression once per database, with the concrete connection under a name.
macro_rules! each {
    ($connection:expr, $c:ident => $body:expr) => {
        match $connection {
            $crate::store::connection::AnyConnection::Sqlite($c) => $body,
            $crate::store::connection::AnyConnection::Postgres($c) => $body,
        }
    };
}
pub(super) use each;

/// Which database, and how to talk to it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    place: Place,
    durability: Durability,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum Place {
    Sqlite(PathBuf),
    Postgres(Secret),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It writes.
    Writer,
    /// It only reads; the database refuses anything else.
    Reader,
}

impl Target {
    /// Reads the configuration. For SQLite the file and its folder are made where they are missing.
    pub(super) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let setup = |text: &str| Err(StoreError::Setup(format!("store.url: {text}")));
        let Some(url) = &config.url else {
            return setup("missing; write sqlite:PATH or postgres://USER@HOST/DATABASE");
        };
        let place = if let Some(path) = url.expose().strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" {
                return setup("sqlite needs a file, as in sqlite:greenroom.db; sessions must survive the process");
            }
            Place::Sqlite(prepare_file(Path::new(path))?)
        } else if url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://") {
            Place::Postgres(Secret::new(postgres_url::with_limits(url.expose())?))
        } else {
            // The URL itself is not shown: with a misspelt scheme it may still hold a password.
            return setup("must begin with sqlite: or postgres://");
        };
        Ok(Self { place, durability: config.durability, timeout: config.timeout.0 })
    }

    /// True for SQLite, which takes one writer.
    pub(super) const fn is_sqlite(&self) -> bool {
        matches!(self.place, Place::Sqlite(_))
    }

    /// The size of SQLite's log, in bytes.
    pub(super) fn log_size(&self) -> u64 {
        let Place::Sqlite(path) = &self.place else { return 0 };
        // A log that is not there is empty.
        std::fs::metadata(wal::path_of(path)).map_or(0, |data| data.len())
    }

    /// SQLite's log, where its writer has to bring it to the disk.
    pub(super) fn wal(&self, progress: Arc<Progress>) -> Option<Wal> {
        match (&self.place, self.durability) {
            (Place::Sqlite(path), Durability::Full) => Some(Wal::new(path, progress)),
            (Place::Sqlite(_), Durability::Normal) | (Place::Postgres(_), _) => None,
        }
    }

    /// Makes sure that nobody else works on the same SQLite file for as long as the answer lives. Postgres is made to
    /// be shared.
    pub(super) fn lock(&self) -> Result<Option<File>, StoreError> {
        let in_use = |path: &Path| {
            StoreError::Setup(format!(
                "{}: another server is using this database; stop it first, or give this one another --database",
                path.display()
            ))
        };
        match (&self.place, self.try_lock()?) {
            (Place::Sqlite(path), None) => Err(in_use(path)),
            (_, lock) => Ok(lock),
        }
    }

    /// The lock of [`Self::lock`] where it is free.
    pub(super) fn try_lock(&self) -> Result<Option<File>, StoreError> {
        let Place::Sqlite(path) = &self.place else { return Ok(None) };
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let failed = |what: String| StoreError::Setup(format!("{}: {what}", Path::new(&name).display()));
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&name);
        let file = file.map_err(|error| failed(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error.to_string())),
        }
    }

    /// Connects.
    pub(super) fn connect(&self, role: Role) -> Result<AnyConnection, Fault> {
        let connection = match &self.place {
            Place::Sqlite(path) => {
                let shown = path.display().to_string();
                let connection = SqliteConnection::establish(&shown);
                let mut connection = connection.map_err(|error| Fault::Unavailable(format!("{shown}: {error}")))?;
                connection.batch_execute(&Self::pragmas(role))?;
                AnyConnection::Sqlite(connection)
            }
            Place::Postgres(url) => {
                let connection = PgConnection::establish(url.expose());
                let mut connection =
                    connection.map_err(|error| Fault::Unavailable(postgres_url::redact(url, &error.to_string())))?;
                connection.batch_execute(&self.settings(role))?;
                AnyConnection::Postgres(connection)
            }
        };
        Ok(connection)
    }

    fn pragmas(role: Role) -> String {
        // COMMIT does not wait for the disk; see `wal.rs`. The wait for locks comes first, for the others may have to wait.
        // The writer's cache holds the pages of a full batch of as many sessions, which would go to the log twice otherwise; it is taken only as it is needed. The log is
        // checkpointed every 32 MiB, since hot pages are in it many times, and cut down after a burst. Whether free pages
        // can be given back is decided when the first page of a file is written, so it comes before the journal's mode.
        let common = "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;";
        match role {
            Role::Writer => format!(
                "PRAGMA busy_timeout = 5000; PRAGMA auto_vacuum = INCREMENTAL; {common} PRAGMA synchronous = NORMAL; PRAGMA cache_size = -6000; \
                 PRAGMA wal_autocheckpoint = {CHECKPOINT}; PRAGMA journal_size_limit = 67108864;"
            ),
            Role::Reader => {
                format!("PRAGMA busy_timeout = 5000; {common} PRAGMA cache_size = -1000; PRAGMA query_only = ON;")
            }
        }
    }

    fn settings(&self, role: Role) -> String {
        let millis = self.timeout.as_millis().max(1);
        let limits = format!(
            "SET statement_timeout = {millis}; SET lock_timeout = {millis}; \
             SET idle_in_transaction_session_timeout = {};",
            millis.saturating_mul(3)
        );
        match (role, self.durability) {
            (Role::Reader, _) => format!("{limits} SET default_transaction_read_only = on;"),
            (Role::Writer, Durability::Full) => format!("{limits} SET synchronous_commit = on;"),
            (Role::Writer, Durability::Normal) => format!("{limits} SET synchronous_commit = off;"),
        }
    }
}

/// Makes the folder (for its owner only, when it is new) and the file (likewise), and gives the file's full path, so
/// that two names of one file get one lock.
fn prepare_file(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |what: &dyn std::fmt::Display| StoreError::Setup(format!("{}: {what}", path.display()));
    let path = std::path::absolute(path).map_err(|error| failed(&error))?;
    if let Some(folder) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(&error))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    file.map_err(|error| failed(&error))?;
    let path = path.canonicalize().map_err(|error| failed(&error))?;
    if path.to_str().is_none() { Err(failed(&"the path must be UTF-8")) } else { Ok(path) }
}

/// Begins a transaction that writes.
pub(super) fn begin(connection: &mut AnyConnection) -> Result<(), Fault> {
    match connection {
        // Takes the write lock at once: a transaction that reads first could find it taken in its middle.
        AnyConnection::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE")?,
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction(c)?,
    }
    Ok(())
}

/// Commits.
pub(super) fn commit(connection: &mut AnyConnection) -> Result<(), Fault> {
    Ok(each!(connection, c => AnsiTransactionManager::commit_transaction(c))?)
}

/// Rolls back; an error means that the connection is of no more use.
pub(super) fn roll_back(connection: &mut AnyConnection) -> Result<(), Fault> {
    Ok(each!(connection, c => AnsiTransactionManager::rollback_transaction(c))?)
}

/// Several reads of one moment.
pub(super) fn at_one_moment<T>(
    connection: &mut AnyConnection,
    read: impl FnOnce(&mut AnyConnection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match connection {
        AnyConnection::Sqlite(c) => AnsiTransactionManager::begin_transaction(c)?,
        AnyConnection::Postgres(c) => {
            AnsiTransactionManager::begin_transaction_sql(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        }
    }
    let result = read(connection);
    roll_back(connection)?;
    result
}
