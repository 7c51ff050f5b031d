//! Giving back what a database file holds and does not use, with the server stopped: `VACUUM`.
//!
//! A running server gives pages back by itself. This is for a file that was made before it could, and after much was
//! deleted at once.

use diesel::connection::SimpleConnection as _;

use super::{
    StoreError,
    connection::{AnyConnection, Role, Target},
    fault::Fault,
};
use crate::config::StoreConfig;

/// What came of it: sizes of the file in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vacuumed {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

/// Writes the SQLite database of `config` anew, without what it does not use, so that from now on a server gives free
/// pages back while it works. Needs as much room again beside it until it is done.
///
/// # Errors
/// [`StoreError::Setup`] where there is no database or a server works on it, and for Postgres, which does it by itself.
pub fn vacuum(config: &StoreConfig) -> Result<Vacuumed, StoreError> {
    let url = config.url.as_ref().map(|url| url.expose()).unwrap_or_default();
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(StoreError::Setup("Postgres vacuums by itself; VACUUM FULL in psql gives the space back".into()));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    let size = || {
        let size = std::fs::metadata(path).map(|data| data.len());
        size.map_err(|error| StoreError::Setup(format!("{path}: {error}")))
    };
    let before = size()?;
    let target = Target::new(config)?;
    let _lock = target.lock()?;
    let failed = |fault: Fault| StoreError::Setup(format!("{path}: {}", StoreError::from(fault)));
    let AnyConnection::Sqlite(mut c) = target.connect(Role::Writer).map_err(failed)? else {
        return Err(StoreError::Setup(format!("{path}: not an SQLite database")));
    };
    // The mode of a file that has its first page changes with the whole file alone.
    c.batch_execute("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
        .map_err(|error| failed(error.into()))?;
    drop(c);
    Ok(Vacuumed { before, after: size()? })
}
