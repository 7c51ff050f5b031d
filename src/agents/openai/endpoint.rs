//! The server: its address, its key, the HTTP client, and its list of models. Knows nothing of turns.

use std::{collections::BTreeMap, sync::Once, time::Duration};

use bytes::BytesMut;
use reqwest::{
    Client, Method, Proxy, RequestBuilder, Response, Url,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};
use serde_json::{Value, json};

use super::failure::Failure;
use crate::config::{AgentConfig, Secret};

/// How long a connection may take to be made, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Signs of life on a connection that is silent while the model thinks.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The longest list of models that is read, in bytes.
const MAX_LIST: usize = 8 << 20;
/// The most models that are shown.
const MAX_MODELS: usize = 1000;

/// Why an agent of kind `openai` cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// There is no `base_url`.
    #[error("[agents.{0}] needs base_url, as in \"http://127.0.0.1:8080/v1\"")]
    MissingBaseUrl(String),
    /// It is no HTTP address, or one of a single call.
    #[error("base_url of [agents.{0}] cannot be used: {1}")]
    BadBaseUrl(String, String),
    /// The key has characters that no HTTP header can hold.
    #[error("the key of [agents.{0}] has characters that a header cannot hold")]
    BadKey(String),
    /// TLS or the proxy cannot be set up.
    #[error("no HTTP client for [agents.{0}]: {1}")]
    Client(String, String),
}

/// A server that speaks chat completions.
pub struct Endpoint {
    agent: String,
    base: Url,
    client: Client,
    key: Option<Key>,
    /// The variable that `api_key_env` names.
    key_variable: Option<String>,
}

struct Key {
    secret: Secret,
    header: HeaderValue,
}

/// The models that a server lists.
pub struct Models {
    /// Their ids, in the server's order.
    pub ids: Vec<String>,
    /// True when the server shows itself to be llama.cpp.
    pub is_llama: bool,
}

impl Models {
    /// As `{"id", "name"}` each.
    pub fn to_values(&self) -> Vec<Value> {
        self.ids.iter().take(MAX_MODELS).map(|id| json!({"id": id, "name": id})).collect()
    }
}

impl Endpoint {
    /// Reads the configuration. The key is `api_key`, else the variable that `api_key_env` names, in the agent's
    /// `env` or the server's own environment.
    pub fn new(agent: &str, config: &AgentConfig) -> Result<Self, InvalidEndpoint> {
        let text = config.base_url.as_deref().map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Err(InvalidEndpoint::MissingBaseUrl(agent.into()));
        }
        let bad = |why: String| InvalidEndpoint::BadBaseUrl(agent.into(), why);
        let base = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(bad(format!("it begins with {}:, not with http:// or https://", base.scheme())));
        }
        if base.path().trim_end_matches('/').ends_with("/chat/completions") {
            return Err(bad("leave /chat/completions out, it is added to every call".into()));
        }
        let from_variable = config.api_key_env.as_deref().and_then(|name| variable(config, name));
        let secret = config.api_key.clone().or(from_variable).filter(|key| !key.expose().trim().is_empty());
        let key = secret.map(|secret| {
            let header = HeaderValue::from_str(&format!("Bearer {}", secret.expose().trim()));
            let mut header = header.map_err(|_invalid| InvalidEndpoint::BadKey(agent.into()))?;
            header.set_sensitive(true);
            Ok(Key { secret, header })
        });
        let key = key.transpose()?;
        let client = client(config, base.scheme() == "https")
            .map_err(|error| InvalidEndpoint::Client(agent.into(), super::failure::cause(&error)))?;
        Ok(Self { agent: agent.into(), base, client, key, key_variable: config.api_key_env.clone() })
    }

    /// The address for people: without user, password and query.
    pub fn shown(&self) -> String {
        let mut url = self.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Only addresses without a host refuse this, and those were refused before.
        let _always = url.set_username("").and_then(|()| url.set_password(None));
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// The name of the agent, for messages that point at its settings.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// A call of a path under the base address.
    pub fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let call = self.client.request(method, url);
        match &self.key {
            Some(key) => call.header(AUTHORIZATION, key.header.clone()),
            None => call,
        }
    }

    /// Which setting to look at when the key is refused.
    pub fn key_hint(&self) -> String {
        match (&self.key, &self.key_variable) {
            (Some(_), Some(name)) => {
                format!("check the variable {name}, which api_key_env of [agents.{}] names", self.agent)
            }
            (Some(_), None) => format!("check api_key of [agents.{}]", self.agent),
            (None, _) => format!("no key is set: set api_key_env or api_key of [agents.{}]", self.agent),
        }
    }

    /// What to say when a key was promised and is not there.
    pub fn missing_key(&self) -> Option<Failure> {
        let name = self.key_variable.as_ref().filter(|_| self.key.is_none())?;
        let place = format!("which api_key_env of [agents.{}] names", self.agent);
        Some(Failure::unavailable(format!("the variable {name}, {place}, is not set in the server's environment")))
    }

    /// The text without the key, should a server have put it there.
    pub fn redact(&self, text: &str) -> String {
        match &self.key {
            Some(key) if text.contains(key.secret.expose().trim()) => text.replace(key.secret.expose().trim(), "***"),
            _ => text.to_owned(),
        }
    }

    /// Asks the server for its models.
    pub async fn models(&self, limit: Duration) -> Result<Models, Failure> {
        let asked = async {
            let response = self.call(Method::GET, "models").send().await;
            let response = response.map_err(|error| Failure::from_transport(self, &error))?;
            if !response.status().is_success() {
                let failure = Failure::from_response(self, response).await;
                if failure.status == Some(404) {
                    let what = format!("GET /models got {}", failure.short);
                    return Err(Failure { status: failure.status, ..Failure::not_the_api(self, &what) });
                }
                return Err(failure);
            }
            let body = read_body(response, MAX_LIST).await.map_err(|error| Failure::from_transport(self, &error))?;
            models_of(&body).ok_or_else(|| Failure::not_the_api(self, "GET /models is answered by something else"))
        };
        let late = || Failure::unavailable(format!("{} did not list its models in {limit:?}", self.shown()));
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_elapsed| Err(late()))
    }
}

/// Reads `{"data": [{"id", "owned_by"}]}`; none for anything else.
fn models_of(body: &[u8]) -> Option<Models> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let list = body.get("data")?.as_array()?;
    let text = |model: &Value, name: &str| model.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_llama = list.iter().any(|model| text(model, "owned_by").as_deref() == Some("llamacpp"));
    Some(Models { ids: list.iter().filter_map(|model| text(model, "id")).collect(), is_llama })
}

/// Reads a body up to a number of bytes; what is beyond is left out.
pub async fn read_body(mut response: Response, max: usize) -> reqwest::Result<BytesMut> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= max {
            body.truncate(max);
            break;
        }
    }
    Ok(body)
}

/// A variable that the configuration gives the agent, or one of the server's own.
fn variable(config: &AgentConfig, name: &str) -> Option<Secret> {
    config.env.get(name).cloned().or_else(|| std::env::var(name).ok().map(Secret::new))
}

/// No HTTP client can be made before this, not even one for plain addresses.
pub fn install_tls_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another part of the program may have installed it first; then that one is used.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The client of one agent. It follows no redirects, because the key would go along, and uses a proxy only where the
/// agent's own settings ask for one: by `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY` in `env`, or by naming one of
/// them in `pass_env`; `NO_PROXY` is taken in the same way.
fn client(config: &AgentConfig, tls: bool) -> reqwest::Result<Client> {
    install_tls_provider();
    let mut builder = Client::builder()
        .user_agent(concat!("greenroom/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        .tcp_keepalive(KEEPALIVE)
        .redirect(Policy::none())
        .no_proxy();
    if !tls {
        // A machine without certificates can still reach a plain address: reading the system's would fail there.
        builder = builder.tls_certs_only([]);
    }
    let asked: BTreeMap<&str, Secret> = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
        .into_iter()
        .filter(|name| config.env.contains_key(*name) || config.pass_env.iter().any(|passed| passed == name))
        .filter_map(|name| Some((name, variable(config, name)?)))
        .collect();
    let except = asked.get("NO_PROXY").and_then(|list| reqwest::NoProxy::from_string(list.expose()));
    for (name, url) in &asked {
        let proxy = match *name {
            "HTTP_PROXY" => Proxy::http(url.expose()),
            "HTTPS_PROXY" => Proxy::https(url.expose()),
            "ALL_PROXY" => Proxy::all(url.expose()),
            _ => continue,
        };
        builder = builder.proxy(proxy?.no_proxy(except.clone()));
    }
    builder.build()
}
