//! Resident memory: of an idle server, and what a live session adds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    Failure, Plan,
    baseline::Kind,
    client::{Connection, get, malformed, post, send},
    process::{Folder, Server},
    report::Row,
};

/// Connections that make the sessions.
const CONNECTIONS: usize = 16;
/// How long all turns may take.
const SETTLE: Duration = Duration::from_secs(120);
/// What the allocator and the threads need to come to rest.
const REST: Duration = Duration::from_secs(1);

/// One server a run: idle, with sessions, with sessions that have had a turn.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut idle, mut bare, mut made, mut used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        bare.push(idle_rss(&Server::baseline(Kind::Echo)?).await? / 1e6);
        let folder = Folder::new(plan)?;
        let server = Server::greenroom(&folder, &[])?;
        let before = idle_rss(&server).await?;
        idle.push(before / 1e6);
        make_sessions(plan, &server).await?;
        sleep(REST).await;
        made.push(per_session(plan, server.rss()? - before));
        each(plan, &server, 202, |index| send(&format!("s{index}"), "hi")).await?;
        until_idle(&server).await?;
        sleep(REST).await;
        used.push(per_session(plan, server.rss()? - before));
        server.stop()?;
    }
    let sessions = plan.sessions;
    Ok(vec![
        Row::new("resident memory, idle", "MB", idle).against("bare actix-web", bare),
        Row::new(format!("more per idle live session, {sessions} just made"), "kB", made),
        Row::new(format!("more per idle live session, {sessions} after a turn each"), "kB", used),
    ])
}

#[allow(clippy::cast_precision_loss)]
fn per_session(plan: &Plan, bytes: f64) -> f64 {
    bytes / plan.sessions as f64 / 1e3
}

/// Makes the sessions `s0`, `s1` and so on.
pub async fn make_sessions(plan: &Plan, server: &Server) -> Result<(), Failure> {
    each(plan, server, 201, |index| post("/v1/sessions", &format!(r#"{{"key":"s{index}"}}"#))).await
}

/// Resident memory in bytes after a first call and a rest.
pub async fn idle_rss(server: &Server) -> Result<f64, Failure> {
    Connection::open(server.address()).await?.expect(&get("/health", ""), 200).await?;
    sleep(REST).await;
    server.rss()
}

/// One request for each session, over some connections.
async fn each(plan: &Plan, server: &Server, status: u16, request: impl Fn(usize) -> Vec<u8>) -> Result<(), Failure> {
    let requests: Arc<Vec<Vec<u8>>> = Arc::new((0..plan.sessions).map(request).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let (requests, address) = (requests.clone(), server.address());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            for request in requests.iter().skip(first).step_by(CONNECTIONS) {
                connection.expect(request, status).await?;
            }
            Ok::<_, std::io::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Waits until no session has a turn that runs or waits.
pub async fn until_idle(server: &Server) -> Result<(), Failure> {
    let mut connection = Connection::open(server.address()).await?;
    let request = get("/v1/sessions?busy=true&limit=1", "");
    let deadline = Instant::now() + SETTLE;
    loop {
        let answer = connection.expect(&request, 200).await?;
        let page: serde_json::Value = serde_json::from_slice(&answer.body)?;
        if page.get("data").and_then(|data| data.as_array()).is_some_and(Vec::is_empty) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(malformed("turns still run").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
