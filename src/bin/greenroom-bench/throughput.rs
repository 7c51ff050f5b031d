//! Acknowledged sends and finished turns per second.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Failure, Plan,
    baseline::{Disk, Kind},
    client::{Connection, malformed, script, send},
    process::{Folder, Server},
    report::{Row, median},
    streams::{Sse, Subscriber},
};

/// Connections of the sends.
const CONNECTIONS: usize = 256;
/// Sessions and deltas of the turns.
const TURNS: (usize, usize) = (50, 50);
/// Turns may pile up behind the sends: it is the acknowledgement that is measured.
const SETTINGS: [(&str, &str); 1] = [("GREENROOM_SESSION__MAX_QUEUE", "1000000")];

/// Sends per second over many connections: a session each, and to many sessions.
pub async fn sends(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut own, mut many, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bare, mut disk) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let echo = Server::baseline(Kind::Echo)?;
        bare.push(send_rate(plan, echo.address(), CONNECTIONS, CONNECTIONS).await?);
        drop(echo);
        let folder = Folder::new(plan)?;
        let mut file = Disk::new(folder.path())?;
        let syncs: Result<Vec<f64>, io::Error> = (0..200).map(|_| file.sync()).collect();
        disk.push(1e3 / median(&syncs?));
        for (sessions, figures) in [(CONNECTIONS, &mut own), (2_000, &mut many)] {
            let folder = Folder::new(plan)?;
            let server = Server::greenroom(&folder, &SETTINGS)?;
            figures.push(send_rate(plan, server.address(), CONNECTIONS, sessions).await?);
            // What was acknowledged and not run yet is of no interest here: the group is killed.
            drop(server);
        }
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &SETTINGS)?;
        occupy(server.address(), CONNECTIONS).await?;
        waiting.push(send_rate(plan, server.address(), CONNECTIONS, CONNECTIONS).await?);
        drop(server);
    }
    Ok(vec![
        Row::new("acknowledged sends that wait behind a running turn, 256 connections, 256 sessions", "/s", waiting)
            .against("bare actix-web", bare.clone()),
        Row::new("acknowledged sends, their turns run meanwhile, 256 connections, 256 sessions", "/s", own)
            .against("bare actix-web", bare.clone()),
        Row::new("acknowledged sends, their turns run meanwhile, 256 connections, 2000 sessions", "/s", many)
            .against("bare actix-web", bare),
        Row::new("fdatasync of 4 KiB, one after the other", "/s", disk),
    ])
}

/// Gives each session a turn that does not end, so that what comes waits and only accepting is measured.
async fn occupy(address: SocketAddr, sessions: usize) -> Result<(), Failure> {
    let mut connection = Connection::open(address).await?;
    for key in 0..sessions {
        connection.expect(&send(&format!("s{key}"), r#"/script {\"hang\": true}"#), 202).await?;
    }
    Ok(())
}

/// Acknowledged messages per second.
async fn send_rate(plan: &Plan, address: SocketAddr, connections: usize, sessions: usize) -> Result<f64, Failure> {
    let requests = |first: usize| {
        let keys = (first..sessions).step_by(connections);
        keys.map(|key| send(&format!("s{key}"), "hi")).collect()
    };
    rate(plan.time, address, connections, 202, requests).await
}

/// Answers with this status per second, of connections that make their requests over and over.
pub async fn rate(
    time: Duration,
    address: SocketAddr,
    connections: usize,
    status: u16,
    requests: impl Fn(usize) -> Vec<Vec<u8>>,
) -> Result<f64, Failure> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    let deadline = begin + time;
    for requests in (0..connections).map(requests) {
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut sent = 0_u32;
            for request in requests.iter().cycle() {
                if Instant::now() >= deadline {
                    break;
                }
                connection.expect(request, status).await?;
                sent += 1;
            }
            Ok::<_, io::Error>(sent)
        });
    }
    per_second(tasks, begin).await
}

/// Turns per second: many sessions, one subscriber each, the next message when the turn is over.
pub async fn turns(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut figures, mut cpu, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let echo = Server::baseline(Kind::Echo)?;
        bare.push(send_rate(plan, echo.address(), TURNS.0, TURNS.0).await?);
        drop(echo);
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &[])?;
        let before = server.cpu()?;
        let begin = Instant::now();
        let figure = turn_rate(plan, server.address()).await?;
        cpu.push((server.cpu()? - before) * 1e3 / (figure * begin.elapsed().as_secs_f64()));
        figures.push(figure);
        server.stop()?;
    }
    let (sessions, deltas) = TURNS;
    let what = format!("turns, {sessions} sessions x {deltas} deltas, one subscriber each");
    Ok(vec![
        Row::new(what, "/s", figures).against("bare actix-web POSTs", bare),
        Row::new("server CPU per such turn", "ms", cpu),
    ])
}

async fn turn_rate(plan: &Plan, address: SocketAddr) -> Result<f64, Failure> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    let deadline = begin + plan.time;
    for index in 0..TURNS.0 {
        tasks.spawn(async move {
            let key = format!("t{index}");
            let mut connection = Connection::open(address).await?;
            let request = script(&key, TURNS.1);
            // The first message makes the session; its turn is seen from the beginning of the log.
            connection.expect(&request, 202).await?;
            let mut subscriber = Subscriber::Sse(Sse::open(address, &key, Some(0)).await?);
            subscriber.until("turn.finished").await?;
            let mut turns = 1_u32;
            while Instant::now() < deadline {
                connection.write(&request).await?;
                subscriber.until("turn.finished").await?;
                match connection.answer().await?.status {
                    202 => turns += 1,
                    status => return Err(malformed(format!("HTTP {status}"))),
                }
            }
            Ok(turns)
        });
    }
    per_second(tasks, begin).await
}

/// The sum of what the tasks counted over the time that all of them took.
async fn per_second(mut tasks: JoinSet<io::Result<u32>>, begin: Instant) -> Result<f64, Failure> {
    let mut sum = 0;
    while let Some(count) = tasks.join_next().await {
        sum += count??;
    }
    let took = begin.elapsed().max(Duration::from_millis(1));
    Ok(f64::from(sum) / took.as_secs_f64())
}
