//! What all clients share: where the server is, what they were told, what they were shown.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client was told about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is a turn.
    Turn(String),
    /// It was offered to this turn.
    Steered(String),
    /// It was refused for a reason that says that nothing was done.
    Refused(String),
    /// Nothing, or an error that leaves it open.
    Unknown,
}

/// A message that was sent, perhaps several times under one `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The client's own name of the message: its `client_id`, a part of its text and, with `keyed`, its key.
    pub tag: String,
    /// Its policy.
    pub policy: &'static str,
    /// Whether it was sent with an `Idempotency-Key`, again and again until it was answered.
    pub keyed: bool,
    /// What it was told in the end.
    pub answer: Answer,
    /// The line of messages that it belongs to: each was answered before the next was sent.
    pub line: usize,
}

/// See the module's text.
pub struct World {
    address: Mutex<SocketAddr>,
    pub keys: Vec<String>,
    sent: Mutex<BTreeMap<String, Vec<Sent>>>,
    /// Session → seq → bytes, as anybody was ever shown it.
    seen: Mutex<BTreeMap<String, BTreeMap<u64, String>>>,
    counts: Mutex<BTreeMap<String, u64>>,
    finish: AtomicBool,
    http: reqwest::Client,
}

impl World {
    pub fn new(address: SocketAddr, sessions: usize) -> Self {
        Self {
            address: Mutex::new(address),
            keys: (0..sessions).map(|i| format!("chaos:{i}")).collect(),
            sent: Mutex::default(),
            seen: Mutex::default(),
            counts: Mutex::default(),
            finish: AtomicBool::new(false),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub fn moved_to(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
    }

    pub fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    /// From now on nobody sends anything new.
    pub fn finish(&self) {
        self.finish.store(true, Ordering::SeqCst);
    }

    pub fn finished(&self) -> bool {
        self.finish.load(Ordering::SeqCst)
    }

    pub fn note(&self, key: &str, sent: Sent) {
        self.count(match &sent.answer {
            Answer::Turn(_) => "turns accepted",
            Answer::Steered(_) => "texts offered",
            Answer::Refused(_) => "messages refused",
            Answer::Unknown => "messages unanswered",
        });
        self.sent.lock().unwrap().entry(key.to_owned()).or_default().push(sent);
    }

    pub fn sent(&self, key: &str) -> Vec<Sent> {
        self.sent.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    /// One more of something, for the report.
    pub fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub fn tally(&self) -> String {
        self.counts.lock().unwrap().iter().fold(String::new(), |mut text, (what, count)| {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{count} {what}");
            text
        })
    }

    /// Notes an event as it was shown, on whatever way; an event never changes.
    pub fn saw(&self, key: &str, seq: u64, event: &str) {
        let mut seen = self.seen.lock().unwrap();
        let known = seen.entry(key.to_owned()).or_default().entry(seq).or_insert_with(|| event.to_owned());
        assert_eq!(known, event, "{key}: event {seq} was shown with other bytes before");
    }

    /// All events of a session that anybody was shown.
    pub fn seen(&self, key: &str) -> BTreeMap<u64, String> {
        self.seen.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address()))
    }

    /// The head of an answer; none when the server is not there.
    pub async fn head(&self, request: RequestBuilder) -> Option<Response> {
        let answer = tokio::time::timeout(PATIENCE, request.send()).await.expect("no answer in time");
        let answer = answer.ok()?;
        // 500 is never an answer, whatever fails.
        assert_ne!(answer.status().as_u16(), 500, "{}", answer.url());
        Some(answer)
    }

    /// An answer with its body; none when the server is not there, or not any more.
    pub async fn call(&self, request: RequestBuilder) -> Option<(u16, Value)> {
        let answer = self.head(request).await?;
        let status = answer.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, answer.bytes()).await.expect("no body in time").ok()?;
        if body.is_empty() {
            return Some((status, Value::Null));
        }
        Some((status, serde_json::from_slice(&body).ok()?))
    }

    /// The snapshot of a session.
    pub async fn snapshot(&self, key: &str) -> Option<Value> {
        let (status, body) = self.call(self.request(Method::GET, &format!("/v1/sessions/{key}"))).await?;
        (status == 200).then_some(body)
    }

    /// The newest event of a session that has come to rest.
    pub async fn rests_at(&self, key: &str) -> Option<u64> {
        let snapshot = self.snapshot(key).await?;
        (snapshot["busy"] == false).then(|| snapshot["last_seq"].as_u64().unwrap())
    }
}

/// A pause between two tries; not a way to wait for anything in particular.
pub async fn breathe() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
