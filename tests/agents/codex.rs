//! The Codex adapter: with a scripted app-server for what the real one does not do on demand, and with the real one.

mod choices;
mod faults;
mod real;
mod settings;
mod turns;

use greenroom::{
    agents::{Agent, AgentCommand, AgentEvent, Opened, Outcome, codex::CodexAgent},
    config::Secret,
};
use serde_json::Value;

use crate::harness::{Client, Fake};

/// The scripted app-server with everything that a test may set before it starts.
struct Server(Fake);

impl Server {
    fn new(setup: Value) -> Self {
        let mut fake = Fake::new(setup);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/fake-codex.mjs");
        fake.config.command = vec!["node".into(), script.into()];
        Self(fake)
    }

    fn start(&self) -> Client {
        let mut config = self.0.config.clone();
        config.env.insert("FAKE".into(), Secret::new(self.0.setup.to_string()));
        config.env.insert("FAKE_LOG".into(), Secret::new(self.0.folder.path().join("log").to_str().unwrap()));
        let live = CodexAgent::new("fake".into(), config, self.0.limits.clone()).start(self.0.spec.clone());
        Client { live, ledger: self.0.ledger.clone(), _folder: self.0.folder.clone() }
    }

    async fn open(&self) -> (Client, Opened) {
        let mut client = self.start();
        let opened = client.opened().await;
        (client, opened)
    }

    /// The `params` of what it was sent of a method.
    fn sent(&self, method: &str) -> Vec<Value> {
        self.0.sent(method)
    }

    /// What it was answered, by the id of its request.
    fn answer(&self, id: Value) -> Value {
        let mut answers =
            self.0.log().into_iter().filter(|message| message.get("method").is_none() && message["id"] == id);
        answers.next_back().unwrap_or_else(|| panic!("no answer to {id}"))
    }
}

/// A turn with this prompt.
async fn turn(client: &mut Client, prompt: greenroom::agents::Prompt) -> (Vec<AgentEvent>, Outcome) {
    client.send(AgentCommand::Prompt(prompt)).await;
    client.turn().await
}
