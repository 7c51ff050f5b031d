//! A turn's events → ours. Pure, but for the memory of the turn.
//!
//! Facts about the events (measured with 1.18.33): a message is announced before its parts, a part before its deltas; an
//! ended part comes once more with its whole text; the stored text of a part stays empty until it ends. `session.idle`
//! comes late, twice, and before the last news of a message that was aborted, so a turn is over only when the session is
//! idle *and* the newest message of the user has a finished answer. A text that is added to a turn waits for the next call of
//! the model: the answer that begins then names the newest message of the user as its parent.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{failure::Failure, tags::Stripper, tools::Tools, usage::Meter};
use crate::{
    agents::{AgentEvent, Outcome},
    protocol::event::DeltaKind,
};

/// The running turn as the events tell it.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The messages of the user in this turn: the prompt, texts that were added, and those that the agent itself writes, as
    /// after a compaction. Ids sort by time.
    asked: Vec<String>,
    /// Texts that were added, by message and by the session's number, which no answer has taken so far.
    offered: Vec<(String, u64)>,
    /// The answers.
    answers: BTreeMap<String, AnswerState>,
    parts: HashMap<String, TextPart>,
    pub(super) tools: Tools,
    pub(super) meter: Meter,
    /// The session has nothing to do.
    idle: bool,
    /// What went wrong outside of any answer.
    failure: Option<Failure>,
    /// Messages that are not of this turn.
    strangers: HashSet<String>,
    /// Something was heard of a message that was never announced: the state must be fetched.
    pub(super) wants_state: bool,
}

#[derive(Debug)]
struct AnswerState {
    parent: String,
    completed: bool,
    finish: Option<String>,
    failure: Option<Failure>,
    /// A summary for the agent itself.
    hidden: bool,
}

#[derive(Debug)]
struct TextPart {
    kind: DeltaKind,
    /// Bytes of its text that were taken.
    seen: usize,
    /// Deltas may be missing: the rest comes with the whole text.
    holed: bool,
    ended: bool,
    stripper: Stripper,
}

impl Talk {
    /// A turn begins with this message.
    pub(super) fn begin(&mut self, message: &str, context_max: Option<u64>) {
        *self = Self::default();
        self.meter.context_max = context_max;
        self.asked.push(message.to_owned());
    }

    /// A text is offered to the turn: the next answer that begins takes it.
    pub(super) fn ask_more(&mut self, message: &str, number: u64) {
        self.asked.push(message.to_owned());
        self.offered.push((message.to_owned(), number));
    }

    /// It could not be added.
    pub(super) fn take_back(&mut self, message: &str) {
        self.asked.retain(|asked| asked != message);
        self.offered.retain(|(offered, _)| offered != message);
    }

    /// The messages of texts that no answer has taken.
    pub(super) fn untaken(&self) -> Vec<String> {
        self.offered.iter().map(|(message, _)| message.clone()).collect()
    }

    /// An answer to this message begins: the model is given it and all before it.
    fn taken(&mut self, parent: &str) -> Vec<AgentEvent> {
        let taken = self.offered.extract_if(.., |(message, _)| message.as_str() <= parent);
        taken.map(|(_, id)| AgentEvent::Steered { id }).collect()
    }

    /// Something went wrong outside of any answer. The first word counts.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// The session has something to do, or not.
    pub(super) fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Takes a message.
    pub(super) fn message(&mut self, info: &Value, of_sub_agent: bool) -> Vec<AgentEvent> {
        let Some(id) = text(info, "id") else { return Vec::new() };
        if text(info, "role") == Some("user") {
            if !of_sub_agent && !self.asked.iter().any(|asked| asked == id) {
                // The session is ours alone: what is newer than our prompt belongs to the turn.
                if self.asked.first().is_some_and(|first| id > first.as_str()) {
                    self.asked.push(id.to_owned());
                    self.strangers.remove(id);
                } else {
                    self.strangers.insert(id.to_owned());
                }
            }
            return Vec::new();
        }
        let completed = info.get("time").and_then(|time| time.get("completed")).is_some_and(|time| !time.is_null());
        let mut events = Vec::new();
        if !of_sub_agent {
            let parent = text(info, "parentID").unwrap_or_default();
            if !self.asked.iter().any(|asked| asked == parent) {
                self.strangers.insert(id.to_owned());
                return Vec::new();
            }
            self.strangers.remove(id);
            let hidden = info.get("summary").and_then(Value::as_bool).unwrap_or(false);
            if !hidden {
                events = self.taken(parent);
            }
            let answer = self.answers.entry(id.to_owned()).or_insert_with(|| AnswerState {
                parent: parent.to_owned(),
                completed: false,
                finish: None,
                failure: None,
                hidden,
            });
            if !completed && !answer.completed {
                self.idle = false;
            }
            answer.completed |= completed;
            answer.finish = text(info, "finish").map(str::to_owned).or(answer.finish.take());
            answer.failure = info.get("error").filter(|error| !error.is_null()).map(Failure::read);
        }
        if self.meter.message(id, info, of_sub_agent) {
            events.push(AgentEvent::Usage(self.meter.total()));
        }
        events
    }

    /// Takes a part as it is now. `fresh` is false when deltas may have been missed since it was last seen.
    pub(super) fn part(&mut self, part: &Value, fresh: bool) -> Vec<AgentEvent> {
        let (Some(id), Some(message)) = (text(part, "id"), text(part, "messageID")) else { return Vec::new() };
        if !self.is_shown(message) {
            return Vec::new();
        }
        let kind = match text(part, "type") {
            Some("tool") => return self.tools.update(id, part),
            Some("text") if !flag(part, "ignored") && !flag(part, "synthetic") => DeltaKind::Text,
            Some("reasoning") => DeltaKind::Reasoning,
            _ => return Vec::new(),
        };
        let stripper = Stripper::default;
        let state = self.parts.entry(id.to_owned()).or_insert_with(|| TextPart {
            kind,
            seen: 0,
            holed: !fresh,
            ended: false,
            stripper: stripper(),
        });
        state.holed |= !fresh;
        let ended = part.get("time").and_then(|time| time.get("end")).is_some_and(|end| !end.is_null());
        let mut shown = String::new();
        // The whole text of an ended part may be shorter than its pieces: its end is trimmed.
        if let Some(rest) = text(part, "text").and_then(|whole| whole.get(state.seen..)).filter(|_| !state.ended) {
            state.seen += rest.len();
            shown = state.stripper.push(rest);
        }
        if ended && !state.ended {
            state.ended = true;
            shown.push_str(&state.stripper.finish());
        }
        delta(state.kind, shown)
    }

    /// Takes a piece of a part.
    pub(super) fn delta(&mut self, properties: &Value) -> Vec<AgentEvent> {
        let (Some(part), Some(message)) = (text(properties, "partID"), text(properties, "messageID")) else {
            return Vec::new();
        };
        if !self.is_shown(message) || text(properties, "field") != Some("text") {
            return Vec::new();
        }
        let Some(state) = self.parts.get_mut(part) else {
            self.wants_state = true;
            return Vec::new();
        };
        if state.holed || state.ended {
            return Vec::new();
        }
        let piece = text(properties, "delta").unwrap_or_default();
        state.seen += piece.len();
        let shown = state.stripper.push(piece);
        delta(state.kind, shown)
    }

    /// Deltas were lost: parts that have not ended get the rest of their text at their end.
    pub(super) fn lost(&mut self) {
        self.parts.values_mut().filter(|part| !part.ended).for_each(|part| part.holed = true);
    }

    /// Whether parts of this message are part of the answer. One that nobody has announced is asked for, once.
    fn is_shown(&mut self, message: &str) -> bool {
        if let Some(answer) = self.answers.get(message) {
            return !answer.hidden;
        }
        let known = self.asked.iter().any(|asked| asked == message);
        if !known && self.strangers.insert(message.to_owned()) {
            self.wants_state = true;
        }
        false
    }

    /// True when an answer is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.answers.values().any(|answer| !answer.completed)
    }

    /// True when the newest message of the user has a finished answer.
    fn is_answered(&self) -> bool {
        let newest = self.asked.iter().max();
        self.answers.values().any(|answer| answer.completed && Some(&answer.parent) == newest)
    }

    /// True when nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.idle && !self.is_writing() && (self.is_answered() || self.failure.is_some())
    }

    /// What waited for its rest when the turn ended early.
    pub(super) fn rest(&mut self) -> Vec<AgentEvent> {
        let open = self.parts.values_mut().filter(|part| !part.ended);
        open.flat_map(|part| delta(part.kind, part.stripper.finish())).collect()
    }

    /// How the turn ended. `rejected` is true when a permission was refused in it.
    pub(super) fn outcome(&self, agent: &str, rejected: bool) -> Outcome {
        let completed = |reason: Option<&str>| Outcome::Completed { reason: reason.map(str::to_owned) };
        match (self.answers.values().next_back(), &self.failure) {
            // It was stopped because of what went wrong before.
            (Some(AnswerState { failure: Some(Failure::Aborted), .. }), Some(cause)) => cause.outcome(agent),
            (Some(AnswerState { failure: Some(failure), .. }), _) => failure.outcome(agent),
            (Some(answer), failure) => match (answer.finish.as_deref(), failure) {
                (Some("stop"), _) => completed(None),
                (Some("length"), _) => completed(Some("max_tokens")),
                (Some("content-filter"), _) => completed(Some("refusal")),
                (_, Some(failure)) => failure.outcome(agent),
                _ if rejected => completed(Some("rejected")),
                _ => completed(None),
            },
            (None, Some(failure)) => failure.outcome(agent),
            (None, None) => Outcome::failed("agent_error", format!("agent `{agent}` ended the turn without an answer")),
        }
    }
}

fn delta(kind: DeltaKind, text: String) -> Vec<AgentEvent> {
    if text.is_empty() { Vec::new() } else { vec![AgentEvent::Delta { kind, text }] }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
