//! The tail of stderr: the newest bytes, made readable for an error message.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::ChildStderr, task::JoinHandle};

/// How long the rest of stderr is waited for after the group is gone: somebody else may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// Follows a child's stderr to its end and keeps the newest bytes.
#[derive(Debug)]
pub(super) struct StderrTail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    follower: JoinHandle<()>,
}

impl StderrTail {
    /// Begins to follow; keeps at most `limit` bytes.
    pub(super) fn follow(mut stderr: ChildStderr, limit: usize) -> Self {
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&bytes);
        let follower = tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(chunk.iter().take(read));
                let excess = kept.len().saturating_sub(limit);
                kept.drain(..excess);
            }
        });
        Self { bytes, follower }
    }

    /// Waits a moment for what is still in the pipe.
    pub(super) async fn ended(&mut self) {
        if !self.follower.is_finished() && tokio::time::timeout(DRAIN, &mut self.follower).await.is_err() {
            log::debug!("stderr of an ended agent is held open by another process");
        }
    }

    /// The newest text, at most `limit` bytes.
    pub(super) fn text(&self, limit: usize) -> String {
        let bytes: Vec<u8> = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        readable(&String::from_utf8_lossy(&bytes), limit)
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Text of a terminal made readable: escape sequences and control characters go, and of what remains the newest
/// `limit` bytes are kept, from a line's begin where one is near.
#[must_use]
pub fn readable(text: &str, limit: usize) -> String {
    let plain = without_escapes(text);
    let plain = plain.trim();
    let from = plain.len().saturating_sub(limit);
    if from == 0 {
        return plain.to_owned();
    }
    let from = (from..plain.len()).find(|at| plain.is_char_boundary(*at)).unwrap_or(plain.len());
    let tail = plain.get(from..).unwrap_or_default();
    match tail.split_once('\n') {
        // A cut line is dropped only where that does not cost most of the text.
        Some((cut, rest)) if cut.len() < tail.len() / 2 => rest.to_owned(),
        _ => tail.to_owned(),
    }
}

/// Takes out CSI (`ESC [ … letter`), OSC (`ESC ] … BEL` or `ESC \`) and two-character escapes, and control characters
/// but for line ends and tabs.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next() {
                Some('[') => while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => {
                    while let Some(c) = rest.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && rest.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\n' | '\t' => plain.push(c),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_control_characters_go() {
        let text = "\u{1b}[31;1mred\u{1b}[0m \u{1b}]0;title\u{7}a\u{1b}]8;;x\u{1b}\\b\u{1b}(B\r\n\tend\u{0}\n";
        assert_eq!(readable(text, 1000), "red abB\n\tend");
        assert_eq!(readable("\u{1b}[31", 1000), "");
    }

    #[test]
    fn the_newest_is_kept_from_a_line_begin() {
        assert_eq!(readable("first\nsecond\nthird", 14), "second\nthird");
        assert_eq!(readable("aaaaaaaaaaaaaa", 4), "aaaa");
        assert_eq!(readable("ééé", 3), "é");
    }
}
