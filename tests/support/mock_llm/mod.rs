//! A model server that needs no model: OpenAI chat completions and responses, Anthropic messages and Gemini
//! content generation, each streamed or whole, on loopback and a free port.
//!
//! What it answers is decided by keywords in the last user text (see [`plan`]), or by replies that a test has put in
//! line with [`MockLlm::script`]. It records every request. It runs in a thread of its own and stops when dropped.
//! It knows nothing of Greenroom, so that the `mock-model` example can serve it to anybody's agent.

// Every test binary includes this module and uses another part of it.
#![allow(dead_code)]
// Reading a missing field of a JSON value gives null; written are only fields of objects made here.
#![allow(clippy::indexing_slicing)]

mod anthropic;
mod chat;
mod gemini;
mod plan;
mod reply;
mod responses;
mod server;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;

pub use reply::Reply;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counts from 1, over all requests.
    pub number: usize,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// By lower-case name. Values that are no text are left out.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; null where there is none or where it is none.
    pub body: Value,
    /// How far the answer is.
    pub answer: Answer,
}

impl Request {
    /// The tokens that the answer to this generation reports: those of the input, cached ones included, and those of the
    /// output.
    #[must_use]
    pub fn reported(&self) -> (u64, u64) {
        let apart = if server::Dialect::of(&self.path) == Some(server::Dialect::Anthropic) { 15 } else { 0 };
        (100 + self.number as u64 + apart, 7)
    }
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is being written.
    Running,
    /// It was written to its end, or broken off because the script said so.
    Finished,
    /// The client went away before its end.
    Abandoned,
}

/// What the server and its owner share.
struct State {
    inner: Mutex<Inner>,
    /// Rises with every change of the requests.
    changes: watch::Sender<u64>,
}

struct Inner {
    requests: Vec<Request>,
    script: VecDeque<Reply>,
    models: Reply,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request and gives it its number.
    fn record(&self, mut request: Request) -> usize {
        let number = {
            let mut inner = self.lock();
            request.number = inner.requests.len() + 1;
            let number = request.number;
            inner.requests.push(request);
            number
        };
        self.changes.send_modify(|n| *n += 1);
        number
    }

    fn answered(&self, number: usize, answer: Answer) {
        if let Some(request) = self.lock().requests.get_mut(number.saturating_sub(1)) {
            request.answer = answer;
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

/// A running mock model server.
pub struct MockLlm {
    address: SocketAddr,
    state: Arc<State>,
    handle: actix_web::dev::ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl MockLlm {
    /// Starts one on loopback and a free port. Panics where that fails: a test cannot go on without it.
    #[must_use]
    #[expect(clippy::panic, reason = "a test cannot go on without its server")]
    pub fn start() -> Self {
        match Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) {
            Ok(mock) => mock,
            Err(error) => panic!("the mock model server does not start: {error}"),
        }
    }

    /// Starts one on an address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let models =
            [json!({"id": "mock-model", "object": "model", "type": "model", "display_name": "Mock", "created": 1,
            "created_at": "2025-01-01T00:00:00Z", "owned_by": "mock"})];
        let inner = Inner { requests: Vec::new(), script: VecDeque::new(), models: Reply::models(&models) };
        let state = Arc::new(State { inner: Mutex::new(inner), changes: watch::Sender::new(0) });
        let (address, handle, thread) = server::spawn(address, &state)?;
        Ok(Self { address, state, handle, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL without a path: for Anthropic and Gemini clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL with `/v1`: for OpenAI clients.
    #[must_use]
    pub fn v1(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Puts replies in line: each is used once, by the next request for a generation, in place of the keywords.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.lock().script.extend(replies);
    }

    /// Replies not used yet.
    #[must_use]
    pub fn script_left(&self) -> usize {
        self.state.lock().script.len()
    }

    /// Sets what `GET …/models` answers from now on.
    pub fn set_models(&self, reply: Reply) {
        self.state.lock().models = reply;
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// The requests for a generation so far, in order.
    #[must_use]
    pub fn generations(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| server::Dialect::of(&request.path).is_some() && request.method == "POST");
        requests
    }

    /// Waits until the requests are as a test wants them, and returns what it found in them. Panics after ten seconds.
    #[expect(clippy::panic, reason = "a test that waits in vain has failed")]
    pub async fn wait_for<T>(&self, what: &str, found: impl Fn(&[Request]) -> Option<T>) -> T {
        let mut changes = self.state.changes.subscribe();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(value) = found(&self.state.lock().requests) {
                    return Some(value);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(10), search).await {
            Ok(Some(value)) => value,
            _ => panic!("waited in vain for {what}; the requests are {:#?}", self.requests()),
        }
    }
}

impl Drop for MockLlm {
    fn drop(&mut self) {
        // The command is sent when the future is made; the thread's end is the answer.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
