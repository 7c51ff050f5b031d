//! The audit: entries are added and read; the database itself refuses to change one, and to remove one that is younger
//! than the operator keeps them.

use diesel::prelude::*;

use super::{
    Page, Paged, Store, StoreError,
    codec::{from_json, optional_text, parse, parse_optional, text, to_json},
    connection::AnyConnection,
    fault::Fault,
    job::{Reply, Write},
    merge::MAX_ROWS,
    page::{Walk, walk},
    schema::{audit, audit_horizon},
};
use crate::{ids::SessionKey, protocol::account::AuditEntry, timestamp::Timestamp};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audit, treat_none_as_default_value = false)]
struct AuditRow {
    id: String,
    at: i64,
    actor: String,
    token_id: Option<String>,
    action: String,
    session_key: Option<String>,
    owner: String,
    detail: String,
    ip: Option<String>,
}

impl AuditRow {
    fn new(entry: &AuditEntry) -> Result<Self, Fault> {
        Ok(Self {
            id: entry.id.to_string(),
            at: entry.at.0,
            actor: text(&entry.actor),
            token_id: entry.token_id.map(|id| id.to_string()),
            action: text(&entry.action),
            session_key: entry.session.as_ref().map(ToString::to_string),
            owner: text(&entry.owner),
            detail: to_json(&entry.detail)?,
            ip: optional_text(entry.ip.as_ref()),
        })
    }

    fn read(self) -> Result<AuditEntry, Fault> {
        Ok(AuditEntry {
            id: parse("audit.id", &self.id)?,
            at: Timestamp(self.at),
            actor: self.actor,
            token_id: parse_optional("audit.token_id", self.token_id.as_deref())?,
            action: self.action,
            session: parse_optional("audit.session_key", self.session_key.as_deref())?,
            owner: self.owner,
            detail: from_json("audit.detail", &self.detail)?,
            ip: self.ip,
        })
    }
}

/// Adds entries.
pub(super) fn insert<'a>(
    connection: &mut AnyConnection,
    entries: impl IntoIterator<Item = &'a AuditEntry>,
) -> Result<(), Fault> {
    let rows = entries.into_iter().map(AuditRow::new).collect::<Result<Vec<_>, _>>()?;
    match connection {
        // A statement for each: it stays prepared.
        AnyConnection::Sqlite(c) => {
            for row in rows {
                diesel::insert_into(audit::table).values(row).execute(c)?;
            }
        }
        AnyConnection::Postgres(c) => {
            for rows in rows.chunks(MAX_ROWS) {
                diesel::insert_into(audit::table).values(rows).execute(c)?;
            }
        }
    }
    Ok(())
}

/// Entries that are removed in one transaction, so that no other write waits for long.
const SWEEP: i64 = 1000;

/// Removes the oldest entries from before a moment; how many. The moment only ever moves on.
pub(super) fn sweep(connection: &mut AnyConnection, before: Timestamp) -> Result<usize, Fault> {
    let later = audit_horizon::table.filter(audit_horizon::before.lt(before.0));
    diesel::update(later).set(audit_horizon::before.eq(before.0)).execute(connection)?;
    // Ids come in the order of their times, so the oldest are found without a look at all.
    let oldest = audit::table.select((audit::id, audit::at)).order(audit::id.asc()).limit(SWEEP);
    let oldest = oldest.load::<(String, i64)>(connection)?;
    let over: Vec<String> = oldest.into_iter().filter(|(_, at)| *at < before.0).map(|(id, _)| id).collect();
    Ok(diesel::delete(audit::table.filter(audit::id.eq_any(over))).execute(connection)?)
}

/// Which entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// About this session.
    pub session: Option<SessionKey>,
    /// About sessions of this user, or about the user itself.
    pub owner: Option<String>,
    /// By this user.
    pub actor: Option<String>,
    /// Of this action, or of all that begin with it and a dot.
    pub action: Option<String>,
}

fn list(connection: &mut AnyConnection, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditEntry>, Fault> {
    let mut query = audit::table.select(AuditRow::as_select()).into_boxed();
    if let Some(session) = &filter.session {
        query = query.filter(audit::session_key.eq(session.as_str().to_owned()));
    }
    if let Some(owner) = &filter.owner {
        query = query.filter(audit::owner.eq(text(owner)));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(audit::actor.eq(text(actor)));
    }
    if let Some(action) = &filter.action {
        let literal = text(action).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let below = audit::action.like(format!("{literal}.%")).escape('\\');
        query = query.filter(audit::action.eq(text(action)).or(below));
    }
    let walk = Walk::new(page, page.after.clone(), page.before.clone());
    let rows = walk!(query, walk, audit::id).load::<AuditRow>(connection)?;
    walk.finish(rows, AuditRow::read)
}

impl Store {
    /// Adds entries.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn append_audit(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        self.write(Write::Audit(entries)).await.map(drop)
    }

    /// Removes entries from before a moment; how many. Goes on until there are none left.
    ///
    /// # Errors
    /// When the store fails; what was removed until then is gone.
    pub async fn sweep_audit(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut removed = 0;
        while let Reply::Count(count @ 1..) = self.write(Write::SweepAudit(before)).await? {
            removed += count;
        }
        Ok(removed)
    }

    /// A page of entries, in the order of their ids, which are the cursors.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditEntry>, StoreError> {
        let (filter, page) = (filter.clone(), page.clone());
        self.read(move |connection| list(connection, &filter, &page)).await
    }
}
