//! Subscribers that cost next to nothing: they find the borders of events and look at little more than their type.

use std::{io, net::SocketAddr};

use bytes::{BufMut as _, BytesMut};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Connection, find, get, malformed};

/// How far into a frame its type can begin: after `{"seq":` and 20 digits.
const TYPE_WITHIN: usize = 48;

/// A stream of the events of a session.
pub enum Subscriber {
    /// Over SSE.
    Sse(Sse),
    /// Over WebSocket.
    Ws(Ws),
}

impl Subscriber {
    /// Reads up to and with the next event of this type. How many events of the log that were.
    pub async fn until(&mut self, kind: &str) -> io::Result<u64> {
        match self {
            Self::Sse(sse) => sse.until(kind).await,
            Self::Ws(ws) => ws.until(kind).await,
        }
    }

    /// Reads so many events of the log.
    pub async fn count(&mut self, events: u64) -> io::Result<()> {
        let mut seen = 0;
        while seen < events {
            let event = match self {
                Self::Sse(sse) => sse.next("").await?,
                Self::Ws(ws) => ws.next("").await?,
            };
            seen += u64::from(event.logged);
        }
        Ok(())
    }
}

/// What one event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    logged: bool,
    wanted: bool,
}

/// A chunked SSE answer.
pub struct Sse {
    connection: Connection,
    /// What is left of the present chunk.
    chunk: usize,
    /// The answer without its chunk borders.
    body: BytesMut,
}

impl Sse {
    /// Subscribes; `after` is a cursor, or none for live.
    pub async fn open(address: SocketAddr, key: &str, after: Option<u64>) -> io::Result<Self> {
        let mut connection = Connection::open(address).await?;
        let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let path = format!("/v1/sessions/{key}/events{after}");
        connection.write(&get(&path, "accept: text/event-stream\r\n")).await?;
        let (status, head) = connection.head().await?;
        if status != 200 || !head.contains("transfer-encoding: chunked") {
            return Err(malformed(format!("no stream: {head}")));
        }
        Ok(Self { connection, chunk: 0, body: BytesMut::new() })
    }

    async fn until(&mut self, kind: &str) -> io::Result<u64> {
        let mut events = 0;
        loop {
            let seen = self.next(kind).await?;
            events += u64::from(seen.logged);
            if seen.wanted {
                return Ok(events);
            }
        }
    }

    async fn next(&mut self, kind: &str) -> io::Result<Seen> {
        let mut searched = 0;
        loop {
            let from = self.body.get(searched..).unwrap_or_default();
            if let Some(end) = find(from, b"\n\n") {
                let block = self.body.split_to(searched + end + 2);
                let logged = block.starts_with(b"id: ");
                let mut lines = block.as_ref().split(|byte: &u8| *byte == b'\n');
                let kind_of = lines.find_map(|line| line.strip_prefix(b"event: "));
                return Ok(Seen { logged, wanted: kind_of == Some(kind.as_bytes()) });
            }
            searched = self.body.len().saturating_sub(1);
            self.read().await?;
        }
    }

    /// Reads at least one byte of the body.
    async fn read(&mut self) -> io::Result<()> {
        loop {
            while self.chunk == 0 {
                // `\r\n` after the chunk before, then the size.
                let skip = if self.connection.buffer.starts_with(b"\r\n") { 2 } else { 0 };
                let rest = self.connection.buffer.get(skip..).unwrap_or_default();
                match find(rest, b"\r\n") {
                    Some(end) => {
                        let size = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
                        self.chunk = usize::from_str_radix(size.trim(), 16).map_err(malformed)?;
                        self.connection.skip(skip + end + 2);
                        if self.chunk == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    None => self.connection.fill().await?,
                }
            }
            let ready = self.chunk.min(self.connection.buffer.len());
            if ready > 0 {
                self.body.put(self.connection.buffer.split_to(ready));
                self.chunk -= ready;
                return Ok(());
            }
            self.connection.fill().await?;
        }
    }
}

/// A WebSocket.
pub struct Ws {
    connection: Connection,
}

impl Ws {
    /// Upgrades and subscribes; `after` is a cursor, or none for live.
    pub async fn open(address: SocketAddr, key: &str, after: Option<u64>) -> io::Result<Self> {
        let mut connection = Connection::open(address).await?;
        let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: greenroom.v1\r\n";
        connection.write(&get(&format!("/v1/sessions/{key}/ws{after}"), upgrade)).await?;
        let (status, head) = connection.head().await?;
        if status != 101 {
            return Err(malformed(format!("no upgrade: {head}")));
        }
        let mut ws = Self { connection };
        // The first frame says that the subscription stands: what is posted from now on arrives.
        ws.until("session.hello").await?;
        Ok(ws)
    }

    /// Frames over a connection that was never HTTP.
    pub const fn raw(connection: Connection) -> Self {
        Self { connection }
    }

    /// Reads up to and with the next event of this type. How many events of the log that were.
    pub async fn until(&mut self, kind: &str) -> io::Result<u64> {
        let mut events = 0;
        loop {
            let seen = self.next(kind).await?;
            events += u64::from(seen.logged);
            if seen.wanted {
                return Ok(events);
            }
        }
    }

    async fn next(&mut self, kind: &str) -> io::Result<Seen> {
        loop {
            let Some((opcode, head, length)) = frame(&self.connection.buffer) else {
                self.connection.fill().await?;
                continue;
            };
            while self.connection.buffer.len() < head + length {
                self.connection.fill().await?;
            }
            let payload = self.connection.buffer.get(head..head + length).unwrap_or_default();
            let seen = match opcode {
                1 => Some(look(payload, kind)),
                9 => None,
                8 => return Err(malformed(format!("closed: {}", String::from_utf8_lossy(payload)))),
                _ => Some(Seen { logged: false, wanted: false }),
            };
            let payload = seen.is_none().then(|| payload.to_vec());
            self.connection.skip(head + length);
            if let Some(seen) = seen {
                return Ok(seen);
            }
            self.pong(&payload.unwrap_or_default()).await?;
        }
    }

    /// Answers a ping; frames of a client are masked, here with zeros.
    async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
        let length = length.ok_or_else(|| malformed("a ping of more than 125 bytes"))?;
        let mut out = vec![0x8a, 0x80 | length, 0, 0, 0, 0];
        out.extend_from_slice(payload);
        self.connection.stream.write_all(&out).await
    }
}

/// The opcode, the length of the head and of the payload of the frame at the start of `buffer`, once its head is there.
fn frame(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    let (opcode, short) = (buffer.first()? & 0x0f, buffer.get(1)? & 0x7f);
    Some(match short {
        126 => (opcode, 4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (opcode, 10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?),
        _ => (opcode, 2, usize::from(short)),
    })
}

fn look(payload: &[u8], kind: &str) -> Seen {
    let logged = payload.starts_with(b"{\"seq\":");
    let start = payload.get(..TYPE_WITHIN.min(payload.len())).unwrap_or_default();
    let after = find(start, b"\"type\":\"").and_then(|at| payload.get(at + 8..));
    let wanted = after.and_then(|text| text.strip_prefix(kind.as_bytes())).is_some_and(|rest| rest.starts_with(b"\""));
    Seen { logged, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{post, send};
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    /// A peer that waits for a request's head and then answers with these bytes, piece by piece.
    async fn peer(pieces: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
            }
            // Held open until the client goes.
            let _ = stream.read_u8().await;
        });
        address
    }

    /// The bytes one at a time, so that every border falls between two reads.
    fn one_by_one(text: &str) -> Vec<Vec<u8>> {
        text.bytes().map(|byte| vec![byte]).collect()
    }

    #[tokio::test]
    async fn sse_events_are_found_over_chunk_borders() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (one, two) =
            ("id: 1\nevent: turn.queued\nda", "ta: {}\n\n: beat\n\nid: 2\nevent: turn.finished\ndata: {}\n\n");
        let body = format!("{:x}\r\n{one}\r\n{:X}\r\n{two}\r\n", one.len(), two.len());
        for pieces in [one_by_one(&(head.to_owned() + &body)), vec![format!("{head}{body}").into_bytes()]] {
            let mut sse = Sse::open(peer(pieces).await, "k", Some(0)).await.unwrap();
            assert_eq!(sse.until("turn.queued").await.unwrap(), 1);
            assert_eq!(sse.until("turn.finished").await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn websocket_frames_of_all_lengths_are_found() {
        let text = |payload: &str| {
            let mut frame = vec![0x81];
            match payload.len() {
                short @ 0..126 => frame.push(short as u8),
                middle @ 126..65_536 => {
                    frame.push(126);
                    frame.extend_from_slice(&(middle as u16).to_be_bytes());
                }
                long => {
                    frame.push(127);
                    frame.extend_from_slice(&(long as u64).to_be_bytes());
                }
            }
            frame.extend_from_slice(payload.as_bytes());
            frame
        };
        let event = |kind: &str, pad: usize| text(&format!(r#"{{"seq":7,"type":"{kind}","x":"{}"}}"#, "x".repeat(pad)));
        let pieces = vec![
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
            text(r#"{"type":"session.hello"}"#),
            event("message.delta", 10),
            vec![0x89, 0x01, b'p'],
            event("message.delta", 300),
            event("turn.finished.not", 0),
            event("message.completed", 70_000),
            event("turn.finished", 0),
        ];
        let mut ws = Ws::open(peer(pieces).await, "k", None).await.unwrap();
        assert_eq!(ws.until("turn.finished").await.unwrap(), 5);
    }

    #[tokio::test]
    async fn answers_are_cut_by_their_length() {
        let two = "HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n";
        let mut connection = Connection::open(peer(one_by_one(two)).await).await.unwrap();
        let first = connection.expect(&get("/", ""), 202).await.unwrap();
        assert_eq!(&first.body[..], b"abc");
        let error = connection.expect(&get("/", ""), 202).await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }

    #[test]
    fn requests_have_their_length() {
        let text = String::from_utf8(send("k", "a \"b\"")).unwrap();
        assert!(text.starts_with("POST /v1/sessions/k/messages HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("content-length: 18\r\n\r\n{\"text\":\"a \\\"b\\\"\"}"), "{text}");
        assert!(post("/", "").ends_with(b"content-length: 0\r\n\r\n"));
    }
}
