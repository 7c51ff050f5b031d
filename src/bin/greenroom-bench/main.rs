//! `greenroom-bench`: starts the server and measures it against baselines that are taken in the same run.
//!
//! Figures of a shared machine differ from hour to hour: read the ratios. Nothing here judges; it prints a table.

mod agent;
mod baseline;
mod client;
mod cold;
mod credentials;
mod crowd;
mod doors;
mod fanout;
mod growth;
mod latency;
mod layout;
mod memory;
mod plot;
mod process;
mod report;
mod scrape;
mod steady;
mod streams;
mod subscribers;
mod throughput;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use report::{Report, Row};

/// Measures Greenroom on this machine.
#[derive(Debug, Parser)]
#[command(name = "greenroom-bench", version, about)]
struct Arguments {
    /// What to measure; everything when left out
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Small numbers: does it work, not how fast is it
    #[arg(long)]
    quick: bool,
    /// Also write the figures of every run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long `steady` takes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Where `steady` draws its plot
    #[arg(long, value_name = "FILE", default_value = "steady.svg")]
    svg: PathBuf,
    /// Where databases are made; must be on the disk that is meant [default: beside this program]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Clients that come back at once in `storm`, up to 5000 [default: 2000; 100 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
    clients: Option<u16>,
    /// Run a baseline server instead; used by this program itself
    #[arg(long, hide = true)]
    baseline: Option<baseline::Kind>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Everything
    All,
    /// Start to first 200
    Cold,
    /// Resident memory, idle and per session
    Memory,
    /// POST to first event at a subscriber
    Latency,
    /// What is added to an agent's first token, and the CPU of its turn
    Agent,
    /// The CPU of a turn that is told in another protocol's words
    Doors,
    /// Acknowledged sends per second
    Sends,
    /// The rate of calls with a token against that of open mode
    Credentials,
    /// GET /metrics with many live sessions
    Metrics,
    /// Turns per second
    Turns,
    /// Events per second to many subscribers
    Fanout,
    /// Events per second of a replay
    Replay,
    /// Fast readers beside stalled ones
    Subscribers,
    /// Many clients that come back at once
    Storm,
    /// Many live sessions with a WebSocket each, turns in one of a hundred
    Crowd,
    /// What calls cost as the log grows
    Growth,
    /// Table layouts of the event log
    Layout,
    /// Steady load for `--minutes`; only when named
    Steady,
}

/// How much of everything.
#[derive(Debug, Clone)]
struct Plan {
    /// Repetitions of each measurement.
    runs: usize,
    /// Length of a measurement of throughput.
    time: Duration,
    /// Starts per run.
    starts: usize,
    /// Rounds per run of a measurement of latency.
    rounds: usize,
    /// Sessions whose memory is measured.
    sessions: usize,
    /// Events that are replayed.
    replay: usize,
    /// Clients that come back at once.
    storm: usize,
    /// Where databases are made.
    dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.baseline {
        Some(kind) => baseline::serve(kind),
        None => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenroom-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a measurement could not be made.
type Failure = Box<dyn std::error::Error>;

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    raise_open_files();
    let beside = std::env::current_exe()?.parent().map(PathBuf::from).ok_or("this program has no folder")?;
    let dir = arguments.dir.clone().unwrap_or(beside);
    let plan = if arguments.quick {
        let time = Duration::from_millis(500);
        Plan { runs: 1, time, starts: 3, rounds: 50, sessions: 200, replay: 4_000, storm: 100, dir }
    } else {
        let time = Duration::from_secs(5);
        Plan { runs: 3, time, starts: 20, rounds: 1_000, sessions: 10_000, replay: 100_000, storm: 2_000, dir }
    };
    let plan = Plan { storm: arguments.clients.map_or(plan.storm, usize::from), ..plan };
    let all = arguments.names.is_empty() || arguments.names.contains(&Name::All);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    for &name in Name::value_variants().iter().filter(|name| **name != Name::All) {
        let named = arguments.names.contains(&name);
        if !named && (!all || name == Name::Steady) {
            continue;
        }
        eprintln!("measuring {name:?}");
        let rows: Result<Vec<Row>, Failure> = match name {
            Name::All => Ok(Vec::new()),
            Name::Cold => runtime.block_on(cold::measure(&plan)),
            Name::Memory => runtime.block_on(memory::measure(&plan)),
            Name::Latency => runtime.block_on(latency::measure(&plan)),
            Name::Agent => runtime.block_on(agent::measure(&plan)),
            Name::Doors => runtime.block_on(doors::measure(&plan)),
            Name::Sends => runtime.block_on(throughput::sends(&plan)),
            Name::Credentials => runtime.block_on(credentials::measure(&plan)),
            Name::Metrics => runtime.block_on(scrape::measure(&plan)),
            Name::Turns => runtime.block_on(throughput::turns(&plan)),
            Name::Fanout => runtime.block_on(fanout::measure(&plan)),
            Name::Replay => runtime.block_on(fanout::replay(&plan)),
            Name::Subscribers => runtime.block_on(subscribers::measure(&plan)),
            Name::Storm => runtime.block_on(subscribers::storm(&plan)),
            Name::Crowd => runtime.block_on(crowd::measure(&plan)),
            Name::Growth => runtime.block_on(growth::measure(&plan)),
            Name::Layout => layout::measure(&plan),
            Name::Steady => runtime.block_on(steady::measure(&plan, arguments.minutes, &arguments.svg)),
        };
        // One measurement that cannot be made is no reason to lose the others.
        report.add(name, rows);
    }
    print!("{}", report.markdown());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json())?;
    }
    if report.failed() { Err("not everything could be measured".into()) } else { Ok(()) }
}

/// Many connections need many files: take what the system allows without asking for more.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
