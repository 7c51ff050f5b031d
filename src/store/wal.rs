//! SQLite's write-ahead log on its way to the disk.
//!
//! A commit has two steps. It is *written* once it is in the log (the file that ends in `-wal`) and so out of this process:
//! a kill takes nothing back. It is *synced* once the disk has confirmed it: a power failure takes nothing back either.
//! SQLite would do both in one (`synchronous = FULL`); here the second is ours, so that an agent can set to work in
//! between. Nobody is told of what is not synced: answers of the writer wait for it, and so do readers, who see what is
//! written.
//!
//! A log that could not be synced is not trusted again: the kernel forgets which of its pages it did not bring to the
//! disk, so that the next sync may succeed without them. Its pages are copied into the database and synced there, and it
//! is begun anew, before anything else is written.
//!
//! A sync is about a third cheaper where the file is not made longer by it, so room is kept after the end of the log: zeros,
//! which are no frames to SQLite. Up to the size at which the log is begun anew anyway, it grows ahead of need, when nothing
//! else is to do.
//!
//! Where a file system writes a file's times with its data, as ext4 without a journal does, a sync that does not find them
//! changed saves a second write. Linux changes them with the first write in a tick of its clock; but, from 6.13 on, with every
//! write after somebody has asked for them (<https://docs.kernel.org/filesystems/multigrain-ts.html>), and a read changes
//! one of them too. So between commits the file is neither asked nor read: how far the log goes is in the index that SQLite
//! keeps beside it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use diesel::{QueryableByName, RunQueryDsl as _, sql_query, sql_types::Integer};

use super::{connection::AnyConnection, fault::Fault};

/// How much longer the log is made at once at most, in bytes.
const STEP: u64 = 1 << 20;
/// Written again and again, rather than as a whole step from the heap.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
/// Pages of the log after which it is copied into the database, and begun anew.
pub(super) const CHECKPOINT: u64 = 8000;
/// How long the log gets until then, in bytes.
const USUAL_SIZE: u64 = CHECKPOINT * FRAME;
/// A page in the log, with its header.
const FRAME: u64 = 4096 + 24;
/// Where the index of the log has the number of its pages, in the machine's byte order (`mxFrame` in
/// <https://sqlite.org/walformat.html>).
const PAGES_AT: u64 = 16;

/// How far commits have come: counted by the writer, waited for by readers. Where nobody counts, as on Postgres, nobody
/// waits.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Commits that were begun: what a reader sees is among them.
    begun: AtomicU64,
    /// Of these, the last one that was synced.
    synced: Mutex<u64>,
    news: Condvar,
    /// Held, the disk hangs; true, it fails.
    #[cfg(test)]
    pub(super) disk: tokio::sync::Mutex<bool>,
}

impl Progress {
    /// Waits until all that can be seen by now is synced.
    pub(super) fn wait(&self, limit: Duration) -> Result<(), Fault> {
        let seen = self.begun.load(Ordering::SeqCst);
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(synced, limit, |synced| *synced < seen);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            let limit = limit.as_secs_f32();
            return Err(Fault::Unavailable(format!("the disk has not confirmed the last commits within {limit} s")));
        }
        Ok(())
    }

    fn all_synced(&self) {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = self.begun.load(Ordering::SeqCst);
        self.news.notify_all();
    }
}

/// The log, as its only writer has it.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    file: Option<File>,
    index_path: PathBuf,
    index: Option<File>,
    /// How long the file was when it was last looked at; zero when that means nothing any more.
    length: u64,
    progress: Arc<Progress>,
    /// True after a sync that failed, or whose outcome is not known.
    failed: bool,
}

impl Wal {
    /// The log of the database at `path`.
    pub(super) fn new(path: &Path, progress: Arc<Progress>) -> Self {
        let (path, index_path) = (path_of(path), named(path, "-shm"));
        Self { path, file: None, index_path, index: None, length: 0, progress, failed: false }
    }

    /// What is committed from now on is not synced until [`Self::sync`]. Called before it can be seen.
    pub(super) fn begin(&self) {
        self.progress.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// Brings to the disk what was committed. Without a connection there may be no log any more: SQLite removes it with the
    /// last one, after it has copied all of it into the database and synced that.
    pub(super) fn sync(&mut self, connected: bool) -> Result<(), Fault> {
        let done = self.sync_file();
        let removed = |error: &io::Error| !connected && error.kind() == io::ErrorKind::NotFound;
        if let Err(error) = done.or_else(|error| if removed(&error) { Ok(()) } else { Err(error) }) {
            self.failed = true;
            return Err(Fault::Unavailable(format!("{}: the disk does not take it: {error}", self.path.display())));
        }
        self.progress.all_synced();
        Ok(())
    }

    fn sync_file(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if *self.progress.disk.blocking_lock() {
            return Err(io::Error::other("it is broken"));
        }
        match &self.file {
            Some(file) => file.sync_data(),
            None => self.file.insert(OpenOptions::new().read(true).write(true).open(&self.path)?).sync_data(),
        }
    }

    /// Whether the room after the end of the log runs short, as far as is known without asking for the file's length.
    pub(super) fn wants_room(&mut self) -> bool {
        let known = self.length;
        self.end().is_ok_and(|end| is_short(end, known))
    }

    /// Where the log ends in its file.
    fn end(&mut self) -> io::Result<u64> {
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(File::open(&self.index_path)?),
        };
        let mut pages = [0; 4];
        index.read_exact_at(&mut pages, PAGES_AT)?;
        Ok(u64::from(u32::from_ne_bytes(pages)) * FRAME)
    }

    /// Makes room where it is short. Nobody else may write meanwhile.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        let end = self.end()?;
        let Some(file) = &self.file else { return Ok(()) };
        self.length = file.metadata()?.len();
        if !is_short(end, self.length) {
            return Ok(());
        }
        let mut room = usize::try_from(STEP - self.length % STEP).unwrap_or(0);
        while room > 0 {
            let zeros = ZEROS.get(..room).unwrap_or(&ZEROS);
            file.write_all_at(zeros, self.length)?;
            room -= zeros.len();
            self.length += zeros.len() as u64;
        }
        file.sync_data()
    }

    /// The connection that kept the files there is gone: the next one may make others.
    pub(super) fn forget(&mut self) {
        (self.file, self.index, self.length) = (None, None, 0);
    }

    /// The file may have been made shorter.
    pub(super) const fn emptied(&mut self) {
        self.length = 0;
    }

    /// Whether everything was synced is not known any more.
    pub(super) const fn doubt(&mut self) {
        self.failed = true;
    }

    /// Makes the database whole without the log, where that could not be synced.
    pub(super) fn heal(&mut self, connection: &mut AnyConnection) -> Result<(), Fault> {
        #[derive(QueryableByName)]
        struct Outcome {
            #[diesel(sql_type = Integer)]
            busy: i32,
        }
        let AnyConnection::Sqlite(c) = connection else { return Ok(()) };
        if !self.failed {
            return Ok(());
        }
        let outcome: Outcome = sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result(c)?;
        if outcome.busy != 0 {
            return Err(Fault::Busy("the log is being read and cannot be begun anew yet".into()));
        }
        self.failed = false;
        self.emptied();
        self.progress.all_synced();
        Ok(())
    }
}

/// Whether a log that ends there runs out of room in a file of that length.
const fn is_short(end: u64, length: u64) -> bool {
    length < USUAL_SIZE && end + STEP / 2 > length
}

/// Where the log of the database at `path` is.
pub(super) fn path_of(path: &Path) -> PathBuf {
    named(path, "-wal")
}

fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use diesel::prelude::*;
    use tokio::time::{sleep, timeout};

    use super::super::{connection::Role, schema::idempotency_keys};
    use crate::{
        config::{self, Secret, StoreConfig},
        store::{IdempotencyRecord, Store, StoreError},
        timestamp::Timestamp,
    };

    fn open(folder: &tempfile::TempDir, limit: config::Duration) -> Store {
        let url = Secret::new(format!("sqlite:{}", folder.path().join("test.db").display()));
        Store::open(&StoreConfig { url: Some(url), timeout: limit, ..StoreConfig::default() }).unwrap()
    }

    fn call(key: &str) -> IdempotencyRecord {
        IdempotencyRecord {
            scope: "s".into(),
            key: key.into(),
            request_hash: String::new(),
            outcome: String::new(),
            created_at: Timestamp::now(),
        }
    }

    async fn is_there(store: &Store, key: &str) -> Result<bool, StoreError> {
        store.idempotency("s", key).await.map(|found| found.is_some())
    }

    #[tokio::test]
    async fn what_the_disk_has_not_confirmed_is_told_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, config::Duration::secs(60));
        store.remember_call(call("first")).await.unwrap();
        let mut aside = store.0.pool.target().connect(Role::Reader).unwrap();
        let mut written = || idempotency_keys::table.count().get_result::<i64>(&mut aside).unwrap();
        let disk = store.disk().lock().await;
        let write = tokio::spawn({
            let store = store.clone();
            async move { store.remember_call(call("second")).await }
        });
        timeout(Duration::from_secs(60), async {
            while written() < 2 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it is written while the disk hangs");
        let read = tokio::spawn({
            let store = store.clone();
            async move { is_there(&store, "second").await }
        });
        // It has what it tells, and keeps it.
        sleep(Duration::from_millis(100)).await;
        assert!(!write.is_finished() && !read.is_finished());
        drop(disk);
        write.await.unwrap().unwrap();
        assert!(read.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_log_that_the_disk_did_not_take_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, config::Duration::secs(3));
        store.remember_call(call("first")).await.unwrap();
        // A reader keeps the log there, whatever becomes of the writer's connection.
        assert!(is_there(&store, "first").await.unwrap());
        *store.disk().lock().await = true;
        let failed = store.remember_call(call("second")).await;
        assert!(matches!(&failed, Err(StoreError::Unavailable(why)) if why.contains("it is broken")), "{failed:?}");
        let unsure = is_there(&store, "second").await;
        assert!(matches!(&unsure, Err(StoreError::Unavailable(_))), "{unsure:?}");
        assert!(store.health().await.is_err());
        // Each log that is begun anew has numbers of its own in its first bytes.
        let header = || std::fs::read(folder.path().join("test.db-wal")).unwrap()[..32].to_vec();
        let unhealed = header();
        *store.disk().lock().await = false;
        store.remember_call(call("third")).await.unwrap();
        assert_ne!(header(), unhealed, "the log was begun anew");
        for key in ["first", "second", "third"] {
            assert!(is_there(&store, key).await.unwrap(), "{key}");
        }
        store.health().await.unwrap();
    }

    #[tokio::test]
    async fn there_is_room_after_the_end_of_the_log_and_a_restart_finds_what_is_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, config::Duration::secs(60));
        let mut stored = 0;
        let log = || store.0.pool.target().log_size();
        while log() < 3 * super::STEP {
            stored += 1;
            let big = IdempotencyRecord { outcome: "x".repeat(60_000), ..call(&stored.to_string()) };
            store.remember_call(big).await.unwrap();
        }
        timeout(Duration::from_secs(60), async {
            // Made longer by a commit, it would end with a frame.
            while log() % super::STEP != 0 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("room is made once nothing else is to do");
        // As after a kill: the files as they are, with the log beside the database.
        let copy = tempfile::tempdir().unwrap();
        for name in ["test.db", "test.db-wal"] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let found = open(&copy, config::Duration::secs(60));
        for number in 1..=stored {
            assert!(is_there(&found, &number.to_string()).await.unwrap(), "{number} of {stored}");
        }
        store.empty_log().await.unwrap();
        store.remember_call(call("after")).await.unwrap();
        timeout(Duration::from_secs(60), async {
            while log() != super::STEP {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("a log that was emptied gets room again");
    }
}
