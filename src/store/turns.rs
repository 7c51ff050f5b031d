//! Turns, with the files that came with them.

use std::sync::Arc;

use diesel::prelude::*;

use super::{
    Page, Paged, Store, StoreError, TurnRecord, TurnWrite,
    codec::{from_json, optional_text, parse, parse_optional, signed, text, to_json, unsigned},
    connection::{AnyConnection, each},
    fault::Fault,
    hot::AdvanceTurn,
    page::{Walk, walk},
    schema::{attachments, turns},
};
use crate::{
    ids::{SessionKey, TurnId},
    protocol::{Attachment, Turn, TurnState},
    timestamp::Timestamp,
};

/// A row of `turns`.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = turns, treat_none_as_default_value = false)]
pub(super) struct TurnRow {
    id: String,
    key: String,
    session_id: String,
    state: String,
    unfinished: bool,
    source: String,
    client_id: Option<String>,
    text: String,
    files: String,
    metadata: String,
    agent: String,
    model: Option<String>,
    mode: Option<String>,
    permission_mode: Option<String>,
    attempt: i64,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    error: Option<String>,
    reason: Option<String>,
    summary: Option<String>,
    usage: String,
    continued_from: Option<String>,
    rank: i64,
    first_seq: i64,
    steers: Option<String>,
}

impl TurnRow {
    /// The row of a record.
    pub(super) fn new(record: &TurnRecord) -> Result<Self, Fault> {
        let t = &record.turn;
        Ok(Self {
            id: t.id.to_string(),
            key: t.session.to_string(),
            session_id: record.conversation.to_string(),
            state: t.state.as_str().into(),
            unfinished: !t.state.is_terminal(),
            source: text(&t.source),
            client_id: optional_text(t.client_id.as_ref()),
            text: text(&t.text),
            files: to_json(&t.attachments)?,
            metadata: to_json(&t.metadata)?,
            agent: text(&t.agent),
            model: optional_text(t.model.as_ref()),
            mode: optional_text(record.mode.as_ref()),
            permission_mode: optional_text(record.permission_mode.as_ref()),
            attempt: i64::from(t.attempt),
            created_at: t.created_at.0,
            started_at: t.started_at.map(|at| at.0),
            finished_at: t.finished_at.map(|at| at.0),
            error: t.error.as_ref().map(to_json).transpose()?,
            reason: optional_text(t.reason.as_ref()),
            summary: optional_text(t.summary.as_ref()),
            usage: to_json(&t.usage)?,
            continued_from: t.continued_from.map(|id| id.to_string()),
            rank: record.rank,
            first_seq: signed(record.first_seq),
            steers: record.steers.map(|id| id.to_string()),
        })
    }

    fn read(self, attachments: Vec<Attachment>) -> Result<TurnRecord, Fault> {
        let turn = Turn {
            id: parse("turns.id", &self.id)?,
            session: parse("turns.key", &self.key)?,
            state: TurnState::parse(&self.state)
                .ok_or_else(|| Fault::Row(format!("turns.state: {:?} is none", self.state)))?,
            source: self.source,
            client_id: self.client_id,
            text: self.text,
            attachments: from_json("turns.files", &self.files)?,
            metadata: from_json("turns.metadata", &self.metadata)?,
            agent: self.agent,
            model: self.model,
            position: None,
            attempt: u32::try_from(self.attempt).map_err(|error| Fault::Row(format!("turns.attempt: {error}")))?,
            created_at: Timestamp(self.created_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            error: self.error.map(|error| from_json("turns.error", &error)).transpose()?,
            reason: self.reason,
            summary: self.summary,
            usage: from_json("turns.usage", &self.usage)?,
            continued_from: parse_optional("turns.continued_from", self.continued_from.as_deref())?,
        };
        Ok(TurnRecord {
            turn,
            conversation: parse("turns.session_id", &self.session_id)?,
            rank: self.rank,
            mode: self.mode,
            permission_mode: self.permission_mode,
            attachments: Arc::new(attachments),
            first_seq: unsigned("turns.first_seq", self.first_seq)?,
            steers: parse_optional("turns.steers", self.steers.as_deref())?,
        })
    }
}

/// The statement that brings a stored turn up to its record.
fn advance(key: &SessionKey, record: &TurnRecord) -> Result<AdvanceTurn, Fault> {
    let t = &record.turn;
    Ok(AdvanceTurn {
        // A reset may have come while it waited.
        session_id: record.conversation.to_string(),
        // Another agent may have taken its place.
        agent: text(&t.agent),
        model: optional_text(t.model.as_ref()),
        state: t.state.as_str().into(),
        unfinished: !t.state.is_terminal(),
        started_at: t.started_at.map(|at| at.0),
        finished_at: t.finished_at.map(|at| at.0),
        error: t.error.as_ref().map(to_json).transpose()?,
        reason: optional_text(t.reason.as_ref()),
        summary: optional_text(t.summary.as_ref()),
        usage: to_json(&t.usage)?,
        rank: record.rank,
        first_seq: signed(record.first_seq),
        steers: record.steers.map(|id| id.to_string()),
        id: t.id.to_string(),
        key: key.to_string(),
    })
}

/// A row of `attachments`.
#[derive(Insertable)]
#[diesel(table_name = attachments)]
pub(super) struct AttachmentsRow {
    turn_id: String,
    content: String,
}

impl AttachmentsRow {
    /// The files of a new turn; none when it has none.
    pub(super) fn new(record: &TurnRecord) -> Result<Option<Self>, Fault> {
        if record.attachments.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { turn_id: record.turn.id.to_string(), content: to_json(&record.attachments)? }))
    }
}

/// Makes one change.
pub(super) fn write(connection: &mut AnyConnection, key: &SessionKey, write: &TurnWrite) -> Result<(), Fault> {
    let id = match write {
        TurnWrite::Insert(record) => {
            let row = TurnRow::new(record)?;
            each!(connection, c => diesel::insert_into(turns::table).values(row).execute(c))?;
            if let Some(row) = AttachmentsRow::new(record)? {
                diesel::insert_into(attachments::table).values(row).execute(connection)?;
            }
            return Ok(());
        }
        TurnWrite::Update(record) => record.turn.id,
        TurnWrite::Text(id, _) | TurnWrite::Remove(id) => *id,
    };
    let name = id.to_string();
    let target = turns::table.filter(turns::id.eq(&name)).filter(turns::key.eq(key.as_str()));
    let changed = match write {
        TurnWrite::Update(record) => {
            let statement = advance(key, record)?;
            each!(connection, c => statement.execute(c))?
        }
        TurnWrite::Text(_, new) => diesel::update(target).set(turns::text.eq(text(new))).execute(connection)?,
        TurnWrite::Insert(_) | TurnWrite::Remove(_) => diesel::delete(target).execute(connection)?,
    };
    match changed {
        1 => Ok(()),
        _ => Err(Fault::Row(format!("turn {id} is to be changed and is not stored"))),
    }
}

fn with_attachments(connection: &mut AnyConnection, row: TurnRow) -> Result<TurnRecord, Fault> {
    // `files` tells whether there are any, without a look into the other table.
    if row.files == "[]" {
        return row.read(Vec::new());
    }
    let content = attachments::table
        .filter(attachments::turn_id.eq(row.id.clone()))
        .select(attachments::content)
        .first::<String>(connection)
        .optional()?;
    let content = content.map_or_else(|| Ok(Vec::new()), |content| from_json("attachments.content", &content))?;
    row.read(content)
}

/// The turns of a key that are not over: what runs, then what waits (by rank), then texts offered to what runs.
pub(super) fn unfinished(connection: &mut AnyConnection, key: &str) -> Result<Vec<TurnRecord>, Fault> {
    let rows = turns::table
        .filter(turns::key.eq(key))
        .filter(turns::unfinished)
        .order((turns::rank.asc(), turns::id.asc()))
        .select(TurnRow::as_select())
        .load(connection)?;
    let records = rows.into_iter().map(|row| with_attachments(connection, row));
    let mut records = records.collect::<Result<Vec<_>, Fault>>()?;
    records.sort_by_key(|record| (record.steers.is_some(), record.turn.state == TurnState::Queued));
    Ok(records)
}

fn list(
    connection: &mut AnyConnection,
    key: &str,
    state: Option<TurnState>,
    page: &Page,
) -> Result<Paged<TurnRecord>, Fault> {
    let mut query = turns::table
        .filter(turns::key.eq(key))
        .filter(turns::steers.is_null())
        .select(TurnRow::as_select())
        .into_boxed();
    if let Some(state) = state {
        query = query.filter(turns::state.eq(state.as_str()));
    }
    let walk = Walk::new(page, page.after.clone(), page.before.clone());
    let rows = walk!(query, walk, turns::id).load(connection)?;
    walk.finish(rows, |row: TurnRow| row.read(Vec::new()))
}

impl Store {
    /// The keys that have a turn without a terminal state: the sessions to open at start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unfinished_keys(&self) -> Result<Vec<SessionKey>, StoreError> {
        self.read(|connection| {
            let keys = turns::table.filter(turns::unfinished).select(turns::key).distinct().order(turns::key.asc());
            let keys = keys.load::<String>(connection)?;
            let known = keys.iter().filter_map(|key| match parse("turns.key", key) {
                Ok(key) => Some(key),
                // One that makes no sense must not keep the others from being taken up.
                Err(fault) => {
                    log::error!(key = key.as_str(); "unfinished turns have a key that is none: {fault:?}");
                    None
                }
            });
            Ok(known.collect())
        })
        .await
    }

    /// A turn of whichever session, without its files.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn turn_by_id(&self, id: TurnId) -> Result<Option<TurnRecord>, StoreError> {
        let id = id.to_string();
        self.read(move |connection| {
            let row =
                turns::table.filter(turns::id.eq(&id)).select(TurnRow::as_select()).first(connection).optional()?;
            row.map(|row| row.read(Vec::new())).transpose()
        })
        .await
    }

    /// A turn of the key with its files; none when there is no such turn, or only a text that was offered to another.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn turn(&self, key: &SessionKey, id: TurnId) -> Result<Option<TurnRecord>, StoreError> {
        let (key, id) = (key.clone(), id.to_string());
        self.read(move |connection| {
            let row = turns::table
                .filter(turns::id.eq(&id))
                .filter(turns::key.eq(key.as_str()))
                .filter(turns::steers.is_null())
                .select(TurnRow::as_select())
                .first(connection)
                .optional()?;
            row.map(|row| with_attachments(connection, row)).transpose()
        })
        .await
    }

    /// A page of the key's turns, over all its conversations, in the order of their ids, which are the cursors.
    /// `attachments` is empty in these records: a page must not load a hundred files.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn turns(
        &self,
        key: &SessionKey,
        state: Option<TurnState>,
        page: &Page,
    ) -> Result<Paged<TurnRecord>, StoreError> {
        let (key, page) = (key.clone(), page.clone());
        self.read(move |connection| list(connection, key.as_str(), state, &page)).await
    }
}
