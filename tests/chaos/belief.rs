//! What somebody believes who reads nothing but the log of one session, and the rules that the log keeps to. Written
//! apart from the server's own code on purpose.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A turn that is told of in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub client_id: Option<String>,
    pub text: String,
    /// The turn that it tries again.
    pub again: bool,
    pub policy_first: bool,
    pub moved: bool,
    pub state: Option<String>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Belief {
    queue: Vec<String>,
    running: Option<String>,
    pub turns: BTreeMap<String, Turn>,
    /// In the order in which they were accepted.
    pub accepted: Vec<String>,
    /// In the order in which they ran.
    pub started: Vec<String>,
    /// Texts that a running turn has taken.
    pub steered: Vec<String>,
    choices: BTreeSet<String>,
    tools: BTreeSet<String>,
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

impl Belief {
    /// Reads the next event.
    pub fn read(&mut self, event: &Value) {
        let (data, turn) = (&event["data"], event["turn_id"].as_str());
        if let Some(over) = turn.and_then(|turn| self.turns.get(turn)).and_then(|turn| turn.state.as_ref()) {
            panic!("{event} after the end of its turn, which was {over}");
        }
        match field(event, "type") {
            "turn.queued" => self.queued(&data["turn"], data["position"].as_u64().unwrap()),
            "turn.moved" => {
                let id = field(data, "turn_id").to_owned();
                self.queue.retain(|waiting| *waiting != id);
                let at = usize::try_from(data["position"].as_u64().unwrap()).unwrap();
                self.queue.insert(at.min(self.queue.len()), id.clone());
                self.turns.get_mut(&id).expect("a known turn moves").moved = true;
            }
            "turn.started" => {
                let turn = turn.expect("turn.started has a turn").to_owned();
                assert_eq!(self.running, None, "two turns run at once: {event}");
                assert!(!self.started.contains(&turn), "{turn} ran twice");
                assert_eq!(self.queue.first(), Some(&turn), "a turn ran before its time");
                self.queue.remove(0);
                self.started.push(turn.clone());
                self.running = Some(turn);
            }
            "turn.steered" => {
                assert_eq!(self.running.as_deref(), turn, "{event}: it does not run");
                self.steered.push(field(data, "text").to_owned());
            }
            "turn.finished" => self.finished(turn.expect("turn.finished has a turn"), field(data, "state")),
            "choice.requested" => assert!(self.choices.insert(field(&data["choice"], "id").to_owned())),
            "choice.resolved" => assert!(self.choices.remove(field(data, "choice_id")), "{event}: it was not asked"),
            "tool.started" => drop(self.tools.insert(field(data, "call_id").to_owned())),
            "tool.finished" => assert!(self.tools.remove(field(data, "call_id")), "{event}: it was not called"),
            _ => {}
        }
    }

    fn queued(&mut self, turn: &Value, position: u64) {
        let id = field(turn, "id").to_owned();
        let at = usize::try_from(position).unwrap().min(self.queue.len());
        let last = at == self.queue.len();
        self.queue.insert(at, id.clone());
        let known = Turn {
            client_id: turn["client_id"].as_str().map(str::to_owned),
            text: field(turn, "text").to_owned(),
            again: !turn["continued_from"].is_null(),
            policy_first: !last,
            moved: false,
            state: None,
        };
        assert!(self.turns.insert(id.clone(), known).is_none(), "{id} was accepted twice");
        self.accepted.push(id);
    }

    fn finished(&mut self, id: &str, state: &str) {
        assert!(["completed", "failed", "cancelled", "interrupted"].contains(&state), "{id} ended {state}");
        let turn = self.turns.get_mut(id).unwrap_or_else(|| panic!("{id} ends and was never accepted"));
        turn.state = Some(state.to_owned());
        if self.running.as_deref() == Some(id) {
            self.running = None;
            assert!(self.choices.is_empty(), "{id}: a question outlived its turn: {:?}", self.choices);
            assert!(self.tools.is_empty(), "{id}: a tool call outlived its turn: {:?}", self.tools);
        } else {
            assert!(self.queue.contains(&id.to_owned()), "{id} ends, and neither runs nor waits");
            self.queue.retain(|waiting| waiting != id);
        }
    }

    /// Nothing is left at the end.
    pub fn at_rest(&self) {
        assert_eq!(self.running, None, "a turn was never settled");
        assert!(self.queue.is_empty(), "turns were never settled: {:?}", self.queue);
    }
}
