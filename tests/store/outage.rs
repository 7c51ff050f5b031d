//! Databases that fail and come back: nothing acknowledged is lost, nothing is written twice, the store heals.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use diesel::{Connection as _, PgConnection, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use greenroom::{
    config::{Duration, Secret, StoreConfig},
    store::{AppendError, Store, StoreError},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Database, Kind, build::*, postgres, run};

fn is_unavailable<T>(result: &Result<T, AppendError>) -> bool {
    matches!(result, Err(AppendError::Store(StoreError::Unavailable(_))))
}

async fn count(store: &Store) -> usize {
    store.events(&key("k"), 0, 100_000, usize::MAX).await.unwrap().unwrap().events.len()
}

/// A limit on the size of files stands for a full disk: writes beyond it fail in the same place. It holds for a whole
/// process, and the signal that comes with it must be ignored, so the case runs in a process of its own.
#[test]
fn a_full_disk_makes_the_store_unavailable_until_there_is_room() {
    let output = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "outage::within_a_file_size_limit", "--ignored", "--nocapture"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by a_full_disk_makes_the_store_unavailable_until_there_is_room"]
fn within_a_file_size_limit() {
    run(Kind::Sqlite, |db| async move {
        let store = db.open();
        store.append(create(&session(&key("k")))).await.unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 256 * 1024, hard).unwrap();
        let large = "x".repeat(50_000);
        let mut written = 1;
        let refused = loop {
            match store.append(append(&key("k"), 1, written, &[&large])).await {
                Ok(()) => written += 1,
                Err(error) => break Err::<(), _>(error),
            }
            assert!(written < 100, "the limit does not hold");
        };
        assert!(is_unavailable(&refused), "{refused:?}");
        assert!(store.health().await.is_err());
        assert_eq!(count(&store).await as u64, written, "reading goes on");

        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        store.append(append(&key("k"), 1, written, &[&large])).await.unwrap();
        store.health().await.unwrap();
        assert_eq!(count(&store).await as u64, written + 1);
        drop(store);
        assert_eq!(count(&db.open()).await as u64, written + 1);
    });
}

#[test]
fn somebody_elses_lock_makes_the_store_unavailable_until_it_is_gone() {
    run(Kind::Sqlite, |db| async move {
        let store = db.open();
        store.append(create(&session(&key("k")))).await.unwrap();
        let mut other = SqliteConnection::establish(db.url.trim_start_matches("sqlite:")).unwrap();
        // The writer may still keep room after its log.
        other.batch_execute("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE").unwrap();
        let refused = store.append(append(&key("k"), 1, 1, &["x"])).await;
        assert!(is_unavailable(&refused), "{refused:?}");
        assert_eq!(count(&store).await, 1, "reading goes on");
        other.batch_execute("ROLLBACK").unwrap();
        store.append(append(&key("k"), 1, 1, &["x"])).await.unwrap();
        store.health().await.unwrap();
    });
}

#[test]
fn lost_connections_are_made_again() {
    run(Kind::Postgres, |db| async move {
        let store = db.open();
        store.append(create(&session(&key("k")))).await.unwrap();
        let mut admin = PgConnection::establish(&db.url).unwrap();
        for seq in 1..=3 {
            assert_eq!(count(&store).await as u64, seq);
            let killed = diesel::sql_query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
            assert!(killed.execute(&mut admin).unwrap() >= 2, "a writer and a reader");
            store.append(append(&key("k"), 1, seq, &["x"])).await.unwrap();
        }
        assert_eq!(count(&store).await, 4);
        store.health().await.unwrap();
    });
}

/// What the wire to Postgres does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    /// Breaks when the next COMMIT comes along, before the server gets it.
    BreakBeforeCommit,
    /// Breaks when the answer to the next COMMIT comes along, before the client gets it.
    BreakAfterCommit,
    /// Lets nothing through.
    Cut,
}

/// A Postgres behind a wire that can break.
struct Proxy {
    folder: tempfile::TempDir,
    wire: Arc<Mutex<Wire>>,
}

impl Proxy {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wire = Arc::new(Mutex::new(Wire::Whole));
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (server, state) = (postgres::server().folder.join(".s.PGSQL.5432"), Arc::clone(&wire));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if *state.lock().unwrap() != Wire::Cut {
                    forward(client.unwrap(), &server, &state);
                }
            }
        });
        Self { folder, wire }
    }

    fn set(&self, wire: Wire) {
        *self.wire.lock().unwrap() = wire;
    }

    fn url(&self, folder: &Path, url: &str) -> String {
        url.replace(&folder.display().to_string(), &self.folder.path().display().to_string())
    }
}

fn forward(client: UnixStream, server: &PathBuf, wire: &Arc<Mutex<Wire>>) {
    let server = UnixStream::connect(server).unwrap();
    let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(wire));
    // True once the COMMIT whose answer is to get lost is on its way.
    let committing = Arc::new(Mutex::new(false));
    let ((mut from, mut to, state), flag) = (ends(), Arc::clone(&committing));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let commits = buffer[..n].windows(6).any(|part| part == b"COMMIT");
            let mut wire = state.lock().unwrap();
            match *wire {
                Wire::BreakBeforeCommit if commits => {
                    *wire = Wire::Whole;
                    break;
                }
                Wire::BreakAfterCommit if commits => {
                    *flag.lock().unwrap() = true;
                    *wire = Wire::Whole;
                }
                Wire::Cut => break,
                _ => {}
            }
            drop(wire);
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    });
    let (mut to, mut from, state) = ends();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let broken = *committing.lock().unwrap() || *state.lock().unwrap() == Wire::Cut;
            if broken || to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    });
}

fn behind(proxy: &Proxy, db: &Database) -> StoreConfig {
    let url = proxy.url(&postgres::server().folder, &db.url);
    StoreConfig { url: Some(Secret::new(url)), timeout: Duration::secs(5), ..StoreConfig::default() }
}

#[test]
fn a_commit_whose_answer_gets_lost_is_made_once() {
    run(Kind::Postgres, |db| async move {
        let proxy = Proxy::start();
        let store = Store::open(&behind(&proxy, &db)).unwrap();
        let record = session(&key("k"));
        store.append(create(&record)).await.unwrap();
        let breaks = [Wire::BreakAfterCommit, Wire::BreakBeforeCommit, Wire::BreakAfterCommit];
        for (seq, wire) in (1..).zip(breaks) {
            proxy.set(wire);
            let mut next = append(&key("k"), 1, seq, &["x"]);
            next.messages = numbered(record.snapshot.id, seq, [message("m")]);
            store.append(next).await.unwrap();
            assert_eq!(*proxy.wire.lock().unwrap(), Wire::Whole, "{wire:?}: it did not break");
        }
        // Also where the answer says something that cannot be had a second time.
        proxy.set(Wire::BreakAfterCommit);
        assert_eq!(store.claim(&key("k")).await.unwrap().unwrap().epoch, 2);
        assert_eq!(count(&store).await, 4);
        assert_eq!(store.transcript(record.snapshot.id, 10, u64::MAX).await.unwrap().len(), 3);
        store.health().await.unwrap();
    });
}

#[test]
fn a_postgres_out_of_reach_makes_the_store_unavailable_until_it_is_back() {
    run(Kind::Postgres, |db| async move {
        let proxy = Proxy::start();
        let store = Store::open(&behind(&proxy, &db)).unwrap();
        store.append(create(&session(&key("k")))).await.unwrap();
        assert_eq!(count(&store).await, 1);
        proxy.set(Wire::Cut);
        let refused = store.append(append(&key("k"), 1, 1, &["x"])).await;
        assert!(is_unavailable(&refused), "{refused:?}");
        assert!(matches!(store.session(&key("k")).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.health().await, Err(StoreError::Unavailable(_))));
        proxy.set(Wire::Whole);
        store.append(append(&key("k"), 1, 1, &["x"])).await.unwrap();
        assert_eq!(count(&store).await, 2);
        store.health().await.unwrap();
    });
}
