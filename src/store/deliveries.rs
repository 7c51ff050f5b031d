//! Webhook deliveries: an outbox that is written with the events, and read in its order.

use std::{collections::HashMap, sync::Arc};

use diesel::prelude::*;

use super::{
    Page, Paged, Store, StoreError,
    codec::{from_name, optional_text, parse, parse_optional, signed, text, to_name, unsigned},
    connection::{AnyConnection, each},
    fault::Fault,
    messages,
    page::{Walk, walk},
    schema::{webhook_deliveries as table, webhook_endpoints},
    writer::{Reply, Write},
};
use crate::{
    ids::{DeliveryId, EndpointId, SessionId, SessionKey, TurnId},
    protocol::webhook::{Delivery, DeliveryState},
    timestamp::Timestamp,
};

/// A new delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryWrite {
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: EndpointId,
    /// The session of the event and its number there; none for a test.
    pub event: Option<(SessionKey, u64)>,
    /// The type of the event.
    pub kind: String,
    /// The body, whole: a JSON object that ends with the object `data`.
    pub body: Arc<str>,
    /// When the event happened.
    pub at: Timestamp,
    /// The turn whose final text is added to `data` as `response`, when it is stored.
    pub answers: Option<(SessionId, TurnId)>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Of which delivery.
    pub id: DeliveryId,
    /// To which endpoint.
    pub endpoint: EndpointId,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// What went wrong; none when it was delivered.
    pub error: Option<String>,
    /// When it is tried again; none when it is over, one way or the other.
    pub next_at: Option<Timestamp>,
    /// The endpoint is disabled for this reason.
    pub disables: Option<String>,
}

/// A delivery that waits, with what an attempt needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The body, as it was at the commit of the event.
    pub body: String,
    /// How often it was tried since it was last asked for.
    pub tries: u32,
    /// When it is to be tried.
    pub next_at: Timestamp,
}

#[derive(Insertable)]
#[diesel(table_name = table, treat_none_as_default_value = false)]
struct NewRow {
    id: String,
    endpoint_id: String,
    session_key: Option<String>,
    seq: Option<i64>,
    kind: String,
    body: String,
    state: String,
    attempts: i32,
    tries: i32,
    next_at: i64,
    created_at: i64,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = table)]
struct Row {
    id: String,
    endpoint_id: String,
    session_key: Option<String>,
    seq: Option<i64>,
    kind: String,
    state: String,
    attempts: i32,
    next_at: i64,
    last_attempt_at: Option<i64>,
    last_status: Option<i32>,
    last_error: Option<String>,
    created_at: i64,
    finished_at: Option<i64>,
}

impl Row {
    fn read(self) -> Result<Delivery, Fault> {
        let state: DeliveryState = from_name("webhook_deliveries.state", &self.state)?;
        Ok(Delivery {
            id: parse("webhook_deliveries.id", &self.id)?,
            endpoint: parse("webhook_deliveries.endpoint_id", &self.endpoint_id)?,
            kind: self.kind,
            session: parse_optional("webhook_deliveries.session_key", self.session_key.as_deref())?,
            seq: self.seq.map(|seq| unsigned("webhook_deliveries.seq", seq)).transpose()?,
            state,
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            next_attempt_at: (state == DeliveryState::Pending).then_some(Timestamp(self.next_at)),
            last_attempt_at: self.last_attempt_at.map(Timestamp),
            last_status: self.last_status.and_then(|status| u16::try_from(status).ok()),
            last_error: self.last_error,
            created_at: Timestamp(self.created_at),
            finished_at: self.finished_at.map(Timestamp),
        })
    }
}

/// The name of a state in the database.
fn name(state: DeliveryState) -> Result<String, Fault> {
    to_name(&state)
}

/// Writes new deliveries, in order. The messages of their turns must be written by then.
pub(super) fn insert(connection: &mut AnyConnection, writes: &[DeliveryWrite]) -> Result<(), Fault> {
    let mut rows = Vec::with_capacity(writes.len());
    for write in writes {
        let mut body = String::from(&*write.body);
        if let Some((session, turn)) = &write.answers {
            let response = messages::response(connection, *session, *turn)?;
            let response = serde_json::Value::from(response);
            body.truncate(body.len().saturating_sub("}}".len()));
            body.push_str(&format!(",\"response\":{response}}}}}"));
        }
        rows.push(NewRow {
            id: write.id.to_string(),
            endpoint_id: write.endpoint.to_string(),
            session_key: write.event.as_ref().map(|(key, _)| key.to_string()),
            seq: write.event.as_ref().map(|(_, seq)| signed(*seq)),
            kind: text(&write.kind),
            body,
            state: name(DeliveryState::Pending)?,
            attempts: 0,
            tries: 0,
            next_at: write.at.0,
            created_at: write.at.0,
        });
    }
    // One statement a row keeps the order of the numbers that they get, on both databases.
    for row in rows {
        each!(connection, c => diesel::insert_into(table::table).values(row).execute(c))?;
    }
    Ok(())
}

/// A session is deleted: what was delivered of it is forgotten, what waits still goes out.
pub(super) fn forget(connection: &mut AnyConnection, key: &str) -> Result<(), Fault> {
    let over = table::table.filter(table::session_key.eq(key)).filter(table::finished_at.is_not_null());
    diesel::delete(over).execute(connection)?;
    Ok(())
}

/// Notes an attempt at the delivery and at its endpoint.
pub(super) fn note(connection: &mut AnyConnection, attempt: &AttemptRecord) -> Result<(), Fault> {
    let state = match (&attempt.error, attempt.next_at) {
        (None, _) => DeliveryState::Delivered,
        (Some(_), Some(_)) => DeliveryState::Pending,
        (Some(_), None) => DeliveryState::Failed,
    };
    let one = table::table.filter(table::id.eq(attempt.id.to_string()));
    let values = (
        table::state.eq(name(state)?),
        table::attempts.eq(table::attempts + 1),
        table::tries.eq(table::tries + 1),
        table::next_at.eq(attempt.next_at.unwrap_or(attempt.ended_at).0),
        table::last_attempt_at.eq(Some(attempt.at.0)),
        table::last_status.eq(attempt.status.map(i32::from)),
        table::last_error.eq(optional_text(attempt.error.as_ref())),
        table::finished_at.eq((state != DeliveryState::Pending).then_some(attempt.ended_at.0)),
    );
    diesel::update(one).set(values).execute(connection)?;
    let endpoint = || webhook_endpoints::table.filter(webhook_endpoints::id.eq(attempt.endpoint.to_string()));
    match &attempt.error {
        None => {
            let values =
                (webhook_endpoints::failures.eq(0i64), webhook_endpoints::last_success_at.eq(Some(attempt.ended_at.0)));
            diesel::update(endpoint()).set(values).execute(connection)?;
        }
        Some(error) => {
            let given_up = i64::from(state == DeliveryState::Failed);
            let values = (
                webhook_endpoints::failures.eq(webhook_endpoints::failures + given_up),
                webhook_endpoints::last_error.eq(Some(text(error))),
                webhook_endpoints::last_error_at.eq(Some(attempt.ended_at.0)),
            );
            diesel::update(endpoint()).set(values).execute(connection)?;
        }
    }
    if let Some(reason) = &attempt.disables {
        let values = (
            webhook_endpoints::disabled_reason.eq(Some(reason.clone())),
            webhook_endpoints::updated_at.eq(attempt.ended_at.0),
        );
        diesel::update(endpoint()).set(values).execute(connection)?;
    }
    Ok(())
}

/// A delivery waits again, for its first attempt.
pub(super) fn again(connection: &mut AnyConnection, id: DeliveryId, at: Timestamp) -> Result<usize, Fault> {
    let one = table::table.filter(table::id.eq(id.to_string()));
    let values = (
        table::state.eq(name(DeliveryState::Pending)?),
        table::tries.eq(0),
        table::next_at.eq(at.0),
        table::finished_at.eq(None::<i64>),
    );
    Ok(diesel::update(one).set(values).execute(connection)?)
}

/// Forgets what was over before a time, and what belongs to no endpoint; gives the number.
pub(super) fn purge(connection: &mut AnyConnection, before: Timestamp) -> Result<usize, Fault> {
    let old = table::table.filter(table::finished_at.lt(before.0));
    let old = diesel::delete(old).execute(connection)?;
    let endpoints = webhook_endpoints::table.select(webhook_endpoints::id);
    let orphans = table::table.filter(table::endpoint_id.ne_all(endpoints));
    Ok(old + diesel::delete(orphans).execute(connection)?)
}

impl Store {
    /// Adds a delivery that belongs to no append.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enqueue_delivery(&self, delivery: DeliveryWrite) -> Result<(), StoreError> {
        self.write(Write::Delivery(Box::new(delivery))).await.map(drop)
    }

    /// Notes what came of an attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError> {
        self.write(Write::Attempt(Box::new(attempt))).await.map(drop)
    }

    /// Has a delivery wait again, in its old place; false when it is not there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn redeliver(&self, id: DeliveryId, at: Timestamp) -> Result<bool, StoreError> {
        Ok(matches!(self.write(Write::Redeliver(id, at)).await?, Reply::Count(1)))
    }

    /// Forgets deliveries that were over before a time; gives their number.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn purge_deliveries(&self, before: Timestamp) -> Result<usize, StoreError> {
        match self.write(Write::PurgeDeliveries(before)).await? {
            Reply::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// The delivery that an endpoint gets next, whenever that may be.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_delivery(&self, endpoint: EndpointId) -> Result<Option<PendingDelivery>, StoreError> {
        self.read(move |connection| {
            let row = table::table
                .filter(table::endpoint_id.eq(endpoint.to_string()))
                // Written out, so that SQLite sees that its index is for this.
                .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state = 'pending'"))
                .order(table::position.asc())
                .select((table::id, table::body, table::tries, table::next_at))
                .first::<(String, String, i32, i64)>(connection)
                .optional()?;
            row.map(|(id, body, tries, next_at)| {
                let id = parse("webhook_deliveries.id", &id)?;
                Ok(PendingDelivery { id, body, tries: u32::try_from(tries).unwrap_or(0), next_at: Timestamp(next_at) })
            })
            .transpose()
        })
        .await
    }

    /// How many deliveries wait, by endpoint; those with none are not in it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn backlogs(&self) -> Result<HashMap<EndpointId, u64>, StoreError> {
        self.read(|connection| {
            let rows = table::table
                .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state = 'pending'"))
                .group_by(table::endpoint_id)
                .select((table::endpoint_id, diesel::dsl::count_star()))
                .load::<(String, i64)>(connection)?;
            let count = |(id, count): (String, i64)| {
                Ok((parse("webhook_deliveries.endpoint_id", &id)?, unsigned("count", count)?))
            };
            rows.into_iter().map(count).collect()
        })
        .await
    }

    /// A page of the deliveries of an endpoint, of one state or all. Their ids are the cursors.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn deliveries(
        &self,
        endpoint: EndpointId,
        state: Option<DeliveryState>,
        page: &Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        let page = page.clone();
        self.read(move |connection| {
            let mut query = table::table.select(Row::as_select()).into_boxed();
            query = query.filter(table::endpoint_id.eq(endpoint.to_string()));
            if let Some(state) = state {
                query = query.filter(table::state.eq(name(state)?));
            }
            let walk = Walk::new(&page, page.after.clone(), page.before.clone());
            let rows = walk!(query, walk, table::id).load::<Row>(connection)?;
            walk.finish(rows, Row::read)
        })
        .await
    }

    /// A delivery of an endpoint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delivery(&self, endpoint: EndpointId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(move |connection| {
            let row = table::table
                .filter(table::id.eq(id.to_string()))
                .filter(table::endpoint_id.eq(endpoint.to_string()))
                .select(Row::as_select())
                .first(connection)
                .optional()?;
            row.map(Row::read).transpose()
        })
        .await
    }
}
