//! What has been opened: pieces of text and reasoning, and tool calls. The protocol wants each opened before it goes on
//! and closed before the run ends.
//!
//! A session's message is several here, because a text cannot stand between two tool calls of one message: each piece
//! has an id of its own, made of the message's id and the number of its part. A piece that goes on after an interrupt is
//! another message with the number of the run behind it, so an id tells which run has told it.

use serde::Serialize;
use serde_json::Value;

use super::line::Line;
use crate::{
    ids::MessageId,
    protocol::{Usage, event::DeltaKind},
};

/// A piece of text or reasoning that is open.
struct Piece {
    message: String,
    part: u32,
    kind: DeltaKind,
    id: String,
}

/// A tool call, open or not.
struct Call {
    id: String,
    name: String,
    /// The input as far as it has been told.
    told: String,
    is_open: bool,
    is_over: bool,
}

/// All that the turn has opened so far.
#[derive(Default)]
pub(super) struct Parts {
    pieces: Vec<Piece>,
    calls: Vec<Call>,
    /// The message that the next tool call belongs to.
    parent: Option<String>,
}

/// What an id ends with that was told in this run of the turn, from 0.
fn suffix(run: u32) -> String {
    if run == 0 { String::new() } else { format!(".r{run}") }
}

/// The run that has told a message, by the message's id; none where the id is not from here.
pub(super) fn run_of(id: &str) -> Option<u32> {
    // The `.r` of `.result` is not that of a run.
    let run = id.rsplit_once(".r").and_then(|(id, run)| Some((id, run.parse().ok()?)));
    let (id, run) = run.unwrap_or((id, 0));
    let (of, what) = id.rsplit_once('.')?;
    let ours = matches!(what, "call" | "result") || (what.parse::<u32>().is_ok() && of.parse::<MessageId>().is_ok());
    ours.then_some(run)
}

/// True for an input that says nothing yet.
fn is_blank(input: &Value) -> bool {
    input.is_null() || input.as_object().is_some_and(serde_json::Map::is_empty)
}

impl Parts {
    /// A piece of a message, which is not empty: clients before 1.0 refuse that.
    pub(super) fn delta(
        &mut self,
        run: u32,
        (message, part): (&str, u32),
        kind: DeltaKind,
        delta: &(impl Serialize + ?Sized),
        out: &mut Vec<u8>,
    ) {
        let known = self.pieces.iter().position(|piece| piece.message == message && piece.part == part);
        if known.is_none() {
            self.close_pieces_of(Some(message), out);
            let id = format!("{message}.{part}{}", suffix(run));
            match kind {
                DeltaKind::Text => {
                    Line::new(out, "TEXT_MESSAGE_START").field("messageId", &id).field("role", "assistant").end();
                    self.parent = Some(id.clone());
                }
                DeltaKind::Reasoning => {
                    Line::new(out, "REASONING_START").field("messageId", &id).end();
                    Line::new(out, "REASONING_MESSAGE_START").field("messageId", &id).field("role", "reasoning").end();
                }
            }
            self.pieces.push(Piece { message: message.to_owned(), part, kind, id });
        }
        let Some(piece) = known.map_or_else(|| self.pieces.last(), |at| self.pieces.get(at)) else { return };
        let name = match kind {
            DeltaKind::Text => "TEXT_MESSAGE_CONTENT",
            DeltaKind::Reasoning => "REASONING_MESSAGE_CONTENT",
        };
        Line::new(out, name).field("messageId", &piece.id).field("delta", delta).end();
    }

    /// A call, or more of one that is known. The input is told whole as soon as it is there.
    pub(super) fn call(&mut self, run: u32, id: &str, name: &str, input: &Value, out: &mut Vec<u8>) {
        if self.calls.iter().all(|call| call.id != id) {
            self.close_pieces_of(None, out);
            let parent = self.parent.get_or_insert_with(|| format!("{id}.call{}", suffix(run)));
            let (id, name) = (id.to_owned(), name.to_owned());
            start(&id, &name, Some(parent), out);
            self.calls.push(Call { id, name, told: String::new(), is_open: true, is_over: false });
        }
        if is_blank(input) {
            return;
        }
        let Some(call) = self.calls.iter_mut().find(|call| call.id == id) else { return };
        if call.told.is_empty() {
            call.tell(&input.to_string(), out);
        }
        call.close(out);
    }

    /// The input of a call as far as it is written. What replaces something that was told cannot be said here, and is
    /// not.
    pub(super) fn input(&mut self, id: &str, so_far: &str, out: &mut Vec<u8>) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.id == id && !call.is_over) {
            call.tell(so_far, out);
        }
    }

    /// The call is at work: its input is there.
    pub(super) fn called(&mut self, id: &str, out: &mut Vec<u8>) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.id == id) {
            call.close(out);
        }
    }

    /// What came of a call.
    pub(super) fn result(&mut self, run: u32, id: &str, output: &Value, is_error: bool, out: &mut Vec<u8>) {
        self.called(id, out);
        if let Some(call) = self.calls.iter_mut().find(|call| call.id == id) {
            call.is_over = true;
        }
        // What comes next answers this, so it is no part of the message that called.
        self.parent = None;
        let encoded;
        let content = match output {
            Value::String(text) => text.as_str(),
            Value::Null => "",
            other => {
                encoded = other.to_string();
                &encoded
            }
        };
        let line = Line::new(out, "TOOL_CALL_RESULT");
        let line = line.field("messageId", &format!("{id}.result{}", suffix(run))).field("toolCallId", id);
        let failed = is_error.then(|| serde_json::json!({"isError": true}));
        line.field("content", content).field("role", "tool").maybe("metadata", failed.as_ref()).end();
    }

    /// The message is whole.
    pub(super) fn close_message(&mut self, message: &str, out: &mut Vec<u8>) {
        self.close_pieces_of(Some(message), out);
        self.parent = None;
    }

    /// Nothing stays open.
    pub(super) fn close_all(&mut self, out: &mut Vec<u8>) {
        self.close_pieces_of(None, out);
        self.calls.iter_mut().for_each(|call| call.close(out));
        self.parent = None;
    }

    /// The latest call of a tool that has no result yet.
    pub(super) fn open_call(&self, tool: &str) -> Option<&str> {
        self.calls.iter().rev().find(|call| !call.is_over && call.name == tool).map(|call| call.id.as_str())
    }

    fn close_pieces_of(&mut self, message: Option<&str>, out: &mut Vec<u8>) {
        self.pieces.retain(|piece| {
            let stays = message.is_some_and(|message| message != piece.message);
            if !stays {
                match piece.kind {
                    DeltaKind::Text => Line::new(out, "TEXT_MESSAGE_END").field("messageId", &piece.id).end(),
                    DeltaKind::Reasoning => {
                        Line::new(out, "REASONING_MESSAGE_END").field("messageId", &piece.id).end();
                        Line::new(out, "REASONING_END").field("messageId", &piece.id).end();
                    }
                }
            }
            stays
        });
    }
}

fn start(id: &str, name: &str, parent: Option<&str>, out: &mut Vec<u8>) {
    let line = Line::new(out, "TOOL_CALL_START").field("toolCallId", id).field("toolCallName", name);
    line.maybe("parentMessageId", parent).end();
}

impl Call {
    /// Tells what an input has beyond what was told.
    fn tell(&mut self, input: &str, out: &mut Vec<u8>) {
        let Some(more) = input.strip_prefix(self.told.as_str()).filter(|more| !more.is_empty()) else { return };
        if !self.is_open {
            // Closed for an interrupt, or by a sign that it was whole: a client goes on with the call of that id.
            start(&self.id, &self.name, None, out);
            self.is_open = true;
        }
        Line::new(out, "TOOL_CALL_ARGS").field("toolCallId", &self.id).field("delta", more).end();
        self.told.push_str(more);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_open) {
            Line::new(out, "TOOL_CALL_END").field("toolCallId", &self.id).end();
        }
    }
}

/// Tokens as the protocol counts them: the parts of a total beside it.
pub(super) fn usage(usage: &Usage, model: Option<&str>) -> Value {
    let mut counts = serde_json::json!([{
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens.saturating_add(usage.output_tokens),
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
    }]);
    if let (Some(model), Some(fields)) = (model, counts.get_mut(0).and_then(Value::as_object_mut)) {
        fields.insert("model".into(), model.into());
    }
    counts
}
