//! What Greenroom adds to an agent: the time to its first token, and the CPU of a turn, against driving the same agent
//! directly over its pipes.

use std::{
    io::{BufRead as _, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    Failure, Plan,
    baseline::{Disk, Kind},
    client::{Connection, malformed, send_to},
    process::{Folder, Server},
    report::{Row, percentile},
    streams::{Sse, Subscriber},
};

/// Rounds before anything counts.
const WARM_UP: usize = 100;
/// Sessions that talk at once where CPU is measured, as in published comparisons of such servers.
const SESSIONS: usize = 50;
/// Chunks of an answer of the agent.
const CHUNKS: usize = 50;
/// What it is asked when it should answer at once.
const AT_ONCE: &str = "hi";
/// What it is asked when it should take a moment, as one does that has to ask a model.
const LATER: &str = "think";
/// How long that is.
const MOMENT: Duration = Duration::from_millis(2);

/// Is an agent that speaks ACP on stdin and stdout, and answers each prompt at once, or after a moment, until stdin ends.
pub fn serve() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lines() {
        let message: Value = serde_json::from_str(&line?)?;
        let (Some(id), Some(method)) = (message.get("id"), message.get("method").and_then(Value::as_str)) else {
            continue;
        };
        let result = match method {
            "initialize" => json!({"protocolVersion": 1, "agentCapabilities": {}, "agentInfo": {"name": "bench"}}),
            "session/new" => json!({"sessionId": "s"}),
            "session/prompt" => {
                if message.pointer("/params/prompt/0/text").and_then(Value::as_str) == Some(LATER) {
                    std::thread::sleep(MOMENT);
                }
                for number in 0..CHUNKS {
                    let content = json!({"type": "text", "text": format!("word{number} ")});
                    let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
                    let params = json!({"sessionId": "s", "update": update});
                    writeln!(out, "{}", json!({"jsonrpc": "2.0", "method": "session/update", "params": params}))?;
                }
                json!({"stopReason": "end_turn"})
            }
            _ => json!({}),
        };
        writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": id, "result": result}))?;
        out.flush()?;
    }
    Ok(())
}

/// The agent, driven directly.
struct Direct {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Direct {
    fn start() -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().args(["--baseline", Kind::Agent.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut direct = Self { child, stdin, stdout };
        for (id, method) in [(1, "initialize"), (2, "session/new")] {
            direct.call(id, method, "")?;
        }
        Ok(direct)
    }

    /// Asks, and returns the milliseconds to the first line of the answer.
    fn call(&mut self, id: u64, method: &str, text: &str) -> Result<f64, Failure> {
        let begin = Instant::now();
        let params = json!({"prompt": [{"type": "text", "text": text}]});
        writeln!(self.stdin, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        let mut first = None;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stdout.read_line(&mut line)? == 0 {
                return Err("the agent ended".into());
            }
            let took = *first.get_or_insert_with(|| begin.elapsed().as_secs_f64() * 1e3);
            let message: Value = serde_json::from_str(&line)?;
            if message.get("id").is_some() {
                return Ok(took);
            }
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one run gave; times are of an agent that answers at once, and of one that takes a moment.
#[derive(Default)]
struct Samples {
    direct: [Vec<f64>; 2],
    through: [Vec<f64>; 2],
    disk: Vec<f64>,
    cpu_alone: f64,
    cpu_among: f64,
}

/// One session with a warm agent, one message at a time; each round is one of each kind.
pub async fn measure(plan: &Plan) -> Result<Vec<Row>, Failure> {
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        runs.push(run(plan).await?);
    }
    let column = |pick: fn(&Samples) -> &Vec<f64>| runs.iter().map(|run| percentile(pick(run), 0.5)).collect();
    let added = |pick: fn(&[Vec<f64>; 2]) -> &Vec<f64>| {
        let of = |run: &Samples| percentile(pick(&run.through), 0.5) - percentile(pick(&run.direct), 0.5);
        runs.iter().map(of).collect()
    };
    Ok(vec![
        Row::new("POST to first token of a warm agent that answers at once, p50", "ms", column(|run| &run.through[0]))
            .against("the same agent driven directly", column(|run| &run.direct[0])),
        Row::new("what Greenroom adds to it, p50", "ms", added(|times| &times[0]))
            .against("fdatasync of 4 KiB", column(|run| &run.disk)),
        Row::new("POST to first token of one that takes 2 ms, p50", "ms", column(|run| &run.through[1]))
            .against("the same agent driven directly", column(|run| &run.direct[1])),
        Row::new("what Greenroom adds to it, p50", "ms", added(|times| &times[1]))
            .against("fdatasync of 4 KiB", column(|run| &run.disk)),
        Row::new(cpu_of(1), "ms", runs.iter().map(|run| run.cpu_alone).collect()),
        Row::new(cpu_of(SESSIONS), "ms", runs.iter().map(|run| run.cpu_among).collect()),
    ])
}

fn cpu_of(sessions: usize) -> String {
    format!("server CPU per turn of {CHUNKS} deltas of an agent process, {sessions} at once")
}

/// Turns of several sessions at once, each with an agent process of its own: the CPU of one, in milliseconds.
async fn cpu(server: &Server, sessions: usize, rounds: usize) -> Result<f64, Failure> {
    let (address, rounds) = (server.address(), (rounds / sessions).max(1));
    let mut poster = Connection::open(address).await?;
    let requests: Vec<Vec<u8>> = (0..sessions).map(|index| send_to(&format!("cpu{index}"), "bench", AT_ONCE)).collect();
    for request in &requests {
        // A first turn makes the session and starts its agent.
        poster.expect(request, 202).await?;
    }
    crate::memory::until_idle(server).await?;
    let mut talks = Vec::new();
    for (index, request) in requests.into_iter().enumerate() {
        let mut poster = Connection::open(address).await?;
        let mut stream = Subscriber::Sse(Sse::open(address, &format!("cpu{index}"), None).await?);
        talks.push(async move {
            for _ in 0..rounds {
                poster.write(&request).await?;
                stream.until("turn.finished").await?;
                poster.answer().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    let before = server.cpu()?;
    try_join_all(talks).await?;
    Ok((server.cpu()? - before) * 1e3 / (rounds * sessions) as f64)
}

async fn run(plan: &Plan) -> Result<Samples, Failure> {
    let folder = Folder::new(plan)?;
    let program = std::env::current_exe()?;
    let command = json!([program, "--baseline", Kind::Agent.name()]).to_string();
    let settings = [
        ("GREENROOM_AGENTS__BENCH__KIND", "acp"),
        ("GREENROOM_AGENTS__BENCH__COMMAND", command.as_str()),
        // Each session keeps its agent: what is measured is turns, not starts.
        ("GREENROOM_POOL__MAX_PROCESSES", "100"),
    ];
    let server = Server::greenroom(&folder, &settings)?;
    let mut disk = Disk::new(folder.path())?;
    let mut direct = Direct::start()?;
    let mut poster = Connection::open(server.address()).await?;
    let requests = [AT_ONCE, LATER].map(|text| (text, send_to("agent", "bench", text)));
    for (_, request) in &requests {
        poster.expect(request, 202).await?;
    }
    crate::memory::until_idle(&server).await?;
    let mut stream = Subscriber::Sse(Sse::open(server.address(), "agent", None).await?);
    let mut samples = Samples::default();
    for round in 0..plan.rounds + WARM_UP {
        let disk_ms = disk.sync()?;
        if round >= WARM_UP {
            samples.disk.push(disk_ms);
        }
        for ((text, request), (direct_times, through_times)) in
            requests.iter().zip(samples.direct.iter_mut().zip(&mut samples.through))
        {
            let direct_ms = direct.call(round as u64 + 3, "session/prompt", text)?;
            let begin = Instant::now();
            poster.write(request).await?;
            stream.until("message.delta").await?;
            let through_ms = begin.elapsed().as_secs_f64() * 1e3;
            stream.until("turn.finished").await?;
            match poster.answer().await?.status {
                202 => {}
                status => return Err(malformed(format!("HTTP {status}")).into()),
            }
            if round >= WARM_UP {
                direct_times.push(direct_ms);
                through_times.push(through_ms);
            }
        }
    }
    samples.cpu_alone = cpu(&server, 1, plan.rounds).await?;
    samples.cpu_among = cpu(&server, SESSIONS, plan.rounds * 4).await?;
    server.stop()?;
    Ok(samples)
}
