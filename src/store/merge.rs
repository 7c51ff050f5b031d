//! Batches on Postgres, where each statement is a round trip: the log's compare-and-sets, the events, new turns and
//! messages of many appends go out in one statement each. What comes rarely stays as it is on SQLite.
//!
//! On SQLite the same would be slower: there a statement costs next to nothing once it is prepared, and diesel
//! prepares statements of varying length anew each time.

use std::collections::{HashMap, HashSet};

use diesel::{
    PgConnection, QueryableByName, RunQueryDsl as _, sql_query,
    sql_types::{Array, BigInt, Text},
};

use super::{
    Append, SessionWrite, TurnWrite,
    append::{check_numbers, last_seq, write_rest, write_session},
    audit,
    codec::signed,
    connection::AnyConnection,
    events::BatchRow,
    fault::Fault,
    job::{Reply, Write, one},
    messages::MessageRow,
    schema::{attachments, event_batches, messages, turns},
    turns::{self as turn_rows, AttachmentsRow, TurnRow},
};
use crate::protocol::account::AuditEntry;

/// Rows in one statement; Postgres takes 65 535 parameters.
pub(super) const MAX_ROWS: usize = 1000;

/// Appends of one key that follow each other: one compare-and-set for all.
struct Chain {
    epoch: i64,
    expected: i64,
    last: i64,
}

/// Appends that can be made together, with their places in the batch.
#[derive(Default)]
struct Group<'a> {
    appends: Vec<(usize, &'a Append)>,
    chains: HashMap<&'a str, Chain>,
}

impl<'a> Group<'a> {
    /// Takes an append in, unless it has to be made after what is here already.
    fn take(&mut self, place: usize, append: &'a Append) -> bool {
        let expected = signed(append.expected_seq);
        match self.chains.get_mut(append.key.as_str()) {
            Some(chain) if chain.epoch == append.epoch && chain.last == expected => chain.last = last_seq(append),
            Some(_) => return false,
            None => {
                let chain = Chain { epoch: append.epoch, expected, last: last_seq(append) };
                self.chains.insert(append.key.as_str(), chain);
            }
        }
        self.appends.push((place, append));
        true
    }
}

/// Does all jobs as if one after the other.
pub(super) fn all(connection: &mut AnyConnection, lane: i32, writes: &[Write]) -> Result<Vec<Reply>, Fault> {
    let mut replies = vec![Reply::Done; writes.len()];
    let mut group = Group::default();
    for (place, write) in writes.iter().enumerate() {
        if let Write::Append(append) = write
            && matches!(append.session, SessionWrite::Keep | SessionWrite::Update(_) | SessionWrite::Touch(_))
        {
            check_numbers(append)?;
            if group.take(place, append) {
                continue;
            }
            flush(connection, lane, std::mem::take(&mut group), &mut replies)?;
            group.take(place, append);
            continue;
        }
        flush(connection, lane, std::mem::take(&mut group), &mut replies)?;
        set(&mut replies, place, one(connection, lane, write)?);
    }
    flush(connection, lane, group, &mut replies)?;
    Ok(replies)
}

fn set(replies: &mut [Reply], place: usize, reply: Reply) {
    if let Some(slot) = replies.get_mut(place) {
        *slot = reply;
    }
}

fn flush(connection: &mut AnyConnection, lane: i32, group: Group<'_>, replies: &mut [Reply]) -> Result<(), Fault> {
    if group.appends.is_empty() {
        return Ok(());
    }
    let advanced = advance(connection, &group.chains)?;
    let (places, won): (Vec<usize>, Vec<&Append>) =
        group.appends.iter().filter(|(_, append)| advanced.contains(append.key.as_str())).copied().unzip();
    let positions = insert_rows(connection, lane, &won)?;
    for (place, append) in places.into_iter().zip(&won) {
        let position = positions.get(&(append.key.as_str(), last_seq(append))).copied();
        set(replies, place, Reply::Appended(lane, position.filter(|_| !append.events.frames().is_empty())));
    }
    // Of several states of a session the last one stays; a touch after an update leaves what the update has set.
    let mut seen = HashSet::new();
    let mut updates: Vec<&Append> = Vec::new();
    for append in won.iter().rev() {
        match append.session {
            SessionWrite::Update(_) if seen.insert((append.key.as_str(), true)) => updates.push(append),
            SessionWrite::Touch(_)
                if !seen.contains(&(append.key.as_str(), true)) && seen.insert((append.key.as_str(), false)) =>
            {
                updates.push(append);
            }
            _ => {}
        }
    }
    for append in updates.into_iter().rev() {
        write_session(connection, append)?;
    }
    let noted: Vec<&AuditEntry> = won.iter().flat_map(|append| &append.audit).collect();
    for append in won {
        for write in append.turns.iter().filter(|write| !matches!(write, TurnWrite::Insert(_))) {
            turn_rows::write(connection, &append.key, write)?;
        }
        write_rest(connection, append)?;
    }
    audit::insert(connection, noted)?;
    // A chain that did not fit may still be right in a later link; each of its appends is answered for itself.
    for (place, append) in group.appends.iter().filter(|(_, append)| !advanced.contains(append.key.as_str())) {
        set(replies, *place, Reply::of(lane, super::append::apply(connection, lane, append)?));
    }
    Ok(())
}

/// The compare-and-sets; gives the keys whose log has moved on.
fn advance(connection: &mut AnyConnection, chains: &HashMap<&str, Chain>) -> Result<HashSet<String>, Fault> {
    #[derive(QueryableByName)]
    struct Key {
        #[diesel(sql_type = Text)]
        key: String,
    }
    let (mut keys, mut epochs, mut expected, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (key, chain) in chains {
        keys.push(*key);
        epochs.push(chain.epoch);
        expected.push(chain.expected);
        last.push(chain.last);
    }
    let sql = "UPDATE logs SET last_seq = v.last \
               FROM unnest($1, $2, $3, $4) AS v(key, epoch, expected, last) \
               WHERE logs.key = v.key AND logs.epoch = v.epoch AND logs.last_seq = v.expected \
               RETURNING logs.key";
    let rows = sql_query(sql)
        .bind::<Array<Text>, _>(keys)
        .bind::<Array<BigInt>, _>(epochs)
        .bind::<Array<BigInt>, _>(expected)
        .bind::<Array<BigInt>, _>(last)
        .load::<Key>(postgres(connection)?)?;
    Ok(rows.into_iter().map(|row| row.key).collect())
}

/// Gives the position of each new row of events by its key and last `seq`.
fn insert_rows<'a>(
    connection: &mut AnyConnection,
    lane: i32,
    appends: &[&'a Append],
) -> Result<HashMap<(&'a str, i64), i64>, Fault> {
    let (mut batches, mut new_turns, mut files, mut new_messages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for append in appends {
        batches.extend(BatchRow::new(lane, &append.key, append.expected_seq, &append.events));
        for write in &append.turns {
            if let TurnWrite::Insert(record) = write {
                new_turns.push(TurnRow::new(record)?);
                files.extend(AttachmentsRow::new(record)?);
            }
        }
        for message in &append.messages {
            new_messages.push(MessageRow::new(message)?);
        }
    }
    let c = postgres(connection)?;
    let mut placed: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for rows in batches.chunks(MAX_ROWS) {
        let places = (event_batches::key, event_batches::last_seq, event_batches::position);
        let rows = diesel::insert_into(event_batches::table).values(rows).returning(places);
        for (key, last_seq, position) in rows.get_results::<(String, i64, i64)>(c)? {
            placed.entry(key).or_default().push((last_seq, position));
        }
    }
    for rows in new_turns.chunks(MAX_ROWS) {
        diesel::insert_into(turns::table).values(rows).execute(c)?;
    }
    for rows in files.chunks(MAX_ROWS) {
        diesel::insert_into(attachments::table).values(rows).execute(c)?;
    }
    for rows in new_messages.chunks(MAX_ROWS) {
        diesel::insert_into(messages::table).values(rows).execute(c)?;
    }
    let of = |append: &&'a Append| {
        let places = placed.get(append.key.as_str()).into_iter().flatten();
        places.map(|(last_seq, position)| ((append.key.as_str(), *last_seq), *position)).collect::<Vec<_>>()
    };
    Ok(appends.iter().flat_map(of).collect())
}

fn postgres(connection: &mut AnyConnection) -> Result<&mut PgConnection, Fault> {
    match connection {
        AnyConnection::Postgres(c) => Ok(c),
        AnyConnection::Sqlite(_) => Err(Fault::Row("appends are merged on Postgres only".into())),
    }
}
