//! What this session was asked lately that must not happen twice.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::super::command::Once;
use crate::store::IdempotencyRecord;

/// Calls that must not happen twice are remembered so long in memory; the store has them for a day. It covers the
/// time between a look into the store and the decision.
const CALL_MEMORY: Duration = Duration::from_secs(120);

/// Calls of the last moments that must not happen twice.
#[derive(Default)]
pub(in crate::session) struct Calls(HashMap<(String, String), (IdempotencyRecord, Instant)>);

impl Calls {
    pub(in crate::session) fn get(&self, once: &Once) -> Option<&IdempotencyRecord> {
        self.0.get(&(once.scope.clone(), once.key.clone())).map(|(record, _)| record)
    }

    pub(in crate::session) fn insert(&mut self, record: IdempotencyRecord) {
        self.0.retain(|_, (_, at)| at.elapsed() < CALL_MEMORY);
        self.0.insert((record.scope.clone(), record.key.clone()), (record, Instant::now()));
    }
}
