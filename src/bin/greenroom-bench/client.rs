//! A client that costs next to nothing: hand-made HTTP/1.1 over one kept connection.

use std::{io, net::SocketAddr};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A kept connection.
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    /// What was read and not used yet.
    pub buffer: BytesMut,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: BytesMut,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    /// Writes a request.
    pub async fn write(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Reads more into the buffer.
    pub async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads the head of an answer and takes it out of the buffer: its status and the rest as text.
    pub async fn head(&mut self) -> io::Result<(u16, String)> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            self.fill().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer.split_to(end + 4)).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| malformed("no status"))?, head))
    }

    /// Reads an answer with a length.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let (status, head) = self.head().await?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse()).map_err(malformed)?;
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(Answer { status, body: self.buffer.split_to(length) })
    }

    /// Writes a request and reads its answer.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.write(request).await?;
        self.answer().await
    }

    /// The same, and anything but `status` is an error.
    pub async fn expect(&mut self, request: &[u8], status: u16) -> io::Result<Answer> {
        let answer = self.call(request).await?;
        if answer.status == status {
            return Ok(answer);
        }
        let body = String::from_utf8_lossy(&answer.body);
        Err(malformed(format!("HTTP {} where {status} was expected: {body}", answer.status)))
    }

    /// Drops bytes of the buffer.
    pub fn skip(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
    }
}

/// An answer that makes no sense.
pub fn malformed(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The bytes of a GET.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes()
}

/// The bytes of a POST of JSON.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A request with one more header: a whole line, or nothing.
pub fn header(mut request: Vec<u8>, line: &str) -> Vec<u8> {
    let behind = find(&request, b"\r\n").map_or(request.len(), |end| end + 2);
    request.splice(behind..behind, line.bytes());
    request
}

/// The bytes of a message to a session.
pub fn send(key: &str, text: &str) -> Vec<u8> {
    post(&format!("/v1/sessions/{key}/messages"), &serde_json::json!({ "text": text }).to_string())
}

/// The bytes of a message to a session, for an agent.
pub fn send_to(key: &str, agent: &str, text: &str) -> Vec<u8> {
    let body = serde_json::json!({ "text": text, "agent": agent });
    post(&format!("/v1/sessions/{key}/messages"), &body.to_string())
}

/// The same with a pause of so many milliseconds before each delta.
pub fn script_slowly(key: &str, deltas: usize, pause: usize) -> Vec<u8> {
    send(key, &format!(r#"/script {{"deltas":{deltas},"bytes":20,"delay_ms":{pause}}}"#))
}

/// A message that makes the echo agent answer with so many deltas of 20 characters.
pub fn script(key: &str, deltas: usize) -> Vec<u8> {
    send(key, &format!(r#"/script {{"deltas":{deltas},"bytes":20}}"#))
}
