//! The event log: one row per append, replayed as it was written.

use diesel::prelude::*;

use super::{
    EventPage, Store, StoreError,
    codec::{signed, unsigned},
    connection::{AnyConnection, at_one_moment},
    fault::Fault,
    schema::{event_batches, logs},
};
use crate::{
    ids::SessionKey,
    protocol::frame::{Batch, seq_of},
};

/// A row of `event_batches`. JSON holds no raw newline, so one joins the events.
#[derive(Insertable)]
#[diesel(table_name = event_batches, treat_none_as_default_value = false)]
pub(super) struct BatchRow<'a> {
    lane: i32,
    key: &'a str,
    first_seq: i64,
    last_seq: i64,
    bytes: i64,
    payload: String,
}

impl<'a> BatchRow<'a> {
    /// The row of a batch; none when it has no events.
    pub(super) fn new(lane: i32, key: &'a SessionKey, expected_seq: u64, batch: &Batch) -> Option<Self> {
        let frames = batch.frames();
        let count = u64::try_from(frames.len()).unwrap_or(u64::MAX);
        if frames.is_empty() {
            return None;
        }
        let mut payload = String::with_capacity(batch.bytes() + frames.len());
        for frame in frames {
            if !payload.is_empty() {
                payload.push('\n');
            }
            payload.push_str(&frame.json);
        }
        Some(Self {
            lane,
            key: key.as_str(),
            first_seq: signed(expected_seq.saturating_add(1)),
            last_seq: signed(expected_seq.saturating_add(count)),
            bytes: i64::try_from(payload.len()).unwrap_or(i64::MAX),
            payload,
        })
    }
}

/// Appends one batch; gives its position in the feed.
pub(super) fn insert(connection: &mut AnyConnection, row: &BatchRow<'_>) -> Result<i64, Fault> {
    diesel::define_sql_function!(fn last_insert_rowid() -> diesel::sql_types::BigInt);
    let insert = diesel::insert_into(event_batches::table).values(row);
    Ok(match connection {
        // With RETURNING, SQLite sets up a table for what it returns, and a journal, at each call.
        AnyConnection::Sqlite(c) => {
            insert.execute(c)?;
            diesel::select(last_insert_rowid()).get_result(c)?
        }
        AnyConnection::Postgres(c) => insert.returning(event_batches::position).get_result(c)?,
    })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = event_batches)]
struct Stored {
    first_seq: i64,
    last_seq: i64,
    payload: String,
}

fn page(
    connection: &mut AnyConnection,
    key: &str,
    after: u64,
    limit: usize,
    max_bytes: usize,
) -> Result<Option<EventPage>, Fault> {
    let log = logs::table.filter(logs::key.eq(key)).select((logs::oldest_seq, logs::last_seq));
    let Some((oldest_seq, last_seq)) = log.first::<(i64, i64)>(connection).optional()? else { return Ok(None) };
    let mut page = EventPage {
        events: Vec::new(),
        oldest_seq: unsigned("logs.oldest_seq", oldest_seq)?,
        last_seq: unsigned("logs.last_seq", last_seq)?,
    };
    // What is before the oldest event went with a deleted session; a row without events stands for it in the feed.
    let after = after.max(page.oldest_seq.saturating_sub(1));
    let Some(end) = end_of_page(connection, key, after, limit, max_bytes)? else { return Ok(Some(page)) };
    let rows = event_batches::table
        .filter(event_batches::key.eq(key))
        .filter(event_batches::last_seq.gt(signed(after)))
        .filter(event_batches::last_seq.le(end))
        .order(event_batches::last_seq.asc())
        .select(Stored::as_select())
        .load(connection)?;
    let mut bytes = 0;
    for row in rows {
        for event in whole(key, row.first_seq, row.last_seq, &row.payload)? {
            let (seq, event) = event?;
            if seq <= after {
                continue;
            }
            bytes += event.len();
            if !page.events.is_empty() && (page.events.len() >= limit || bytes > max_bytes) {
                return Ok(Some(page));
            }
            page.events.push(event.to_owned());
        }
    }
    Ok(Some(page))
}

/// The events of a row with their numbers, which say for themselves where something was pruned. A row that says
/// something else than its columns is damaged.
pub(super) fn whole<'a>(
    key: &'a str,
    first_seq: i64,
    last_seq: i64,
    payload: &'a str,
) -> Result<impl Iterator<Item = Result<(u64, &'a str), Fault>>, Fault> {
    let damaged = move || Fault::Row(format!("events {first_seq} to {last_seq} of {key} are not whole"));
    let (mut next, last) =
        (unsigned("event_batches.first_seq", first_seq)?, unsigned("event_batches.last_seq", last_seq)?);
    Ok(payload.split('\n').map(move |event| {
        let seq = seq_of(event).filter(|seq| (next..=last).contains(seq)).ok_or_else(damaged)?;
        next = seq.saturating_add(1);
        Ok((seq, event))
    }))
}

/// The last row that a page needs, found without loading what it does not need.
pub(super) fn end_of_page(
    connection: &mut AnyConnection,
    key: &str,
    after: u64,
    limit: usize,
    max_bytes: usize,
) -> Result<Option<i64>, Fault> {
    let sizes = event_batches::table
        .filter(event_batches::key.eq(key))
        .filter(event_batches::last_seq.gt(signed(after)))
        .order(event_batches::last_seq.asc())
        .limit(i64::try_from(limit.max(1)).unwrap_or(i64::MAX))
        .select((event_batches::last_seq, event_batches::bytes))
        .load::<(i64, i64)>(connection)?;
    let most = i64::try_from(max_bytes).unwrap_or(i64::MAX);
    let (mut end, mut bytes) = (None, 0i64);
    for (last_seq, size) in sizes {
        // The first row may begin before the page, so it counts only as what follows it.
        if end.is_some() && bytes > most {
            break;
        }
        if end.is_some() {
            bytes = bytes.saturating_add(size);
        }
        end = Some(last_seq);
    }
    Ok(end)
}

impl Store {
    /// The events of a key after `after`, oldest first: at most `limit` of them and `max_bytes` of JSON, but at least
    /// one where there is one. Empty when `after` is at or beyond the end; none when the key was never used. All of
    /// the answer is of one moment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(
        &self,
        key: &SessionKey,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<EventPage>, StoreError> {
        let key = key.clone();
        self.read(move |connection| {
            at_one_moment(connection, |connection| page(connection, key.as_str(), after, limit, max_bytes))
        })
        .await
    }
}
