//! Events per second: live to many subscribers of one session, and replayed to one.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::{
    Failure, Plan,
    baseline::Kind,
    client::{Connection, script},
    process::{Folder, Server},
    report::Row,
    streams::{Sse, Subscriber, Ws},
};

const SUBSCRIBERS: usize = 100;
/// Deltas of one turn: a burst.
const BURST: usize = 2_000;
/// The bytes of a delta's event with 20 characters, about.
const FRAME: usize = 230;
/// Each delta is an event of its own.
const EVERY_DELTA: [(&str, &str); 1] = [("GREENROOM_STREAM__FLUSH_INTERVAL", "0")];

/// Bursts to 100 WebSockets, and the same frames from a bare server.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut figures, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let raw = Server::baseline(Kind::Fanout)?;
        bare.push(raw_rate(raw.address(), SUBSCRIBERS, BURST, plan.time).await?);
        drop(raw);
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &EVERY_DELTA)?;
        figures.push(rate(server.address(), plan.time).await?);
        server.stop()?;
    }
    let what = format!("events to {SUBSCRIBERS} WebSocket subscribers of one session, bursts of {BURST}");
    Ok(vec![Row::new(what, "/s", figures).against("raw TCP fan-out", bare)])
}

async fn rate(address: SocketAddr, time: Duration) -> Result<f64, Failure> {
    let mut connection = Connection::open(address).await?;
    connection.expect(&script("fan", 1), 202).await?;
    let mut subscribers = try_join_all((0..SUBSCRIBERS).map(|_| Ws::open(address, "fan", Some(0)))).await?;
    all_until_finished(&mut subscribers).await?;
    let request = script("fan", BURST);
    let begin = Instant::now();
    let mut events = 0;
    while begin.elapsed() < time {
        connection.expect(&request, 202).await?;
        events += all_until_finished(&mut subscribers).await?;
    }
    Ok(per_second(events, begin))
}

/// The same with a bare server: frames of the same size to the same client.
async fn raw_rate(address: SocketAddr, subscribers: usize, burst: usize, time: Duration) -> Result<f64, Failure> {
    let mut control = Connection::open(address).await?;
    let mut streams = Vec::new();
    for _ in 0..subscribers {
        let mut connection = Connection::open(address).await?;
        connection.write(b"SUB\n").await?;
        streams.push(Ws::raw(connection));
    }
    // A subscription is not confirmed: small bursts until all have seen one.
    for stream in &mut streams {
        loop {
            control.write(b"GO 1 64\n").await?;
            if let Ok(seen) = tokio::time::timeout(Duration::from_millis(200), stream.until("turn.finished")).await {
                seen?;
                break;
            }
        }
    }
    for stream in &mut streams {
        while let Ok(seen) = tokio::time::timeout(Duration::from_millis(20), stream.until("turn.finished")).await {
            seen?;
        }
    }
    let go = format!("GO {burst} {FRAME}\n");
    let begin = Instant::now();
    let mut events = 0;
    while begin.elapsed() < time {
        control.write(go.as_bytes()).await?;
        events += all_until_finished(&mut streams).await?;
    }
    Ok(per_second(events, begin))
}

async fn all_until_finished(streams: &mut [Ws]) -> Result<u64, Failure> {
    let counts = try_join_all(streams.iter_mut().map(|stream| stream.until("turn.finished"))).await?;
    Ok(counts.into_iter().sum())
}

#[allow(clippy::cast_precision_loss)]
fn per_second(events: u64, begin: Instant) -> f64 {
    events as f64 / begin.elapsed().as_secs_f64()
}

/// A long log from its beginning, over SSE and over WebSocket.
pub async fn replay(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut sse, mut ws, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let folder = Folder::new(plan)?;
    let server = Server::greenroom(&folder, &EVERY_DELTA)?;
    let address = server.address();
    let mut connection = Connection::open(address).await?;
    let request = script("log", BURST);
    connection.expect(&request, 202).await?;
    let mut watcher = Ws::open(address, "log", Some(0)).await?;
    let mut events = watcher.until("turn.finished").await?;
    let wanted = u64::try_from(plan.replay)?;
    while events < wanted {
        connection.expect(&request, 202).await?;
        events += watcher.until("turn.finished").await?;
    }
    for _ in 0..plan.runs {
        let raw = Server::baseline(Kind::Fanout)?;
        bare.push(raw_rate(raw.address(), 1, plan.replay, Duration::from_millis(1)).await?);
        drop(raw);
        let begin = Instant::now();
        Subscriber::Sse(Sse::open(address, "log", Some(0)).await?).count(events).await?;
        sse.push(per_second(events, begin));
        let begin = Instant::now();
        Subscriber::Ws(Ws::open(address, "log", Some(0)).await?).count(events).await?;
        ws.push(per_second(events, begin));
    }
    server.stop()?;
    Ok(vec![
        Row::new(format!("replay of {events} events over SSE"), "/s", sse).against("raw TCP, live", bare.clone()),
        Row::new(format!("replay of {events} events over WebSocket"), "/s", ws).against("raw TCP, live", bare),
    ])
}
