//! Appends and claims, inside the writer's transaction.

use diesel::prelude::*;

use super::{
    Append, Audience, Claimed, ClaimedSession, SessionWrite, audit, choices,
    codec::{signed, text, unsigned},
    connection::{AnyConnection, each},
    deliveries,
    events::{self, BatchRow},
    fault::Fault,
    hot::Advance,
    ledger, memory, messages,
    schema::{
        choices as choices_table, event_batches, idempotency_keys, logs, messages as messages_table, native_ids, rules,
        sessions as sessions_table, turns as turns_table,
    },
    sessions, turns,
};
use crate::{ids::SessionKey, protocol::frame::Batch};

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is written; the position of its events in the feed, where it has any.
    Done(Option<i64>),
    /// The caller is fenced; nothing is written.
    Fenced,
}

/// Makes one append.
pub(super) fn apply(connection: &mut AnyConnection, lane: i32, append: &Append) -> Result<Applied, Fault> {
    check_numbers(append)?;
    if !advance(connection, append)? {
        return Ok(Applied::Fenced);
    }
    let row = if append.session == SessionWrite::Delete {
        remove_all(connection, append)?;
        last_word(lane, append)
    } else {
        BatchRow::new(lane, &append.key, append.expected_seq, &append.events)
    };
    let position = row.map(|row| events::insert(connection, &row)).transpose()?;
    write_session(connection, append)?;
    for write in &append.turns {
        turns::write(connection, &append.key, write)?;
    }
    for message in &append.messages {
        messages::insert(connection, message)?;
    }
    write_rest(connection, append)?;
    audit::insert(connection, &append.audit)?;
    Ok(Applied::Done(position))
}

/// The events must go on where the log ends: a mistake here would be there for ever.
pub(super) fn check_numbers(append: &Append) -> Result<(), Fault> {
    for (expected, frame) in (append.expected_seq.saturating_add(1)..).zip(append.events.frames()) {
        if frame.seq != expected {
            return Err(Fault::Row(format!("event {} of {} should be {expected}", frame.seq, append.key)));
        }
    }
    Ok(())
}

/// The newest event after the append.
pub(super) fn last_seq(append: &Append) -> i64 {
    let count = u64::try_from(append.events.frames().len()).unwrap_or(u64::MAX);
    signed(append.expected_seq.saturating_add(count))
}

/// The compare-and-set.
fn advance(connection: &mut AnyConnection, append: &Append) -> Result<bool, Fault> {
    let key = append.key.as_str();
    let last = last_seq(append);
    let changed = if append.epoch == 0 && matches!(append.session, SessionWrite::Create(_)) {
        let values = (logs::key.eq(key), logs::epoch.eq(1i64), logs::last_seq.eq(last), logs::oldest_seq.eq(1i64));
        each!(connection, c => diesel::insert_into(logs::table).values(values).on_conflict_do_nothing().execute(c))?
    } else {
        let expected = signed(append.expected_seq);
        if append.session == SessionWrite::Delete {
            let target = logs::table
                .filter(logs::key.eq(key))
                .filter(logs::epoch.eq(append.epoch))
                .filter(logs::last_seq.eq(expected));
            let values = (logs::last_seq.eq(last), logs::oldest_seq.eq(last));
            each!(connection, c => diesel::update(target).set(values).execute(c))?
        } else {
            let (key, epoch) = (key.to_owned(), append.epoch);
            let statement = Advance { last_seq: last, key, epoch, expected_seq: expected };
            each!(connection, c => statement.execute(c))?
        }
    };
    Ok(changed == 1)
}

/// Writes the session row.
pub(super) fn write_session(connection: &mut AnyConnection, append: &Append) -> Result<(), Fault> {
    match &append.session {
        SessionWrite::Keep | SessionWrite::Delete => Ok(()),
        SessionWrite::Create(record) => sessions::insert(connection, record, None),
        SessionWrite::Update(record) => sessions::update(connection, record, true),
        SessionWrite::Touch(record) => sessions::touch(connection, record),
        SessionWrite::Replace { previous, next } => {
            sessions::update(connection, previous, false)?;
            memory::forget(connection, append.key.as_str(), &previous.snapshot.id.to_string())?;
            sessions::insert(connection, next, Some(previous.snapshot.id))
        }
    }
}

/// Writes what comes with few appends only.
pub(super) fn write_rest(connection: &mut AnyConnection, append: &Append) -> Result<(), Fault> {
    let key = append.key.as_str();
    for write in &append.choices {
        choices::write(connection, &append.key, write)?;
    }
    for rule in &append.rules {
        memory::add_rule(connection, key, rule)?;
    }
    for (session, agent, native_id) in &append.native_ids {
        memory::set_native_id(connection, &session.to_string(), agent, native_id.as_deref())?;
    }
    for record in &append.idempotency {
        ledger::remember(connection, record, Some(key))?;
    }
    deliveries::insert(connection, &append.deliveries)
}

/// Removes all of a key but its row in `logs`, and one row in the feed that stands for the events that are gone.
fn remove_all(c: &mut AnyConnection, append: &Append) -> Result<(), Fault> {
    let key = append.key.as_str();
    let owner = append.audience.as_ref().map(|audience| text(&audience.owner));
    diesel::update(logs::table.filter(logs::key.eq(key))).set(logs::last_owner.eq(owner)).execute(c)?;
    let of_key = || sessions_table::table.filter(sessions_table::key.eq(key)).select(sessions_table::id);
    diesel::delete(messages_table::table.filter(messages_table::session_id.eq_any(of_key()))).execute(c)?;
    diesel::delete(native_ids::table.filter(native_ids::session_id.eq_any(of_key()))).execute(c)?;
    diesel::delete(choices_table::table.filter(choices_table::key.eq(key))).execute(c)?;
    diesel::delete(rules::table.filter(rules::key.eq(key))).execute(c)?;
    // Their attachments go with them.
    diesel::delete(turns_table::table.filter(turns_table::key.eq(key))).execute(c)?;
    diesel::delete(idempotency_keys::table.filter(idempotency_keys::session_key.eq(key))).execute(c)?;
    deliveries::forget(c, key)?;
    leave_a_mark(c, key, last_seq(append).saturating_sub(1))?;
    diesel::delete(sessions_table::table.filter(sessions_table::key.eq(key))).execute(c)?;
    Ok(())
}

/// What stays of a session: that it was deleted. What else is told with that, as how its last turn ended, goes with it.
fn last_word(lane: i32, append: &Append) -> Option<BatchRow<'_>> {
    let last = append.events.frames().last()?;
    BatchRow::new(lane, &append.key, last.seq.saturating_sub(1), &Batch::new(vec![last.clone()]))
}

/// Removes the events of a key, but leaves its newest row, without its events and for all of them up to `end`: who reads
/// the feed and has not come so far is told that they are gone.
fn leave_a_mark(c: &mut AnyConnection, key: &str, end: i64) -> Result<(), Fault> {
    let of_key = || event_batches::table.filter(event_batches::key.eq(key));
    let span = (diesel::dsl::min(event_batches::first_seq), diesel::dsl::max(event_batches::last_seq));
    let (Some(first), Some(last)) = of_key().select(span).first::<(Option<i64>, Option<i64>)>(c)? else {
        return Ok(());
    };
    diesel::delete(of_key().filter(event_batches::last_seq.lt(last))).execute(c)?;
    let mark = (
        event_batches::first_seq.eq(first),
        event_batches::last_seq.eq(end),
        event_batches::bytes.eq(0i64),
        event_batches::payload.eq(""),
    );
    diesel::update(of_key().filter(event_batches::last_seq.eq(last))).set(mark).execute(c)?;
    Ok(())
}

/// Takes a key over without looking at what is stored under it but for whose it is. None when it has no session.
pub(super) fn claim_for_removal(
    connection: &mut AnyConnection,
    key: &SessionKey,
) -> Result<Option<(Claimed, Audience)>, Fault> {
    let Some(audience) = sessions::audience(connection, key.as_str())? else { return Ok(None) };
    let log = take_over(connection, key.as_str())?;
    Ok(log.map(|claimed| (claimed, audience)))
}

/// Raises the epoch of a key.
fn take_over(connection: &mut AnyConnection, key: &str) -> Result<Option<Claimed>, Fault> {
    let log = diesel::update(logs::table.filter(logs::key.eq(key)))
        .set(logs::epoch.eq(logs::epoch + 1))
        .returning((logs::epoch, logs::last_seq, logs::oldest_seq))
        .get_result::<(i64, i64, i64)>(connection)
        .optional()?;
    let Some((epoch, last_seq, oldest_seq)) = log else { return Ok(None) };
    let lane = match connection {
        AnyConnection::Sqlite(_) => None,
        AnyConnection::Postgres(c) => event_batches::table
            .filter(event_batches::key.eq(key))
            .order(event_batches::last_seq.desc())
            .select(event_batches::lane)
            .first(c)
            .optional()?,
    };
    Ok(Some(Claimed {
        epoch,
        last_seq: unsigned("logs.last_seq", last_seq)?,
        oldest_seq: unsigned("logs.oldest_seq", oldest_seq)?,
        lane,
        session: None,
    }))
}

/// Takes a key over and loads what its new owner needs. None when the key was never used; then nothing is written.
pub(super) fn claim(connection: &mut AnyConnection, key: &SessionKey) -> Result<Option<Claimed>, Fault> {
    let key = key.as_str();
    let Some(mut claimed) = take_over(connection, key)? else { return Ok(None) };
    claimed.session = match sessions::current(connection, key)? {
        None => None,
        Some(record) => {
            let id = record.snapshot.id.to_string();
            Some(ClaimedSession {
                record,
                unfinished: turns::unfinished(connection, key)?,
                choices: choices::pending(connection, key)?,
                rules: memory::rules_of(connection, key)?,
                native_ids: memory::native_ids_of(connection, &id)?,
            })
        }
    };
    Ok(Some(claimed))
}
