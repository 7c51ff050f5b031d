//! Streams that are open: whose they are, what they show, and how to end them. One place for all transports, so that
//! nothing that is revoked goes on anywhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::Principal;
use crate::{ids::SessionKey, protocol::frame::EndReason};

/// All open streams; cheap to clone.
#[derive(Clone, Default)]
pub struct Leases(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Open>,
    counts: HashMap<String, u32>,
}

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows<'a> {
    /// A stream of one session, and whether that is somebody else's, shown to no admin.
    Session(&'a SessionKey, bool),
    /// A stream of no single session: over all of them, or of the log.
    All,
    /// No stream but a connection, or a call that waits: it ends like one, and is not counted.
    Nothing,
}

struct Open {
    who: Principal,
    /// The session that it shows, where it is one.
    key: Option<SessionKey>,
    /// True where it takes one of the caller's places.
    counted: bool,
    /// True when it shows somebody else's session to no admin: what others may see can change.
    foreign: bool,
    ended: CancellationToken,
    reason: Arc<OnceLock<EndReason>>,
}

impl Open {
    fn end(&self, reason: EndReason) {
        // The first reason is the one that is told.
        let _ = self.reason.set(reason);
        self.ended.cancel();
    }
}

/// The right to go on with one stream. Dropping it says that the stream is over.
pub struct Lease {
    leases: Leases,
    id: u64,
    ended: CancellationToken,
    reason: Arc<OnceLock<EndReason>>,
}

impl Lease {
    /// Waits until the stream has to end, and says why: the credentials or the session are out of reach, or the server
    /// stops.
    pub async fn ended(&self) -> EndReason {
        self.ended.cancelled().await;
        self.reason.get().copied().unwrap_or(EndReason::ShuttingDown)
    }

    /// Why the stream has to end now, if it was taken away; none while it may go on.
    #[must_use]
    pub fn revoked(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.leases.lock();
        let Some(open) = inner.open.remove(&self.id).filter(|open| open.counted) else { return };
        if let Some(count) = inner.counts.get_mut(&open.who.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.counts.remove(&open.who.user);
            }
        }
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a stream, or what ends like one; none when the caller has `limit` already.
    pub(super) fn add(&self, who: &Principal, shows: Shows<'_>, limit: u32, ended: CancellationToken) -> Option<Lease> {
        let mut inner = self.lock();
        let counted = shows != Shows::Nothing;
        if counted {
            let count = inner.counts.entry(who.user.clone()).or_default();
            if limit > 0 && *count >= limit {
                return None;
            }
            *count += 1;
        }
        let id = inner.next;
        inner.next += 1;
        let reason = Arc::default();
        let lease = Lease { leases: self.clone(), id, ended: ended.clone(), reason: Arc::clone(&reason) };
        let (key, foreign) = match shows {
            Shows::Session(key, foreign) => (Some(key.clone()), foreign),
            Shows::All | Shows::Nothing => (None, false),
        };
        inner.open.insert(id, Open { who: who.clone(), key, counted, foreign, ended, reason });
        Some(lease)
    }

    /// Ends the streams of such callers.
    pub(super) fn end_where(&self, reason: EndReason, over: impl Fn(&Principal) -> bool) {
        self.lock().open.values().filter(|open| over(&open.who)).for_each(|open| open.end(reason));
    }

    /// The sessions that are shown to others than their owners.
    pub(super) fn foreign(&self) -> Vec<SessionKey> {
        let mut keys: Vec<SessionKey> =
            self.lock().open.values().filter(|open| open.foreign).filter_map(|open| open.key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Ends the streams of a session whose followers may not see it any more. The owner's go on.
    pub(super) fn end_strangers(&self, key: &SessionKey, sees: impl Fn(&Principal) -> bool) {
        let inner = self.lock();
        let of_session = inner.open.values().filter(|open| open.foreign && open.key.as_ref() == Some(key));
        of_session.filter(|open| !sees(&open.who)).for_each(|open| open.end(EndReason::AccessLost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Principal {
        Principal { user: name.into(), ..Principal::local() }
    }

    #[tokio::test]
    async fn streams_are_counted_by_user_and_end_with_a_reason() {
        let leases = Leases::default();
        let key: SessionKey = "k".parse().unwrap();
        let add = |name: &str, foreign, limit| {
            leases.add(&user(name), Shows::Session(&key, foreign), limit, CancellationToken::new())
        };
        let (alice, bob) = (add("alice", false, 1).unwrap(), add("bob", true, 0).unwrap());
        assert!(add("alice", false, 1).is_none());
        assert!(leases.add(&user("alice"), Shows::All, 1, CancellationToken::new()).is_none());
        assert!(leases.add(&user("alice"), Shows::Nothing, 1, CancellationToken::new()).is_some());
        assert_eq!(leases.foreign(), std::slice::from_ref(&key));
        leases.end_strangers(&key, |who| who.user != "bob");
        assert_eq!(bob.ended().await, EndReason::AccessLost);
        leases.end_where(EndReason::CredentialsRevoked, |_| true);
        assert_eq!(alice.ended().await, EndReason::CredentialsRevoked);
        assert_eq!(bob.ended().await, EndReason::AccessLost, "the first reason stays");
        drop((alice, bob));
        assert!(leases.lock().open.is_empty() && leases.lock().counts.is_empty());
        assert!(add("alice", false, 1).is_some());
    }
}
