//! A server for tests that answers connections with given replies, in order, one request a connection.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    protocol::{Event, EventBody, Frame},
    timestamp::Timestamp,
};

/// The bytes of an answer, after which the connection is closed.
pub struct Reply(Vec<u8>);

impl Reply {
    /// A JSON answer.
    pub fn json(status: u16, body: &str) -> Self {
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
        Self(format!("{head}connection: close\r\n\r\n{body}").into_bytes())
    }

    /// A stream that ends well.
    pub fn stream(events: &str) -> Self {
        Self(format!("{STREAM}{:x}\r\n{events}\r\n0\r\n\r\n", events.len()).into_bytes())
    }

    /// A stream that is cut off.
    pub fn broken_stream(events: &str) -> Self {
        Self(format!("{STREAM}{:x}\r\n{events}\r\n", events.len()).into_bytes())
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request(String);

impl Request {
    /// The method and path.
    pub fn line(&self) -> String {
        self.0.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.0.split("\r\n\r\n").next()?;
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    /// The body.
    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// A running server; stops when dropped.
pub struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a server with these replies; connections after the last are refused.
pub async fn start(replies: Vec<Reply>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let task = tokio::spawn(async move {
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            seen.lock().unwrap().push(Request(request));
            stream.write_all(&reply.0).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    Server { address, requests, task }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the request ends too early: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let request = Request(text.clone());
        let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        if text.contains("\r\n\r\n") && request.body().len() >= length {
            return text;
        }
    }
}

/// An event as SSE.
pub fn event(seq: u64, turn_id: Option<crate::ids::TurnId>, body: EventBody) -> String {
    let event = Event { seq, body, session: "k".parse().unwrap(), turn_id, at: Timestamp(0) };
    let mut out = Vec::new();
    Frame::encode(&event).write_sse(&mut out);
    String::from_utf8(out).unwrap()
}

/// Some event.
pub fn error_event(seq: u64) -> String {
    event(seq, None, EventBody::Error { code: "x".into(), message: "y".into() })
}

/// The last frame of a stream.
pub fn end(reason: &str, retry: bool) -> String {
    format!(
        "event: stream.end\ndata: {{\"type\":\"stream.end\",\"data\":{{\"reason\":\"{reason}\",\"retry\":{retry}}}}}\n\n"
    )
}
