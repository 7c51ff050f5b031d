//! The tasks that deliver: one for each endpoint, and one that looks after them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    DISABLED, Outbound,
    endpoint::Active,
    schedule::{Next, Outcome, next},
};
use crate::{
    access::{Deed, Principal},
    ids::EndpointId,
    metrics,
    store::{AttemptRecord, EndpointChange, PendingDelivery, StoreError},
    timestamp::Timestamp,
};

/// How often a server looks for what others on its database have changed.
pub(super) const POLL: Duration = Duration::from_secs(1);
/// How often a server that is alone looks, for nothing that it would not know.
const POLL_ALONE: Duration = Duration::from_secs(30);
/// How many looks lie between two counts of what waits.
const LOOKS_PER_COUNT: u32 = 30;
/// How many looks lie between two renewals of what a server has claimed.
const LOOKS_PER_CLAIM: u32 = 5;
/// How long a claim holds without being renewed.
const LEASE: Duration = Duration::from_secs(20);
/// How often what is over is forgotten.
const PURGE: Duration = Duration::from_secs(600);
/// How long a task waits before it asks a store again that did not answer.
const PAUSE: Duration = Duration::from_millis(250);
/// How long attempts under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(3);

impl Outbound {
    /// Delivers until [`Outbound::stop`].
    pub async fn run(self) {
        let mut workers: HashMap<EndpointId, JoinHandle<()>> = HashMap::new();
        let (mut looks, mut purged) = (0u32, None::<Instant>);
        let shared = self.0.store.is_shared();
        while !self.0.stopping.is_cancelled() {
            if let Err(error) = self.look(shared, looks).await {
                log::debug!("webhook endpoints cannot be looked at now: {error}");
            }
            looks = looks.wrapping_add(1);
            if purged.is_none_or(|at| at.elapsed() >= PURGE) {
                purged = Some(Instant::now());
                self.purge().await;
            }
            workers.retain(|_, worker| !worker.is_finished());
            for endpoint in self.active().iter().filter(|endpoint| endpoint.mine) {
                let id = endpoint.record.id;
                workers.entry(id).or_insert_with(|| tokio::spawn(self.clone().work(id)));
            }
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(if shared { POLL } else { POLL_ALONE }) => {}
                () = self.0.stopping.cancelled() => {}
            }
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        for (_, mut worker) in workers {
            if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
                // The delivery still waits on disk.
                worker.abort();
            }
        }
        if shared
            && let Err(error) = self.0.store.change_endpoints(EndpointChange::Release(self.0.server.clone())).await
        {
            log::debug!("webhook endpoints are left to others only when the claim ends: {error}");
        }
    }

    /// Sees what other servers have changed, and claims what is free. A server that is alone knows everything.
    async fn look(&self, shared: bool, looks: u32) -> Result<(), StoreError> {
        if shared {
            self.read().await?;
            let active = self.active();
            let free = active.iter().any(|endpoint| !endpoint.mine);
            if free || (looks.is_multiple_of(LOOKS_PER_CLAIM) && !active.is_empty()) {
                let now = Timestamp::now();
                let claim = EndpointChange::Claim(self.0.server.clone(), now, now.plus(LEASE));
                if self.0.store.change_endpoints(claim).await? > 0 && free {
                    self.read().await?;
                }
            }
        }
        if looks.is_multiple_of(if shared { LOOKS_PER_COUNT } else { 1 }) && !self.active().is_empty() {
            self.count().await?;
        }
        Ok(())
    }

    async fn purge(&self) {
        let keep = i64::try_from(self.0.config.keep.0.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp(Timestamp::now().0.saturating_sub(keep));
        if let Err(error) = self.0.store.purge_deliveries(before).await {
            log::debug!("old webhook deliveries cannot be forgotten now: {error}");
        }
    }

    /// The endpoint, while it is enabled and this server delivers to it.
    fn mine(&self, id: EndpointId) -> Option<Arc<Active>> {
        self.active().iter().find(|endpoint| endpoint.record.id == id && endpoint.mine).cloned()
    }

    /// Delivers to one endpoint, until it is not for this server any more.
    async fn work(self, id: EndpointId) {
        while let Some(endpoint) = self.mine(id) {
            let due = match self.0.store.next_delivery(id).await {
                Ok(Some(delivery)) => {
                    let wait = delivery.next_at.since(Timestamp::now());
                    if wait.is_zero() { Ok(delivery) } else { Err((wait, false)) }
                }
                Ok(None) => Err((if self.0.store.is_shared() { POLL } else { POLL_ALONE }, true)),
                Err(error) => {
                    log::debug!("webhook deliveries cannot be read now: {error}");
                    Err((PAUSE, false))
                }
            };
            match due {
                Ok(delivery) => self.deliver(&endpoint, &delivery).await,
                Err((wait, empty)) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = endpoint.load.news(), if empty => {}
                    () = endpoint.load.hurried() => {}
                    () = self.0.stopping.cancelled() => return,
                },
            }
            if self.0.stopping.is_cancelled() {
                return;
            }
        }
    }

    /// One attempt, and what follows from it.
    async fn deliver(&self, endpoint: &Active, delivery: &PendingDelivery) {
        let (at, begun) = (Timestamp::now(), Instant::now());
        let outcome = self.0.sender.send(&endpoint.record.url, &endpoint.secrets(at), delivery).await;
        let ended_at = Timestamp::now();
        let given_up = match outcome {
            Outcome::Taken(_) => 0,
            Outcome::Failed { .. } => self.given_up(endpoint).await,
        };
        let next = next(&self.0.config, &outcome, delivery.tries.saturating_add(1), given_up, ended_at);
        let (status, error) = match outcome {
            Outcome::Taken(status) => (Some(status), None),
            Outcome::Failed { status, error, .. } => (status, Some(error)),
        };
        let disables = match next {
            Next::Disable(reason) => Some(reason.to_owned()),
            _ => None,
        };
        let next_at = match next {
            Next::At(at) => Some(at),
            _ => None,
        };
        let attempt = AttemptRecord {
            id: delivery.id,
            endpoint: endpoint.record.id,
            at,
            ended_at,
            status,
            error: error.clone(),
            next_at,
            disables: disables.clone(),
        };
        self.note(attempt).await;
        if next_at.is_none() {
            endpoint.load.give_back(1);
        }
        if let Some(metrics) = metrics::get() {
            let outcome = match next {
                Next::Done => "delivered",
                Next::At(_) => "retried",
                Next::GiveUp | Next::Disable(_) => "failed",
            };
            metrics.webhook_deliveries.with_label_values(&[outcome]).inc();
            metrics.webhook_attempt.observe(begun.elapsed().as_secs_f64());
        }
        if let Some(reason) = disables {
            self.disabled(endpoint, &reason, error.as_deref().unwrap_or_default()).await;
        }
    }

    /// Deliveries in a row that this endpoint did not take, as it is stored.
    async fn given_up(&self, endpoint: &Active) -> u64 {
        let stored = self.0.store.endpoint(endpoint.record.id).await.ok().flatten();
        stored.map_or(endpoint.record.failures, |record| record.failures)
    }

    /// Writes down what came of an attempt. Tried until it works: else the same would be delivered again at once.
    async fn note(&self, attempt: AttemptRecord) {
        loop {
            match self.0.store.note_attempt(attempt.clone()).await {
                Ok(()) => return,
                Err(StoreError::Unavailable(_)) if !self.0.stopping.is_cancelled() => tokio::time::sleep(PAUSE).await,
                Err(error) => return log::warn!(error:% = error; "what came of a webhook delivery is not stored"),
            }
        }
    }

    /// Tells everybody who should know that an endpoint was disabled: the log, the audit, and the owner's other endpoints.
    async fn disabled(&self, endpoint: &Active, reason: &str, error: &str) {
        let record = &endpoint.record;
        log::warn!(endpoint:% = record.id, reason, error; "a webhook endpoint was disabled; enable it again when it works");
        let nobody = Principal { user: String::new(), scopes: Vec::new(), ..Principal::local() };
        let detail = json!({"endpoint": record.id, "reason": reason});
        let deed = Deed { action: "webhook.disable", session: None, owner: &record.owner, detail };
        self.0.access.audit.note(deed.by(&nobody));
        if let Err(error) = self.reload().await {
            log::debug!("webhook endpoints cannot be read now: {error}");
        }
        let data = json!({"endpoint": record.id, "url": record.url, "reason": reason, "error": error});
        let others = self.active();
        for other in others.iter().filter(|other| other.record.owner == record.owner && other.source.is_none()) {
            if other.record.id != record.id
                && other.wants(DISABLED)
                && let Err(error) = self.tell(other.record.id, DISABLED, data.clone()).await
            {
                log::warn!(endpoint:% = other.record.id, error:% = error; "it is not told that another one was disabled");
            }
        }
    }
}
