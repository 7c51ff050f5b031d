//! JSON-RPC with one agent process. Knows the messages' form, not what they mean.

use serde_json::{Map, Value};

use super::{
    lines::{Incoming, JsonLines},
    rpc::{self, Dialect, Message},
};
use crate::agents::process::Process;

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A message.
    Message(Message),
    /// A line that is none.
    Noise(String),
    /// A line beyond the limit.
    TooLong,
    /// The process has ended, or closed its stdout.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// The lines below it.
    pub lines: JsonLines,
    dialect: Dialect,
    next_id: u64,
}

impl Connection {
    /// Talks to this process.
    #[must_use]
    pub fn new(process: Process, dialect: Dialect) -> Self {
        Self { lines: JsonLines::new(process), dialect, next_id: 1 }
    }

    /// Sends a request and returns its id. Nothing leaves before [`Connection::next`] is polled.
    pub fn request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.lines.send(&rpc::request(self.dialect, id, method, params));
        id
    }

    /// Tells the agent.
    pub fn notify(&mut self, method: &str, params: &Value) {
        self.lines.send(&rpc::notification(self.dialect, method, params));
    }

    /// Answers a request of the agent.
    pub fn reply(&mut self, id: &Value, result: &Value) {
        self.lines.answer(&rpc::reply(self.dialect, id, result));
    }

    /// Says that there is no such method here.
    pub fn refuse(&mut self, id: &Value, method: &str) {
        let message = format!("this client does not know {method}");
        self.lines.answer(&rpc::refusal(self.dialect, id, rpc::METHOD_NOT_FOUND, &message));
    }

    /// Writes what waits, and returns the next thing that comes in. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Input {
        input(self.lines.next().await)
    }

    /// The same, unless `known` knows what the line says without its message.
    ///
    /// # Errors
    /// What came in, where it does not.
    pub async fn next_unless<T>(&mut self, known: impl Fn(&str) -> Option<T>) -> Result<T, Input> {
        self.lines.next_unless(known).await.map_err(input)
    }
}

fn input(incoming: Incoming) -> Input {
    match incoming {
        Incoming::Object(object) => message(object),
        Incoming::Noise(line) => Input::Noise(line),
        Incoming::TooLong => Input::TooLong,
        Incoming::Closed => Input::Closed,
    }
}

fn message(object: Map<String, Value>) -> Input {
    rpc::read(object).map_or_else(|object| Input::Noise(Value::Object(object).to_string()), Input::Message)
}
