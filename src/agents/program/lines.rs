//! A process that talks in JSON objects, one a line: reads and writes at the same time, in bounded memory.
//!
//! Knows lines, not what the objects mean.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::{io::AsyncWriteExt, time::sleep_until};

use crate::agents::{
    json,
    process::{Line, Process},
};

/// Bytes of answers that may wait to be written before reading stops: an agent that asks without end and never reads is
/// slowed down, not buffered.
const MAX_BACKLOG: usize = 1024 * 1024;
/// How long the rest of stdout is read after the process has ended; somebody else may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);
/// What the buffer for writing keeps when it is empty.
const KEPT: usize = 64 * 1024;

/// What comes in.
#[derive(Debug)]
pub enum Incoming {
    /// An object.
    Object(Map<String, Value>),
    /// A line that is none.
    Noise(String),
    /// A line beyond the limit.
    TooLong,
    /// The process has ended, or closed its stdout.
    Closed,
}

/// The lines of a process, both ways.
#[derive(Debug)]
pub struct JsonLines {
    /// The process.
    pub process: Process,
    outgoing: VecDeque<u8>,
    /// Bytes of answers written into `outgoing` since it was empty.
    backlog: usize,
    /// Set when the process has ended: until when its last words are read.
    ended: Option<Instant>,
}

impl JsonLines {
    /// Talks to this process.
    #[must_use]
    pub fn new(process: Process) -> Self {
        Self { process, outgoing: VecDeque::new(), backlog: 0, ended: None }
    }

    /// Sends an object. Nothing leaves before [`JsonLines::next`] is polled.
    pub fn send(&mut self, message: &Value) {
        self.outgoing.extend(message.to_string().into_bytes());
        self.outgoing.push_back(b'\n');
    }

    /// Sends an answer to something that the agent asked. While too many wait, nothing is read.
    pub fn answer(&mut self, message: &Value) {
        let before = self.outgoing.len();
        self.send(message);
        self.backlog += self.outgoing.len() - before;
    }

    /// Writes what waits, and returns the next thing that comes in. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Incoming {
        match self.next_unless(|_| None::<Infallible>).await {
            Ok(never) => match never {},
            Err(incoming) => incoming,
        }
    }

    /// The same, unless `known` knows what the line says without its object.
    ///
    /// # Errors
    /// What came in, where it does not.
    pub async fn next_unless<T>(&mut self, known: impl Fn(&str) -> Option<T>) -> Result<T, Incoming> {
        loop {
            let incoming = match self.next_line().await {
                Some(Line::Text(line)) => match known(&line) {
                    Some(known) => return Ok(known),
                    None => match json::parse(&line) {
                        Ok(Value::Object(object)) => Incoming::Object(object),
                        _ if line.trim().is_empty() => continue,
                        _ => Incoming::Noise(line),
                    },
                },
                Some(Line::TooLong) => Incoming::TooLong,
                None => Incoming::Closed,
            };
            return Err(incoming);
        }
    }

    /// As [`JsonLines::next`], with the line as it is; none when the process has ended or closed its stdout.
    pub async fn next_line(&mut self) -> Option<Line> {
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
                            self.outgoing.shrink_to(KEPT);
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
                line = stdout.next(), if self.backlog < MAX_BACKLOG => return line.unwrap_or_default(),
                _ = exited, if ended.is_none() => self.ended = Some(Instant::now() + DRAIN),
                () = sleep_until(ended.unwrap_or_else(Instant::now).into()), if ended.is_some() => return None,
            }
        }
    }
}
