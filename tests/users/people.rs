//! The people of the tests: alice and bob are in one organisation, carol is a stranger, root is an admin.

use std::process::{Command, Output};

use reqwest::RequestBuilder;
use serde_json::Value;

use crate::gateway::{Reply, TestGateway};

/// A server in token mode.
pub struct House {
    pub server: TestGateway,
    pub alice: String,
    pub bob: String,
    pub carol: String,
    pub root: String,
}

impl House {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(environment: &[(&str, &str)]) -> Self {
        // All callers have one address here, and many tests are wrong on purpose.
        let unlimited = [("GREENROOM_CALLERS__WRONG_CREDENTIALS", "0")];
        let set = environment.iter().any(|(name, _)| *name == unlimited[0].0);
        let environment: Vec<_> = environment.iter().chain(unlimited.iter().filter(|_| !set)).copied().collect();
        let server = TestGateway::with(&environment);
        let token = |user, scopes| token(&server, user, scopes);
        let (alice, bob) = (token("alice", "read,write"), token("bob", "read,write"));
        let (carol, root) = (token("carol", "read,write"), token("root", "admin"));
        greenroom(&server, &["org", "create", "acme"]);
        for user in ["alice", "bob"] {
            greenroom(&server, &["org", "add", "acme", user]);
        }
        Self { server, alice, bob, carol, root }
    }

    /// A call with a token and a body, where there is one.
    pub async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Reply {
        self.server.send(self.request(token, method, path, body)).await
    }

    pub fn request(&self, token: &str, method: &str, path: &str, body: Value) -> RequestBuilder {
        let request = self.server.request(method, path).bearer_auth(token);
        if body.is_null() { request } else { request.json(&body) }
    }

    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.call(token, "GET", path, Value::Null).await
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Reply {
        self.call(token, "POST", path, body).await
    }
}

/// Runs the program on the data of a server.
pub fn try_greenroom(server: &TestGateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).arg("--data-dir").arg(server.data_dir());
    command.env_clear().env("HOME", server.data_dir()).output().unwrap()
}

/// The same; it must work. Gives what it printed.
#[track_caller]
pub fn greenroom(server: &TestGateway, arguments: &[&str]) -> String {
    let output = try_greenroom(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A new token: the only thing on stdout.
#[track_caller]
pub fn token(server: &TestGateway, user: &str, scopes: &str) -> String {
    let printed = greenroom(server, &["token", "create", "--user", user, "--scopes", scopes]);
    let token = printed.trim_end();
    assert!(token.starts_with("gr_") && token.len() > 40 && printed.lines().count() == 1, "{printed:?}");
    token.to_owned()
}

/// The id of a token.
pub async fn token_id(house: &House, token: &str) -> String {
    house.get(token, "/v1/me").await.ok(200)["token_id"].as_str().unwrap().to_owned()
}
