//! Who calls, and what they may: credentials, visibility, limits, open streams, the audit.
//!
//! Accounts live in the store and, as a [`Book`], in memory: a request is judged without a look at the database, and a
//! change takes effect with one swap. Every change raises a version in the database, so that a server sees what the
//! command line or another server has changed ([`Access::watch`]).
//!
//! Invariants:
//! - Open mode lasts exactly as long as there has never been a token. It ends while the server runs, and never begins
//!   again: revoking the last token locks the door instead of taking it off.
//! - A secret is known by its hash alone and compared in constant time.
//! - Whoever holds a stream holds a [`Lease`]; a revocation ends the lease before the call that revoked is answered.

mod audit;
mod book;
mod guesses;
mod leases;
mod limits;
mod principal;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

pub use crate::protocol::account::Scope;
pub use audit::{Audit, Deed};
pub use book::{Book, invalid as invalid_credentials, missing as missing_credentials};
pub use guesses::Guesses;
pub use leases::{Lease, Leases, Shows};
pub use limits::{Budget, Limits};
pub use principal::{Principal, Via};
use tokio_util::sync::CancellationToken;

use crate::{
    config::CallersConfig,
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{Snapshot, account::AuditEntry, frame::EndReason},
    store::{AccountChange, Store, StoreError},
    timestamp::Timestamp,
};

/// How often a server looks whether another process has changed accounts.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// How many looks lie between two searches for streams whose credentials have expired.
const LOOKS_PER_EXPIRY: u32 = 5;
/// How many looks lie between two writes of when tokens were last used.
const LOOKS_PER_WRITE: u32 = 150;

/// Who may call this server.
pub struct Access {
    book: RwLock<Arc<Book>>,
    store: Store,
    /// Streams that are open.
    pub leases: Leases,
    /// What each caller may use up.
    pub limits: Limits,
    /// Who was wrong of late.
    pub guesses: Guesses,
    /// What was done.
    pub audit: Audit,
    /// Fires when the server stops and sessions have ended their streams: what is still open then ends.
    pub stopping: CancellationToken,
}

impl Access {
    /// Reads all accounts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(store: Store, config: &CallersConfig) -> Result<Self, StoreError> {
        let book = Book::new(store.accounts().await?);
        store.accounts_seen(book.version()).await?;
        Ok(Self {
            book: RwLock::new(Arc::new(book)),
            leases: Leases::default(),
            limits: Limits::new(config),
            guesses: Guesses::new(config.wrong_credentials),
            audit: Audit::start(store.clone()),
            stopping: CancellationToken::new(),
            store,
        })
    }

    /// The accounts as they are now.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The caller as its credentials allow now: scopes, organisations and the credentials themselves may have changed
    /// since it was let in.
    ///
    /// # Errors
    /// `missing_credentials` when open mode is over, `invalid_credentials` when they are revoked or expired.
    pub fn renew(&self, who: &Principal) -> Result<Principal, ApiError> {
        self.book().renew(who, Timestamp::now())
    }

    /// Makes a change of credentials and goes by it: when this returns, it is in force, for open streams too. How many
    /// rows changed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change(&self, change: AccountChange, audit: AuditEntry) -> Result<usize, StoreError> {
        let changed = self.store.change_accounts(change, Some(audit)).await?;
        self.reload().await?;
        Ok(changed)
    }

    /// Goes by the accounts as they are in the store, and ends the streams of those who may not call any more. Gives the
    /// sessions that are followed by others than their owners, who may not see them any more: see
    /// `Leases::end_strangers`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reload(&self) -> Result<Vec<SessionKey>, StoreError> {
        let mut fresh = Book::new(self.store.accounts().await?);
        let version = fresh.version();
        {
            let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
            // Of two reloads at once the one that read first may come last.
            if fresh.version() >= book.version() {
                fresh.take_uses(&book);
                *book = Arc::new(fresh);
            }
        }
        self.end_invalid();
        self.store.accounts_seen(version).await?;
        Ok(self.leases.foreign())
    }

    fn end_invalid(&self) {
        let (book, now) = (self.book(), Timestamp::now());
        self.leases.end_where(EndReason::CredentialsRevoked, |who| book.renew(who, now).is_err());
    }

    /// Looks for changes that other processes make, ends the streams of credentials that have expired, and writes down
    /// when tokens were last used; for ever. `recheck` gets the sessions whose strangers have to be looked at.
    pub async fn watch<F: Future<Output = ()>>(&self, recheck: impl Fn(Vec<SessionKey>) -> F) {
        let mut looks = 0u32;
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            match self.look().await {
                Ok(keys) if keys.is_empty() => {}
                Ok(keys) => recheck(keys).await,
                Err(error) => log::debug!("accounts cannot be read now: {error}"),
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_EXPIRY) && !self.book().is_open() {
                self.end_invalid();
            }
            if looks.is_multiple_of(LOOKS_PER_WRITE) {
                self.note_uses().await;
            }
        }
    }

    async fn look(&self) -> Result<Vec<SessionKey>, StoreError> {
        if self.store.account_version().await?.0 == self.book().version() {
            Ok(Vec::new())
        } else {
            self.reload().await
        }
    }

    /// Writes down when tokens were last used.
    pub async fn note_uses(&self) {
        let uses = self.book().uses();
        if !uses.is_empty()
            && let Err(error) = self.store.tokens_used(uses).await
        {
            log::debug!("the last use of tokens cannot be written now: {error}");
        }
    }

    /// Ends the streams of a session whose followers may not see it as it is now. The session calls it before it shows
    /// them what takes it out of their sight.
    pub fn end_strangers(&self, session: &Snapshot) {
        let sees = |who: &Principal| self.renew(who).is_ok_and(|who| who.may_see(session));
        self.leases.end_strangers(&session.key, sees);
    }

    /// Lets a stream begin: counts it, and takes note of what ends it.
    ///
    /// # Errors
    /// `rate_limited` when the caller has too many; what [`Access::renew`] gives when it may not call any more.
    pub fn lease(&self, who: &Principal, shows: Shows<'_>) -> Result<Lease, ApiError> {
        let limit = if shows == Shows::Nothing { 0 } else { self.limits.of(who).max_streams };
        // A token of its own: streams of many threads do not meet at one lock for every piece.
        let ended = self.stopping.child_token();
        let lease = self.leases.add(who, shows, limit, ended).ok_or_else(|| {
            let message = format!("you have {limit} streams open; close one first");
            ApiError::new(Code::RateLimited, message).with("limit", limit).with("of", "streams")
        })?;
        // After it is listed, so that no revocation falls between the two.
        self.renew(who)?;
        Ok(lease)
    }
}
