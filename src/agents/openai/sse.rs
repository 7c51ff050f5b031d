//! Server-sent events out of a byte stream, with bounded memory: no event may be longer than a limit.

use bytes::{Bytes, BytesMut};
use eventsource_stream::{EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _, stream};

/// Why a stream of events stopped before its end.
#[derive(Debug)]
pub enum Broken<E> {
    /// The bytes stopped coming.
    Source(E),
    /// An event is longer than the limit, in bytes.
    TooLong(usize),
    /// What came is no stream of events.
    Malformed,
}

/// The data of each event, in order. An event that the stream's end cuts off is given as far as it came.
///
/// The parser gets one whole line at a time. It would keep any amount of an unfinished line, and read it from its
/// beginning again with every chunk that comes.
pub fn events<S, E>(source: S, max: usize) -> impl Stream<Item = Result<String, Broken<E>>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    lines(source, max).eventsource().map(|event| match event {
        Ok(event) => Ok(event.data),
        Err(EventStreamError::Transport(broken)) => Err(broken),
        Err(EventStreamError::Utf8(_) | EventStreamError::Parser(_)) => Err(Broken::Malformed),
    })
}

struct Lines<S> {
    source: S,
    max: usize,
    buffer: BytesMut,
    /// Bytes at the head of the buffer that hold no line end.
    scanned: usize,
    /// Bytes of the event that is being read, without the buffer.
    event: usize,
    ended: bool,
}

fn lines<S, E>(source: S, max: usize) -> impl Stream<Item = Result<Bytes, Broken<E>>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let lines = Lines { source, max, buffer: BytesMut::new(), scanned: 0, event: 0, ended: false };
    stream::unfold(lines, |mut lines| async move { lines.next().await.map(|line| (line, lines)) })
}

impl<S> Lines<S> {
    /// The next line with its end.
    async fn next<E>(&mut self) -> Option<Result<Bytes, Broken<E>>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        loop {
            if self.ended {
                return None;
            }
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            let end = fresh.iter().position(|&byte| byte == b'\n');
            let length = end.map_or(self.buffer.len(), |end| self.scanned + end + 1);
            if self.event + length > self.max {
                self.ended = true;
                return Some(Err(Broken::TooLong(self.max)));
            }
            if end.is_some() {
                let line = self.buffer.split_to(length).freeze();
                self.scanned = 0;
                self.event = if line.iter().all(u8::is_ascii_whitespace) { 0 } else { self.event + length };
                return Some(Ok(line));
            }
            self.scanned = length;
            match self.source.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(Broken::Source(error)));
                }
                None => {
                    self.ended = true;
                    self.buffer.extend_from_slice(b"\n\n");
                    return Some(Ok(self.buffer.split().freeze()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&str], max: usize) -> Vec<Result<String, String>> {
        let chunks: Vec<Result<Bytes, ()>> = chunks.iter().map(|chunk| Ok(Bytes::from(chunk.to_string()))).collect();
        let events = std::pin::pin!(events(stream::iter(chunks), max));
        events.map(|event| event.map_err(|broken| format!("{broken:?}"))).collect().await
    }

    fn texts(list: &[&str]) -> Vec<Result<String, String>> {
        list.iter().map(|text| Ok((*text).to_owned())).collect()
    }

    #[tokio::test]
    async fn events_come_out_whatever_the_chunks() {
        let whole = ": hello\r\n\r\ndata: ä\n\ndata: b\r\ndata: c\r\n\r\nevent: x\ndata: d\n\n";
        assert_eq!(read(&[whole], 100).await, texts(&["ä", "b\nc", "d"]));
        let bytes: Vec<Result<Bytes, ()>> = whole.bytes().map(|byte| Ok(Bytes::from(vec![byte]))).collect();
        let events = std::pin::pin!(events(stream::iter(bytes), 100));
        let got: Vec<String> = events.map(|event| event.unwrap()).collect().await;
        assert_eq!(got, ["ä", "b\nc", "d"]);
    }

    #[tokio::test]
    async fn the_last_event_needs_no_blank_line() {
        assert_eq!(read(&["data: a\n\ndata: [DO", "NE]"], 100).await, texts(&["a", "[DONE]"]));
        assert_eq!(read(&["data: [DONE]\n"], 100).await, texts(&["[DONE]"]));
        assert_eq!(read(&[], 100).await, texts(&[]));
    }

    #[tokio::test]
    async fn no_line_and_no_event_outgrows_the_limit() {
        let too_long = || vec![Err("TooLong(20)".to_owned())];
        assert_eq!(read(&["data: 01234567890123"], 20).await, texts(&["01234567890123"]));
        assert_eq!(read(&["data: 012345", "6789012345"], 20).await, too_long());
        assert_eq!(read(&["data: 0123\ndata: 0123\n\n"], 20).await, too_long());
        assert_eq!(read(&["data: 0123456789\n\ndata: 0123456789\n\n"], 20).await, texts(&["0123456789", "0123456789"]));
    }
}
