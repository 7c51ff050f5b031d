//! A real server as a black box: the program itself in a process group of its own, with a data folder of its own, and
//! a client for it. It knows the wire and nothing of the inside.
//!
//! [`process`] starts, stops and kills; [`http`] asks; [`sse`] and [`socket`] follow; [`wire`] checks that what comes
//! has the form that the contract gives it.

// Every test binary includes this module and may use another part of it.
#![allow(dead_code, unused_imports)]
// Reading a missing field of a JSON value gives null.
#![allow(clippy::indexing_slicing)]

pub mod http;
#[path = "../postgres.rs"]
pub mod postgres;
pub mod process;
pub mod socket;
pub mod sse;
pub mod wire;

use std::{future::Future, time::Duration};

use serde_json::{Value, json};

pub use http::Reply;
pub use process::TestGateway;
pub use socket::{Socket, SocketFrame};
pub use sse::{Sse, SseEvent};

/// Nothing that is waited for may take longer; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something, at most [`PATIENCE`].
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_late) => panic!("{what}: nothing in {PATIENCE:?}"),
    }
}

/// Asks again and again until there is an answer, for what has no event that could be waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(what, asked).await
}

/// The text of a message that makes the echo agent do what `script` says.
pub fn script(script: &Value) -> String {
    format!("/script {script}")
}

/// The body of a message.
pub fn text(text: &str) -> Value {
    json!({ "text": text })
}

/// The body of a message with a script for the echo agent.
pub fn play(steps: Value) -> Value {
    text(&script(&steps))
}

/// A text field of an object.
#[track_caller]
pub fn str_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name:?} in {value}"))
}

/// The id of the turn in an answer.
#[track_caller]
pub fn turn_id(answer: &Value) -> String {
    str_of(&answer["turn"], "id").to_owned()
}
