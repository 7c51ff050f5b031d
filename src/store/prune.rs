//! Retention in the log: the progress of a finished turn is taken out of it, a few rows at a time.
//!
//! What stays is what it was, byte for byte, and where it was: rows keep their position in the feed and their last `seq`,
//! which is their name. A row of which nothing stays goes, and the next row of its key that stays begins where it began:
//! so the gap is on record, for those who read the feed and cannot see from one key's numbers that some are missing. A
//! finished turn ends with an event that stays, so there always is a next row, and the newest row is never touched.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};

use super::{
    PruneStep, Pruned,
    codec::{signed, unsigned},
    connection::AnyConnection,
    events::{end_of_page, whole},
    fault::Fault,
    schema::{event_batches, turns},
};
use crate::{
    ids::TurnId,
    protocol::{Frame, frame::PROGRESS},
};

/// Rows and bytes of one step: what a commit may carry beside what somebody waits for.
const STEP: (usize, usize) = (64, 256 * 1024);

#[derive(Queryable, QueryableByName)]
struct Stored {
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = Text)]
    payload: String,
}

/// What stays of a row.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    /// The events that stay, joined.
    payload: String,
    /// How many do not.
    removed: usize,
    /// The turn ends in this row.
    ends: bool,
}

/// What stays of a row when the progress of a turn goes.
fn thin(key: &str, row: &Stored, turn: TurnId) -> Result<Rest, Fault> {
    let mut rest = Rest { payload: String::with_capacity(row.payload.len()), removed: 0, ends: false };
    for event in whole(key, row.first_seq, row.last_seq, &row.payload)? {
        let (seq, event) = event?;
        let frame = Frame::decode(event).map_err(|error| Fault::Row(format!("event {seq} of {key}: {error}")))?;
        let own = frame.turn_id == Some(turn);
        if own && PROGRESS.contains(&&*frame.kind) {
            rest.removed += 1;
            continue;
        }
        rest.ends |= own && &*frame.kind == "turn.finished";
        if !rest.payload.is_empty() {
            rest.payload.push('\n');
        }
        rest.payload.push_str(event);
    }
    Ok(rest)
}

/// Makes one step; with the last one the turn counts as pruned.
pub(super) fn step(c: &mut AnyConnection, step: &PruneStep) -> Result<Pruned, Fault> {
    let key = step.key.as_str();
    let Some(end) = end_of_page(c, key, step.after, STEP.0, STEP.1)? else { return finish(c, step, Pruned::default()) };
    let mut done = Pruned::default();
    // Where what was removed since the last row that stays begins.
    let mut gap: Option<i64> = None;
    for row in rows(c, key, signed(step.after), end)? {
        done.next = Some(unsigned("event_batches.last_seq", row.last_seq)?);
        // What stands for a deleted session.
        if row.payload.is_empty() {
            continue;
        }
        let rest = match thin(key, &row, step.turn) {
            // What cannot be read stays as it is, and keeps nothing else from being pruned.
            Err(Fault::Row(cause)) => {
                log::error!(session = key; "events cannot be pruned: {cause}");
                Rest { payload: row.payload.clone(), removed: 0, ends: false }
            }
            rest => rest?,
        };
        let of_row =
            event_batches::table.filter(event_batches::key.eq(key)).filter(event_batches::last_seq.eq(row.last_seq));
        done.events += rest.removed;
        if rest.payload.is_empty() {
            diesel::delete(of_row).execute(c)?;
            done.bytes += row.payload.len();
            gap = gap.or(Some(row.first_seq));
            continue;
        }
        let first_seq = gap.take().unwrap_or(row.first_seq);
        if rest.removed > 0 {
            done.bytes += row.payload.len() - rest.payload.len();
            let bytes = i64::try_from(rest.payload.len()).unwrap_or(i64::MAX);
            let columns = (
                event_batches::first_seq.eq(first_seq),
                event_batches::bytes.eq(bytes),
                event_batches::payload.eq(rest.payload),
            );
            diesel::update(of_row).set(columns).execute(c)?;
        } else if first_seq < row.first_seq {
            diesel::update(of_row).set(event_batches::first_seq.eq(first_seq)).execute(c)?;
        }
        if rest.ends {
            return finish(c, step, done);
        }
    }
    if let Some(first_seq) = gap {
        begin_next_at(c, key, end, first_seq)?;
    }
    Ok(done)
}

/// The rows of a step. On Postgres they are locked, so that a delete of the session or another server's step comes
/// before or after this one.
fn rows(c: &mut AnyConnection, key: &str, after: i64, end: i64) -> Result<Vec<Stored>, Fault> {
    match c {
        AnyConnection::Sqlite(c) => Ok(event_batches::table
            .filter(event_batches::key.eq(key))
            .filter(event_batches::last_seq.gt(after))
            .filter(event_batches::last_seq.le(end))
            .order(event_batches::last_seq.asc())
            .select((event_batches::first_seq, event_batches::last_seq, event_batches::payload))
            .load(c)?),
        AnyConnection::Postgres(c) => {
            let sql = "SELECT first_seq, last_seq, payload FROM event_batches \
                       WHERE key = $1 AND last_seq > $2 AND last_seq <= $3 ORDER BY last_seq FOR UPDATE";
            Ok(sql_query(sql).bind::<Text, _>(key).bind::<BigInt, _>(after).bind::<BigInt, _>(end).load(c)?)
        }
    }
}

/// The first row after `end` stands for what was removed before it.
fn begin_next_at(c: &mut AnyConnection, key: &str, end: i64, first_seq: i64) -> Result<(), Fault> {
    let of_key = || event_batches::table.filter(event_batches::key.eq(key));
    let next = of_key().filter(event_batches::last_seq.gt(end)).select(diesel::dsl::min(event_batches::last_seq));
    let Some(next) = next.first::<Option<i64>>(c)? else {
        return Err(Fault::Row(format!("the log of {key} ends in the middle of a finished turn")));
    };
    let row = of_key().filter(event_batches::last_seq.eq(next)).filter(event_batches::first_seq.gt(first_seq));
    diesel::update(row).set(event_batches::first_seq.eq(first_seq)).execute(c)?;
    Ok(())
}

fn finish(c: &mut AnyConnection, step: &PruneStep, done: Pruned) -> Result<Pruned, Fault> {
    let turn = turns::table.filter(turns::id.eq(step.turn.to_string()));
    diesel::update(turn).set(turns::pruned.eq(true)).execute(c)?;
    Ok(Pruned { next: None, ..done })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::MessageId,
        protocol::{Event, EventBody, event::DeltaKind},
        timestamp::Timestamp,
    };

    fn delta(seq: u64, turn: TurnId) -> String {
        let body =
            EventBody::MessageDelta { message_id: MessageId::new(), part: 0, kind: DeltaKind::Text, delta: "x".into() };
        let event = Event { seq, body, session: "k".parse().unwrap(), turn_id: Some(turn), at: Timestamp(0) };
        Frame::encode(&event).json.to_string()
    }

    #[test]
    fn only_the_progress_of_the_turn_goes_and_the_rest_keeps_its_bytes() {
        let (turn, other) = (TurnId::new(), TurnId::new());
        let kept = delta(3, other);
        let payload = [delta(2, turn), kept.clone(), delta(5, turn)].join("\n");
        let row = Stored { first_seq: 1, last_seq: 5, payload };
        assert_eq!(thin("k", &row, turn).unwrap(), Rest { payload: kept, removed: 2, ends: false });
        let wrong = Stored { first_seq: 1, last_seq: 4, ..row };
        assert!(matches!(thin("k", &wrong, turn), Err(Fault::Row(_))), "it names an event that is not its own");
    }
}
