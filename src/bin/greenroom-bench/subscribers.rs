//! What subscribers that stall cost the others, and what it takes when all come back at once.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::net::TcpSocket;

use crate::{
    Failure, Plan,
    client::{Connection, get, send},
    memory::until_idle,
    process::{Folder, Server},
    report::{Row, percentile},
    streams::Ws,
};

/// Readers that take all at once.
const FAST: usize = 20;
/// A turn of the flood: 80 kB of deltas.
const FLOOD: &str = r#"/script {"deltas":40,"bytes":2000}"#;
/// Sessions that those who come back follow.
const SESSIONS: usize = 50;
/// Deltas of the log of each.
const LOG: usize = 400;
/// Every delta an event, and no bound but that of the bytes.
const SETTINGS: [(&str, &str); 4] = [
    ("GREENROOM_STREAM__FLUSH_INTERVAL", "0"),
    ("GREENROOM_STREAM__MAX_LAG", "5s"),
    ("GREENROOM_LIMITS__MAX_CONNECTIONS", "20000"),
    ("GREENROOM_STREAM__MAX_SUBSCRIBERS", "20000"),
];

/// Times from the POST to the end of the turn at each fast reader, without and with two that have stalled, in turns of
/// one and the same server; and the server's memory before and after.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut alone, mut beside, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &SETTINGS)?;
        let mut poster = Connection::open(server.address()).await?;
        poster.expect(&send("fan", "hi"), 202).await?;
        until_idle(&server).await?;
        let mut readers = try_join_all((0..FAST).map(|_| Ws::open(server.address(), "fan", None))).await?;
        // A first round of everything, so that memory is taken once.
        rounds(plan.rounds / 10, &mut poster, &mut readers).await?;
        before.push(server.rss()? / 1e6);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            without.extend(rounds(plan.rounds / 4, &mut poster, &mut readers).await?);
            let stalled = [
                stall(&server, "events", "accept: text/event-stream\r\n").await?,
                stall(&server, "ws", UPGRADE).await?,
            ];
            with.extend(rounds(plan.rounds / 4, &mut poster, &mut readers).await?);
            drop(stalled);
        }
        after.push(server.rss()? / 1e6);
        alone.push(percentile(&without, 0.99));
        beside.push(percentile(&with, 0.99));
        server.stop()?;
    }
    let what = format!("80 kB turn to {FAST} WebSockets beside two stalled readers, p99");
    Ok(vec![
        Row::new(what, "ms", beside).against("the same without them", alone),
        Row::new("resident memory after the stalled readers", "MB", after).against("before", before),
    ])
}

const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A subscriber that asks and takes nothing.
async fn stall(server: &Server, what: &str, headers: &str) -> Result<Connection, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(server.address()).await?;
    let mut connection = Connection { stream, buffer: bytes::BytesMut::new() };
    connection.write(&get(&format!("/v1/sessions/fan/{what}"), headers)).await?;
    Ok(connection)
}

async fn rounds(count: usize, poster: &mut Connection, readers: &mut [Ws]) -> Result<Vec<f64>, Failure> {
    let request = send("fan", FLOOD);
    let mut times = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        poster.expect(&request, 202).await?;
        let at_each = readers.iter_mut().map(|reader| async move {
            reader.until("turn.finished").await?;
            Ok::<_, Failure>(begin.elapsed().as_secs_f64() * 1e3)
        });
        times.extend(try_join_all(at_each).await?);
    }
    Ok(times)
}

/// All clients connect in the same moment, each from its own place in the log, to a server that was killed and has just
/// started: how long until each has all, and until the last one has.
pub async fn storm(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut each, mut last, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &SETTINGS)?;
        let mut poster = Connection::open(server.address()).await?;
        let words = format!(r#"/script {{"deltas":{LOG},"bytes":20}}"#);
        for session in 0..SESSIONS {
            poster.expect(&send(&format!("s{session}"), &words), 202).await?;
        }
        until_idle(&server).await?;
        // Dropped, it is killed.
        drop(server);
        let server = Server::greenroom(&folder, &SETTINGS)?;
        let address = server.address();
        let begin = Instant::now();
        let clients = (0..plan.storm).map(|n| async move {
            let (key, cursor) = (format!("s{}", n % SESSIONS), u64::try_from(n * 37 % LOG)?);
            let begun = Instant::now();
            let mut client = Ws::open(address, &key, Some(cursor)).await?;
            client.until("turn.finished").await?;
            Ok::<_, Failure>((begun.elapsed().as_secs_f64() * 1e3, client))
        });
        let done = tokio::time::timeout(Duration::from_secs(300), try_join_all(clients)).await??;
        last.push(begin.elapsed().as_secs_f64() * 1e3);
        let times: Vec<f64> = done.iter().map(|(time, _)| *time).collect();
        each.push(percentile(&times, 0.99));
        memory.push(server.rss()? / 1e6);
        drop(done);
        server.stop()?;
    }
    let many = plan.storm;
    Ok(vec![
        Row::new(format!("{many} clients come back at once: one has all, p99"), "ms", each),
        Row::new(format!("{many} clients come back at once: the last one has all"), "ms", last),
        Row::new(format!("resident memory with {many} clients that came back"), "MB", memory),
    ])
}
