//! What the agent tells of the answer → events. Pure, but for the memory of the turn's messages and calls.
//!
//! The answer comes twice: as pieces (`stream_event`, which are the model's own stream), and whole (`assistant`, one
//! message a finished block, before the block's end is streamed). Pieces are shown; of what is whole, only what had no
//! pieces. A message with `parent_tool_use_id` is a sub-agent's: it shows as news of the call that started it, and never
//! as part of the answer.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{tools, wire::text};
use crate::{
    agents::{AgentEvent, program::raw},
    protocol::{ToolStatus, event::DeltaKind},
};

/// A sub-agent's newest words are shown up to this many characters.
const NEWS: usize = 1000;
/// What a command prints stands between these.
const COMMAND_OUTPUT: (&str, &str) = ("<local-command-stdout>", "</local-command-stdout>");

/// The memory of one turn.
#[derive(Debug, Default)]
pub(super) struct Narrator {
    /// The message whose pieces come now.
    streaming: String,
    /// The messages that came in pieces.
    streamed: HashSet<String>,
    /// The calls that are being written in it, by the number of their block.
    writing: HashMap<u64, Writing>,
    /// The calls of the answer itself; true once they are over.
    calls: HashMap<String, bool>,
    /// The message that the last piece of text belonged to, when nothing but text came after it.
    text_of: Option<String>,
    /// True once anything of an answer was shown.
    told: bool,
    /// What a command printed.
    printed: Option<String>,
    /// Why the model's provider refused, in the agent's own word.
    pub(super) refused: Option<String>,
}

/// A call whose input is being written.
#[derive(Debug)]
struct Writing {
    call_id: String,
    input: String,
    /// How much of it was told.
    told: usize,
}

impl Narrator {
    /// A steered text stands between what was said and what comes.
    pub(super) fn steered(&mut self) {
        self.text_of = None;
    }

    /// Translates a message that is no result and no control message.
    pub(super) fn tell(&mut self, message: &Value) -> Vec<AgentEvent> {
        if let Some(parent) = message.get("parent_tool_use_id").and_then(Value::as_str) {
            return self.sub_agent(parent, message);
        }
        match text(message, "type") {
            "stream_event" => self.piece(message.get("event").unwrap_or(&Value::Null)),
            "assistant" => self.whole(message),
            "user" => self.results(message),
            _ => vec![raw(message)],
        }
    }

    /// What is to be shown at the end of a turn that showed nothing: commands answer only here.
    pub(super) fn finish(&mut self, result: &Value) -> Option<AgentEvent> {
        let told = std::mem::replace(&mut self.told, false);
        let said = Some(text(result, "result").to_owned()).filter(|said| !said.is_empty());
        let words = said.or(self.printed.take()).filter(|_| !told)?;
        Some(AgentEvent::Delta { kind: DeltaKind::Text, text: words })
    }

    /// An event of the model's stream.
    fn piece(&mut self, event: &Value) -> Vec<AgentEvent> {
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        match text(event, "type") {
            "message_start" => {
                self.streaming = event.get("message").map(|message| text(message, "id")).unwrap_or_default().to_owned();
                self.writing.clear();
                Vec::new()
            }
            "content_block_start" => {
                self.streamed.insert(self.streaming.clone());
                let block = event.get("content_block").unwrap_or(&Value::Null);
                match text(block, "type") {
                    "tool_use" => self.begin_call(index, block),
                    _ => Vec::new(),
                }
            }
            "content_block_delta" => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                match text(delta, "type") {
                    "text_delta" => self.say(&self.streaming.clone(), text(delta, "text")),
                    "thinking_delta" => self.think(text(delta, "thinking")),
                    "input_json_delta" => self.write(index, text(delta, "partial_json")),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn begin_call(&mut self, index: u64, block: &Value) -> Vec<AgentEvent> {
        let (call_id, name) = (text(block, "id"), text(block, "name"));
        if call_id.is_empty() {
            return Vec::new();
        }
        self.writing.insert(index, Writing { call_id: call_id.to_owned(), input: String::new(), told: 0 });
        self.announce(call_id, name, Value::Null)
    }

    fn announce(&mut self, call_id: &str, name: &str, input: Value) -> Vec<AgentEvent> {
        self.calls.entry(call_id.to_owned()).or_insert(false);
        self.text_of = None;
        self.told = true;
        vec![AgentEvent::ToolStarted(tools::card(call_id, name, input))]
    }

    /// The whole prefix goes out each time, so that what goes out stays in proportion to the input it is told again only
    /// when it has grown by a sixteenth.
    fn write(&mut self, index: u64, piece: &str) -> Vec<AgentEvent> {
        let Some(writing) = self.writing.get_mut(&index) else { return Vec::new() };
        writing.input.push_str(piece);
        let length = writing.input.len();
        if piece.is_empty() || length < writing.told + writing.told / 16 {
            return Vec::new();
        }
        writing.told = length;
        vec![AgentEvent::ToolDelta { call_id: writing.call_id.clone(), input_so_far: writing.input.clone() }]
    }

    /// Text of a message. Between two messages with nothing but text there is a paragraph's break.
    fn say(&mut self, message: &str, words: &str) -> Vec<AgentEvent> {
        if words.is_empty() {
            return Vec::new();
        }
        let glued = self.text_of.as_deref().is_some_and(|last| last != message);
        if self.text_of.as_deref() != Some(message) {
            self.text_of = Some(message.to_owned());
        }
        self.told = true;
        let text = if glued { format!("\n\n{words}") } else { words.to_owned() };
        vec![AgentEvent::Delta { kind: DeltaKind::Text, text }]
    }

    fn think(&mut self, words: &str) -> Vec<AgentEvent> {
        if words.is_empty() {
            return Vec::new();
        }
        self.text_of = None;
        vec![AgentEvent::Delta { kind: DeltaKind::Reasoning, text: words.to_owned() }]
    }

    /// A finished block, or a message that had no pieces.
    fn whole(&mut self, message: &Value) -> Vec<AgentEvent> {
        if message.get("is_api_error_message").and_then(Value::as_bool) == Some(true) {
            // Its text is that of the result, which is the turn's failure and no answer.
            self.refused = Some(text(message, "error").to_owned());
            return Vec::new();
        }
        let inner = message.get("message").unwrap_or(&Value::Null);
        let id = text(inner, "id").to_owned();
        let in_pieces = self.streamed.contains(&id);
        let mut events = Vec::new();
        for block in inner.get("content").and_then(Value::as_array).into_iter().flatten() {
            match text(block, "type") {
                "text" if !in_pieces => events.extend(self.say(&id, text(block, "text"))),
                "thinking" if !in_pieces => events.extend(self.think(text(block, "thinking"))),
                "tool_use" => {
                    let (name, input) = (text(block, "name"), block.get("input").cloned().unwrap_or(Value::Null));
                    let plan = input.get("todos").filter(|_| name == "TodoWrite").cloned();
                    events.extend(self.announce(text(block, "id"), name, input));
                    events.extend(plan.map(AgentEvent::Plan));
                }
                "text" | "thinking" | "redacted_thinking" => {}
                _ => events.push(raw(block)),
            }
        }
        events
    }

    /// Results of calls, and what a command printed.
    fn results(&mut self, message: &Value) -> Vec<AgentEvent> {
        let content = message.get("message").and_then(|message| message.get("content")).unwrap_or(&Value::Null);
        if let Some(words) = content.as_str() {
            let (begin, end) = COMMAND_OUTPUT;
            let printed = words.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
            self.printed = printed.map(|(printed, _)| printed.trim().to_owned()).or(self.printed.take());
            return Vec::new();
        }
        let mut events = Vec::new();
        for block in content.as_array().into_iter().flatten().filter(|block| text(block, "type") == "tool_result") {
            let call_id = text(block, "tool_use_id").to_owned();
            if self.calls.insert(call_id.clone(), true) == Some(true) {
                continue;
            }
            self.text_of = None;
            let output = tools::output(block.get("content").unwrap_or(&Value::Null));
            let is_error = block.get("is_error").and_then(Value::as_bool).unwrap_or(false);
            events.push(AgentEvent::ToolFinished { call_id, output, is_error });
        }
        events
    }

    /// The newest of a sub-agent's work, as news of the call that started it.
    fn sub_agent(&self, parent: &str, message: &Value) -> Vec<AgentEvent> {
        let content = message.get("message").and_then(|message| message.get("content"));
        let blocks = content.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let line = |block: &Value| match text(block, "type") {
            "text" => Some(text(block, "text").to_owned()),
            "tool_use" => {
                let card = tools::card("", text(block, "name"), block.get("input").cloned().unwrap_or(Value::Null));
                Some(format!("[{}: {}]", card.name, card.title.unwrap_or_default()))
            }
            _ => None,
        };
        let news = if text(message, "type") == "assistant" { blocks.iter().rev().find_map(line) } else { None };
        match news.filter(|_| self.calls.get(parent) == Some(&false)) {
            Some(news) => {
                let output = Value::String(news.chars().take(NEWS).collect());
                vec![AgentEvent::ToolUpdated { call_id: parent.to_owned(), status: ToolStatus::Running, output }]
            }
            // Its pieces would be many, and say no more.
            None if text(message, "type") == "stream_event" => Vec::new(),
            None => vec![raw(&json!({"sub_agent_of": parent, "message": message.get("message")}))],
        }
    }
}

#[cfg(test)]
#[path = "narrator_tests.rs"]
mod narrator_tests;
