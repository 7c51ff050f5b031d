//! A client of a running server: requests, and errors that say what to do.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{FAILED, UNREACHABLE, USAGE};
use crate::{config::Secret, ids::SessionKey};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer that is no stream may take.
const ANSWER: Duration = Duration::from_secs(60);
/// A stream shows a sign of life more often than this; after it the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server there, or the connection broke for good.
    #[error("no server answers at {url} ({why}); start one with `greenroom serve`, or name another with --url")]
    Unreachable {
        /// Where we looked.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The server said no.
    #[error("{message} [{code}]")]
    Api {
        /// The HTTP status.
        status: u16,
        /// The code of the error table.
        code: String,
        /// The server's words.
        message: String,
    },
    /// What came back is not of this protocol.
    #[error("unexpected answer of the server: {0}")]
    Protocol(String),
    /// An argument that only the command can judge.
    #[error("{0}")]
    Usage(String),
    /// Whoever read our output is gone.
    #[error("output closed")]
    OutputClosed,
}

impl ClientError {
    /// The exit status that it leads to.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => UNREACHABLE,
            Self::Usage(_) => USAGE,
            Self::Api { .. } | Self::Protocol(_) | Self::OutputClosed => FAILED,
        }
    }

    /// True when the same call may work a moment later: no connection, or a server that is starting or stopping.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Api { status, .. } => matches!(status, 429 | 500 | 502 | 503 | 504),
            Self::Protocol(_) | Self::Usage(_) | Self::OutputClosed => false,
        }
    }
}

/// A server, by its URL. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client of the server at `url`, with a token where it needs one. Nothing is sent yet.
    ///
    /// # Errors
    /// When `url` is not http or https, or the token is none.
    pub fn new(url: &str, token: Option<&Secret>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Usage(format!("--url {url:?} is no address of a server; write http://HOST:PORT"));
        let parsed = Url::parse(url).map_err(|_relative| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(wrong());
        }
        crate::tls::install_crypto_provider();
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE);
        if let Some(token) = token {
            let no_token = |_| ClientError::Usage("the token has characters that no token has".into());
            let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(no_token)?;
            value.set_sensitive(true);
            builder = builder.default_headers([(header::AUTHORIZATION, value)].into_iter().collect());
        }
        if is_loopback(&parsed) {
            // A proxy of the environment cannot know this machine's loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ClientError::Protocol(chain(&error)))?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    /// The server's URL without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads a JSON answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.checked(self.request(Method::GET, path).timeout(ANSWER)).await?;
        self.decoded(response).await
    }

    /// Reads an answer that is text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.checked(self.request(Method::GET, path).timeout(ANSWER)).await?;
        response.text().await.map_err(|error| self.broken(&error))
    }

    /// Sends JSON and reads a JSON answer. The same `once` never makes a second thing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(&self, path: &str, body: &impl Serialize, once: Option<&str>) -> Result<Value, ClientError> {
        let response = self.checked(self.posting(path, body, once).timeout(ANSWER)).await?;
        let text = response.text().await.map_err(|error| self.broken(&error))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Sends a body as it is, with these headers; the answer's status and text, whatever it is.
    ///
    /// # Errors
    /// When no server answers, or the address or a header cannot be sent.
    pub async fn post_as_is(
        &self,
        path: &str,
        headers: impl IntoIterator<Item = (&str, &str)>,
        body: Vec<u8>,
    ) -> Result<(u16, String), ClientError> {
        let request = self.request(Method::POST, path).body(body).timeout(ANSWER);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.build().map_err(|error| ClientError::Usage(chain(&error)))?;
        let response = self.http.execute(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(|error| self.broken(&error))?))
    }

    /// Sends JSON and gets the answer as a stream of events.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_stream(&self, path: &str, body: &impl Serialize, once: &str) -> Result<Response, ClientError> {
        self.streaming(self.posting(path, body, Some(once))).await
    }

    /// Opens the event stream of a session after `cursor`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self, key: &SessionKey, cursor: u64) -> Result<Response, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/sessions/{key}/events"));
        self.streaming(request.header("last-event-id", cursor)).await
    }

    async fn streaming(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.checked(request.header(header::ACCEPT, "text/event-stream")).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/event-stream") {
            return Ok(response);
        }
        Err(ClientError::Protocol(format!("a stream of events was asked for, {kind:?} came")))
    }

    fn posting(&self, path: &str, body: &impl Serialize, once: Option<&str>) -> RequestBuilder {
        let request = self.request(Method::POST, path).json(body);
        once.into_iter().fold(request, |request, once| request.header("idempotency-key", once))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request; an answer that is no success becomes the error that it describes.
    async fn checked(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        Err(refused(status, &body))
    }

    async fn decoded<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    fn broken(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), why: chain(error) }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refused(status: StatusCode, body: &str) -> ClientError {
    let envelope: Value = serde_json::from_str(body).unwrap_or_default();
    let field = |name: &str| envelope.pointer(&format!("/error/{name}")).and_then(Value::as_str).map(str::to_owned);
    match (field("code"), field("message")) {
        (Some(code), Some(message)) => ClientError::Api { status: status.as_u16(), code, message },
        _ => ClientError::Protocol(format!("HTTP {status}; is this a Greenroom server?")),
    }
}

/// The innermost reason: outer ones only say that sending a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// A session key of the command line.
///
/// # Errors
/// When it is none, or one of the two that no URL can carry: `.` and `..` are folders there, encoded or not.
pub fn parse_key(text: &str) -> Result<SessionKey, String> {
    if matches!(text, "." | "..") {
        return Err("this key cannot stand in a URL".into());
    }
    text.parse::<SessionKey>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_servers_are_taken() {
        for good in ["http://127.0.0.1:4910", "http://[::1]:1/", "https://chat.example.org/green"] {
            assert!(Client::new(good, None).is_ok(), "{good}");
        }
        for wrong in ["", "127.0.0.1:4910", "localhost:4910", "ftp://a", "http://"] {
            let error = Client::new(wrong, None).unwrap_err();
            assert_eq!(error.exit_status(), USAGE, "{wrong}");
        }
        assert!(is_loopback(&Url::parse("http://[::1]:1").unwrap()));
        assert!(!is_loopback(&Url::parse("http://example.org").unwrap()));
    }

    #[test]
    fn refusals_carry_the_words_of_the_server() {
        let body = r#"{"error":{"type":"rate_limit_error","code":"queue_full","message":"full","request_id":"r"}}"#;
        let full = refused(StatusCode::TOO_MANY_REQUESTS, body);
        assert_eq!((full.to_string(), full.exit_status(), full.is_passing()), ("full [queue_full]".into(), 1, true));
        let foreign = refused(StatusCode::NOT_FOUND, "<html>");
        assert_eq!((foreign.exit_status(), foreign.is_passing()), (1, false));
    }

    #[tokio::test]
    async fn no_server_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error =
            Client::new(&format!("http://{address}"), None).unwrap().get::<Value>("/v1/agents").await.unwrap_err();
        assert_eq!(error.exit_status(), UNREACHABLE);
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn keys_that_no_url_can_carry_are_refused() {
        assert!(parse_key("web:alice").is_ok());
        for wrong in [".", "..", "a b", ""] {
            assert!(parse_key(wrong).is_err(), "{wrong}");
        }
    }
}
