//! Outbound webhooks: who is told of events, and that they are told, whatever happens meanwhile.
//!
//! **The outbox is transactional.** [`Outbound::append`] stands between a session and the store: it looks in memory who wants
//! the new events and may see them, and adds a row for each of these deliveries to the same transaction. So an event that is
//! on disk has its deliveries there, and one that is not has none. Without endpoints it costs one look at an empty list.
//!
//! **One delivery at a time, in order.** Each endpoint has one task, which takes the oldest delivery that waits, tries it
//! until it is taken or given up, and only then looks at the next. What is tried again has the same `webhook-id`. A row is
//! marked as done after the receiver has answered; a crash in between delivers once more. Of several servers on one
//! database the one that has claimed an endpoint delivers; each commits events for all of them.
//!
//! **An endpoint sees what its owner sees**, as of the commit of the event: sessions by their visibility, and every session
//! only as long as the owner has credentials of an admin.
//!
//! # Endpoints of the configuration, and replies
//!
//! Whoever else has addresses to post to gives them as [`Configured`] to [`Outbound::open`]. With
//! [`source`](Configured::source) an endpoint is told only of the ends of turns that came from there: the *reply URL* of an
//! inbound route is
//!
//! ```text
//! Configured {
//!     name: format!("reply:{route}"),            // its place in the store; unique
//!     url, secret,
//!     types: vec!["turn.finished".into()],
//!     sessions: Some(vec![format!("{prefix}*")]),  // any client can say what it likes as `source`, so bound it
//!     source: Some(format!("webhook:{route}")),  // what `Turn::source` of its turns is
//!     owner: None,                               // the operator's
//! }
//! ```
//!
//! Its body is `{type: "turn.finished", timestamp, data}`, where `data` is the event with one more field, `response`: the
//! final text of the assistant, read in the transaction that ends the turn.

mod address;
mod attempt;
pub mod check;
mod deliver;
mod endpoint;
mod outbox;
mod schedule;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

pub use address::{Guard, Refused};
use endpoint::{Active, Load};
pub use endpoint::{Configured, NOT_CONFIGURED, REPLY};

use crate::{
    access::Access,
    config::{Config, DeliveryConfig},
    ids::{DeliveryId, EndpointId},
    protocol::webhook::{Endpoint, LastError},
    store::{Append, AppendError, DeliveryWrite, EndpointChange, EndpointRecord, Store, StoreError},
    timestamp::Timestamp,
};

/// The type of a delivery that was asked for to see whether an endpoint works.
pub const TEST: &str = "webhook.test";
/// The type of a delivery that tells the owner of an endpoint that another one of theirs was disabled.
pub const DISABLED: &str = "webhook.disabled";

/// Tells endpoints of events; cheap to clone.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    store: Store,
    access: Arc<Access>,
    config: DeliveryConfig,
    sender: attempt::Sender,
    configured: HashMap<String, Configured>,
    /// Those that are enabled.
    active: RwLock<Arc<Vec<Arc<Active>>>>,
    /// What is known of endpoints beside their rows; kept over reloads.
    loads: Mutex<HashMap<EndpointId, Arc<Load>>>,
    /// The endpoints have changed: tasks may have to be started.
    changed: Notify,
    stopping: CancellationToken,
    /// The name under which this process claims endpoints.
    server: String,
}

impl Outbound {
    /// Writes down the endpoints of the configuration and reads all of them.
    ///
    /// # Errors
    /// When the store fails, or a secret of the configuration is none.
    pub async fn open(
        store: Store,
        access: Arc<Access>,
        config: &Config,
        more: Vec<Configured>,
    ) -> Result<Self, String> {
        let mut configured = HashMap::new();
        for (name, endpoint) in &config.webhook_endpoints {
            let secret = endpoint.signing_secret().map_err(|error| format!("webhook_endpoints.{name}: {error}"))?;
            let one = Configured {
                name: name.clone(),
                url: endpoint.url.clone(),
                types: endpoint.types.clone(),
                sessions: endpoint.sessions.clone(),
                secret,
                owner: endpoint.owner.clone(),
                source: None,
            };
            configured.insert(name.clone(), one);
        }
        configured.extend(more.into_iter().map(|one| (one.name.clone(), one)));
        let guard = Guard::new(&config.delivery.allow_addresses);
        for one in configured.values() {
            let checked = check::form(&one.url).and_then(|url| guard.check_written(&url));
            checked.map_err(|refused| format!("{}: {refused}", one.key()))?;
        }
        let outbound = Self(Arc::new(Inner {
            sender: attempt::Sender::new(guard, config.delivery.timeout.0),
            config: config.delivery.clone(),
            store,
            access,
            configured,
            active: RwLock::default(),
            loads: Mutex::default(),
            changed: Notify::new(),
            stopping: CancellationToken::new(),
            server: uuid::Uuid::now_v7().simple().to_string(),
        }));
        let failed = |error: StoreError| error.to_string();
        outbound.write_configured().await.map_err(failed)?;
        outbound.reload().await.map_err(failed)?;
        outbound.count().await.map_err(failed)?;
        Ok(outbound)
    }

    /// Commits an append with the deliveries of its events. As [`Store::append_with_notice`] otherwise.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub async fn append(&self, mut append: Append, written: Option<oneshot::Sender<()>>) -> Result<(), AppendError> {
        let active = self.active();
        if active.is_empty() || append.events.frames().is_empty() {
            return self.0.store.append_with_notice(append, written).await;
        }
        let taken = outbox::fill(&active, &self.0.access.book(), &self.0.config, &mut append);
        let result = self.0.store.append_with_notice(append, written).await;
        taken.settle(result.is_ok());
        result
    }

    /// The endpoints that are enabled.
    fn active(&self) -> Arc<Vec<Arc<Active>>> {
        Arc::clone(&self.0.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of an endpoint beside its row.
    fn load(&self, id: EndpointId) -> Arc<Load> {
        let mut loads = self.0.loads.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(loads.entry(id).or_default())
    }

    /// Makes a change of endpoints and goes by it: when this returns, events are matched as it says.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change(&self, change: EndpointChange) -> Result<usize, StoreError> {
        let changed = self.0.store.change_endpoints(change).await?;
        self.reload().await?;
        Ok(changed)
    }

    /// Goes by the endpoints as they are stored.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reload(&self) -> Result<(), StoreError> {
        self.read().await?;
        self.0.changed.notify_one();
        Ok(())
    }

    async fn read(&self) -> Result<(), StoreError> {
        let stored = self.0.store.endpoints().await?;
        let known: Vec<EndpointId> = stored.iter().map(|(record, _)| record.id).collect();
        let mut active = Vec::new();
        for (record, server) in stored {
            let load = self.load(record.id);
            if record.disabled_reason.is_some() {
                continue;
            }
            let mine = !self.0.store.is_shared() || server == self.0.server;
            if let Some(endpoint) = Active::new(record, load, &self.0.configured, mine) {
                active.push(Arc::new(endpoint));
            }
        }
        *self.0.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(active);
        self.0.loads.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| known.contains(id));
        Ok(())
    }

    /// Counts what waits, as it is stored.
    async fn count(&self) -> Result<(), StoreError> {
        let backlogs = self.0.store.backlogs().await?;
        let loads = self.0.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, load) in loads.iter() {
            load.set_pending(backlogs.get(id).copied().unwrap_or(0));
        }
        Ok(())
    }

    /// Adds a delivery that reports no event: the endpoint's task sees to it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tell(
        &self,
        endpoint: EndpointId,
        kind: &str,
        data: serde_json::Value,
    ) -> Result<DeliveryId, StoreError> {
        let (id, at) = (uuid::Uuid::now_v7().into(), Timestamp::now());
        let body = outbox::body(kind, at, &data.to_string());
        let delivery = DeliveryWrite { id, endpoint, event: None, kind: kind.into(), body, at, answers: None };
        self.0.store.enqueue_delivery(delivery).await?;
        self.load(endpoint).arrived(1);
        Ok(id)
    }

    /// Has a delivery sent again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn redeliver(&self, endpoint: EndpointId, id: DeliveryId) -> Result<bool, StoreError> {
        let there = self.0.store.redeliver(id, Timestamp::now()).await?;
        self.count().await?;
        self.load(endpoint).hurry();
        Ok(there)
    }

    /// What waits for its time at an endpoint is looked at again now.
    pub fn hurry(&self, endpoint: EndpointId) {
        self.load(endpoint).hurry();
    }

    /// Whether an address may be called, as far as that can be told now: a name that no one knows yet is looked at again
    /// with each attempt.
    ///
    /// # Errors
    /// Why not.
    pub async fn check_address(&self, url: &str) -> Result<(), Refused> {
        match self.0.sender.guard().check(&check::form(url)?).await {
            Err(Refused::Unresolved(_)) => Ok(()),
            other => other,
        }
    }

    /// An endpoint as clients see it.
    #[must_use]
    pub fn shown(&self, record: EndpointRecord) -> Endpoint {
        let old_secret_until = record.old_secret.map(|(_, until)| until).filter(|until| *until > Timestamp::now());
        Endpoint {
            backlog: self.load(record.id).pending(),
            id: record.id,
            name: record.name,
            owner: Some(record.owner).filter(|owner| !owner.is_empty()),
            url: record.url,
            types: record.types,
            sessions: record.sessions,
            description: record.description,
            enabled: record.disabled_reason.is_none(),
            disabled_reason: record.disabled_reason,
            dropped: record.dropped,
            last_error: record.last_error.map(|(at, message)| LastError { at, message }),
            last_success_at: record.last_success_at,
            old_secret_until,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }

    /// Deliveries that wait, over all endpoints that this server knows.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        let loads = self.0.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.values().map(|load| load.pending()).sum()
    }

    /// The settings of `[delivery]`.
    #[must_use]
    pub fn config(&self) -> &DeliveryConfig {
        &self.0.config
    }

    /// From now on no attempt begins; [`Outbound::run`] returns when those under way are over, or after a moment.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }
}
