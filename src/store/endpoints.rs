//! Webhook endpoints: what they are, how they do, and which server delivers to them.

use diesel::prelude::*;

use super::{
    Page, Paged, Store, StoreError,
    codec::{from_json, optional_text, parse, signed, text, to_json, unsigned},
    connection::{AnyConnection, each},
    fault::Fault,
    job::{Reply, Write},
    page::{Walk, walk},
    schema::{webhook_deliveries, webhook_endpoints},
};
use crate::{config::Secret, ids::EndpointId, timestamp::Timestamp};

/// A webhook endpoint as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointRecord {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is; empty for the operator's own.
    pub owner: String,
    /// Its name in the configuration, if it comes from there.
    pub name: Option<String>,
    /// True when an admin made it, or the operator: then it may be told of every session.
    pub sees_all: bool,
    /// Where to.
    pub url: String,
    /// Types of events, or prefixes of types.
    pub types: Vec<String>,
    /// Keys of sessions, or beginnings of keys with a `*` behind; none is all.
    pub sessions: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
    /// The secret, `whsec_…`; none for those of the configuration, which has it.
    pub secret: Option<Secret>,
    /// The secret before, and until when it signs too.
    pub old_secret: Option<(Secret, Timestamp)>,
    /// Why it is disabled; none while it is not.
    pub disabled_reason: Option<String>,
    /// Deliveries in a row that were given up.
    pub failures: u64,
    /// Events that were dropped because too many waited.
    pub dropped: u64,
    /// The last attempt that failed.
    pub last_error: Option<(Timestamp, String)>,
    /// When a delivery last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl EndpointRecord {
    /// One that is made now, is enabled, and has been told of nothing.
    #[must_use]
    pub fn new(owner: String, url: String, types: Vec<String>, sessions: Option<Vec<String>>) -> Self {
        let now = Timestamp::now();
        Self {
            // Not the id type's own: these ids have to come in order.
            id: uuid::Uuid::now_v7().into(),
            owner,
            name: None,
            sees_all: false,
            url,
            types,
            sessions,
            description: None,
            secret: None,
            old_secret: None,
            disabled_reason: None,
            failures: 0,
            dropped: 0,
            last_error: None,
            last_success_at: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A change of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointChange {
    /// A new one.
    Insert(Box<EndpointRecord>),
    /// Owner, url, types, sessions and description, as they are here; and the time of the change.
    Define(Box<EndpointRecord>),
    /// Its secrets, as they are here; and the time of the change.
    Secrets(Box<EndpointRecord>),
    /// It is disabled for a reason, or enabled again, which forgets its failures.
    Able(EndpointId, Option<String>, Timestamp),
    /// It goes, with its deliveries.
    Delete(EndpointId),
    /// A server delivers to all enabled endpoints that no other one delivers to, until the second time. The first is now.
    Claim(String, Timestamp, Timestamp),
    /// A server delivers to none any more.
    Release(String),
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = webhook_endpoints, treat_none_as_default_value = false)]
struct EndpointRow {
    id: String,
    owner: String,
    name: Option<String>,
    sees_all: bool,
    url: String,
    types: String,
    sessions: Option<String>,
    description: Option<String>,
    secret: Option<String>,
    old_secret: Option<String>,
    old_secret_until: Option<i64>,
    disabled_reason: Option<String>,
    failures: i64,
    dropped: i64,
    last_error: Option<String>,
    last_error_at: Option<i64>,
    last_success_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
    claimed_by: String,
    claimed_until: i64,
}

impl EndpointRow {
    fn new(record: &EndpointRecord) -> Result<Self, Fault> {
        Ok(Self {
            id: record.id.to_string(),
            owner: text(&record.owner),
            name: optional_text(record.name.as_ref()),
            sees_all: record.sees_all,
            url: text(&record.url),
            types: to_json(&record.types)?,
            sessions: record.sessions.as_ref().map(to_json).transpose()?,
            description: optional_text(record.description.as_ref()),
            secret: record.secret.as_ref().map(|secret| secret.expose().to_owned()),
            old_secret: record.old_secret.as_ref().map(|(secret, _)| secret.expose().to_owned()),
            old_secret_until: record.old_secret.as_ref().map(|(_, until)| until.0),
            disabled_reason: record.disabled_reason.clone(),
            failures: signed(record.failures),
            dropped: signed(record.dropped),
            last_error: record.last_error.as_ref().map(|(_, error)| text(error)),
            last_error_at: record.last_error.as_ref().map(|(at, _)| at.0),
            last_success_at: record.last_success_at.map(|at| at.0),
            created_at: record.created_at.0,
            updated_at: record.updated_at.0,
            claimed_by: String::new(),
            claimed_until: 0,
        })
    }

    fn read(self) -> Result<EndpointRecord, Fault> {
        let sessions = self.sessions.as_deref().map(|sessions| from_json("webhook_endpoints.sessions", sessions));
        Ok(EndpointRecord {
            id: parse("webhook_endpoints.id", &self.id)?,
            owner: self.owner,
            name: self.name,
            sees_all: self.sees_all,
            url: self.url,
            types: from_json("webhook_endpoints.types", &self.types)?,
            sessions: sessions.transpose()?,
            description: self.description,
            secret: self.secret.map(Secret::new),
            old_secret: self.old_secret.map(Secret::new).zip(self.old_secret_until.map(Timestamp)),
            disabled_reason: self.disabled_reason,
            failures: unsigned("webhook_endpoints.failures", self.failures)?,
            dropped: unsigned("webhook_endpoints.dropped", self.dropped)?,
            last_error: self.last_error_at.map(Timestamp).zip(self.last_error),
            last_success_at: self.last_success_at.map(Timestamp),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// Makes a change; gives the number of endpoints that it was made to.
pub(super) fn change(connection: &mut AnyConnection, change: &EndpointChange) -> Result<usize, Fault> {
    let of = |id: &EndpointId| webhook_endpoints::table.filter(webhook_endpoints::id.eq(id.to_string()));
    Ok(match change {
        EndpointChange::Insert(record) => {
            diesel::insert_into(webhook_endpoints::table).values(EndpointRow::new(record)?).execute(connection)?
        }
        EndpointChange::Define(record) => {
            let row = EndpointRow::new(record)?;
            let values = (
                webhook_endpoints::owner.eq(row.owner),
                webhook_endpoints::sees_all.eq(row.sees_all),
                webhook_endpoints::url.eq(row.url),
                webhook_endpoints::types.eq(row.types),
                webhook_endpoints::sessions.eq(row.sessions),
                webhook_endpoints::description.eq(row.description),
                webhook_endpoints::updated_at.eq(row.updated_at),
            );
            diesel::update(of(&record.id)).set(values).execute(connection)?
        }
        EndpointChange::Secrets(record) => {
            let row = EndpointRow::new(record)?;
            let values = (
                webhook_endpoints::secret.eq(row.secret),
                webhook_endpoints::old_secret.eq(row.old_secret),
                webhook_endpoints::old_secret_until.eq(row.old_secret_until),
                webhook_endpoints::updated_at.eq(row.updated_at),
            );
            diesel::update(of(&record.id)).set(values).execute(connection)?
        }
        EndpointChange::Able(id, reason, at) => {
            let values = (
                webhook_endpoints::disabled_reason.eq(reason.clone()),
                webhook_endpoints::failures.eq(0i64),
                webhook_endpoints::updated_at.eq(at.0),
            );
            diesel::update(of(id)).set(values).execute(connection)?
        }
        EndpointChange::Delete(id) => {
            let theirs = webhook_deliveries::table.filter(webhook_deliveries::endpoint_id.eq(id.to_string()));
            diesel::delete(theirs).execute(connection)?;
            diesel::delete(of(id)).execute(connection)?
        }
        EndpointChange::Claim(server, now, until) => {
            let free = webhook_endpoints::table.filter(webhook_endpoints::disabled_reason.is_null()).filter(
                webhook_endpoints::claimed_until.lt(now.0).or(webhook_endpoints::claimed_by.eq(server.clone())),
            );
            let values =
                (webhook_endpoints::claimed_by.eq(server.clone()), webhook_endpoints::claimed_until.eq(until.0));
            diesel::update(free).set(values).execute(connection)?
        }
        EndpointChange::Release(server) => {
            let held = webhook_endpoints::table.filter(webhook_endpoints::claimed_by.eq(server.clone()));
            diesel::update(held).set(webhook_endpoints::claimed_until.eq(0i64)).execute(connection)?
        }
    })
}

/// Counts events that were dropped, always in the order of ids: transactions of several writers on Postgres must not wait
/// for each other in a circle.
pub(super) fn count_dropped(connection: &mut AnyConnection, writes: &[Write], replies: &[Reply]) -> Result<(), Fault> {
    let mut sums = std::collections::BTreeMap::<String, i64>::new();
    for (write, reply) in writes.iter().zip(replies) {
        if let (Write::Append(append), Reply::Appended(..)) = (write, reply) {
            for (endpoint, count) in &append.dropped {
                *sums.entry(endpoint.to_string()).or_default() += signed(*count);
            }
        }
    }
    for (id, count) in sums {
        let one = webhook_endpoints::table.filter(webhook_endpoints::id.eq(id));
        let dropped = webhook_endpoints::dropped.eq(webhook_endpoints::dropped + count);
        each!(connection, c => diesel::update(one).set(dropped).execute(c))?;
    }
    Ok(())
}

impl Store {
    /// Changes endpoints; gives how many were changed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change_endpoints(&self, change: EndpointChange) -> Result<usize, StoreError> {
        match self.write(Write::Endpoint(Box::new(change))).await? {
            Reply::Count(count) => Ok(count),
            _ => Err(StoreError::Corrupt("a change of endpoints was mistaken".into())),
        }
    }

    /// All endpoints by age, each with the server that delivers to it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn endpoints(&self) -> Result<Vec<(EndpointRecord, String)>, StoreError> {
        self.read(|connection| {
            let rows = webhook_endpoints::table.order(webhook_endpoints::id.asc()).select(EndpointRow::as_select());
            let rows = rows.load(connection)?;
            let with_server = |row: EndpointRow| {
                let server = row.claimed_by.clone();
                Ok((row.read()?, server))
            };
            rows.into_iter().map(with_server).collect()
        })
        .await
    }

    /// An endpoint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<EndpointRecord>, StoreError> {
        self.read(move |connection| {
            let row = webhook_endpoints::table.filter(webhook_endpoints::id.eq(id.to_string()));
            let row = row.select(EndpointRow::as_select()).first(connection).optional()?;
            row.map(EndpointRow::read).transpose()
        })
        .await
    }

    /// A page of endpoints: of one owner, or all. Their ids are the cursors.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn endpoints_page(&self, owner: Option<&str>, page: &Page) -> Result<Paged<EndpointRecord>, StoreError> {
        let (owner, page) = (owner.map(text), page.clone());
        self.read(move |connection| {
            let mut query = webhook_endpoints::table.select(EndpointRow::as_select()).into_boxed();
            if let Some(owner) = owner.clone() {
                query = query.filter(webhook_endpoints::owner.eq(owner));
            }
            let walk = Walk::new(&page, page.after.clone(), page.before.clone());
            let rows = walk!(query, walk, webhook_endpoints::id).load::<EndpointRow>(connection)?;
            walk.finish(rows, EndpointRow::read)
        })
        .await
    }
}
