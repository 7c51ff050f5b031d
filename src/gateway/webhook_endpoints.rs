//! Outbound webhooks: endpoints of users, and what was delivered to them.

use serde_json::{Value, json};

use super::{Gateway, Idempotency, Principal, accounts::no_randomness, sessions::unexpected, validate};
use crate::{
    access::{Deed, Scope},
    config::Secret,
    error::{ApiError, Code},
    ids::{DeliveryId, EndpointId},
    protocol::webhook::{CreateEndpoint, Delivery, DeliveryState, Endpoint, NewEndpoint, PatchEndpoint},
    session::command::Once,
    store::{EndpointChange, EndpointRecord, IdempotencyRecord, Page, Paged},
    timestamp::Timestamp,
    webhooks::{
        outbound::{self, check},
        signature,
    },
};

fn missing() -> ApiError {
    ApiError::new(Code::EndpointNotFound, "you have no webhook endpoint of that id")
}

fn no_delivery() -> ApiError {
    ApiError::new(Code::DeliveryNotFound, "this webhook endpoint has no delivery of that id")
}

fn invalid(field: &str, what: String) -> ApiError {
    ApiError::new(Code::InvalidJson, format!("{field}: {what}")).with("field", field)
}

/// What is set in the configuration is changed there.
fn only_here(record: &EndpointRecord) -> Result<(), ApiError> {
    match &record.name {
        None => Ok(()),
        Some(name) => {
            let message = format!("this webhook endpoint is set by [webhook_endpoints.{name}] of the configuration");
            Err(ApiError::new(Code::EndpointConfigured, message))
        }
    }
}

impl Gateway {
    /// Every endpoint, the oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn all_endpoints(&self) -> Result<Vec<Endpoint>, ApiError> {
        let stored = self.deps.store.endpoints().await?;
        Ok(stored.into_iter().map(|(record, _)| self.deps.outbound.shown(record)).collect())
    }

    /// A page of the caller's endpoints; for admins of all.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn endpoints(&self, who: &Principal, page: Page) -> Result<Paged<Endpoint>, ApiError> {
        let owner = (!who.is_admin()).then_some(who.user.as_str());
        let Paged { data, has_more } = self.deps.store.endpoints_page(owner, &page).await?;
        Ok(Paged { data: data.into_iter().map(|record| self.deps.outbound.shown(record)).collect(), has_more })
    }

    async fn endpoint_record(&self, who: &Principal, id: EndpointId) -> Result<EndpointRecord, ApiError> {
        let record = self.deps.store.endpoint(id).await?;
        record.filter(|record| who.is_admin() || record.owner == who.user).ok_or_else(missing)
    }

    /// An endpoint of the caller's.
    ///
    /// # Errors
    /// `endpoint_not_found`, `store_unavailable`.
    pub async fn endpoint(&self, who: &Principal, id: EndpointId) -> Result<Endpoint, ApiError> {
        Ok(self.deps.outbound.shown(self.endpoint_record(who, id).await?))
    }

    async fn check_address(&self, url: &str) -> Result<(), ApiError> {
        let refused =
            |why: outbound::Refused| ApiError::new(Code::UrlNotAllowed, format!("url: {why}")).with("field", "url");
        self.deps.outbound.check_address(url).await.map_err(refused)
    }

    /// Makes an endpoint. Its secret is in the answer and nowhere else: a call that is repeated gets it without.
    ///
    /// # Errors
    /// `missing_scope` without `read`, which it is as good as; `url_not_allowed`, `invalid_json`, `too_many_endpoints`,
    /// `store_unavailable`.
    pub async fn create_endpoint(
        &self,
        who: &Principal,
        body: CreateEndpoint,
        once: Option<Idempotency>,
    ) -> Result<NewEndpoint, ApiError> {
        if !who.has(Scope::Read) {
            let message = "an endpoint is told of what the scope read shows, so making one needs it too";
            return Err(ApiError::new(Code::MissingScope, message).with("scope", Scope::Read));
        }
        check::types(&body.types).map_err(|what| invalid("types", what))?;
        check::sessions(body.sessions.as_deref()).map_err(|what| invalid("sessions", what))?;
        validate::description(body.description.as_deref())?;
        let once = self.once(who, "webhook-endpoints", "", once)?;
        let lock = once.as_ref().map(|once| self.making(once));
        let _held = match &lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        if let Some(known) = self.known_call(once.as_ref()).await? {
            let id = known.outcome.parse().map_err(|_never| unexpected())?;
            return Ok(NewEndpoint { endpoint: self.endpoint(who, id).await?, secret: None });
        }
        self.check_address(&body.url).await?;
        let most = self.deps.outbound.config().max_endpoints;
        let stored = self.deps.store.endpoints().await?;
        if stored.iter().filter(|(record, _)| record.owner == who.user && record.name.is_none()).count() >= most {
            let message = format!("you have {most} webhook endpoints; delete one first");
            return Err(ApiError::new(Code::TooManyEndpoints, message).with("limit", most));
        }
        let secret = signature::Secret::generate().map_err(no_randomness)?.expose();
        let record = EndpointRecord {
            sees_all: who.is_admin(),
            description: body.description,
            secret: Some(Secret::new(secret.clone())),
            ..EndpointRecord::new(who.user.clone(), body.url, body.types, body.sessions)
        };
        self.deps.outbound.change(EndpointChange::Insert(Box::new(record.clone()))).await?;
        self.note_endpoint(who, "webhook.create", &record, json!({"types": record.types}));
        self.remember(once, record.id.to_string()).await?;
        Ok(NewEndpoint { endpoint: self.deps.outbound.shown(record), secret: Some(secret) })
    }

    fn note_endpoint(&self, who: &Principal, action: &'static str, record: &EndpointRecord, mut detail: Value) {
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("endpoint".into(), json!(record.id));
        }
        self.access.audit.note(Deed { action, session: None, owner: &record.owner, detail }.by(who));
    }

    async fn remember(&self, once: Option<Once>, outcome: String) -> Result<(), ApiError> {
        if let Some(Once { scope, key, request_hash }) = once {
            let record = IdempotencyRecord { scope, key, request_hash, outcome, created_at: Timestamp::now() };
            self.deps.store.remember_call(record).await?;
        }
        Ok(())
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    /// `endpoint_not_found`, `endpoint_configured`, `url_not_allowed`, `invalid_json`, `store_unavailable`.
    pub async fn change_endpoint(
        &self,
        who: &Principal,
        id: EndpointId,
        body: PatchEndpoint,
    ) -> Result<Endpoint, ApiError> {
        let mut record = self.endpoint_record(who, id).await?;
        only_here(&record)?;
        let mut changed = Vec::new();
        if let Some(url) = body.url {
            self.check_address(&url).await?;
            record.url = url;
            changed.push("url");
        }
        if let Some(types) = body.types {
            check::types(&types).map_err(|what| invalid("types", what))?;
            record.types = types;
            changed.push("types");
        }
        if let Some(sessions) = body.sessions {
            check::sessions(sessions.as_deref()).map_err(|what| invalid("sessions", what))?;
            record.sessions = sessions;
            changed.push("sessions");
        }
        if let Some(description) = body.description {
            validate::description(description.as_deref())?;
            record.description = description;
            changed.push("description");
        }
        if changed.is_empty() {
            return Ok(self.deps.outbound.shown(record));
        }
        record.updated_at = Timestamp::now();
        self.deps.outbound.change(EndpointChange::Define(Box::new(record.clone()))).await?;
        self.deps.outbound.hurry(id);
        self.note_endpoint(who, "webhook.update", &record, json!({"fields": changed}));
        self.endpoint(who, id).await
    }

    /// Deletes an endpoint with its deliveries.
    ///
    /// # Errors
    /// `endpoint_not_found`, `endpoint_configured`, `store_unavailable`.
    pub async fn delete_endpoint(&self, who: &Principal, id: EndpointId) -> Result<(), ApiError> {
        let record = self.endpoint_record(who, id).await?;
        only_here(&record)?;
        self.deps.outbound.change(EndpointChange::Delete(id)).await?;
        self.note_endpoint(who, "webhook.delete", &record, json!({}));
        Ok(())
    }

    /// Gives an endpoint a new secret; the old one signs too for a while. A call that is repeated gets it without.
    ///
    /// # Errors
    /// `endpoint_not_found`, `endpoint_configured`, `store_unavailable`.
    pub async fn rotate_endpoint(
        &self,
        who: &Principal,
        id: EndpointId,
        once: Option<Idempotency>,
    ) -> Result<NewEndpoint, ApiError> {
        let mut record = self.endpoint_record(who, id).await?;
        only_here(&record)?;
        let once = self.once(who, "webhook-endpoints/rotate", &id.to_string(), once)?;
        let lock = once.as_ref().map(|once| self.making(once));
        let _held = match &lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        if self.known_call(once.as_ref()).await?.is_some() {
            return Ok(NewEndpoint { endpoint: self.endpoint(who, id).await?, secret: None });
        }
        let secret = signature::Secret::generate().map_err(no_randomness)?.expose();
        let now = Timestamp::now();
        let overlap = self.deps.outbound.config().rotation.0;
        record.old_secret = record.secret.take().filter(|_| !overlap.is_zero()).map(|old| (old, now.plus(overlap)));
        record.secret = Some(Secret::new(secret.clone()));
        record.updated_at = now;
        self.deps.outbound.change(EndpointChange::Secrets(Box::new(record.clone()))).await?;
        self.note_endpoint(who, "webhook.rotate", &record, json!({}));
        self.remember(once, id.to_string()).await?;
        Ok(NewEndpoint { endpoint: self.endpoint(who, id).await?, secret: Some(secret) })
    }

    /// Enables an endpoint again.
    ///
    /// # Errors
    /// `endpoint_not_found`, `endpoint_configured` for one that is not in the configuration any more, `store_unavailable`.
    pub async fn enable_endpoint(&self, who: &Principal, id: EndpointId) -> Result<Endpoint, ApiError> {
        let record = self.endpoint_record(who, id).await?;
        if record.disabled_reason.as_deref() == Some(outbound::NOT_CONFIGURED) {
            let message = "this webhook endpoint is not in the configuration any more";
            return Err(ApiError::new(Code::EndpointConfigured, message));
        }
        if record.disabled_reason.is_some() {
            self.deps.outbound.change(EndpointChange::Able(id, None, Timestamp::now())).await?;
            self.note_endpoint(who, "webhook.enable", &record, json!({}));
        }
        self.endpoint(who, id).await
    }

    async fn enabled(&self, who: &Principal, id: EndpointId) -> Result<EndpointRecord, ApiError> {
        let record = self.endpoint_record(who, id).await?;
        match &record.disabled_reason {
            None => Ok(record),
            Some(reason) => {
                let message = format!("the webhook endpoint is disabled ({reason}); enable it first");
                Err(ApiError::new(Code::EndpointDisabled, message))
            }
        }
    }

    /// Sends something to an endpoint, in its turn.
    ///
    /// # Errors
    /// `endpoint_not_found`, `endpoint_disabled`, `store_unavailable`; `delivery_not_found` when the call was made before
    /// and that delivery is forgotten.
    pub async fn test_endpoint(
        &self,
        who: &Principal,
        id: EndpointId,
        once: Option<Idempotency>,
    ) -> Result<Delivery, ApiError> {
        let record = self.enabled(who, id).await?;
        let once = self.once(who, "webhook-endpoints/test", &id.to_string(), once)?;
        let lock = once.as_ref().map(|once| self.making(once));
        let _held = match &lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.delivery(who, id, known.outcome.parse().map_err(|_never| unexpected())?).await;
        }
        let data = json!({"endpoint": id, "message": "This is a test."});
        let delivery = self.deps.outbound.tell(id, outbound::TEST, data).await?;
        self.note_endpoint(who, "webhook.test", &record, json!({"delivery": delivery}));
        self.remember(once, delivery.to_string()).await?;
        self.delivery(who, id, delivery).await
    }

    /// A page of the deliveries to an endpoint.
    ///
    /// # Errors
    /// `endpoint_not_found`, `store_unavailable`.
    pub async fn deliveries(
        &self,
        who: &Principal,
        id: EndpointId,
        state: Option<DeliveryState>,
        page: Page,
    ) -> Result<Paged<Delivery>, ApiError> {
        self.endpoint_record(who, id).await?;
        Ok(self.deps.store.deliveries(id, state, &page).await?)
    }

    /// A delivery to an endpoint.
    ///
    /// # Errors
    /// `endpoint_not_found`, `delivery_not_found`, `store_unavailable`.
    pub async fn delivery(&self, who: &Principal, endpoint: EndpointId, id: DeliveryId) -> Result<Delivery, ApiError> {
        self.endpoint_record(who, endpoint).await?;
        self.deps.store.delivery(endpoint, id).await?.ok_or_else(no_delivery)
    }

    /// Has a delivery sent again, or now.
    ///
    /// # Errors
    /// `endpoint_not_found`, `delivery_not_found`, `endpoint_disabled`, `store_unavailable`.
    pub async fn redeliver(&self, who: &Principal, endpoint: EndpointId, id: DeliveryId) -> Result<Delivery, ApiError> {
        let record = self.enabled(who, endpoint).await?;
        self.deps.store.delivery(endpoint, id).await?.ok_or_else(no_delivery)?;
        if !self.deps.outbound.redeliver(endpoint, id).await? {
            return Err(no_delivery());
        }
        self.note_endpoint(who, "webhook.redeliver", &record, json!({"delivery": id}));
        self.delivery(who, endpoint, id).await
    }
}
