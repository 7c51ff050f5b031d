//! What calls cost as the log grows: the same server on databases of more and more events.
//!
//! A small database is made by the server itself; the larger ones are copies of its one session under other keys, so
//! every row is one that the server wrote.

use std::{path::Path, time::Instant};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};

use crate::{
    Failure, Plan,
    client::{Connection, get, script, send},
    memory::until_idle,
    process::{Folder, Server},
    report::{Row, percentile},
    streams::{Sse, Subscriber},
};

/// The turns of the session that is copied, and the deltas of each.
const TURNS: (usize, usize) = (10, 92);
/// Calls of each kind.
const CALLS: usize = 200;
/// Every delta an event of its own, and no session in memory but those that are asked for.
const SETTINGS: [(&str, &str); 1] = [("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")];

/// What one size gave, in milliseconds.
#[derive(Default)]
struct Size {
    events: u64,
    sessions: usize,
    megabytes: f64,
    start: Vec<f64>,
    send: Vec<f64>,
    open: Vec<f64>,
    replay: Vec<f64>,
    list: Vec<f64>,
}

/// One kind of figure of a size.
type Column = fn(&Size) -> &Vec<f64>;

/// One database a size.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut sizes = Vec::new();
    for sessions in [1, plan.sessions / 10, plan.sessions] {
        eprintln!("  {sessions} sessions");
        sizes.push(size(plan, sessions.max(1)).await?);
    }
    let kinds: [(&str, Column); 5] = [
        ("start to ready", |size| &size.start),
        ("send to its acknowledgement, p50", |size| &size.send),
        ("following a session that is not in memory, to the head of the stream, p50", |size| &size.open),
        ("replay of all events of a session that is not in memory, p50", |size| &size.replay),
        ("first page of the list of sessions, p50", |size| &size.list),
    ];
    let mut rows = Vec::new();
    for (what, pick) in kinds {
        let smallest: Vec<f64> = sizes.first().map(pick).cloned().unwrap_or_default();
        for size in &sizes {
            let (events, sessions) = (size.events, size.sessions);
            let what = format!("{what}: {events} events in {sessions} sessions, {:.0} MB", size.megabytes);
            rows.push(Row::new(what, "ms", pick(size).clone()).against("the smallest database", smallest.clone()));
        }
    }
    Ok(rows)
}

async fn size(plan: &Plan, sessions: usize) -> Result<Size, Failure> {
    let folder = Folder::new(plan)?;
    let events = make(&folder).await?;
    let file = folder.path().join("greenroom.db");
    multiply(&file, sessions)?;
    let bytes = std::fs::metadata(&file)?.len();
    let mut size = Size { events: events * sessions as u64, sessions, ..Size::default() };
    size.megabytes = bytes as f64 / 1e6;
    for run in 0..plan.runs {
        let begin = Instant::now();
        let server = Server::greenroom(&folder, &SETTINGS)?;
        let mut connection = Connection::open(server.address()).await?;
        while connection.call(&get("/ready", "")).await?.status != 200 {}
        size.start.push(begin.elapsed().as_secs_f64() * 1e3);
        calls(&mut size, &server, run, events).await?;
        until_idle(&server).await?;
        server.stop()?;
    }
    Ok(size)
}

/// Calls of each kind, each to another session where there are so many.
async fn calls(size: &mut Size, server: &Server, run: usize, events: u64) -> Result<(), Failure> {
    let address = server.address();
    let mut connection = Connection::open(address).await?;
    let (mut list, mut open, mut replay, mut send_ms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for call in 0..CALLS {
        let began = Instant::now();
        connection.expect(&get("/v1/sessions", ""), 200).await?;
        list.push(began.elapsed().as_secs_f64() * 1e3);
        // Spread over all of them, and other ones in every run; the first session is for sends.
        let key = 1 + (call * 7_919 + run * 104_729) % size.sessions.saturating_sub(1).max(1);
        let key = copy_name(key.min(size.sessions - 1));
        let began = Instant::now();
        let stream = Sse::open(address, &key, Some(0)).await?;
        open.push(began.elapsed().as_secs_f64() * 1e3);
        Subscriber::Sse(stream).count(events).await?;
        replay.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let request = send("sends", "hi");
    for _ in 0..CALLS {
        let began = Instant::now();
        connection.expect(&request, 202).await?;
        send_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let columns =
        [(&mut size.list, list), (&mut size.open, open), (&mut size.replay, replay), (&mut size.send, send_ms)];
    for (column, samples) in columns {
        column.push(percentile(&samples, 0.5));
    }
    Ok(())
}

fn copy_name(number: usize) -> String {
    format!("s{number:06}")
}

/// A database with one session; how many events it has.
async fn make(folder: &Folder) -> Result<u64, Failure> {
    let server = Server::greenroom(folder, &SETTINGS)?;
    let key = copy_name(0);
    let mut connection = Connection::open(server.address()).await?;
    for _ in 0..TURNS.0 {
        connection.expect(&script(&key, TURNS.1), 202).await?;
    }
    until_idle(&server).await?;
    let answer = connection.expect(&get(&format!("/v1/sessions/{key}"), ""), 200).await?;
    let snapshot: serde_json::Value = serde_json::from_slice(&answer.body)?;
    server.stop()?;
    snapshot.get("last_seq").and_then(serde_json::Value::as_u64).ok_or_else(|| "no last_seq".into())
}

/// Copies the session until there are so many.
fn multiply(file: &Path, sessions: usize) -> Result<(), Failure> {
    let mut connection = SqliteConnection::establish(&file.to_string_lossy())?;
    connection.batch_execute(
        "PRAGMA synchronous = OFF; BEGIN;
         CREATE TEMP TABLE a_batch AS SELECT * FROM event_batches WHERE key = 's000000' ORDER BY first_seq;
         CREATE TEMP TABLE a_log AS SELECT * FROM logs WHERE key = 's000000';
         CREATE TEMP TABLE a_session AS SELECT * FROM sessions WHERE key = 's000000';
         CREATE TEMP TABLE a_turn AS SELECT * FROM turns WHERE key = 's000000';
         CREATE TEMP TABLE a_message AS SELECT * FROM messages WHERE session_id = (SELECT id FROM a_session);",
    )?;
    for number in 1..sessions {
        // Ids end in random characters of an alphabet that has all digits: others are as good.
        let (key, end) = (copy_name(number), format!("{number:06}"));
        let other = |column: &str| format!("{column} = substr({column}, 1, length({column}) - 6) || '{end}'");
        let (id, list_id, session, turn) = (other("id"), other("list_id"), other("session_id"), other("turn_id"));
        connection.batch_execute(&format!(
            "INSERT INTO event_batches (lane, key, first_seq, last_seq, bytes, payload)
                 SELECT lane, '{key}', first_seq, last_seq, bytes, replace(payload, '\"s000000\"', '\"{key}\"')
                 FROM a_batch;
             UPDATE a_log SET key = '{key}'; INSERT INTO logs SELECT * FROM a_log;
             UPDATE a_session SET key = '{key}', {id}, {list_id}; INSERT INTO sessions SELECT * FROM a_session;
             UPDATE a_turn SET key = '{key}', {id}, {session}; INSERT INTO turns SELECT * FROM a_turn;
             UPDATE a_message SET {id}, {session}, {turn}; INSERT INTO messages SELECT * FROM a_message;"
        ))?;
    }
    connection.batch_execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}
