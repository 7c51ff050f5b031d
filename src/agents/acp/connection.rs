//! The connection to one agent process: reads and writes at the same time, in bounded memory.
//!
//! Knows lines and JSON-RPC, not what the messages mean.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, time::sleep_until};

use super::rpc::{self, Message};
use crate::agents::process::{Line, Process};

/// Replies that may wait to be written before reading stops: an agent that asks without end and never reads is
/// slowed down, not buffered.
const MAX_BACKLOG: usize = 1024 * 1024;
/// How long the rest of stdout is read after the process has ended; somebody else may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

/// What comes in.
#[derive(Debug)]
pub(super) enum Input {
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
pub(super) struct Connection {
    pub(super) process: Process,
    outgoing: VecDeque<u8>,
    /// Bytes of replies written into `outgoing` since it was empty.
    backlog: usize,
    next_id: u64,
    /// Set when the process has ended: until when its last words are read.
    ended: Option<Instant>,
}

impl Connection {
    pub(super) fn new(process: Process) -> Self {
        Self { process, outgoing: VecDeque::new(), backlog: 0, next_id: 1, ended: None }
    }

    /// Sends a request and returns its id. Nothing leaves before [`Connection::next`] is polled.
    pub(super) fn request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.outgoing.extend(rpc::request(id, method, params).into_bytes());
        id
    }

    pub(super) fn notify(&mut self, method: &str, params: &Value) {
        self.outgoing.extend(rpc::notification(method, params).into_bytes());
    }

    pub(super) fn reply(&mut self, id: &Value, result: &Value) {
        self.answer(&rpc::reply(id, result));
    }

    pub(super) fn refuse(&mut self, id: &Value, method: &str) {
        self.answer(&rpc::refusal(id, rpc::METHOD_NOT_FOUND, &format!("this client does not know {method}")));
    }

    fn answer(&mut self, line: &str) {
        self.backlog += line.len();
        self.outgoing.extend(line.bytes());
    }

    /// Writes what waits, and returns the next thing that comes in. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Input {
        loop {
            let ended = self.ended;
            let (stdin, stdout, exited) = self.process.parts();
            let waiting = !self.outgoing.is_empty() && stdin.is_some();
            let write = async {
                match stdin {
                    Some(stdin) => stdin.write(self.outgoing.as_slices().0).await,
                    None => Ok(0),
                }
            };
            tokio::select! {
                written = write, if waiting => match written {
                    Ok(written @ 1..) => {
                        self.outgoing.drain(..written);
                        if self.outgoing.is_empty() {
                            self.outgoing.shrink_to(64 * 1024);
                            self.backlog = 0;
                        }
                    }
                    // It does not read any more. Whether it is dead, its stdout and its exit tell.
                    _ => {
                        self.process.stdin = None;
                        self.outgoing.clear();
                        self.backlog = 0;
                    }
                },
                line = stdout.next(), if self.backlog < MAX_BACKLOG => return match line {
                    Ok(Some(Line::Text(line))) => match rpc::parse(&line) {
                        Some(message) => Input::Message(message),
                        None if line.trim().is_empty() => continue,
                        None => Input::Noise(line),
                    },
                    Ok(Some(Line::TooLong)) => Input::TooLong,
                    Ok(None) | Err(_) => Input::Closed,
                },
                _ = exited, if ended.is_none() => self.ended = Some(Instant::now() + DRAIN),
                () = sleep_until(ended.unwrap_or_else(Instant::now).into()), if ended.is_some() => return Input::Closed,
            }
        }
    }
}
