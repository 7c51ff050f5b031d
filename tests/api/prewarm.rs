//! Agents that are started ahead of the first message, where `pool.prewarm` is set.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{
    Socket, Sse, TestGateway, eventually, text, turn_id,
    wire::{of_type, said, types},
};

/// A server with a scripted agent that starts once the file `gate` is there, and notes each start in `starts`.
struct Ahead {
    server: TestGateway,
    folder: tempfile::TempDir,
}

impl Ahead {
    fn new(setup: &Value, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-acp.mjs");
        let at = folder.path().display();
        let start = format!(
            "echo start >> {at}/starts; while [ ! -e {at}/gate ]; do sleep 0.02; done; [ -s {at}/gate ] && exit 3; \
             exec node {script}"
        );
        let log = folder.path().join("log");
        let command = json!(["/bin/sh", "-c", start]).to_string();
        let environment = json!({
            "FAKE": setup.to_string(),
            "FAKE_LOG": log,
            "PATH": std::env::var("PATH").unwrap(),
        });
        let environment = toml::Value::try_from(environment).unwrap().to_string();
        let ours = [
            ("GREENROOM_POOL__PREWARM", "true"),
            ("GREENROOM_AGENTS__FAKE__KIND", "acp"),
            ("GREENROOM_AGENTS__FAKE__COMMAND", command.as_str()),
            ("GREENROOM_AGENTS__FAKE__ENV", environment.as_str()),
        ];
        Self { server: TestGateway::with(&[&ours, more].concat()), folder }
    }

    /// Lets starts go on.
    fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    async fn session(&self, key: &str) {
        self.server.post("/v1/sessions", json!({"key": key, "agent": "fake"})).await.ok(201);
    }

    /// Follows a session; what that starts is on its way when it returns.
    async fn follow(&self, key: &str) -> Sse {
        let mut stream = Sse::open(&self.server, &format!("/v1/sessions/{key}/events")).await;
        assert_eq!(stream.json().await.unwrap()["type"], "session.hello");
        stream
    }

    fn starts(&self) -> usize {
        lines(&self.folder.path().join("starts")).len()
    }

    async fn started(&self, times: usize) {
        eventually("it is started", async || (self.starts() == times).then_some(())).await;
    }

    /// The `params` that it was sent with a method.
    fn sent(&self, method: &str) -> Vec<Value> {
        let messages = lines(&self.folder.path().join("log")).into_iter();
        let messages = messages.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        messages.filter(|message| message["method"] == method).map(|message| message["params"].clone()).collect()
    }

    /// Waits until no agent has a place any more.
    async fn let_go(&self) {
        let closed = async || {
            let metrics = self.server.get("/metrics").await.text;
            metrics.lines().any(|line| line == "greenroom_agent_processes{state=\"used\"} 0").then_some(())
        };
        eventually("the agent is gone", closed).await;
    }

    /// `cold_start` and `resumed` of the turns of a session.
    async fn begun(&self, key: &str) -> Vec<(Value, Value)> {
        let events = self.server.events(key).await;
        let begun = of_type(&events, "turn.started").into_iter().map(|event| &event["data"]);
        begun.map(|data| (data["cold_start"].clone(), data["resumed"].clone())).collect()
    }
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn who_follows_a_session_finds_its_agent_started() {
    let ahead = Ahead::new(&json!({}), &[]);
    ahead.open_gate();
    ahead.session("k").await;
    let mut socket = Socket::open(&ahead.server, "/v1/sessions/k/ws").await;
    socket.until_type("session.hello").await;
    eventually("it has a conversation", async || (ahead.sent("session/new").len() == 1).then_some(())).await;
    // Another one who follows it changes nothing.
    let _stream = ahead.follow("k").await;
    for text in ["one", "two"] {
        assert_eq!(ahead.server.run("k", json!({"text": text})).await["response"], format!("echo: {text}"));
    }
    assert_eq!(ahead.starts(), 1);
    assert_eq!(ahead.begun("k").await, [(json!(false), json!("new")), (json!(false), Value::Null)]);
    ahead.server.assert_quiet();
}

#[tokio::test]
async fn a_message_that_comes_while_it_starts_is_given_to_it() {
    let ahead = Ahead::new(&json!({}), &[]);
    ahead.session("k").await;
    let _stream = ahead.follow("k").await;
    ahead.started(1).await;
    let id = turn_id(&ahead.server.message("k", text("hi")).await);
    eventually("it waits", async || (ahead.server.turn("k", &id).await["state"] == "starting").then_some(())).await;
    ahead.open_gate();
    assert_eq!(ahead.server.finished("k", &id).await["state"], "completed");
    assert_eq!(said(&ahead.server.events("k").await, &id, "text"), "echo: hi");
    assert_eq!((ahead.starts(), ahead.begun("k").await), (1, vec![(json!(true), json!("new"))]));
    ahead.server.assert_quiet();
}

#[tokio::test]
async fn nobody_gives_up_a_place_for_it() {
    let ahead = Ahead::new(&json!({}), &[("GREENROOM_POOL__MAX_PROCESSES", "1")]);
    ahead.open_gate();
    ahead.session("a").await;
    ahead.session("b").await;
    ahead.server.run("a", text("one")).await;
    let _stream = ahead.follow("b").await;
    ahead.server.run("a", text("two")).await;
    assert_eq!((ahead.starts(), ahead.begun("a").await[1].0.clone()), (1, json!(false)));
    // It gives its own place up like any other that is idle.
    ahead.server.run("b", text("one")).await;
    let _stream = ahead.follow("a").await;
    assert_eq!(ahead.starts(), 2);
    ahead.server.assert_quiet();
}

#[tokio::test]
async fn what_a_conversation_that_had_no_turn_was_called_is_not_gone_on_with() {
    let ahead = Ahead::new(
        &json!({"capabilities": {"loadSession": true}, "load": []}),
        &[("GREENROOM_POOL__IDLE_TIMEOUT", "0s")],
    );
    ahead.open_gate();
    ahead.session("k").await;
    let stream = ahead.follow("k").await;
    eventually("it has a conversation", async || (ahead.sent("session/new").len() == 1).then_some(())).await;
    ahead.let_go().await;
    drop(stream);
    assert_eq!(ahead.server.run("k", text("hi")).await["response"], "echo: hi");
    assert_eq!(ahead.begun("k").await, [(json!(true), json!("new"))]);
    assert_eq!((ahead.sent("session/new").len(), ahead.sent("session/load").len()), (2, 0));
    // One that had a turn is, also when it was loaded ahead of the next.
    ahead.let_go().await;
    let _stream = ahead.follow("k").await;
    eventually("it is loaded", async || (ahead.sent("session/load").len() == 1).then_some(())).await;
    ahead.let_go().await;
    ahead.server.run("k", text("again")).await;
    assert_eq!(ahead.begun("k").await[1], (json!(true), json!("native")));
    ahead.server.assert_quiet();
}

#[tokio::test]
async fn one_that_cannot_start_is_told_by_the_turn() {
    let ahead = Ahead::new(&json!({}), &[]);
    std::fs::write(ahead.folder.path().join("gate"), "shut").unwrap();
    ahead.session("k").await;
    let _stream = ahead.follow("k").await;
    ahead.let_go().await;
    let tries = ahead.starts();
    assert!(
        tries > 0 && types(&ahead.server.events("k").await) == ["session.created"],
        "nobody had asked for anything"
    );
    // The next who follows it has nothing from another try.
    let _another = ahead.follow("k").await;
    ahead.let_go().await;
    assert_eq!(ahead.starts(), tries);
    let failed = ahead.server.run("k", text("hi")).await;
    assert_eq!((&failed["turn"]["state"], ahead.starts()), (&json!("failed"), 2 * tries), "{failed}");
    ahead.open_gate();
    assert_eq!(ahead.server.run("k", text("hi")).await["response"], "echo: hi");
}

#[tokio::test]
async fn what_was_said_elsewhere_is_told_to_an_agent_that_was_started_before_it_was_known() {
    let ahead = Ahead::new(&json!({}), &[]);
    ahead.open_gate();
    ahead.session("k").await;
    let _stream = ahead.follow("k").await;
    eventually("it has a conversation", async || (ahead.sent("session/new").len() == 1).then_some(())).await;
    let messages = json!([
        {"role": "user", "content": "my name is Ada"},
        {"role": "assistant", "content": "hello Ada"},
        {"role": "user", "content": "who am I?"},
    ]);
    let request = ahead.server.request("POST", "/v1/chat/completions").header("x-session-key", "k");
    ahead.server.send(request.json(&json!({"model": "fake", "messages": messages}))).await.ok(200);
    let prompts = ahead.sent("session/prompt");
    assert!(prompts[0].to_string().contains("my name is Ada"), "{prompts:?}");
    ahead.server.assert_quiet();
}

#[tokio::test]
async fn one_that_ends_without_a_turn_ends_no_turn_that_waits() {
    let ahead = Ahead::new(&json!({}), &[("GREENROOM_POOL__MAX_RUNNING", "1")]);
    ahead.session("k").await;
    let other = ahead.server.hang("other", json!({})).await;
    let _stream = ahead.follow("k").await;
    ahead.started(1).await;
    let id = turn_id(&ahead.server.message("k", json!({"text": "hi", "agent": "echo"})).await);
    std::fs::write(ahead.folder.path().join("gate"), "shut").unwrap();
    ahead.let_go().await;
    assert_eq!(ahead.server.turn("k", &id).await["state"], "starting", "it waits for a place");
    ahead.server.act("/v1/sessions/other/abort").await;
    ahead.server.finished("other", &other).await;
    assert_eq!(ahead.server.finished("k", &id).await["state"], "completed");
}
