//! What credentials cost: the rate of the same calls of a server in open mode and of one in token mode.
//!
//! Both run at the same time and are called in turns, a short slice each, so that both see the same machine.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    Failure, Plan,
    client::{Connection, get, header, send},
    process::{Folder, Server, greenroom},
    report::Row,
    throughput::rate,
};

/// Connections that call at the same time.
const CONNECTIONS: usize = 32;
/// Slices of each server in a run.
const SLICES: u32 = 5;
/// Turns may pile up behind the sends: it is the acknowledgement that is measured.
const SETTINGS: [(&str, &str); 1] = [("GREENROOM_SESSION__MAX_QUEUE", "1000000")];

/// A server, and the header line that its callers send.
struct Subject {
    server: Server,
    line: String,
    // Removed after the server has ended.
    _folder: Folder,
}

/// Requests of a caller: the number of the connection, and the header line.
type Call = (&'static str, u16, fn(usize) -> Vec<u8>);

/// Snapshots and sends, with and without a token.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let calls: [Call; 2] = [
        ("snapshots read", 200, |index| get(&format!("/v1/sessions/s{index}"), "")),
        ("acknowledged sends", 202, |index| send(&format!("s{index}"), "hi")),
    ];
    let mut rows = Vec::new();
    for (what, status, request) in calls {
        let (mut open, mut token) = (Vec::new(), Vec::new());
        for _ in 0..plan.runs {
            let subjects = [subject(plan, false).await?, subject(plan, true).await?];
            let mut sums = [0.0; 2];
            for _ in 0..SLICES {
                for (subject, sum) in subjects.iter().zip(&mut sums) {
                    *sum += slice(plan.time / SLICES, subject, status, request).await?;
                }
            }
            let [without, with] = sums.map(|sum| sum / f64::from(SLICES));
            open.push(without);
            token.push(with);
        }
        let what = format!("{what} in token mode, {CONNECTIONS} connections");
        rows.push(Row::new(what, "/s", token).against("open mode", open));
    }
    Ok(rows)
}

/// Answers per second.
async fn slice(time: Duration, of: &Subject, status: u16, request: fn(usize) -> Vec<u8>) -> Result<f64, Failure> {
    rate(time, of.server.address(), CONNECTIONS, status, |index| vec![header(request(index), &of.line)]).await
}

/// A server with a session for each connection.
async fn subject(plan: &Plan, token: bool) -> Result<Subject, Failure> {
    let folder = Folder::new(plan)?;
    let line = if token { format!("authorization: Bearer {}\r\n", first_token(folder.path())?) } else { String::new() };
    let server = Server::greenroom(&folder, &SETTINGS)?;
    let mut connection = Connection::open(server.address()).await?;
    for index in 0..CONNECTIONS {
        connection.expect(&header(send(&format!("s{index}"), "hi"), &line), 202).await?;
    }
    Ok(Subject { server, line, _folder: folder })
}

/// Makes the token that begins token mode.
fn first_token(folder: &Path) -> Result<String, Failure> {
    let mut command: Command = greenroom()?;
    command.args(["token", "create", "--user", "bench", "--scopes", "read,write", "--data-dir"]).arg(folder);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("no token: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
