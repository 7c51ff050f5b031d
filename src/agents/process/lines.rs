//! Reads lines in bounded memory: what is longer than the limit is thrown away, and said so once.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

const CHUNK: usize = 64 * 1024;

/// A line, or what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A whole line without its end. Bytes that are not UTF-8 are replaced.
    Text(String),
    /// A line grew beyond the limit; it is skipped up to its end, however far away that is.
    TooLong,
}

/// A reader of lines.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    /// The line so far: never longer than `max`.
    partial: Vec<u8>,
    /// True while the rest of a line that is too long goes by.
    skipping: bool,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `max` bytes.
    pub fn new(reader: R, max: usize) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK, reader), partial: Vec::new(), skipping: false, max }
    }

    /// The next line; none at the end. A last line without an end counts. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.partial);
                return Ok((!rest.is_empty()).then(|| text(rest)));
            }
            let end = memchr::memchr(b'\n', chunk);
            let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let used = end.map_or(chunk.len(), |end| end + 1);
            let too_long = !self.skipping && self.partial.len() + piece.len() > self.max;
            if too_long {
                self.partial = Vec::new();
                self.skipping = true;
            } else if !self.skipping {
                self.partial.extend_from_slice(piece);
            }
            self.reader.consume(used);
            if end.is_some() {
                let skipped = std::mem::replace(&mut self.skipping, false);
                // Taking the buffer gives the memory of a long line back.
                let line = std::mem::take(&mut self.partial);
                if !skipped {
                    return Ok(Some(text(line)));
                }
            }
            if too_long {
                return Ok(Some(Line::TooLong));
            }
        }
    }

    /// The bytes that come next, as soon as there are some; none at the end. For output that is not made of lines: a
    /// reader reads either lines or chunks. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let chunk = self.reader.fill_buf().await?.to_vec();
        self.reader.consume(chunk.len());
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

fn text(mut line: Vec<u8>) -> Line {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Line::Text(String::from_utf8(line).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, max);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            assert!(lines.partial.capacity() <= max.max(8) * 2, "memory grows: {}", lines.partial.capacity());
            read.push(line);
        }
        read
    }

    fn line(text: &str) -> Line {
        Line::Text(text.to_owned())
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_needs_no_end() {
        assert_eq!(
            all(b"one\r\n\ntwo\xff\nrest", 10).await,
            [line("one"), line(""), line("two\u{fffd}"), line("rest")]
        );
        assert_eq!(all(b"", 10).await, []);
    }

    #[tokio::test]
    async fn a_line_at_the_limit_passes_and_one_beyond_is_reported_once() {
        assert_eq!(all(b"12345\n123456\n1\n", 5).await, [line("12345"), Line::TooLong, line("1")]);
    }

    #[tokio::test]
    async fn an_endless_line_is_reported_before_its_end_and_takes_no_memory() {
        let mut input = vec![b'x'; 5 * CHUNK];
        input.extend_from_slice(b"\nnext\n");
        assert_eq!(all(&input, 1000).await, [Line::TooLong, line("next")]);
        assert_eq!(all(&vec![b'x'; 3 * CHUNK], 1000).await, [Line::TooLong]);
    }
}
