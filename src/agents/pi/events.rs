//! What pi tells of a turn → events. Pure, but for the memory of the turn.
//!
//! Each update of a message carries the whole message so far, twice; of those lines only the new piece is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    agents::{AgentEvent, ToolCall, json, program::raw},
    protocol::{AgentStatus, ToolStatus, Usage, event::DeltaKind},
};

/// How the last assistant message of a turn ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// `stop`, `length`, `toolUse`, `aborted` or `error`; empty when there was none.
    pub(super) reason: String,
    /// What failed.
    pub(super) error: Option<String>,
}

/// What is known of the running turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) last: Ended,
    /// The sum over the model calls; none before the first.
    usage: Usage,
    /// Calls that are being written: by the index of their part, the call and its input so far.
    inputs: BTreeMap<u64, (String, String)>,
}

/// An update of a message, as far as it is read.
#[derive(Debug, Deserialize)]
struct Update {
    #[serde(rename = "assistantMessageEvent")]
    event: Piece,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content_index: u64,
    #[serde(default)]
    delta: Option<String>,
    #[serde(default)]
    tool_call: Option<Value>,
}

/// What such lines begin with; one that is written in another way is read as well, only more slowly.
const UPDATE: &str = r#"{"type":"message_update","#;

/// A line of pi's.
#[derive(Debug)]
pub(super) enum Line {
    /// A piece of a message.
    Pieces(Vec<AgentEvent>),
    /// Anything else.
    Object(Map<String, Value>),
    /// It is no object.
    Noise,
}

impl Turn {
    /// Reads a line.
    pub(super) fn line(&mut self, line: &str) -> Line {
        if line.starts_with(UPDATE)
            && !line.contains(r#""type":"toolcall_start""#)
            && let Ok(update) = serde_json::from_str::<Update>(line)
        {
            return Line::Pieces(self.piece(update.event));
        }
        match json::parse::<Map<String, Value>>(line) {
            Ok(object) => Line::Object(object),
            Err(_) => Line::Noise,
        }
    }

    fn piece(&mut self, piece: Piece) -> Vec<AgentEvent> {
        let text = piece.delta.unwrap_or_default();
        match piece.kind.as_str() {
            "text_delta" if !text.is_empty() => vec![AgentEvent::Delta { kind: DeltaKind::Text, text }],
            "thinking_delta" if !text.is_empty() => vec![AgentEvent::Delta { kind: DeltaKind::Reasoning, text }],
            "toolcall_delta" if !text.is_empty() => {
                let Some((call_id, input)) = self.inputs.get_mut(&piece.content_index) else { return Vec::new() };
                input.push_str(&text);
                vec![AgentEvent::ToolDelta { call_id: call_id.clone(), input_so_far: input.clone() }]
            }
            "toolcall_end" => {
                piece.tool_call.as_ref().and_then(|call| started(call, "id", "name", "arguments")).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Translates an event of the running turn that is no matter of its course.
    pub(super) fn event(&mut self, kind: &str, event: Map<String, Value>, context_max: Option<u64>) -> Vec<AgentEvent> {
        let event = Value::Object(event);
        match kind {
            "message_update" => self.slow_update(&event),
            "message_end" => self.message_end(event.get("message").unwrap_or(&Value::Null), context_max),
            "tool_execution_start" => started(&event, "toolCallId", "toolName", "args").into_iter().collect(),
            "tool_execution_update" => {
                let output = output(event.get("partialResult"));
                // The first one says only that it runs.
                if output.is_null() {
                    return Vec::new();
                }
                let call_id = text(&event, "toolCallId").to_owned();
                vec![AgentEvent::ToolUpdated { call_id, status: ToolStatus::Running, output }]
            }
            "tool_execution_end" => vec![AgentEvent::ToolFinished {
                call_id: text(&event, "toolCallId").to_owned(),
                output: output(event.get("result")),
                is_error: event.get("isError").and_then(Value::as_bool).unwrap_or(false),
            }],
            "auto_retry_start" => {
                let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or(0);
                let (attempt, most, delay) = (number("attempt"), number("maxAttempts"), number("delayMs"));
                let error = text(&event, "errorMessage");
                let reason = format!("tries again in {delay} ms ({attempt} of {most}): {error}");
                vec![AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason) }]
            }
            "compaction_start" => {
                let reason = "shortens its memory of the conversation".to_owned();
                vec![AgentEvent::Status { status: AgentStatus::Working, reason: Some(reason) }]
            }
            "compaction_end" => match event.get("errorMessage").and_then(Value::as_str) {
                Some(error) => vec![fault(format!("its memory of the conversation could not be shortened: {error}"))],
                None => vec![AgentEvent::Status { status: AgentStatus::Working, reason: None }],
            },
            "extension_error" => {
                vec![fault(format!("extension {}: {}", text(&event, "extensionPath"), text(&event, "error")))]
            }
            // What is in them is told by other events.
            "agent_start" | "agent_end" | "turn_start" | "turn_end" | "message_start" | "queue_update"
            | "auto_retry_end" => Vec::new(),
            _ => vec![raw(&event)],
        }
    }

    /// An update that is read whole, since the name of the call stands only in the message.
    fn slow_update(&mut self, event: &Value) -> Vec<AgentEvent> {
        let Ok(Update { event: piece }) = Update::deserialize(event) else { return vec![raw(event)] };
        if piece.kind != "toolcall_start" {
            return self.piece(piece);
        }
        let index = usize::try_from(piece.content_index).unwrap_or(usize::MAX);
        let part = event.get("message").and_then(|message| message.get("content")?.get(index));
        let Some(part) = part.filter(|part| !text(part, "id").is_empty()) else { return Vec::new() };
        self.inputs.insert(piece.content_index, (text(part, "id").to_owned(), String::new()));
        started(part, "id", "name", "").into_iter().collect()
    }

    /// A message is whole: one of the assistant's has the figures of its model call.
    fn message_end(&mut self, message: &Value, context_max: Option<u64>) -> Vec<AgentEvent> {
        if text(message, "role") != "assistant" {
            return Vec::new();
        }
        self.inputs.clear();
        let error = message.get("errorMessage").and_then(Value::as_str).map(str::to_owned);
        self.last = Ended { reason: text(message, "stopReason").to_owned(), error };
        let Some(usage) = message.get("usage") else { return Vec::new() };
        let number = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let cached = number("cacheRead");
        let call = Usage {
            // The cache stands apart from the input there.
            input_tokens: number("input").saturating_add(cached).saturating_add(number("cacheWrite")),
            output_tokens: number("output"),
            cached_tokens: cached,
            cost_usd: usage.get("cost").and_then(|cost| cost.get("total")?.as_f64()),
            context_used: Some(number("totalTokens")).filter(|tokens| *tokens > 0),
            context_max,
            ..Usage::default()
        };
        // A call that failed has figures of nothing.
        if call.input_tokens == 0 && call.output_tokens == 0 {
            return Vec::new();
        }
        self.usage = self.usage.plus(call);
        vec![AgentEvent::Usage(self.usage)]
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn fault(message: String) -> AgentEvent {
    AgentEvent::Fault { code: "agent_error".into(), message }
}

fn started(value: &Value, id: &str, name: &str, input: &str) -> Option<AgentEvent> {
    Some(AgentEvent::ToolStarted(ToolCall {
        call_id: value.get(id)?.as_str()?.to_owned(),
        name: value.get(name)?.as_str()?.to_owned(),
        input: value.get(input).cloned().unwrap_or(Value::Null),
        ..ToolCall::default()
    }))
}

/// What a tool gave: its text, where it is nothing but text.
fn output(result: Option<&Value>) -> Value {
    let Some(content) = result.and_then(|result| result.get("content")).and_then(Value::as_array) else {
        return result.cloned().unwrap_or(Value::Null);
    };
    if content.is_empty() {
        return Value::Null;
    }
    let texts: Option<Vec<&str>> = content.iter().map(|part| part.get("text")?.as_str()).collect();
    texts.map_or_else(|| Value::Array(content.clone()), |texts| Value::String(texts.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The events of these objects, written as pi writes them.
    fn read(turn: &mut Turn, lines: &[Value]) -> Vec<AgentEvent> {
        let one = |line: &Value| {
            // The type comes first there.
            let mut rest = line.as_object().unwrap().clone();
            let kind = rest.remove("type").unwrap();
            let text = format!("{{\"type\":{kind},{}", &Value::Object(rest).to_string()[1..]);
            match turn.line(&text) {
                Line::Pieces(events) => events,
                Line::Object(object) => {
                    let kind = object["type"].as_str().unwrap().to_owned();
                    turn.event(&kind, object, Some(1000))
                }
                Line::Noise => panic!("{text}"),
            }
        };
        lines.iter().flat_map(one).collect()
    }

    fn update(message: Value, piece: Value) -> Value {
        json!({"type": "message_update", "assistantMessageEvent": piece, "message": message})
    }

    #[test]
    fn only_new_pieces_are_told_and_calls_with_their_input_as_it_is_written() {
        let call = json!({"type": "toolCall", "id": "c", "name": "bash", "arguments": {"command": "ls"}});
        let so_far = json!({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello \"type\":"}, call]});
        let lines = [
            update(
                so_far.clone(),
                json!({"type": "thinking_delta", "contentIndex": 0, "delta": "hm", "partial": so_far}),
            ),
            update(so_far.clone(), json!({"type": "text_start", "contentIndex": 1})),
            update(
                so_far.clone(),
                json!({"type": "text_delta", "contentIndex": 1, "delta": "Hello", "partial": so_far}),
            ),
            update(so_far.clone(), json!({"type": "toolcall_start", "contentIndex": 2})),
            update(so_far.clone(), json!({"type": "toolcall_delta", "contentIndex": 2, "delta": "{\"co"})),
            update(so_far.clone(), json!({"type": "toolcall_delta", "contentIndex": 2, "delta": "mm"})),
            update(so_far, json!({"type": "toolcall_end", "contentIndex": 2, "toolCall": call})),
            json!({"type": "tool_execution_start", "toolCallId": "c", "toolName": "bash", "args": {"command": "ls"}}),
            json!({"type": "tool_execution_update", "toolCallId": "c", "partialResult": {"content": []}}),
            json!({"type": "tool_execution_update", "toolCallId": "c", "partialResult": {"content": [{"type": "text", "text": "a"}]}}),
            json!({"type": "tool_execution_end", "toolCallId": "c", "isError": true, "result": {"content": [{"type": "image"}]}}),
        ];
        let card = |input| {
            AgentEvent::ToolStarted(ToolCall { call_id: "c".into(), name: "bash".into(), input, ..ToolCall::default() })
        };
        let written = |text: &str| AgentEvent::ToolDelta { call_id: "c".into(), input_so_far: text.into() };
        let expected = [
            AgentEvent::Delta { kind: DeltaKind::Reasoning, text: "hm".into() },
            AgentEvent::Delta { kind: DeltaKind::Text, text: "Hello".into() },
            card(Value::Null),
            written("{\"co"),
            written("{\"comm"),
            card(json!({"command": "ls"})),
            card(json!({"command": "ls"})),
            AgentEvent::ToolUpdated { call_id: "c".into(), status: ToolStatus::Running, output: json!("a") },
            AgentEvent::ToolFinished { call_id: "c".into(), output: json!([{"type": "image"}]), is_error: true },
        ];
        assert_eq!(read(&mut Turn::default(), &lines), expected);
    }

    #[test]
    fn usage_is_the_sum_over_the_calls_of_the_turn() {
        let end = |role: &str, input: u64, stop: &str| {
            json!({"type": "message_end", "message": {"role": role, "stopReason": stop, "errorMessage": "e",
                "usage": {"input": input, "output": input, "cacheRead": input, "cacheWrite": 0, "totalTokens": 3 * input, "cost": {"total": 0.25}}}})
        };
        let mut turn = Turn::default();
        let events = read(
            &mut turn,
            &[
                end("user", 9, ""),
                end("assistant", 1, "toolUse"),
                end("assistant", 2, "stop"),
                end("assistant", 0, "error"),
            ],
        );
        let total = Usage {
            input_tokens: 6,
            output_tokens: 3,
            cached_tokens: 3,
            cost_usd: Some(0.5),
            context_used: Some(6),
            context_max: Some(1000),
            ..Usage::default()
        };
        assert_eq!((events.len(), events.last()), (2, Some(&AgentEvent::Usage(total))));
        assert_eq!(turn.last, Ended { reason: "error".into(), error: Some("e".into()) });
    }

    #[test]
    fn what_it_does_beside_the_answer_is_told() {
        let lines = [
            json!({"type": "auto_retry_start", "attempt": 1, "maxAttempts": 3, "delayMs": 2000, "errorMessage": "429 slow"}),
            json!({"type": "compaction_end", "result": null, "errorMessage": "no quota"}),
            json!({"type": "novel", "x": 1}),
        ];
        let events = read(&mut Turn::default(), &lines);
        assert!(
            matches!(&events[0], AgentEvent::Status { reason: Some(reason), .. } if reason == "tries again in 2000 ms (1 of 3): 429 slow")
        );
        assert!(matches!(&events[1], AgentEvent::Fault { message, .. } if message.contains("no quota")));
        assert!(matches!(&events[2], AgentEvent::Raw(value) if value["x"] == 1));
        assert!(matches!(Turn::default().line("noise"), Line::Noise));
    }
}
