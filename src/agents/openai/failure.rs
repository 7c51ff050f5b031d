//! Why an attempt came to nothing, in words that say what to do, and whether trying again can help.

use std::{error::Error, fmt::Write as _, time::Duration};

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use super::{
    endpoint::{Endpoint, read_body},
    retry,
};
use crate::error::Code;

/// How much of an error's body is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// How much of a server's own words is shown, in characters.
const MAX_WORDS: usize = 1000;

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    /// For the turn's error.
    pub code: Code,
    /// What happened and what to do, for a person.
    pub message: String,
    /// The same in a few words, for the line that announces a retry.
    pub short: String,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// Whether trying again can help.
    pub retry: bool,
    /// How long the server asks to wait before that.
    pub after: Option<Duration>,
}

impl Failure {
    /// A fault of the agent that no retry mends.
    pub fn agent(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code: Code::AgentError, short: message.clone(), message, status: None, retry: false, after: None }
    }

    /// A turn cannot run before somebody does something.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::AgentUnavailable, ..Self::agent(message) }
    }

    /// Something answers, but it is not the API.
    pub fn not_the_api(endpoint: &Endpoint, what: &str) -> Self {
        let hint = if endpoint.shown().ends_with("/v1") {
            String::new()
        } else {
            format!("; most servers want /v1 at its end, as in {}/v1", endpoint.shown())
        };
        Self::unavailable(format!(
            "{} does not answer as an OpenAI-compatible API: {what}. Check base_url of [agents.{}]{hint}",
            endpoint.shown(),
            endpoint.agent()
        ))
    }

    /// No connection, or a broken one.
    pub fn from_transport(endpoint: &Endpoint, error: &reqwest::Error) -> Self {
        let cause = endpoint.redact(&cause(error));
        if error.is_connect() {
            let short = format!("no connection: {cause}");
            let message = format!(
                "no connection to {}: {cause}. Is the model server running, and is base_url of [agents.{}] right?",
                endpoint.shown(),
                endpoint.agent()
            );
            return Self { short, retry: true, ..Self::unavailable(message) };
        }
        let short = format!("the connection broke: {cause}");
        let message = format!("the connection to {} broke: {cause}", endpoint.shown());
        Self { short, retry: true, ..Self::agent(message) }
    }

    /// An answer with another status than 200.
    pub async fn from_response(endpoint: &Endpoint, response: Response) -> Self {
        let status = response.status();
        let after = retry::asked_for(response.headers());
        let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
        // What could be read is enough: the status says the most.
        let body = read_body(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let parsed: Option<Value> = serde_json::from_slice(&body).ok();
        let said = match &parsed {
            Some(json) => words(json),
            None => plain_words(&String::from_utf8_lossy(&body)),
        };
        let said = endpoint.redact(&said);
        let mut failure = Self::from_status(endpoint, status, &said, to.as_deref());
        failure.after = after;
        failure.retry = retry::can_help(status.as_u16()) && !parsed.as_ref().is_some_and(quota_is_used_up);
        failure
    }

    fn from_status(endpoint: &Endpoint, status: StatusCode, said: &str, to: Option<&str>) -> Self {
        let mut answer = format!("HTTP {}", status.as_u16());
        let mut short = status.as_u16().to_string();
        if !said.is_empty() {
            // Writing to a text cannot fail.
            let _infallible = write!(answer, ": {said}");
            let _infallible = write!(short, " {said}");
        }
        let shown = endpoint.shown();
        let failure = match status.as_u16() {
            401 | 403 => {
                Self::unavailable(format!("{shown} does not let Greenroom in ({answer}); {}", endpoint.key_hint()))
            }
            300..=399 => {
                let to = to.unwrap_or("another address");
                Self::not_the_api(endpoint, &format!("it redirects to {to}, which is not followed"))
            }
            _ => Self::agent(format!("{shown} answered {answer}")),
        };
        Self { status: Some(status.as_u16()), short, ..failure }
    }

    /// An error that came in the stream, after status 200.
    pub fn from_chunk(endpoint: &Endpoint, error: &Value) -> Self {
        let said = endpoint.redact(&words(error));
        let code = error.get("code");
        let status = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        let status = status.and_then(|status| u16::try_from(status).ok());
        let retry = status.is_some_and(retry::can_help) && !quota_is_used_up(error);
        let short = status.map_or_else(|| said.clone(), |status| format!("{status} {said}"));
        Self { retry, short, status, ..Self::agent(format!("{} reported an error: {said}", endpoint.shown())) }
    }

    /// Says in the message how often it was tried.
    pub fn after_retries(mut self, retries: u32) -> Self {
        if self.retry && retries > 0 {
            let times = if retries == 1 { "retry" } else { "retries" };
            // Writing to a text cannot fail.
            let _infallible = write!(self.message, " (after {retries} {times})");
        }
        self
    }
}

/// The innermost reason of an error: the outer ones say only which call failed.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The server's own words, out of the forms in use: `{"error": {"message"}}`, `{"error": "…"}`, `{"message"}`,
/// `{"detail"}`.
fn words(json: &Value) -> String {
    let inner = json.get("error").unwrap_or(json);
    let found = ["message", "detail"].iter().find_map(|name| inner.get(name)).unwrap_or(inner);
    plain_words(&found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

/// A text cut to a length that can be shown; a web page is only named.
fn plain_words(text: &str) -> String {
    let text = text.trim();
    if text.starts_with('<') {
        return "a web page, not JSON".to_owned();
    }
    text.chars().take(MAX_WORDS).collect()
}

/// Some servers answer 429 for an empty account too: no waiting mends that.
fn quota_is_used_up(json: &Value) -> bool {
    let inner = json.get("error").unwrap_or(json);
    ["code", "type"].iter().any(|name| inner.get(name).is_some_and(|value| value == "insufficient_quota"))
}
