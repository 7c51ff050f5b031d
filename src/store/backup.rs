//! A copy of the database as it is at one moment, also while a server works on it.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _, sql_query,
    sql_types::Text,
};

use super::StoreError;
use crate::config::StoreConfig;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Its size in bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

#[derive(QueryableByName)]
struct Verdict {
    #[diesel(sql_type = Text)]
    quick_check: String,
}

/// Copies the SQLite database of `config` to a new file at `to`: everything that was committed when it began, in one
/// file without a log beside it, checked before it gets its name. A server that works on the database goes on meanwhile.
///
/// # Errors
/// [`StoreError::Setup`] where there is no database, the target exists or cannot be written, and for Postgres, which has a
/// tool of its own for it; [`StoreError::Unavailable`] when the copy fails on the way. Nothing is left at `to` then.
pub fn backup(config: &StoreConfig, to: &Path) -> Result<Backup, StoreError> {
    let began = Instant::now();
    let setup = |what: String| StoreError::Setup(what);
    let url = config.url.as_ref().map(|url| url.expose()).unwrap_or_default();
    let Some(from) = url.strip_prefix("sqlite:") else {
        return Err(setup(
            "Postgres is backed up with its own tool: pg_dump --format=custom --file FILE DATABASE-URL".into(),
        ));
    };
    let from = from.strip_prefix("//").unwrap_or(from);
    if !Path::new(from).is_file() {
        return Err(setup(format!("{from}: there is no database; name it with --database or --data-dir")));
    }
    if to.exists() {
        return Err(setup(format!("{}: there is a file already; a backup does not replace one", to.display())));
    }
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = Path::new(&name);
    let done = copy(from, part).and_then(|()| {
        let bytes = fs::metadata(part).map_err(|error| failed(part, &error))?.len();
        fs::rename(part, to).map_err(|error| failed(to, &error))?;
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // The name must survive a power cut as the content does.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(to, &error))?;
        }
        Ok(Backup { bytes, took: began.elapsed() })
    });
    if done.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(part);
    }
    done
}

fn copy(from: &str, part: &Path) -> Result<(), StoreError> {
    let target =
        part.to_str().ok_or_else(|| StoreError::Setup(format!("{}: the path must be UTF-8", part.display())))?;
    // For its owner only, like the database itself; SQLite takes an empty file as none.
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(part);
    made.map_err(|error| failed(part, &error))?;
    let broken = |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("backup of {from}: {error}"));
    let mut source = SqliteConnection::establish(from).map_err(|error| broken(&error))?;
    source.batch_execute("PRAGMA busy_timeout = 10000;").map_err(|error| broken(&error))?;
    sql_query("VACUUM INTO ?").bind::<Text, _>(target).execute(&mut source).map_err(|error| broken(&error))?;
    let mut copy = SqliteConnection::establish(target).map_err(|error| broken(&error))?;
    let verdict = sql_query("PRAGMA quick_check").get_result::<Verdict>(&mut copy).map_err(|error| broken(&error))?;
    drop(copy);
    if verdict.quick_check != "ok" {
        return Err(broken(&format!("the copy is damaged: {}", verdict.quick_check)));
    }
    let file = File::open(part).and_then(|file| file.sync_all());
    file.map_err(|error| failed(part, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Setup(format!("{}: {error}", path.display()))
}
