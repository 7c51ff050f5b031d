//! What it costs to tell a turn in another protocol's words: the server's CPU for the same turn through each door, against
//! its own events over SSE. The doors take turns, on one server.

use std::{io, net::SocketAddr};

use crate::{
    Failure, Plan,
    client::{Connection, find, malformed},
    process::{Folder, Server},
    report::Row,
};

/// Deltas of a turn, an event each.
const DELTAS: usize = 200;
/// Nothing is gathered: each delta is an event that has to be told.
const SETTINGS: [(&str, &str); 1] = [("GREENROOM_STREAM__FLUSH_INTERVAL", "0s")];
/// Rounds of each door before the next one has its go.
const TURNS_AT_ONCE: usize = 10;

/// A way to have a turn told.
struct Door {
    name: &'static str,
    path: &'static str,
    /// What its last words are: a stream without them was cut off.
    end: &'static str,
}

/// The native one comes first: it is what the others are compared with.
const DOORS: [Door; 2] = [
    Door { name: "native SSE", path: "messages", end: "turn.finished" },
    Door { name: "useChat", path: "chat?ui=6", end: "[DONE]" },
];

/// The CPU of a turn through each door.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut figures: Vec<Vec<f64>> = DOORS.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.runs {
        for (all, one) in figures.iter_mut().zip(run(plan).await?) {
            all.push(one);
        }
    }
    let mut rows = DOORS.iter().zip(figures);
    let (native, baseline) = rows.next().ok_or("no doors")?;
    let row = |(door, runs): (&Door, Vec<f64>)| {
        let what = format!("server CPU per turn of {DELTAS} deltas, streamed to {}", door.name);
        Row::new(what, "ms", runs).against(native.name, baseline.clone())
    };
    Ok(rows.map(row).collect())
}

/// Milliseconds per turn, by door.
async fn run(plan: &Plan) -> Result<Vec<f64>, Failure> {
    let folder = Folder::new(plan)?;
    let server = Server::greenroom(&folder, &SETTINGS)?;
    let rounds = plan.rounds.div_ceil(TURNS_AT_ONCE);
    let mut cpu = vec![0.0; DOORS.len()];
    for round in 0..=rounds {
        for (door, cpu) in DOORS.iter().zip(&mut cpu) {
            let before = server.cpu()?;
            turns(server.address(), door).await?;
            // The first round warms up.
            if round > 0 {
                *cpu += server.cpu()? - before;
            }
        }
    }
    server.stop()?;
    #[allow(clippy::cast_precision_loss)]
    let turns = (rounds * TURNS_AT_ONCE) as f64;
    Ok(cpu.into_iter().map(|seconds| seconds * 1e3 / turns).collect())
}

async fn turns(address: SocketAddr, door: &Door) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let body = serde_json::json!({"text": format!(r#"/script {{"deltas":{DELTAS},"bytes":20}}"#)}).to_string();
    let request = format!(
        "POST /v1/sessions/door/{} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        door.path,
        body.len()
    );
    for _ in 0..TURNS_AT_ONCE {
        connection.write(request.as_bytes()).await?;
        let (status, head) = connection.head().await?;
        if status != 200 {
            return Err(malformed(format!("HTTP {status}: {head}")));
        }
        // The last chunk is an empty one; within an event there is no such line.
        let mut told = 0;
        let end = loop {
            if let Some(at) = find(connection.buffer.get(told..).unwrap_or_default(), b"\r\n0\r\n\r\n") {
                break told + at;
            }
            told = connection.buffer.len().saturating_sub(6);
            connection.fill().await?;
        };
        let body = connection.buffer.get(..end).unwrap_or_default();
        let deltas = body.windows(6).filter(|window| *window == b"delta\"").count();
        if find(body, door.end.as_bytes()).is_none() || deltas < DELTAS {
            return Err(malformed(format!("{} told {deltas} deltas and no end", door.name)));
        }
        connection.skip(end + 7);
    }
    Ok(())
}
