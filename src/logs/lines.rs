//! The newest lines of the log, in memory: bounded in number and in the size of each.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use log::{
    Record,
    kv::{Error, Key, Value as Pair, VisitSource},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::timestamp::Timestamp;

/// Lines that are kept.
pub const MAX_LINES: usize = 1000;
/// Characters of a message, and of the text of a field.
const MAX_TEXT: (usize, usize) = (4096, 1024);
/// Fields of a line.
const MAX_FIELDS: usize = 32;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "LogLine")]
pub struct Line {
    /// Its number in the life of this process, from 1.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[schemars(extend("enum" = ["error", "warn", "info", "debug", "trace"]))]
    pub level: &'static str,
    /// The module that wrote it.
    pub target: String,
    /// What happened, for a person.
    pub message: String,
    /// What it is about.
    pub fields: Map<String, Value>,
}

impl Line {
    /// The line of a record; it gets its number when it is kept.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Self {
        let mut fields = Fields::default();
        // A value that cannot be read is left out; the line matters more.
        let _ = record.key_values().visit(&mut fields);
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warn",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        };
        let message = cut(record.args().to_string(), MAX_TEXT.0);
        Self { id: 0, at: Timestamp::now(), level, target: record.target().to_owned(), message, fields: fields.0 }
    }

    /// How grave it is: 1 for an error up to 5 for a trace.
    #[must_use]
    pub fn severity(&self) -> u8 {
        match self.level {
            "error" => 1,
            "warn" => 2,
            "info" => 3,
            "debug" => 4,
            _ => 5,
        }
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, pair: Pair<'kvs>) -> Result<(), Error> {
        if self.0.len() < MAX_FIELDS {
            let number = pair.to_u64().map(Value::from).or_else(|| pair.to_i64().map(Value::from));
            let simple = number.or_else(|| pair.to_bool().map(Value::from)).or_else(|| pair.to_f64().map(Value::from));
            let value = simple.unwrap_or_else(|| cut(pair.to_string(), MAX_TEXT.1).into());
            self.0.insert(key.as_str().to_owned(), value);
        }
        Ok(())
    }
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The newest lines.
#[derive(Debug, Default)]
pub struct Lines {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<Arc<Line>>,
    last: u64,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line.
    pub fn push(&self, mut line: Line) {
        let mut inner = self.lock();
        inner.last += 1;
        line.id = inner.last;
        if inner.lines.len() >= MAX_LINES {
            inner.lines.pop_front();
        }
        inner.lines.push_back(Arc::new(line));
        drop(inner);
        self.news.notify_waiters();
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest `limit` lines that are at least as grave as `severity`, oldest first.
    #[must_use]
    pub fn tail(&self, limit: usize, severity: u8) -> Vec<Arc<Line>> {
        let inner = self.lock();
        let wanted = inner.lines.iter().rev().filter(|line| line.severity() <= severity);
        let mut tail: Vec<_> = wanted.take(limit).cloned().collect();
        tail.reverse();
        tail
    }
}

/// A place in the log, for one that follows it.
#[derive(Debug)]
pub struct Tail {
    lines: Arc<Lines>,
    after: u64,
}

impl Tail {
    /// Follows from behind that line. A number that the log has not reached is of an earlier process: from the oldest
    /// line that is kept.
    #[must_use]
    pub fn new(lines: Arc<Lines>, after: u64) -> Self {
        let known = lines.lock().last >= after;
        Self { lines, after: if known { after } else { 0 } }
    }

    /// The lines since, at least one, and how many were lost before them. Cancel safe.
    pub async fn next(&mut self) -> (u64, Vec<Arc<Line>>) {
        let lines = Arc::clone(&self.lines);
        loop {
            let news = lines.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let new: Vec<Arc<Line>> = {
                let inner = lines.lock();
                let behind = inner.last.saturating_sub(self.after);
                let skip = inner.lines.len().saturating_sub(usize::try_from(behind).unwrap_or(usize::MAX));
                inner.lines.iter().skip(skip).cloned().collect()
            };
            if let (Some(first), Some(last)) = (new.first(), new.last()) {
                // Before the first line that was ever followed nothing is lost.
                let lost = if self.after == 0 { 0 } else { first.id - 1 - self.after };
                self.after = last.id;
                return (lost, new);
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, level: log::Level) -> Line {
        Line::of(&Record::builder().level(level).target("t").args(format_args!("{message}")).build())
    }

    #[tokio::test]
    async fn the_newest_lines_are_kept_and_a_follower_hears_what_it_lost() {
        let lines = Arc::new(Lines::default());
        for n in 0..MAX_LINES + 5 {
            lines.push(line(&n.to_string(), if n % 2 == 0 { log::Level::Info } else { log::Level::Error }));
        }
        assert_eq!(lines.len(), MAX_LINES);
        let last: Vec<String> = lines.tail(2, 5).iter().map(|line| line.message.clone()).collect();
        assert_eq!(last, ["1003", "1004"]);
        assert_eq!(lines.tail(1, 1)[0].message, "1003");
        let mut tail = Tail::new(Arc::clone(&lines), 2);
        let (lost, new) = tail.next().await;
        assert_eq!((lost, new.len(), new[0].id), (3, MAX_LINES, 6));
        let waiting = tokio::spawn(async move { tail.next().await });
        tokio::task::yield_now().await;
        lines.push(line("new", log::Level::Warn));
        let (lost, new) = waiting.await.unwrap();
        assert_eq!((lost, new.len(), new[0].message.as_str()), (0, 1, "new"));
        // A number from before a restart.
        assert_eq!(Tail::new(lines, 5000).next().await.1.len(), MAX_LINES);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(line(&"ü".repeat(5000), log::Level::Info).message.chars().count(), MAX_TEXT.0 + 1);
    }
}
