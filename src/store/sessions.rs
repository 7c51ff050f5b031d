//! Sessions: the present conversation of each key, and the earlier ones.

use diesel::prelude::*;

use super::{
    Audience, Page, Paged, SessionFilter, SessionRecord, Share, Store, StoreError,
    codec::{from_json, from_name, optional_text, parse, signed, text, to_json, to_name, unsigned},
    connection::{AnyConnection, each},
    fault::Fault,
    hot::TouchSession,
    page::{Walk, walk},
    schema::{logs, sessions},
};
use crate::{
    ids::{SessionId, SessionKey},
    protocol::{Snapshot, Visibility},
    timestamp::Timestamp,
};

diesel::define_sql_function! {
    /// Lower case; of ASCII letters only, as the columns that it is used on compare by bytes.
    fn lower(value: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = sessions, treat_none_as_null = true, treat_none_as_default_value = false)]
struct SessionRow {
    id: String,
    key: String,
    is_current: bool,
    title: String,
    owner: String,
    visibility: String,
    org_id: Option<String>,
    agent: String,
    model: Option<String>,
    mode: Option<String>,
    permission_mode: String,
    profile: Option<String>,
    project_id: Option<String>,
    metadata: String,
    archived: bool,
    archived_at: Option<i64>,
    is_primary: bool,
    created_at: i64,
    updated_at: i64,
    last_active_at: i64,
    message_count: i64,
    last_message_preview: Option<String>,
    busy: bool,
    queue_depth: i64,
    last_seq: i64,
    agent_status: String,
    usage: String,
    brief: String,
    feedback: String,
    budget: String,
}

impl SessionRow {
    fn new(record: &SessionRecord, is_current: bool) -> Result<Self, Fault> {
        let s = &record.snapshot;
        Ok(Self {
            id: s.id.to_string(),
            key: s.key.to_string(),
            is_current,
            title: text(&s.title),
            owner: text(&s.owner),
            visibility: s.visibility.as_str().into(),
            org_id: optional_text(s.org_id.as_ref()),
            agent: text(&s.agent),
            model: optional_text(s.model.as_ref()),
            mode: optional_text(s.mode.as_ref()),
            permission_mode: text(&s.permission_mode),
            profile: optional_text(s.profile.as_ref()),
            project_id: optional_text(s.project_id.as_ref()),
            metadata: to_json(&s.metadata)?,
            archived: s.archived,
            archived_at: s.archived_at.map(|at| at.0),
            is_primary: s.primary,
            created_at: s.created_at.0,
            updated_at: s.updated_at.0,
            last_active_at: s.last_active_at.0,
            message_count: signed(s.message_count),
            last_message_preview: optional_text(s.last_message_preview.as_ref()),
            busy: s.busy,
            queue_depth: i64::from(s.queue_depth),
            last_seq: signed(s.last_seq),
            agent_status: to_name(&s.agent_status)?,
            usage: to_json(&s.usage)?,
            brief: to_json(&record.brief)?,
            feedback: to_json(&record.feedback)?,
            budget: to_json(&record.budget)?,
        })
    }

    /// The record. The log grows without the row of its present conversation, so for that one `log_seq` counts.
    fn read(self, log_seq: i64) -> Result<SessionRecord, Fault> {
        let last_seq = if self.is_current { log_seq } else { self.last_seq };
        let snapshot = Snapshot {
            key: parse("sessions.key", &self.key)?,
            id: parse("sessions.id", &self.id)?,
            title: self.title,
            owner: self.owner,
            visibility: Visibility::parse(&self.visibility)
                .ok_or_else(|| Fault::Row(format!("sessions.visibility: {:?}", self.visibility)))?,
            org_id: self.org_id,
            agent: self.agent,
            model: self.model,
            mode: self.mode,
            permission_mode: self.permission_mode,
            profile: self.profile,
            project_id: self.project_id,
            metadata: from_json("sessions.metadata", &self.metadata)?,
            archived: self.archived,
            archived_at: self.archived_at.map(Timestamp),
            primary: self.is_primary,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
            last_active_at: Timestamp(self.last_active_at),
            message_count: unsigned("sessions.message_count", self.message_count)?,
            last_message_preview: self.last_message_preview,
            busy: self.busy,
            queue_depth: u32::try_from(self.queue_depth)
                .map_err(|error| Fault::Row(format!("sessions.queue_depth: {error}")))?,
            live: false,
            subscribers: 0,
            last_seq: unsigned("last_seq", last_seq)?,
            current_turn: None,
            agent_status: from_name("sessions.agent_status", &self.agent_status)?,
            usage: from_json("sessions.usage", &self.usage)?,
            budget: None,
        };
        Ok(SessionRecord {
            snapshot,
            brief: from_json("sessions.brief", &self.brief)?,
            feedback: from_json("sessions.feedback", &self.feedback)?,
            budget: from_json("sessions.budget", &self.budget)?,
        })
    }
}

/// Adds a conversation, which becomes the present one of its key. It takes the place of `previous` in the list.
pub(super) fn insert(
    connection: &mut AnyConnection,
    record: &SessionRecord,
    previous: Option<SessionId>,
) -> Result<(), Fault> {
    let row = SessionRow::new(record, true)?;
    let place = match previous {
        Some(previous) => place(connection, &previous.to_string())?,
        None => row.id.clone(),
    };
    diesel::insert_into(sessions::table).values((row, sessions::list_id.eq(place))).execute(connection)?;
    Ok(())
}

/// The place in the list that an id of a session means, also one of an earlier conversation; of a session that is gone,
/// the id itself.
fn place(connection: &mut AnyConnection, id: &str) -> Result<String, Fault> {
    let place = sessions::table.filter(sessions::id.eq(id)).select(sessions::list_id);
    Ok(place.first(connection).optional()?.unwrap_or_else(|| id.to_owned()))
}

/// Overwrites a conversation that is stored.
pub(super) fn update(connection: &mut AnyConnection, record: &SessionRecord, is_current: bool) -> Result<(), Fault> {
    let row = SessionRow::new(record, is_current)?;
    let target = sessions::table.filter(sessions::id.eq(row.id.clone())).filter(sessions::key.eq(row.key.clone()));
    match diesel::update(target).set(&row).execute(connection)? {
        1 => Ok(()),
        _ => Err(Fault::Row(format!("session {} is to be changed and is not stored", row.id))),
    }
}

/// Overwrites what changes with every turn.
pub(super) fn touch(connection: &mut AnyConnection, record: &SessionRecord) -> Result<(), Fault> {
    let s = &record.snapshot;
    let statement = TouchSession {
        updated_at: s.updated_at.0,
        last_active_at: s.last_active_at.0,
        message_count: signed(s.message_count),
        last_message_preview: optional_text(s.last_message_preview.as_ref()),
        busy: s.busy,
        queue_depth: i64::from(s.queue_depth),
        agent_status: s.agent_status.as_str().into(),
        usage: to_json(&s.usage)?,
        id: s.id.to_string(),
        key: s.key.to_string(),
    };
    match each!(connection, c => statement.execute(c))? {
        1 => Ok(()),
        _ => Err(Fault::Row(format!("session {} is to be changed and is not stored", s.id))),
    }
}

/// The present conversation of a key.
pub(super) fn current(connection: &mut AnyConnection, key: &str) -> Result<Option<SessionRecord>, Fault> {
    let row = sessions::table
        .inner_join(logs::table.on(logs::key.eq(sessions::key)))
        .filter(sessions::key.eq(key))
        .filter(sessions::is_current)
        .select((SessionRow::as_select(), logs::last_seq))
        .first::<(SessionRow, i64)>(connection)
        .optional()?;
    row.map(|(row, last_seq)| row.read(last_seq)).transpose()
}

/// Whose the present conversation of a key is, from nothing but the columns that say so.
pub(super) fn audience(connection: &mut AnyConnection, key: &str) -> Result<Option<Audience>, Fault> {
    let row = sessions::table
        .filter(sessions::key.eq(key))
        .filter(sessions::is_current)
        .select((sessions::owner, sessions::visibility, sessions::org_id))
        .first::<(String, String, Option<String>)>(connection)
        .optional()?;
    Ok(row.map(|(owner, visibility, org_id)| Audience {
        owner: owner.into(),
        // What makes no sense shows it to nobody else.
        visibility: Visibility::parse(&visibility).unwrap_or(Visibility::Private),
        org_id: org_id.map(Into::into),
    }))
}

fn by_id(connection: &mut AnyConnection, id: &str) -> Result<Option<SessionRecord>, Fault> {
    let row = sessions::table
        .inner_join(logs::table.on(logs::key.eq(sessions::key)))
        .filter(sessions::id.eq(id))
        .select((SessionRow::as_select(), logs::last_seq))
        .first::<(SessionRow, i64)>(connection)
        .optional()?;
    row.map(|(row, last_seq)| row.read(last_seq)).transpose()
}

fn list(connection: &mut AnyConnection, filter: &SessionFilter, page: &Page) -> Result<Paged<SessionRecord>, Fault> {
    let mut query = sessions::table
        .inner_join(logs::table.on(logs::key.eq(sessions::key)))
        .filter(sessions::is_current)
        .filter(sessions::archived.eq(filter.archived))
        .select((SessionRow::as_select(), logs::last_seq))
        .into_boxed();
    if let Some(agent) = &filter.agent {
        query = query.filter(sessions::agent.eq(agent));
    }
    if let Some(busy) = filter.busy {
        query = query.filter(sessions::busy.eq(busy));
    }
    if let Some(owner) = &filter.owner {
        query = query.filter(sessions::owner.eq(owner));
    }
    if let Some(viewer) = &filter.seen_by {
        let name = |visibility: Visibility| visibility.as_str().to_owned();
        let of_org = sessions::visibility.eq(name(Visibility::Org)).and(sessions::org_id.eq_any(viewer.orgs.clone()));
        let own = sessions::owner.eq(text(&viewer.user));
        query = query.filter(own.or(sessions::visibility.eq(name(Visibility::Public))).or(of_org.assume_not_null()));
    }
    if let Some(part) = &filter.text {
        let pattern = pattern(part);
        let title = lower(sessions::title).like(pattern.clone()).escape('\\');
        query = query.filter(title.or(lower(sessions::key).like(pattern).escape('\\')));
    }
    let mut cursor = |id: &Option<String>| id.as_ref().map(|id| place(connection, id)).transpose();
    let (after, before) = (cursor(&page.after)?, cursor(&page.before)?);
    let walk = Walk::new(page, after, before);
    let rows = walk!(query, walk, sessions::list_id).load::<(SessionRow, i64)>(connection)?;
    // One that cannot be read must not hide the others.
    let read = |(row, last_seq): (SessionRow, i64)| {
        let key = row.key.clone();
        match row.read(last_seq) {
            Err(Fault::Row(cause)) => {
                log::error!(session = key.as_str(), cause = cause.as_str(); "a session cannot be read and is not listed");
                Ok(None)
            }
            read => read.map(Some),
        }
    };
    let page = walk.finish(rows, read)?;
    Ok(Paged { data: page.data.into_iter().flatten().collect(), has_more: page.has_more })
}

/// The `LIKE` pattern for texts that contain `part`, in lower case.
fn pattern(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for c in text(part).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c.to_ascii_lowercase());
    }
    pattern.push('%');
    pattern
}

impl Store {
    /// The present conversation of the key; none when it has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session(&self, key: &SessionKey) -> Result<Option<SessionRecord>, StoreError> {
        let key = key.clone();
        self.read(move |connection| current(connection, key.as_str())).await
    }

    /// A conversation by its id, also an earlier one of its key.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session_by_id(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let id = id.to_string();
        self.read(move |connection| by_id(connection, &id)).await
    }

    /// How much of the server a user takes up, beside the session of `key`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn share_of(&self, user: &str, key: Option<&SessionKey>) -> Result<Share, StoreError> {
        let (user, key) = (text(user), key.map(ToString::to_string).unwrap_or_default());
        self.read(move |connection| {
            let own = || {
                let present = sessions::table.filter(sessions::is_current).filter(sessions::archived.eq(false));
                present.filter(sessions::owner.eq(&user))
            };
            let busy = own().filter(sessions::busy).filter(sessions::key.ne(&key));
            let present = sessions::table.filter(sessions::is_current).filter(sessions::key.eq(&key));
            Ok(Share {
                sessions: own().count().get_result(connection)?,
                busy_elsewhere: busy.count().get_result(connection)?,
                exists: present.count().get_result::<i64>(connection)? > 0,
            })
        })
        .await
    }

    /// A page of the present conversations of all keys, in the order in which the keys got their first ones. Ids are the
    /// cursors, also those of sessions that were reset or deleted since.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sessions(&self, filter: &SessionFilter, page: &Page) -> Result<Paged<SessionRecord>, StoreError> {
        let (filter, page) = (filter.clone(), page.clone());
        self.read(move |connection| list(connection, &filter, &page)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_taken_literally() {
        assert_eq!(pattern("50%_A\\b"), "%50\\%\\_a\\\\b%");
    }
}
