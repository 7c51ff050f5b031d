//! WebSockets: ops with their replies, and the frames that come beside them.

use std::collections::VecDeque;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _, handshake::client::Response},
};

use super::{TestGateway, in_time};

/// An open connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The server's part of the handshake.
    pub handshake: Response,
    /// Frames that came while a reply was waited for.
    aside: VecDeque<String>,
    next_id: u64,
}

/// What comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketFrame {
    /// A text frame, as it came.
    Text(String),
    /// A ping of the server.
    Ping,
    /// The server closes, with this code and reason.
    Close(u16, String),
    /// The connection is gone without a word.
    Gone,
}

impl Socket {
    /// Opens a connection.
    pub async fn open(server: &TestGateway, path: &str) -> Self {
        Self::try_open(server, path, &[]).await.unwrap_or_else(|error| panic!("no socket: {error}"))
    }

    /// Opens a connection with more headers; the error is the server's refusal.
    pub async fn try_open(server: &TestGateway, path: &str, headers: &[(&str, &str)]) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let opened = in_time("a handshake", tokio_tungstenite::connect_async(request)).await;
        let (stream, handshake) = opened.map_err(Box::new)?;
        Ok(Self { stream, handshake, aside: VecDeque::new(), next_id: 0 })
    }

    /// Sends a text frame as it is.
    pub async fn text(&mut self, text: impl Into<String>) {
        self.message(Message::text(text.into())).await;
    }

    /// Sends any frame.
    pub async fn message(&mut self, message: Message) {
        in_time("a frame to be sent", self.stream.send(message)).await.unwrap();
    }

    /// The next thing that comes, those set aside first.
    pub async fn next(&mut self) -> SocketFrame {
        match self.aside.pop_front() {
            Some(text) => SocketFrame::Text(text),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> SocketFrame {
        loop {
            match in_time("a frame", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => return SocketFrame::Text(text.to_string()),
                Some(Ok(Message::Ping(_))) => return SocketFrame::Ping,
                Some(Ok(Message::Close(close))) => {
                    let close = close.map(|close| (u16::from(close.code), close.reason.to_string()));
                    let (code, reason) = close.unwrap_or((1005, String::new()));
                    return SocketFrame::Close(code, reason);
                }
                Some(Ok(Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("no such frame in the contract: {other:?}"),
                Some(Err(_)) | None => return SocketFrame::Gone,
            }
        }
    }

    /// The next text frame; pings are passed over. The error is how the connection ended.
    pub async fn frame(&mut self) -> Result<String, SocketFrame> {
        loop {
            match self.next().await {
                SocketFrame::Text(text) => return Ok(text),
                SocketFrame::Ping => {}
                end => return Err(end),
            }
        }
    }

    /// The next text frame as JSON.
    pub async fn json(&mut self) -> Value {
        let text = self.frame().await.unwrap_or_else(|end| panic!("the connection ended: {end:?}"));
        serde_json::from_str(&text).unwrap()
    }

    /// How the connection ends; what comes before is passed over.
    pub async fn close(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                SocketFrame::Close(code, reason) => return (code, reason),
                SocketFrame::Gone => panic!("the connection ended without a close frame"),
                SocketFrame::Text(_) | SocketFrame::Ping => {}
            }
        }
    }

    /// Asks, and gives the whole reply. Frames that come first are kept for later.
    pub async fn ask(&mut self, mut op: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id.to_string();
        op["id"] = json!(id);
        self.text(op.to_string()).await;
        self.reply(&json!(id)).await
    }

    /// The reply to the op of that id.
    pub async fn reply(&mut self, id: &Value) -> Value {
        loop {
            match self.receive().await {
                SocketFrame::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == "reply" && frame["id"] == *id {
                        return frame;
                    }
                    self.aside.push_back(text);
                }
                SocketFrame::Ping => {}
                end => panic!("the connection ended before the reply: {end:?}"),
            }
        }
    }

    /// Asks, and gives the result.
    pub async fn ok(&mut self, op: Value) -> Value {
        let reply = self.ask(op).await;
        assert_eq!(reply["ok"], true, "{reply}");
        assert_eq!(reply.as_object().unwrap().len(), 4, "type, id, ok, result: {reply}");
        reply["result"].clone()
    }

    /// Asks what is refused, and gives the error object.
    pub async fn refused(&mut self, op: Value, code: &str) -> Value {
        let reply = self.ask(op).await;
        assert_eq!((&reply["ok"], &reply["error"]["code"]), (&json!(false), &json!(code)), "{reply}");
        for field in ["type", "message", "request_id"] {
            assert!(reply["error"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {reply}");
        }
        reply["error"].clone()
    }

    /// The next event of the log, as its bytes; control frames are passed over.
    pub async fn stored(&mut self) -> String {
        loop {
            let text = self.frame().await.unwrap_or_else(|end| panic!("the connection ended: {end:?}"));
            if serde_json::from_str::<Value>(&text).unwrap()["seq"].is_u64() {
                return text;
            }
        }
    }

    /// Reads until an event of the log fits; gives all events up to it.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen: Vec<Value> = Vec::new();
        loop {
            seen.push(serde_json::from_str(&self.stored().await).unwrap());
            if seen.last().is_some_and(&fits) {
                return seen;
            }
        }
    }

    /// Reads until a frame of that type, stored or control.
    pub async fn until_type(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.json().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}
