//! The audit's way to the disk: entries go out in batches right after what they report, and cost their callers no wait.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::Principal;
use crate::{
    ids::SessionKey,
    protocol::account::AuditEntry,
    store::{Store, StoreError},
    timestamp::Timestamp,
    watchdog,
};

/// Entries that may wait to be written.
const WAITING: usize = 16_384;
/// Entries in one write.
const BATCH: usize = 256;
/// How long a failed write waits before it is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Deed<'a> {
    /// What, as `session.delete`.
    pub action: &'static str,
    /// To which session.
    pub session: Option<&'a SessionKey>,
    /// Whose session, or which user it was about.
    pub owner: &'a str,
    /// Ids, names of fields, counts: an object. Never a secret, never the text of a message.
    pub detail: Value,
}

impl Deed<'_> {
    /// The entry of this deed.
    #[must_use]
    pub fn by(self, who: &Principal) -> AuditEntry {
        AuditEntry {
            // Not the id type's own: these ids have to come in order.
            id: uuid::Uuid::now_v7().into(),
            at: Timestamp::now(),
            actor: who.user.clone(),
            token_id: who.via.token(),
            action: self.action.to_owned(),
            session: self.session.cloned(),
            owner: self.owner.to_owned(),
            detail: match self.detail {
                Value::Object(detail) => detail,
                _ => Map::new(),
            },
            ip: who.ip.map(|ip| ip.to_string()),
        }
    }
}

enum Job {
    Entry(Box<AuditEntry>),
    Flush(oneshot::Sender<()>),
}

/// Takes entries; cheap to clone.
#[derive(Clone)]
pub struct Audit(mpsc::Sender<Job>);

impl Audit {
    /// An audit in that store. Must be called inside a runtime; ends with the last handle.
    #[must_use]
    pub fn start(store: Store) -> Self {
        let (sender, jobs) = mpsc::channel(WAITING);
        let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
        tokio::spawn(watchdog::keep("audit", move || {
            let (store, jobs) = (store.clone(), Arc::clone(&jobs));
            async move { write_all(store, &mut *jobs.lock().await).await }
        }));
        Self(sender)
    }

    /// Notes an entry. When the database has been out of reach for so long that no more can wait, it goes to the log.
    pub fn note(&self, entry: AuditEntry) {
        match self.0.try_send(Job::Entry(Box::new(entry))) {
            Ok(()) => {}
            Err(TrySendError::Full(Job::Entry(entry)) | TrySendError::Closed(Job::Entry(entry))) => lost(&entry),
            Err(_) => {}
        }
    }

    /// Entries that wait, and how many may.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.0.max_capacity() - self.0.capacity(), self.0.max_capacity())
    }

    /// Waits until all that was noted is on disk, or could not be written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.send(Job::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

fn lost(entry: &AuditEntry) {
    let entry = serde_json::to_string(entry).unwrap_or_default();
    log::error!(entry; "an entry of the audit could not be stored");
}

async fn write_all(store: Store, jobs: &mut mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let (mut entries, mut waiting) = (Vec::new(), Vec::new());
        for job in batch.drain(..) {
            match job {
                Job::Entry(entry) => entries.push(*entry),
                Job::Flush(done) => waiting.push(done),
            }
        }
        if !entries.is_empty() {
            write(&store, entries, !waiting.is_empty()).await;
        }
        for done in waiting {
            // Who no longer waits does not want to know.
            let _ = done.send(());
        }
    }
}

/// Writes entries; tried until it works, but not while somebody waits.
async fn write(store: &Store, entries: Vec<AuditEntry>, hurry: bool) {
    loop {
        match store.append_audit(entries.clone()).await {
            Ok(()) => return,
            Err(StoreError::Unavailable(_)) if !hurry => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                log::error!(error:% = error; "the audit cannot be written");
                return entries.iter().for_each(lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_may_wait_holds_nobody_up() {
        let (sender, mut jobs) = mpsc::channel(2);
        let audit = Audit(sender);
        let note = |action| {
            let deed = Deed { action, session: None, owner: "local", detail: Value::Null };
            audit.note(deed.by(&Principal::local()));
        };
        // Nobody writes: the last one finds no place, and goes to the log.
        ["a", "b", "c"].into_iter().for_each(note);
        assert_eq!(audit.load(), (2, 2));
        let mut next = || match jobs.try_recv() {
            Ok(Job::Entry(entry)) => Some(entry.action),
            _ => None,
        };
        assert_eq!([next(), next(), next()], [Some("a".into()), Some("b".into()), None]);
        assert_eq!(audit.load(), (0, 2));
    }
}
