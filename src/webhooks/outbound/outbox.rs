//! The outbox: which endpoints are told of the events of an append. Looks only at what is in memory.

use std::{collections::HashMap, sync::Arc};

use serde_json::json;

use super::{
    check,
    endpoint::{Active, Load},
};
use crate::{
    access::Book,
    config::DeliveryConfig,
    ids::{SessionId, TurnId},
    metrics,
    protocol::Frame,
    store::{Append, DeliveryWrite, TurnWrite},
    timestamp::Timestamp,
};

/// The event at which a reply is sent.
const FINISHED: &str = "turn.finished";

/// Places that were taken for an append that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct Taken {
    endpoints: Vec<(Arc<Active>, u64)>,
    dropped: u64,
}

impl Taken {
    /// The append is committed, or it is not.
    pub(super) fn settle(self, committed: bool) {
        for (endpoint, count) in self.endpoints {
            if !committed {
                endpoint.load.give_back(count);
            } else if endpoint.mine {
                endpoint.load.tell();
            }
        }
        if let Some(metrics) = metrics::get().filter(|_| committed && self.dropped > 0) {
            metrics.webhook_deliveries.with_label_values(&["dropped"]).inc_by(self.dropped);
        }
    }
}

/// The body of a delivery; `data` is JSON.
pub(super) fn body(kind: &str, at: Timestamp, data: &str) -> Arc<str> {
    format!(r#"{{"type":"{kind}","timestamp":"{}","data":{data}}}"#, at.to_rfc3339()).into()
}

/// The body for an event. One that is too large says only which it is.
fn body_of(frame: &Frame, append: &Append, most: usize) -> Arc<str> {
    if frame.json.len() <= most {
        return body(&frame.kind, append.at, &frame.json);
    }
    let thin = json!({
        "seq": frame.seq, "type": &*frame.kind, "session": append.key.as_str(), "turn_id": frame.turn_id,
        "at": append.at, "data": null, "truncated": true,
    });
    body(&frame.kind, append.at, &thin.to_string())
}

/// The turn that an event ends, if it came from there.
fn ended(append: &Append, frame: &Frame, source: &str) -> Option<(SessionId, TurnId)> {
    let turn = frame.turn_id.filter(|_| &*frame.kind == FINISHED)?;
    append.turns.iter().find_map(|write| match write {
        TurnWrite::Insert(record) | TurnWrite::Update(record)
            if record.turn.id == turn && record.turn.source == source =>
        {
            Some((record.conversation, turn))
        }
        _ => None,
    })
}

/// True when the owner of an endpoint may see the session, now.
fn sees(endpoint: &Active, book: &Book, append: &Append) -> bool {
    let record = &endpoint.record;
    // The operator's own.
    if record.owner.is_empty() {
        return true;
    }
    append.audience.as_ref().is_some_and(|audience| book.follows(&record.owner, record.sees_all, audience, append.at))
}

/// Adds to an append who is told of its events.
pub(super) fn fill(active: &[Arc<Active>], book: &Book, config: &DeliveryConfig, append: &mut Append) -> Taken {
    let mut taken = Taken::default();
    let mut bodies: HashMap<u64, Arc<str>> = HashMap::new();
    let (mut deliveries, mut dropped) = (Vec::new(), Vec::new());
    for endpoint in active {
        if !check::is_among(append.key.as_str(), endpoint.record.sessions.as_deref()) {
            continue;
        }
        let (mut visible, mut added, mut lost) = (None, 0u64, 0u64);
        for frame in append.events.frames().iter().filter(|frame| endpoint.wants(&frame.kind)) {
            let answers = match &endpoint.source {
                None => None,
                Some(source) => match ended(append, frame, source) {
                    None => continue,
                    answers => answers,
                },
            };
            if !*visible.get_or_insert_with(|| sees(endpoint, book, append)) {
                break;
            }
            if !endpoint.load.take(config.max_backlog) {
                lost += 1;
                continue;
            }
            added += 1;
            let whole = || body_of(frame, append, config.max_event.bytes());
            deliveries.push(DeliveryWrite {
                id: uuid::Uuid::now_v7().into(),
                endpoint: endpoint.record.id,
                event: Some((append.key.clone(), frame.seq)),
                kind: frame.kind.to_string(),
                body: Arc::clone(bodies.entry(frame.seq).or_insert_with(whole)),
                at: append.at,
                answers,
            });
        }
        note_fill(endpoint, lost, added);
        if lost > 0 {
            dropped.push((endpoint.record.id, lost));
            taken.dropped += lost;
        }
        if added > 0 {
            taken.endpoints.push((Arc::clone(endpoint), added));
        }
    }
    append.deliveries = deliveries;
    append.dropped = dropped;
    taken
}

/// Tells the log, once, that an endpoint is full, or is not any more.
fn note_fill(endpoint: &Active, lost: u64, added: u64) {
    let load: &Load = &endpoint.load;
    if lost > 0 && load.is_full(true) {
        let (id, waiting) = (endpoint.record.id, load.pending());
        log::warn!(endpoint:% = id, waiting; "too many deliveries wait for a webhook endpoint: new ones are dropped");
    } else if lost == 0 && added > 0 && load.is_full(false) {
        log::info!(endpoint:% = endpoint.record.id; "a webhook endpoint is told of everything again");
    }
}
