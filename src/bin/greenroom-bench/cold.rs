//! From the start of the process to the first 200.

use std::time::Instant;

use crate::{
    Failure, Plan,
    baseline::Kind,
    client::{Connection, get},
    process::{Folder, Server},
    report::{Row, median},
};

/// Starts with a fresh database, with the same one again, and a bare server, in turn.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let (mut fresh, mut again, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let (mut fresh_ms, mut again_ms, mut bare_ms) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.starts {
            let folder = Folder::new(plan)?;
            fresh_ms.push(first_answer(|| Server::greenroom(&folder, &[])).await?);
            again_ms.push(first_answer(|| Server::greenroom(&folder, &[])).await?);
            bare_ms.push(first_answer(|| Server::baseline(Kind::Echo)).await?);
        }
        fresh.push(median(&fresh_ms));
        again.push(median(&again_ms));
        bare.push(median(&bare_ms));
    }
    Ok(vec![
        Row::new("cold start to first 200, fresh database, p50", "ms", fresh).against("bare actix-web", bare.clone()),
        Row::new("cold start to first 200, existing database, p50", "ms", again).against("bare actix-web", bare),
    ])
}

/// Milliseconds from before the start to the answer; then the server is stopped.
async fn first_answer(start: impl FnOnce() -> Result<Server, Failure>) -> Result<f64, Failure> {
    let begin = Instant::now();
    let server = start()?;
    let mut connection = Connection::open(server.address()).await?;
    connection.expect(&get("/health", ""), 200).await?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    drop(connection);
    server.stop()?;
    Ok(took)
}
