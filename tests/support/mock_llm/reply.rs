//! What is sent back: a status, headers and pieces of a body. The dialects make them, and tests script their own.

use std::time::Duration;

use actix_web::http::StatusCode;
use serde_json::{Value, json};

/// A piece of a body.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Bytes, sent at once.
    Text(String),
    /// Nothing for a while.
    Pause(Duration),
    /// Nothing more, but the connection stays open, with an SSE comment now and then to notice a client's going.
    Hold,
    /// The connection breaks here.
    Break,
}

/// An answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub pieces: Vec<Piece>,
}

impl Reply {
    fn of_type(status: u16, media_type: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: vec![("content-type".into(), media_type.into())], pieces: Vec::new() }
    }

    /// A JSON body.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::of_type(status, "application/json").text(body.to_string())
    }

    /// An error in OpenAI's form.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"error": {"message": message, "type": "mock", "code": status.to_string()}}))
    }

    /// A web page.
    #[must_use]
    pub fn html(status: u16) -> Self {
        Self::of_type(status, "text/html; charset=utf-8").text("<!doctype html><title>Welcome</title><p>A web page.")
    }

    /// A list of models in the forms of OpenAI and Anthropic (`data`) and Gemini (`models`).
    #[must_use]
    pub fn models(models: &[Value]) -> Self {
        let gemini = |model: &Value| json!({"name": format!("models/{}", model["id"].as_str().unwrap_or_default())});
        let names: Vec<Value> = models.iter().map(gemini).collect();
        Self::json(200, &json!({"object": "list", "data": models, "models": names, "has_more": false}))
    }

    /// The beginning of an event stream.
    #[must_use]
    pub fn sse() -> Self {
        Self::of_type(200, "text/event-stream").header("cache-control", "no-cache")
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds bytes to the body.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.push(Piece::Text(text.into()));
        self
    }

    /// Adds an event without a name.
    #[must_use]
    pub fn data(self, data: &Value) -> Self {
        self.text(format!("data: {data}\n\n"))
    }

    /// Adds an event that bears the name of its `type`.
    #[must_use]
    pub fn event(self, name: &str, data: &Value) -> Self {
        self.text(format!("event: {name}\ndata: {data}\n\n"))
    }

    /// Adds a chunk of a chat completion.
    #[must_use]
    pub fn delta(self, delta: &Value) -> Self {
        self.data(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
    }

    /// Adds the chunk that ends a choice of a chat completion.
    #[must_use]
    pub fn finish(self, reason: &str) -> Self {
        self.data(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    }

    /// Adds the mark that ends a chat completion.
    #[must_use]
    pub fn done(self) -> Self {
        self.text("data: [DONE]\n\n")
    }

    /// Waits before what follows.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        if !time.is_zero() {
            self.push(Piece::Pause(time));
        }
        self
    }

    /// Stays open from here on.
    #[must_use]
    pub fn hold(mut self) -> Self {
        self.push(Piece::Hold);
        self
    }

    /// Breaks the connection here.
    #[must_use]
    pub fn break_off(mut self) -> Self {
        self.push(Piece::Break);
        self
    }

    fn push(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }
}
