//! From a POST to the first event of its turn at a subscriber.

use std::time::Instant;

use crate::{
    Failure, Plan,
    baseline::{Disk, Kind},
    client::{Connection, malformed, send},
    process::{Folder, Server},
    report::{Row, percentile},
    streams::{Sse, Subscriber, Ws},
};

/// Rounds before anything counts.
const WARM_UP: usize = 100;

/// What one run gave, in milliseconds.
#[derive(Default)]
struct Samples {
    sse: Vec<f64>,
    ws: Vec<f64>,
    disk: Vec<f64>,
    echo: Vec<f64>,
}

/// One session, one message at a time; each round is one of each kind.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        runs.push(run(plan).await?);
    }
    let column =
        |pick: fn(&Samples) -> &Vec<f64>, share: f64| runs.iter().map(|run| percentile(pick(run), share)).collect();
    let rows = [(0.5, "p50"), (0.99, "p99")].into_iter().flat_map(|(share, name)| {
        let row = |what: &str, pick| Row::new(format!("{what}, {name}"), "ms", column(pick, share));
        [
            row("POST to turn.queued at an SSE subscriber", |run| &run.sse)
                .against("fdatasync of 4 KiB", column(|run| &run.disk, share)),
            row("POST to turn.queued at a WebSocket subscriber", |run| &run.ws)
                .against("fdatasync of 4 KiB", column(|run| &run.disk, share)),
            row("POST and answer of a bare actix-web", |run| &run.echo),
        ]
    });
    Ok(rows.collect())
}

async fn run(plan: &Plan) -> Result<Samples, Failure> {
    let folder = Folder::new(plan)?;
    let (server, echo) = (Server::greenroom(&folder, &[])?, Server::baseline(Kind::Echo)?);
    let mut disk = Disk::new(folder.path())?;
    let mut to_echo = Connection::open(echo.address()).await?;
    let (sse_key, ws_key) = ("latency-sse", "latency-ws");
    let mut poster = Connection::open(server.address()).await?;
    let (sse_request, ws_request) = (send(sse_key, "hi"), send(ws_key, "hi"));
    // A first message makes each session, so that it can be subscribed to.
    poster.expect(&sse_request, 202).await?;
    poster.expect(&ws_request, 202).await?;
    crate::memory::until_idle(&server).await?;
    let mut sse = Subscriber::Sse(Sse::open(server.address(), sse_key, None).await?);
    let mut ws = Subscriber::Ws(Ws::open(server.address(), ws_key, None).await?);
    let mut samples = Samples::default();
    for round in 0..plan.rounds + WARM_UP {
        let disk_ms = disk.sync()?;
        let begin = Instant::now();
        to_echo.expect(&sse_request, 202).await?;
        let echo_ms = begin.elapsed().as_secs_f64() * 1e3;
        let sse_ms = first_event(&mut poster, &sse_request, &mut sse).await?;
        let ws_ms = first_event(&mut poster, &ws_request, &mut ws).await?;
        if round >= WARM_UP {
            samples.disk.push(disk_ms);
            samples.echo.push(echo_ms);
            samples.sse.push(sse_ms);
            samples.ws.push(ws_ms);
        }
    }
    server.stop()?;
    Ok(samples)
}

async fn first_event(poster: &mut Connection, request: &[u8], subscriber: &mut Subscriber) -> Result<f64, Failure> {
    let begin = Instant::now();
    poster.write(request).await?;
    subscriber.until("turn.queued").await?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    // The next round begins when this turn is over and its answer is read.
    subscriber.until("turn.finished").await?;
    match poster.answer().await?.status {
        202 => Ok(took),
        status => Err(malformed(format!("HTTP {status}")).into()),
    }
}
