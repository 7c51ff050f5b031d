//! How long an answer of `GET /metrics` takes while many sessions are live.

use std::time::Instant;

use crate::{
    Failure, Plan,
    client::{Connection, get, malformed},
    memory::make_sessions,
    process::{Folder, Server},
    report::{Row, median, percentile},
};

/// Scrapes of one run.
const SCRAPES: usize = 200;

/// One server a run. The baseline is an answer that holds nothing.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut middle, mut slowest, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &[])?;
        make_sessions(plan, &server).await?;
        let mut connection = Connection::open(server.address()).await?;
        let live = live_sessions(&connection.expect(&get("/metrics", ""), 200).await?.body);
        if live.is_none_or(|live| live < plan.sessions) {
            return Err(malformed(format!("{live:?} sessions are live, not {}", plan.sessions)).into());
        }
        let took = times(&mut connection, "/metrics").await?;
        middle.push(median(&took));
        slowest.push(percentile(&took, 1.0));
        bare.push(median(&times(&mut connection, "/health").await?));
        server.stop()?;
    }
    let what = format!("GET /metrics with {} live sessions", plan.sessions);
    Ok(vec![
        Row::new(format!("{what}, median"), "ms", middle).against("GET /health", bare),
        Row::new(format!("{what}, slowest of {SCRAPES}"), "ms", slowest),
    ])
}

/// Milliseconds of each call, one after another.
async fn times(connection: &mut Connection, path: &str) -> Result<Vec<f64>, Failure> {
    let request = get(path, "");
    let mut took = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        connection.expect(&request, 200).await?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// What the text says of live sessions.
fn live_sessions(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    text.lines().find_map(|line| line.strip_prefix("greenroom_live_sessions ")?.trim().parse().ok())
}
