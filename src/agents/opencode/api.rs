//! Calls of the server's HTTP API. Knows addresses, limits and errors; not what the answers mean.

use std::{fmt, time::Duration};

use reqwest::{Client, Method, Response, Url, redirect::Policy};
use serde_json::Value;

use crate::{
    agents::{json, openai::endpoint::install_tls_provider},
    config::Secret,
};

/// The user that the server's password belongs to.
pub(super) const USER: &str = "opencode";
/// How long an ordinary call may take. A folder's first call sets up the project there.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 64 << 20;

/// The server's API. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    base: Url,
    password: Secret,
    client: Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct ApiError {
    /// For a person.
    pub(super) message: String,
}

impl Api {
    /// The API at this address.
    ///
    /// # Errors
    /// For a person, when the address is none or the client cannot be set up.
    pub(super) fn new(address: &str, password: Secret) -> Result<Self, String> {
        let base = Url::parse(address).map_err(|error| format!("{address:?} is no address: {error}"))?;
        install_tls_provider();
        // Plain HTTP on loopback: no certificates, no proxy, no redirects that the password would follow.
        let client = Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]);
        let client = client.build().map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(Self { base, password, client })
    }

    /// Asks; `folder` says which project is meant.
    pub(super) async fn get(&self, path: &str, folder: Option<&str>, limit: Duration) -> Result<Value, ApiError> {
        self.call(Method::GET, path, &[], folder, None, Some(limit)).await
    }

    /// [`Api::get`] with more in the query.
    pub(super) async fn get_with(&self, path: &str, query: &[(&str, &str)], folder: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, query, Some(folder), None, Some(CALL_LIMIT)).await
    }

    /// Tells. Without a limit the call lasts as long as what it starts.
    pub(super) async fn post(
        &self,
        path: &str,
        folder: &str,
        body: &Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApiError> {
        self.call(Method::POST, path, &[], Some(folder), Some(body), limit).await
    }

    /// Deletes.
    pub(super) async fn delete(&self, path: &str, folder: &str) -> Result<Value, ApiError> {
        self.call(Method::DELETE, path, &[], Some(folder), None, Some(CALL_LIMIT)).await
    }

    /// Opens the stream of all events.
    pub(super) async fn events(&self, limit: Duration) -> Result<Response, ApiError> {
        let call = self.client.get(self.url("/global/event")).basic_auth(USER, Some(self.password.expose()));
        let response = tokio::time::timeout(limit, call.send()).await.map_err(|_elapsed| late(limit))?;
        let response = response.map_err(|error| unreached(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        folder: Option<&str>,
        body: Option<&Value>,
        limit: Option<Duration>,
    ) -> Result<Value, ApiError> {
        let mut url = self.url(path);
        if !query.is_empty() || folder.is_some() {
            let folder = folder.map(|folder| ("directory", folder));
            url.query_pairs_mut().extend_pairs(query.iter().copied().chain(folder));
        }
        let call = self.client.request(method, url).basic_auth(USER, Some(self.password.expose()));
        let call = match body {
            Some(body) => call.json(body),
            None => call,
        };
        let asked = async {
            let response = call.send().await.map_err(|error| unreached(&error))?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
            let body = read(response).await?;
            if body.is_empty() {
                return Ok(Value::Null);
            }
            let malformed = |error| ApiError { message: format!("{path} got no JSON: {error}") };
            json::parse(&String::from_utf8_lossy(&body)).map_err(malformed)
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, asked).await.unwrap_or_else(|_elapsed| Err(late(limit))),
            None => asked.await,
        }
    }
}

fn late(limit: Duration) -> ApiError {
    ApiError { message: format!("no answer within {limit:?}") }
}

fn unreached(error: &reqwest::Error) -> ApiError {
    // The address is our own and says nothing.
    let cause = std::error::Error::source(error).map(ToString::to_string);
    ApiError { message: format!("its server cannot be reached: {}", cause.unwrap_or_else(|| error.to_string())) }
}

async fn read(mut response: Response) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreached(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(ApiError { message: format!("an answer is larger than {MAX_BODY} bytes") });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The server's words: `{"data": {"message"}}`, `{"message"}`, or what else it says.
async fn refused(response: Response) -> ApiError {
    let status = response.status().as_u16();
    let body = read(response).await.unwrap_or_default();
    let value: Value = json::parse(&String::from_utf8_lossy(&body)).unwrap_or(Value::Null);
    let message = value.get("data").and_then(|data| data.get("message")).or_else(|| value.get("message"));
    let message = message.and_then(Value::as_str).and_then(|message| message.lines().next()).map(str::to_owned);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).chars().take(200).collect());
    ApiError { message: format!("{message} (HTTP {status})") }
}
