//! Endpoints in memory: those of the configuration, and those that are told of events now.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::Outbound;
use crate::{
    config,
    session::passes,
    store::{EndpointChange, EndpointRecord, StoreError},
    timestamp::Timestamp,
    webhooks::signature::Secret,
};

/// Why an endpoint that was configured once is disabled.
pub const NOT_CONFIGURED: &str = "not_configured";

/// How the names of the endpoints begin that are told of the turns of a route: names that are configured have no colon.
pub const REPLY: &str = "reply:";

/// An endpoint of the configuration.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Its name, unique among them.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Types of events, or prefixes of types.
    pub types: Vec<String>,
    /// Keys of sessions, or beginnings of keys with a `*` behind; none is all.
    pub sessions: Option<Vec<String>>,
    /// What deliveries are signed with.
    pub secret: Secret,
    /// Whose eyes count; none is the operator, who sees everything.
    pub owner: Option<String>,
    /// Only the ends of turns with this source, each with the final text.
    pub source: Option<String>,
}

impl Configured {
    /// The key of the configuration that says its address.
    pub(super) fn key(&self) -> String {
        match self.name.strip_prefix(REPLY) {
            Some(route) => format!("webhooks.{route}.reply_url"),
            None => format!("webhook_endpoints.{}.url", self.name),
        }
    }
}

/// What is known of an endpoint beside its row.
#[derive(Debug, Default)]
pub(super) struct Load {
    pending: AtomicU64,
    full: AtomicBool,
    news: Notify,
    hurry: Notify,
}

impl Load {
    /// Deliveries that wait.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn set_pending(&self, count: u64) {
        self.pending.store(count, Ordering::Relaxed);
    }

    /// Takes a place for one more delivery, if there are fewer than `most`.
    pub(super) fn take(&self, most: u64) -> bool {
        let one_more = |pending: u64| (pending < most).then_some(pending + 1);
        self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Gives places back.
    pub(super) fn give_back(&self, count: u64) {
        let less = |pending: u64| Some(pending.saturating_sub(count));
        let _always = self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// So many were added to what waits, without a place taken before.
    pub(super) fn arrived(&self, count: u64) {
        self.pending.fetch_add(count, Ordering::Relaxed);
        self.tell();
    }

    /// There is something new.
    pub(super) fn tell(&self) {
        self.news.notify_one();
    }

    /// What waits for its time is to be looked at again.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
        self.news.notify_one();
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Whether it is full now; true when that has changed.
    pub(super) fn is_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed) != full
    }
}

/// An endpoint that is enabled.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) record: EndpointRecord,
    pub(super) load: Arc<Load>,
    /// Only the ends of turns with this source.
    pub(super) source: Option<String>,
    /// True when this server delivers to it.
    pub(super) mine: bool,
    secret: Secret,
    old: Option<(Secret, Timestamp)>,
}

impl Active {
    /// An endpoint with its secrets; none when it has no secret that can be used, which is told.
    pub(super) fn new(
        record: EndpointRecord,
        load: Arc<Load>,
        configured: &HashMap<String, Configured>,
        mine: bool,
    ) -> Option<Self> {
        let of_config = record.name.as_ref().and_then(|name| configured.get(name));
        let stored = |secret: &config::Secret| Secret::parse(secret.expose()).ok();
        let secret = match of_config {
            Some(configured) => Some(configured.secret.clone()),
            None => record.secret.as_ref().and_then(stored),
        };
        let Some(secret) = secret else {
            log::warn!(endpoint:% = record.id; "a webhook endpoint has no secret, so nothing is sent to it");
            return None;
        };
        let old = record.old_secret.as_ref().and_then(|(secret, until)| Some((stored(secret)?, *until)));
        Some(Self { source: of_config.and_then(|one| one.source.clone()), secret, old, record, load, mine })
    }

    /// What deliveries are signed with now: the newest secret first.
    pub(super) fn secrets(&self, now: Timestamp) -> Vec<Secret> {
        let old = self.old.iter().filter(|(_, until)| *until > now).map(|(secret, _)| secret);
        std::iter::once(&self.secret).chain(old).cloned().collect()
    }

    /// True when it is to be told of events of this type.
    pub(super) fn wants(&self, kind: &str) -> bool {
        passes(&self.record.types, kind)
    }
}

impl Outbound {
    /// Writes the endpoints of the configuration down, and disables those that are not in it any more.
    pub(super) async fn write_configured(&self) -> Result<(), StoreError> {
        let (store, now) = (&self.0.store, Timestamp::now());
        let stored = store.endpoints().await?;
        let named =
            |name: &str| stored.iter().map(|(record, _)| record).find(|record| record.name.as_deref() == Some(name));
        for configured in self.0.configured.values() {
            let before = named(&configured.name);
            let Configured { url, types, sessions, .. } = configured.clone();
            let mut record = EndpointRecord {
                name: Some(configured.name.clone()),
                sees_all: configured.owner.is_none(),
                ..EndpointRecord::new(configured.owner.clone().unwrap_or_default(), url, types, sessions)
            };
            if let Some(before) = before {
                record.id = before.id;
            }
            match before {
                None => drop(store.change_endpoints(EndpointChange::Insert(Box::new(record))).await?),
                Some(before) => {
                    let same = |a: &EndpointRecord, b: &EndpointRecord| {
                        (&a.owner, &a.url, &a.types, &a.sessions) == (&b.owner, &b.url, &b.types, &b.sessions)
                    };
                    if !same(before, &record) {
                        store.change_endpoints(EndpointChange::Define(Box::new(record))).await?;
                    }
                    if before.disabled_reason.as_deref() == Some(NOT_CONFIGURED) {
                        store.change_endpoints(EndpointChange::Able(before.id, None, now)).await?;
                    }
                }
            }
        }
        for (record, _) in &stored {
            let gone = record.name.as_ref().is_some_and(|name| !self.0.configured.contains_key(name));
            if gone && record.disabled_reason.is_none() {
                let reason = Some(NOT_CONFIGURED.to_owned());
                store.change_endpoints(EndpointChange::Able(record.id, reason, now)).await?;
            }
        }
        Ok(())
    }
}
