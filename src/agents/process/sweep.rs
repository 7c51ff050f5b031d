//! After a crash: ends the agents that the dead server left behind.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    ProcessRecord,
    group::{is_alive, signal_all, signal_marked},
    procfs,
};

/// How long the sweep waits for what it has killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills what is left of recorded groups and waits, some seconds at most, until it is gone. Returns how many groups
/// had survivors. Blocks; meant for the start of a server, before it starts agents of its own.
///
/// Nothing is killed that is not proven to be ours: the group, when its leader still is the process that was
/// recorded (same boot, same start time); and single processes that carry the group's marker in their environment.
/// The ids of a record alone prove nothing, since the system uses them again.
#[must_use]
pub fn sweep(records: &[ProcessRecord]) -> usize {
    let boot = procfs::boot_id();
    let survivors: Vec<&ProcessRecord> = records
        .iter()
        .filter(|record| boot.as_deref() == Some(record.boot_id.as_str()))
        .filter(|record| kill_remains(record))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    for record in &survivors {
        while remains(record) {
            if Instant::now() >= deadline {
                log::error!(
                    pgid = record.pgid, agent = record.agent.as_str(), session = record.session.as_str();
                    "agent's processes of an earlier run do not end after SIGKILL"
                );
                break;
            }
            kill_remains(record);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    survivors.len()
}

/// Kills what carries a marker of this home, and waits as [`sweep`] does: processes that were started so shortly before
/// a crash that no record tells of them. Returns how many there were. Must not be called once agents are started.
#[must_use]
pub fn sweep_unrecorded(home: &str) -> usize {
    let (own, deadline) = (std::process::id(), Instant::now() + PATIENCE);
    // Whoever was started by an agent carries its marker, too.
    let look = || -> Vec<i32> {
        let marked = procfs::marked_from(home).into_iter();
        marked.filter(|pid| u32::try_from(*pid) != Ok(own)).collect()
    };
    let mut left = look();
    let found = left.len();
    while !left.is_empty() {
        if Instant::now() >= deadline {
            log::error!("processes of an earlier run do not end after SIGKILL");
            break;
        }
        for pid in left {
            // It may have ended since; then there is nothing to do.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
        left = look();
    }
    found
}

fn leader_is_ours(record: &ProcessRecord) -> bool {
    procfs::started_ticks(record.pgid) == Some(record.started_ticks)
}

/// Kills what is proven to be ours; true when there was something.
fn kill_remains(record: &ProcessRecord) -> bool {
    if leader_is_ours(record) && is_alive(record) {
        signal_all(record, Signal::SIGKILL);
        return true;
    }
    signal_marked(record, Signal::SIGKILL)
}

fn remains(record: &ProcessRecord) -> bool {
    // Without its leader the group's number may belong to somebody else: then only the marker counts.
    if leader_is_ours(record) { is_alive(record) } else { !procfs::marked(&record.marker).is_empty() }
}
