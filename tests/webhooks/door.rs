//! A server with routes for webhooks, and senders that sign.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use greenroom::{timestamp::Timestamp, webhooks::signature};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::RequestBuilder;
use serde_json::Value;
use sha2::Sha256;

use crate::gateway::{Reply, TestGateway};

/// The secrets of the routes.
pub const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const OTHER: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl3ZYOEzmSpl3B1YH2WpE=";
pub const SHARED: &str = "It's a secret to everybody";

/// All kinds of routes.
const ROUTES: &str = r#"
[webhooks.ci]
verify = "standard"
secret = ["whsec_plJ3nmyCDGBKInavdOK15jsl3ZYOEzmSpl3B1YH2WpE=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]

[webhooks.other]
verify = "standard"
secret = "whsec_plJ3nmyCDGBKInavdOK15jsl3ZYOEzmSpl3B1YH2WpE="

[webhooks.github]
verify = "github"
secret_env = "HOOK_SECRET"
text = "{{ action }} {{ issue.title }}"
session_key = "webhook:github:{{ repository.full_name }}:{{ issue.number }}"

[webhooks.slack]
verify = "slack"
secret_env = "HOOK_SECRET"
text = "{{ event.text }}"

[webhooks.shared]
verify = "secret"
secret_env = "HOOK_SECRET"
prefix = "team:"

[webhooks.here]
verify = "none"
policy = "reject"

[webhooks.off]
enabled = false
"#;

/// A server, and the folder of its configuration.
pub struct Door {
    pub server: TestGateway,
    pub folder: tempfile::TempDir,
}

impl Door {
    pub fn open() -> Self {
        Self::with(ROUTES, &[])
    }

    /// With this configuration and these settings. Many tests are wrong on purpose, and all from one address.
    pub fn with(routes: &str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("greenroom.toml");
        std::fs::write(&file, routes).unwrap();
        let base = [
            ("GREENROOM_CONFIG", file.to_str().unwrap()),
            ("HOOK_SECRET", SHARED),
            ("GREENROOM_CALLERS__WRONG_CREDENTIALS", "0"),
        ];
        let chosen = base.iter().filter(|(name, _)| !settings.iter().any(|(other, _)| other == name));
        let all: Vec<_> = chosen.chain(settings).copied().collect();
        Self { server: TestGateway::with(&all), folder }
    }

    /// A call of a route with a body as it is.
    pub fn call(&self, route: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let request = self.server.request("POST", &format!("/webhooks/{route}"));
        request.header("content-type", "application/json").body(body.into())
    }

    /// A call that is signed by Standard Webhooks, now.
    pub fn standard(&self, route: &str, secret: &str, id: &str, body: &str) -> RequestBuilder {
        self.standard_at(route, secret, id, body, now())
    }

    pub fn standard_at(&self, route: &str, secret: &str, id: &str, body: &str, at: i64) -> RequestBuilder {
        let signature = signature::sign(&signature::Secret::parse(secret).unwrap(), id, at, body.as_bytes());
        let request = self.call(route, body).header("webhook-id", id).header("webhook-timestamp", at.to_string());
        request.header("webhook-signature", signature)
    }

    /// A call that is signed like one of GitHub.
    pub fn github(&self, delivery: &str, event: &str, body: &str) -> RequestBuilder {
        let request = self.call("github", body).header("x-github-delivery", delivery).header("x-github-event", event);
        request.header("x-hub-signature-256", format!("sha256={}", hex(SHARED, body)))
    }

    /// A call that is signed like one of Slack.
    pub fn slack(&self, body: &str, at: i64) -> RequestBuilder {
        let request = self.call("slack", body).header("x-slack-request-timestamp", at.to_string());
        request.header("x-slack-signature", format!("v0={}", hex(SHARED, &format!("v0:{at}:{body}"))))
    }

    /// A call with the secret itself.
    pub fn shared(&self, body: &str) -> RequestBuilder {
        self.call("shared", body).header("x-webhook-secret", SHARED)
    }

    pub async fn send(&self, request: RequestBuilder) -> Reply {
        self.server.send(request).await
    }

    /// How a route does.
    pub async fn status(&self, route: &str) -> Value {
        let status = self.server.get("/v1/channels/status").await.ok(200);
        let routes = status["webhook_routes"].as_array().unwrap();
        routes.iter().find(|one| one["route"] == route).unwrap().clone()
    }

    /// How many sessions there are beside the primary one.
    pub async fn sessions(&self) -> usize {
        let list = self.server.get("/v1/sessions?limit=100").await.ok(200);
        // That one may still be in the making when the server has just started.
        list["data"].as_array().unwrap().iter().filter(|session| session["key"] != "main").count()
    }

    /// Runs the program with the configuration of the server.
    pub fn greenroom(&self, arguments: &[&str]) -> Output {
        greenroom(&self.folder.path().join("greenroom.toml"), arguments, &[("HOOK_SECRET", SHARED)])
    }
}

/// Runs the program with a configuration.
pub fn greenroom(config: &std::path::Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).env_clear().env("HOME", config.parent().unwrap()).env("GREENROOM_CONFIG", config);
    command.envs(environment.iter().copied()).output().unwrap()
}

/// A file of the examples.
pub fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/webhooks").join(name)
}

pub fn now() -> i64 {
    Timestamp::now().0 / 1_000_000
}

fn hex(secret: &str, text: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(text);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
