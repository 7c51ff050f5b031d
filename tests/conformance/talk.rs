//! A turn as a client follows it: sent and read over one stream, looked at event by event.

use serde_json::{Value, json};

use crate::{
    gateway::{Reply, Sse, str_of, wire},
    rig::Rig,
};

/// A running turn.
pub struct Talk<'a> {
    rig: &'a Rig,
    stream: Sse,
    pub key: String,
    pub turn: String,
    pub events: Vec<Value>,
}

/// A turn that is over.
#[derive(Debug)]
pub struct Told {
    pub turn: String,
    pub events: Vec<Value>,
}

impl Rig {
    /// Sends a message, of which `body` is the text or all fields, and follows its turn.
    pub async fn talk(&self, key: &str, body: impl Into<Value>) -> Talk<'_> {
        let body = match body.into() {
            Value::String(text) => json!({"text": text}),
            other => other,
        };
        let request = self.server.request("POST", &format!("/v1/sessions/{key}/messages")).json(&body);
        let mut stream = Sse::from(request.header("accept", "text/event-stream")).await;
        let queued = stream.until(|event| event["type"] == "turn.queued").await;
        let turn = str_of(queued.last().unwrap(), "turn_id").to_owned();
        Talk { rig: self, stream, key: key.to_owned(), turn, events: queued }
    }

    /// A turn from its beginning to its end.
    pub async fn told(&self, key: &str, body: impl Into<Value>) -> Told {
        self.talk(key, body).await.end().await
    }

    /// A turn that must go well; its answer.
    pub async fn answer(&self, key: &str, body: impl Into<Value>) -> String {
        let told = self.told(key, body).await;
        told.assert_state("completed");
        told.said()
    }

    /// The agent is there and as it was: it answers.
    pub async fn assert_usable(&self, key: &str) {
        assert_eq!(self.answer(key, "PLAIN and still there?").await, HELLO);
    }
}

/// Events for a person: one a line, without what is in every event.
pub fn brief(events: &[Value]) -> String {
    let line = |event: &Value| format!("\n  {} {}", event["type"].as_str().unwrap_or_default(), event["data"]);
    events.iter().map(line).collect()
}

/// What the model server answers to anything.
pub const HELLO: &str = "Hello from mock";

impl Talk<'_> {
    /// Reads until an event fits; none when the turn was over first.
    pub async fn reach(&mut self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        while let Some(data) = self.stream.stored().await {
            let event: Value = serde_json::from_str(&data).unwrap();
            let (found, over) = (fits(&event), event["type"] == "turn.finished");
            self.events.push(event.clone());
            if found {
                return Some(event);
            }
            if over {
                return None;
            }
        }
        panic!("the stream ended before the turn: {}", brief(&self.events));
    }

    /// Reads until an event fits, which must come.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = self.reach(fits).await;
        found.unwrap_or_else(|| panic!("the turn was over before {what}: {}", brief(&self.events)))
    }

    /// Waits for a piece of the answer.
    pub async fn speaks(&mut self) {
        self.until("it spoke", |event| event["type"] == "message.delta" && event["data"]["kind"] == "text").await;
    }

    /// The choice that it asks for; none when the turn was over without one.
    pub async fn asked(&mut self) -> Option<Value> {
        let asked = self.reach(|event| event["type"] == "choice.requested").await?;
        Some(asked["data"]["choice"].clone())
    }

    /// Answers a choice.
    pub async fn choose(&self, choice: &Value, answer: Value) -> Reply {
        let path = format!("/v1/sessions/{}/choices/{}", self.key, str_of(choice, "id"));
        self.rig.server.post(&path, answer).await
    }

    /// Asks for the end of the turn.
    pub async fn cancel(&self) {
        self.rig.server.act(&format!("/v1/sessions/{}/turns/{}/cancel", self.key, self.turn)).await.ok(202);
    }

    /// Reads to the end, giving every choice on the way the same answer.
    pub async fn end_with(mut self, answer: Value) -> Told {
        while let Some(choice) = self.asked().await {
            self.choose(&choice, answer.clone()).await.ok(202);
        }
        self.told()
    }

    /// Reads to the end.
    pub async fn end(mut self) -> Told {
        self.reach(|event| event["type"] == "turn.finished").await;
        self.told()
    }

    fn told(self) -> Told {
        Told { turn: self.turn, events: self.events }
    }
}

impl Told {
    /// The last event's data.
    pub fn finished(&self) -> &Value {
        let last = self.events.last().unwrap();
        assert_eq!(last["type"], "turn.finished");
        &last["data"]
    }

    /// The answer's text.
    pub fn said(&self) -> String {
        wire::said(&self.events, &self.turn, "text")
    }

    /// The events of one type.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        wire::of_type(&self.events, kind)
    }

    /// How many events of one type.
    pub fn count(&self, kind: &str) -> usize {
        self.of(kind).len()
    }

    /// The turn's figures.
    pub fn usage(&self, field: &str) -> Option<u64> {
        self.finished()["usage"][field].as_u64()
    }

    /// It ended so.
    #[track_caller]
    pub fn assert_state(&self, state: &str) {
        assert_eq!(self.finished()["state"], state, "{}", brief(&self.events));
    }
}
