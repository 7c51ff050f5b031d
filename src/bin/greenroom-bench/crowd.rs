//! Many at once: live sessions with a WebSocket each, most of them idle, and turns that flow through one in a hundred.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

use crate::{
    Failure, Plan,
    client::{Connection, get, script_slowly},
    memory::idle_rss,
    process::{Folder, Server},
    report::{Row, percentile},
    streams::Ws,
};

/// Of so many sessions one is busy.
const ONE_IN: usize = 100;
/// Handshakes under way at once.
const OPENING: usize = 64;
/// A turn's deltas, and the milliseconds between them.
const TURN: (usize, usize) = (20, 20);
/// What the server needs to come to rest.
const REST: Duration = Duration::from_secs(2);

/// What one run gave.
#[derive(Default)]
struct Run {
    rss: f64,
    busy_rss: f64,
    p50: f64,
    p99: f64,
    metrics_ms: f64,
}

/// One server a run.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        runs.push(run(plan).await?);
    }
    let (all, busy) = (plan.sessions, (plan.sessions / ONE_IN).max(1));
    let column = |pick: fn(&Run) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
    Ok(vec![
        Row::new(format!("resident memory with {all} live sessions and a WebSocket each"), "MB", column(|run| run.rss)),
        Row::new(format!("the same while {busy} of them have a turn"), "MB", column(|run| run.busy_rss)),
        Row::new(format!("POST to first event among them, {busy} turns at once, p50"), "ms", column(|run| run.p50)),
        Row::new(format!("POST to first event among them, {busy} turns at once, p99"), "ms", column(|run| run.p99)),
        Row::new(format!("GET /metrics with {all} live sessions"), "ms", column(|run| run.metrics_ms)),
    ])
}

async fn run(plan: &Plan) -> Result<Run, Failure> {
    let folder = Folder::new(plan)?;
    let server = Server::greenroom(&folder, &[])?;
    idle_rss(&server).await?;
    let address = server.address();
    let mut waiting = open_all(plan, &server).await?;
    sleep(REST).await;
    let mut samples = Run { rss: server.rss()? / 1e6, ..Run::default() };

    let busy = (plan.sessions / ONE_IN).max(1);
    let deadline = Instant::now() + plan.time * 4;
    let mut turns = JoinSet::new();
    for (index, ws) in waiting.drain(..busy).enumerate() {
        turns.spawn(talk(address, index, ws, deadline));
    }
    // The others only answer pings.
    let mut idle = JoinSet::new();
    for mut ws in waiting {
        idle.spawn(async move { ws.until("never").await.map(|_| ()) });
    }
    let mut first_events = Vec::new();
    sleep(plan.time * 2).await;
    samples.busy_rss = server.rss()? / 1e6;
    let mut connection = Connection::open(address).await?;
    let mut scrapes = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        connection.expect(&get("/metrics", ""), 200).await?;
        scrapes.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    while let Some(done) = turns.join_next().await {
        first_events.extend(done??);
    }
    if let Some(ended) = idle.try_join_next() {
        ended??;
        return Err("a socket that waited has ended".into());
    }
    samples.p50 = percentile(&first_events, 0.5);
    samples.p99 = percentile(&first_events, 0.99);
    samples.metrics_ms = percentile(&scrapes, 0.5);
    idle.abort_all();
    server.stop()?;
    Ok(samples)
}

/// Makes the sessions and a socket for each.
async fn open_all(plan: &Plan, server: &Server) -> Result<Vec<Ws>, Failure> {
    crate::memory::make_sessions(plan, server).await?;
    let (address, gate) = (server.address(), Arc::new(Semaphore::new(OPENING)));
    let mut opening = JoinSet::new();
    for index in 0..plan.sessions {
        let gate = Arc::clone(&gate);
        opening.spawn(async move {
            let _turn = gate.acquire().await.map_err(io::Error::other)?;
            Ws::open(address, &format!("s{index}"), None).await.map(|ws| (index, ws))
        });
    }
    let mut opened = Vec::with_capacity(plan.sessions);
    while let Some(done) = opening.join_next().await {
        opened.push(done??);
    }
    opened.sort_by_key(|(index, _)| *index);
    Ok(opened.into_iter().map(|(_, ws)| ws).collect())
}

/// One turn after the other; milliseconds from each POST to its first event.
async fn talk(address: SocketAddr, index: usize, mut ws: Ws, deadline: Instant) -> io::Result<Vec<f64>> {
    let mut connection = Connection::open(address).await?;
    let request = script_slowly(&format!("s{index}"), TURN.0, TURN.1);
    let mut samples = Vec::new();
    while Instant::now() < deadline {
        let begin = Instant::now();
        connection.write(&request).await?;
        ws.until("turn.queued").await?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
        ws.until("turn.finished").await?;
        connection.answer().await?;
    }
    Ok(samples)
}
