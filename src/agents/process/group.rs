//! One process group: signals, the ladder from polite to final, and the proof that it is gone.

use std::{fmt, process::ExitStatus, sync::Arc, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::{ProcessLedger, ProcessRecord, procfs};

/// How long a group may take to vanish after SIGKILL; longer only when the system holds a member, as over a dead disk.
/// Less than the ten seconds after which a session gives up on a killed agent.
const AFTER_KILL: Duration = Duration::from_secs(8);
/// The first and the longest pause between two looks at a group that ends.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// How often a group that is dropped is looked at again: with [`LOOK`], a tenth of a second at most.
const DROP_LOOKS: u32 = 50;

/// Owns a group: as long as it lives, this is what ends it. Dropping it kills at once.
pub(super) struct Group {
    record: ProcessRecord,
    ledger: Arc<dyn ProcessLedger>,
    gone: bool,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("record", &self.record).field("gone", &self.gone).finish_non_exhaustive()
    }
}

impl Group {
    /// Takes a group that was just started, and records it.
    pub(super) fn new(record: ProcessRecord, ledger: Arc<dyn ProcessLedger>) -> Self {
        ledger.started(record.clone());
        Self { record, ledger, gone: false }
    }

    pub(super) const fn pgid(&self) -> i32 {
        self.record.pgid
    }

    /// SIGTERM, `grace`, SIGKILL; returns when the group is gone, or when even SIGKILL did not help in time.
    pub(super) async fn stop(&mut self, leader: &mut Child, grace: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        self.signal(Signal::SIGTERM);
        if !self.ended_within(leader, grace).await {
            log::debug!(pgid = self.record.pgid, agent = self.record.agent.as_str(); "agent ignores SIGTERM");
            let deadline = Instant::now() + AFTER_KILL;
            // Again and again: a member may have forked between the look and the signal.
            loop {
                self.signal(Signal::SIGKILL);
                if self.ended_within(leader, Duration::from_millis(500)).await {
                    break;
                }
                if Instant::now() >= deadline {
                    log::error!(
                        pgid = self.record.pgid, agent = self.record.agent.as_str(),
                        session = self.record.session.as_str();
                        "agent's process group does not end after SIGKILL"
                    );
                    return leader.try_wait().ok().flatten();
                }
            }
        }
        self.gone = true;
        self.ledger.ended(self.record.pgid);
        let elapsed = started.elapsed().as_millis();
        log::debug!(pgid = self.record.pgid, duration_ms = elapsed; "agent's process group is gone");
        leader.try_wait().ok().flatten()
    }

    /// True when the leader was reaped and no other member is left, before the time is up.
    async fn ended_within(&self, leader: &mut Child, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        // Reaped first: until then the leader's id cannot be used again, and `waitpid` below cannot take its status.
        if timeout(patience, leader.wait()).await.is_err() {
            return false;
        }
        let mut pause = LOOK.0;
        loop {
            if !is_alive(&self.record) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }

    fn signal(&self, signal: Signal) {
        signal_all(&self.record, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.gone {
            // Nobody waits, so the record stays: the next start's sweep proves that it is gone.
            self.signal(Signal::SIGKILL);
            // What has left the group may have forked between the look and the signal, and there may be no next start.
            for _ in 0..DROP_LOOKS {
                if !signal_marked(&self.record, Signal::SIGKILL) {
                    break;
                }
                std::thread::sleep(LOOK.0);
            }
        }
    }
}

/// Sends a signal to the group and to what has left it but carries its marker. The leader must be known to be
/// ours: not yet reaped, or verified by its start time.
pub(super) fn signal_all(record: &ProcessRecord, signal: Signal) {
    match killpg(Pid::from_raw(record.pgid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => log::warn!(pgid = record.pgid; "signal to an agent's group failed: {error}"),
    }
    signal_marked(record, signal);
}

/// Sends a signal to each process that carries the marker and is not a member of the group; true when there was one.
pub(super) fn signal_marked(record: &ProcessRecord, signal: Signal) -> bool {
    let marked = procfs::marked(&record.marker);
    for pid in &marked {
        // It may have ended since; then there is nothing to do.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    !marked.is_empty()
}

/// True while a member of the group, or a process that carries its marker, has not ended. Reaps members that became
/// our own children because this process is the init of a container.
pub(super) fn is_alive(record: &ProcessRecord) -> bool {
    let group = Pid::from_raw(record.pgid);
    while matches!(waitpid(Pid::from_raw(-record.pgid), Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
    {
    }
    // Zombies that nobody reaps keep the number of the group; `/proc` tells them from the living.
    let group_alive = killpg(group, None) != Err(Errno::ESRCH) && procfs::group_lives(record.pgid);
    group_alive || !procfs::marked(&record.marker).is_empty()
}
