//! A text that grows by appending and is cheap to clone, for messages that are being written.

use std::sync::Arc;

/// Chunks of strictly decreasing length, so there are only O(log n) of them and a clone shares all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rope {
    chunks: Vec<Arc<str>>,
}

impl Rope {
    /// Appends; amortised O(log n) copies a byte.
    pub fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut merged = String::new();
        let mut first = self.chunks.len();
        let mut length = text.len();
        while let Some(last) = first.checked_sub(1).and_then(|i| self.chunks.get(i)) {
            if last.len() > length {
                break;
            }
            length += last.len();
            first -= 1;
        }
        merged.reserve(length);
        self.chunks.drain(first..).for_each(|chunk| merged.push_str(&chunk));
        merged.push_str(text);
        self.chunks.push(merged.into());
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.chunks.iter().map(|chunk| &**chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_pushed_in_few_chunks() {
        let (mut rope, mut plain) = (Rope::default(), String::new());
        for i in 0..10_000 {
            let piece = format!("{i},");
            rope.push(&piece);
            plain.push_str(&piece);
        }
        assert_eq!(rope.text(), plain);
        assert!(rope.chunks.len() < 20, "{} chunks", rope.chunks.len());
    }
}
