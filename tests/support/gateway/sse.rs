//! Server-sent events, read by the rules of the HTML standard as far as a server may use them.

use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use super::{TestGateway, in_time};

type Bytes = std::pin::Pin<Box<dyn Stream<Item = Result<bytes::Bytes, reqwest::Error>> + Send>>;

/// A stream that is being read.
pub struct Sse {
    stream: Bytes,
    buffer: String,
    rest: Vec<u8>,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// The last `id:` that came.
    pub last_id: Option<String>,
}

/// One block of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseEvent {
    /// With `event:` and `data:`.
    Event {
        /// `id:`
        id: Option<String>,
        /// `event:`
        event: String,
        /// `data:`
        data: String,
    },
    /// Only an `id:`.
    Id(String),
    /// A comment.
    Comment(String),
    /// The server has closed the stream.
    Closed,
}

impl Sse {
    /// Opens the stream of a path; it must be one.
    pub async fn open(server: &TestGateway, path: &str) -> Self {
        Self::from(server.request("GET", path).header("accept", "text/event-stream")).await
    }

    /// Opens the stream of a path with more headers.
    pub async fn open_with(server: &TestGateway, path: &str, headers: &[(&str, &str)]) -> Self {
        let request = server.request("GET", path).header("accept", "text/event-stream");
        Self::from(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// Opens the stream of a request; it must be one.
    pub async fn from(request: reqwest::RequestBuilder) -> Self {
        let answer = in_time("the head of a stream", request.send()).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status != 200 || headers["content-type"] != "text/event-stream" {
            panic!("no stream: {status} {}", answer.text().await.unwrap());
        }
        let stream = Box::pin(answer.bytes_stream());
        Self { stream, buffer: String::new(), rest: Vec::new(), headers, last_id: None }
    }

    /// The next block.
    pub async fn next(&mut self) -> SseEvent {
        in_time("a piece of a stream", self.read()).await
    }

    async fn read(&mut self) -> SseEvent {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let event = parse(block);
                self.buffer = rest.to_owned();
                if let SseEvent::Event { id: Some(id), .. } | SseEvent::Id(id) = &event {
                    self.last_id = Some(id.clone());
                }
                return event;
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.take(&bytes),
                // A connection that breaks in the middle of an answer shows as an error.
                Some(Err(_)) | None => return SseEvent::Closed,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.rest.split_off(whole);
        self.buffer.push_str(std::str::from_utf8(&self.rest).unwrap());
        self.rest = rest;
    }

    /// The next frame, without comments and lone ids: its `id:` and its bytes. None when the stream has ended.
    pub async fn frame(&mut self) -> Option<(Option<String>, String)> {
        loop {
            match self.next().await {
                SseEvent::Event { id, event, data } => {
                    let value: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!(value["type"], event, "event: is the type");
                    assert_eq!(value["seq"].as_u64().map(|seq| seq.to_string()), id, "id: is the seq");
                    return Some((id, data));
                }
                SseEvent::Id(_) | SseEvent::Comment(_) => {}
                SseEvent::Closed => return None,
            }
        }
    }

    /// The next event of the log, as its bytes; control frames are passed over.
    pub async fn stored(&mut self) -> Option<String> {
        loop {
            if let (Some(_), data) = self.frame().await? {
                return Some(data);
            }
        }
    }

    /// The next frame as JSON.
    pub async fn json(&mut self) -> Option<Value> {
        self.frame().await.map(|(_, data)| serde_json::from_str(&data).unwrap())
    }

    /// Reads until an event of the log fits; gives all events up to it.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(data) = self.stored().await {
            let event: Value = serde_json::from_str(&data).unwrap();
            seen.push(event);
            if seen.last().is_some_and(&fits) {
                return seen;
            }
        }
        panic!("the stream ended first, after {seen:#?}");
    }

    /// Reads until a frame of that type, stored or control.
    pub async fn until_type(&mut self, kind: &str) -> Value {
        while let Some(frame) = self.json().await {
            if frame["type"] == kind {
                return frame;
            }
        }
        panic!("the stream ended before {kind}");
    }

    /// All frames to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.json().await {
            frames.push(frame);
        }
        frames
    }
}

fn parse(block: &str) -> SseEvent {
    let (mut id, mut event, mut data, mut comment) = (None, None, Vec::new(), None);
    for line in block.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => comment = Some(value.to_owned()),
            "id" => id = Some(value.to_owned()),
            "event" => event = Some(value.to_owned()),
            "data" => data.push(value),
            other => panic!("no such field of an event: {other:?} in {block:?}"),
        }
    }
    match (event, id, comment) {
        (Some(event), id, _) => SseEvent::Event { id, event, data: data.join("\n") },
        (None, Some(id), _) if data.is_empty() => SseEvent::Id(id),
        (None, None, Some(comment)) => SseEvent::Comment(comment),
        other => panic!("no event: {other:?} in {block:?}"),
    }
}
