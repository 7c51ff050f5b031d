//! Which jobs go into the next transaction: those that a client waits for before those that only report progress.
//!
//! Under more load than the disk takes, accepting is answered quickly and turns go on more slowly, not the other way
//! round; but they always go on. The order of one session's jobs is kept, because a session has at most one append
//! under way.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::job::Job;

/// Jobs in one transaction.
pub(super) const MAX_BATCH: usize = 256;
/// Jobs that only report progress, in a transaction that a client waits for.
const MAX_PATIENT: usize = 64;

/// Jobs that were taken from the channel and are not in a transaction yet: at most as many as may wait in the channel.
#[derive(Default)]
pub(super) struct Intake {
    urgent: VecDeque<Job>,
    patient: VecDeque<Job>,
}

impl Intake {
    /// Fills `batch`; blocks for the first job. False when all senders are gone and all jobs are done.
    pub(super) fn next(&mut self, jobs: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>) -> bool {
        if self.urgent.is_empty() && self.patient.is_empty() {
            match jobs.blocking_recv() {
                Some(job) => self.sort(job),
                None => return false,
            }
        }
        while self.len() < jobs.max_capacity() {
            let Ok(job) = jobs.try_recv() else { break };
            self.sort(job);
        }
        batch.extend(self.urgent.drain(..self.urgent.len().min(MAX_BATCH - MAX_PATIENT)));
        let room = if batch.is_empty() { MAX_BATCH } else { MAX_PATIENT };
        batch.extend(self.patient.drain(..self.patient.len().min(room)));
        true
    }

    /// Jobs that wait here.
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.patient.len()
    }

    fn sort(&mut self, job: Job) {
        if job.write.is_urgent() { self.urgent.push_back(job) } else { self.patient.push_back(job) }
    }
}
