//! The one stream of events of the server, and its distribution to the sessions.
//!
//! Invariants:
//! - The stream is always read at full speed. A session that does not keep up loses its events, and only its own, and is
//!   told so: it fetches the state again.
//! - After a reconnection every session is told that events may be lost.
//! - Events of a sub-agent's session go to the session that it works for.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{sync::Notify, time::timeout};

use super::api::Api;
use crate::agents::{json, openai::sse};

/// The server sends a sign of life every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);
/// Bytes of events that may wait for one session.
const MAX_WAITING: usize = 2 << 20;
/// Ids of the last events: one that comes again is dropped.
const REMEMBERED: usize = 256;
/// The pause before another attempt to connect.
const RETRY: Duration = Duration::from_millis(200);
/// How long one attempt may take.
const CONNECT: Duration = Duration::from_secs(5);

/// An event of one session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// As in `message.updated`.
    pub(super) kind: String,
    /// The session that it is of: the one that listens, or one of its sub-agents.
    pub(super) session: String,
    pub(super) properties: Value,
}

/// What comes out of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    Event(Event),
    /// Some events are missing.
    Lost,
}

/// Where events wait for one session.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<(usize, Event)>,
    bytes: usize,
    lost: bool,
}

impl Inbox {
    fn push(&self, bytes: usize, event: Event) {
        let mut waiting = locked(&self.waiting);
        if waiting.bytes + bytes > MAX_WAITING && !waiting.events.is_empty() {
            *waiting = Waiting { lost: true, ..Waiting::default() };
        }
        // An event that is older than the state that will be fetched does no harm.
        waiting.bytes += bytes;
        waiting.events.push_back((bytes, event));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Drops what waits.
    pub(super) fn clear(&self) {
        *locked(&self.waiting) = Waiting::default();
    }

    fn lose(&self) {
        locked(&self.waiting).lost = true;
        self.arrived.notify_one();
    }

    /// The next event; a loss is told before what came after it. Nothing is lost when the future is dropped.
    pub(super) async fn next(&self) -> News {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut waiting = locked(&self.waiting);
                if std::mem::take(&mut waiting.lost) {
                    return News::Lost;
                }
                if let Some((bytes, event)) = waiting.events.pop_front() {
                    waiting.bytes -= bytes;
                    return News::Event(event);
                }
            }
            arrived.await;
        }
    }
}

/// Which session's events go where.
#[derive(Debug, Default)]
pub(super) struct Routes {
    inboxes: Mutex<HashMap<String, Arc<Inbox>>>,
}

impl Routes {
    /// Sends the events of this session to the inbox.
    pub(super) fn add(&self, session: &str, inbox: &Arc<Inbox>) {
        locked(&self.inboxes).insert(session.to_owned(), Arc::clone(inbox));
    }

    /// Forgets an inbox with all sessions that go there.
    pub(super) fn remove(&self, inbox: &Arc<Inbox>) {
        locked(&self.inboxes).retain(|_, other| !Arc::ptr_eq(other, inbox));
    }

    fn lose_all(&self) {
        locked(&self.inboxes).values().for_each(|inbox| inbox.lose());
    }

    /// Takes a line of the stream: `{"directory", "payload": {"id", "type", "properties"}}`.
    fn deliver(&self, bytes: usize, kind: &str, mut properties: Value) {
        let Some(session) = session_of(&properties).map(str::to_owned) else { return };
        let mut inboxes = locked(&self.inboxes);
        if matches!(kind, "session.created" | "session.updated") {
            let parent = properties.get("info").and_then(|info| info.get("parentID")?.as_str());
            let inbox = parent.and_then(|parent| inboxes.get(parent)).cloned();
            if let Some(inbox) = inbox {
                inboxes.entry(session).or_insert(inbox);
            }
            // The sessions themselves are of no interest.
            return;
        }
        if let Some(inbox) = inboxes.get(&session) {
            inbox.push(bytes, Event { kind: kind.to_owned(), session, properties: properties.take() });
        }
    }
}

fn session_of(properties: &Value) -> Option<&str> {
    let named = |holder: &str| properties.get(holder)?.get("sessionID")?.as_str();
    let direct = properties.get("sessionID").and_then(Value::as_str);
    direct.or_else(|| named("part")).or_else(|| named("info"))
}

/// Reads the stream until it cannot be had for `patience`; returns why. Connects again as often as it breaks. `connected` is
/// called each time.
pub(super) async fn follow(api: &Api, routes: &Routes, max: usize, patience: Duration, connected: impl Fn()) -> String {
    let mut recent = Recent::default();
    let mut failing_since = Instant::now();
    loop {
        let broken = match api.events(CONNECT).await {
            Ok(response) => {
                let mut events = pin!(sse::events(Box::pin(response.bytes_stream()), max));
                loop {
                    match timeout(SILENCE, events.next()).await {
                        Ok(Some(Ok(data))) => {
                            let Some((id, kind, properties)) = read(&data) else { continue };
                            if kind == "server.connected" {
                                // From here on nothing is missed; what was before may be.
                                routes.lose_all();
                                connected();
                            }
                            failing_since = Instant::now();
                            if kind != "sync" && recent.is_new(&id) {
                                routes.deliver(data.len(), &kind, properties);
                            }
                        }
                        Ok(Some(Err(sse::Broken::TooLong(limit)))) => {
                            break format!("an event is longer than {limit} bytes");
                        }
                        Ok(Some(Err(_))) => break "the stream of events broke off".to_owned(),
                        Ok(None) => break "the stream of events ended".to_owned(),
                        Err(_elapsed) => break "the stream of events is silent".to_owned(),
                    }
                }
            }
            Err(error) => error.message,
        };
        if failing_since.elapsed() > patience {
            return broken;
        }
        log::debug!("opencode: {broken}; connecting again");
        tokio::time::sleep(RETRY).await;
    }
}

fn read(data: &str) -> Option<(String, String, Value)> {
    let mut event: Value = json::parse(data).ok()?;
    let mut payload = event.get_mut("payload")?.take();
    let kind = payload.get("type")?.as_str()?.to_owned();
    let id = payload.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let properties = payload.get_mut("properties").map(Value::take).unwrap_or_default();
    Some((id, kind, properties))
}

/// The last events by id.
#[derive(Debug, Default)]
struct Recent(VecDeque<String>);

impl Recent {
    fn is_new(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return true;
        }
        if self.0.iter().any(|seen| seen == id) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(id.to_owned());
        true
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn kinds(inbox: &Inbox, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(match inbox.next().await {
                News::Event(event) => format!("{} {}", event.session, event.kind),
                News::Lost => "lost".to_owned(),
            });
        }
        kinds
    }

    #[tokio::test]
    async fn events_go_to_their_session_and_those_of_sub_agents_too() {
        let routes = Routes::default();
        let (one, two) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        routes.add("s1", &one);
        routes.add("s2", &two);
        let child = |id: &str, parent: &str| json!({"sessionID": id, "info": {"id": id, "parentID": parent}});
        routes.deliver(1, "session.created", child("c1", "s1"));
        routes.deliver(1, "session.created", child("c2", "c1"));
        routes.deliver(1, "session.idle", json!({"sessionID": "s2"}));
        routes.deliver(1, "permission.asked", json!({"sessionID": "c2"}));
        routes.deliver(1, "message.part.updated", json!({"part": {"sessionID": "s1"}}));
        routes.deliver(1, "session.idle", json!({"sessionID": "unknown"}));
        assert_eq!(kinds(&one, 2).await, ["c2 permission.asked", "s1 message.part.updated"]);
        assert_eq!(kinds(&two, 1).await, ["s2 session.idle"]);
        routes.remove(&one);
        assert_eq!(locked(&routes.inboxes).len(), 1);
    }

    #[tokio::test]
    async fn who_does_not_read_loses_events_and_hears_of_it() {
        let inbox = Inbox::default();
        let event = |kind: &str| Event { kind: kind.into(), session: "s".into(), properties: Value::Null };
        inbox.push(10, event("old"));
        inbox.push(MAX_WAITING, event("large"));
        assert_eq!(kinds(&inbox, 2).await, ["lost", "s large"]);
        inbox.push(1, event("next"));
        inbox.lose();
        assert_eq!(kinds(&inbox, 2).await, ["lost", "s next"]);
        assert_eq!(locked(&inbox.waiting).bytes, 0);
        inbox.push(10, event("dropped"));
        inbox.clear();
        inbox.push(10, event("kept"));
        assert_eq!(kinds(&inbox, 1).await, ["s kept"]);
    }

    #[test]
    fn an_event_that_comes_again_is_known() {
        let mut recent = Recent::default();
        assert!(recent.is_new("a") && !recent.is_new("a") && recent.is_new("") && recent.is_new(""));
        assert!((0..REMEMBERED).all(|n| recent.is_new(&n.to_string())) && recent.is_new("a"));
        let line = r#"{"directory":"/w","payload":{"id":"e","type":"session.idle","properties":{"sessionID":"s"}}}"#;
        let (id, kind, properties) = read(line).unwrap();
        assert_eq!((id.as_str(), kind.as_str(), session_of(&properties)), ("e", "session.idle", Some("s")));
        assert!(read("nonsense").is_none() && read("{}").is_none());
    }
}
