//! Steady load for a long time: what grows that should not?
//!
//! Turns begin at a fixed rate, whatever the server does with them, so a server that falls behind shows it.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{task::LocalSet, time::interval};

use crate::{
    Failure, Plan,
    client::{Connection, script_slowly},
    memory::idle_rss,
    plot::{Curve, Panel, draw},
    process::{Folder, Server},
    report::{Row, percentile},
    streams::Ws,
};

/// Sessions, each with a subscriber of its own that comes back once in a while.
const SESSIONS: usize = 200;
/// Each session begins a turn every four seconds: 50 turns a second in all.
const PERIOD: Duration = Duration::from_secs(4);
/// A turn's deltas, and the milliseconds between them.
const TURN: (usize, usize) = (20, 20);
/// After so many turns a subscriber leaves and a new one follows.
const STAY: u32 = 25;
/// Points of the plot.
const POINTS: u32 = 120;

/// What was seen at one moment.
struct Sample {
    minutes: f64,
    rss: f64,
    files: f64,
    p50: f64,
    p99: f64,
}

/// One server for so many minutes.
pub async fn measure(plan: &Plan, minutes: u64, svg: &Path) -> Result<Vec<Row>, Failure> {
    let length = if plan.runs == 1 { Duration::from_secs(12) } else { Duration::from_secs(minutes * 60) };
    let folder = Folder::new(plan)?;
    let server = Server::greenroom(&folder, &[])?;
    idle_rss(&server).await?;
    let taken: Rc<RefCell<Vec<f64>>> = Rc::default();
    let local = LocalSet::new();
    let samples = local.run_until(async {
        let mut talks = Vec::new();
        for index in 0..SESSIONS {
            let (address, taken) = (server.address(), Rc::clone(&taken));
            talks.push(tokio::task::spawn_local(talk(address, index, taken)));
        }
        let samples = watch(&server, length, &taken).await?;
        for talk in talks {
            if talk.is_finished() {
                talk.await??;
            } else {
                talk.abort();
            }
        }
        Ok::<_, Failure>(samples)
    });
    let samples = samples.await?;
    server.stop()?;
    std::fs::write(svg, plot(&samples))?;
    let quarter = samples.len() / 4;
    let [begin, end] = [samples.get(quarter..quarter * 2), samples.get(quarter * 3..)].map(Option::unwrap_or_default);
    let row = |what: &str, unit: &'static str, pick: fn(&Sample) -> f64| {
        let of = |part: &[Sample]| part.iter().map(pick).collect::<Vec<f64>>();
        Row::new(format!("{what}, last quarter of {} s", length.as_secs()), unit, of(end))
            .against("second quarter", of(begin))
    };
    Ok(vec![
        row("resident memory under 50 turns a second", "MB", |sample| sample.rss),
        row("open files", "", |sample| sample.files),
        row("POST to first event, p50", "ms", |sample| sample.p50),
        row("POST to first event, p99", "ms", |sample| sample.p99),
    ])
}

async fn watch(server: &Server, length: Duration, taken: &RefCell<Vec<f64>>) -> Result<Vec<Sample>, Failure> {
    let (begin, mut ticks) = (Instant::now(), interval(length / POINTS));
    ticks.tick().await;
    let mut samples = Vec::new();
    while begin.elapsed() < length {
        ticks.tick().await;
        let latencies = std::mem::take(&mut *taken.borrow_mut());
        if latencies.is_empty() {
            continue;
        }
        samples.push(Sample {
            minutes: begin.elapsed().as_secs_f64() / 60.0,
            rss: server.rss()? / 1e6,
            files: server.open_files()? as f64,
            p50: percentile(&latencies, 0.5),
            p99: percentile(&latencies, 0.99),
        });
    }
    Ok(samples)
}

/// Turns of one session, one every [`PERIOD`].
async fn talk(address: SocketAddr, index: usize, taken: Rc<RefCell<Vec<f64>>>) -> io::Result<()> {
    let key = format!("s{index}");
    let mut connection = Connection::open(address).await?;
    let request = script_slowly(&key, TURN.0, TURN.1);
    tokio::time::sleep(PERIOD * u32::try_from(index).unwrap_or(0) / u32::try_from(SESSIONS).unwrap_or(1)).await;
    connection.expect(&request, 202).await?;
    let mut ticks = interval(PERIOD);
    ticks.tick().await;
    loop {
        let mut ws = Ws::open(address, &key, None).await?;
        for _ in 0..STAY {
            ticks.tick().await;
            let begin = Instant::now();
            connection.write(&request).await?;
            ws.until("turn.queued").await?;
            taken.borrow_mut().push(begin.elapsed().as_secs_f64() * 1e3);
            connection.answer().await?;
            ws.until("turn.finished").await?;
        }
    }
}

fn plot(samples: &[Sample]) -> String {
    let of = |pick: fn(&Sample) -> f64| samples.iter().map(|sample| (sample.minutes, pick(sample))).collect();
    let curve = |name, pick| Curve { name, points: of(pick) };
    draw(
        "minutes",
        &[
            Panel { title: "resident memory, MB", curves: vec![curve("RSS", |sample| sample.rss)] },
            Panel { title: "open files", curves: vec![curve("files", |sample| sample.files)] },
            Panel {
                title: "POST to first event, ms",
                curves: vec![curve("p50", |sample| sample.p50), curve("p99", |sample| sample.p99)],
            },
        ],
    )
}
