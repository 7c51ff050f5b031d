//! Events of programs that print JSON lines, in the three dialects that are in use: Claude's stream-json (qwen speaks it
//! too), `codex exec --json`, and `gemini -o stream-json`. Pure, but for the memory of the turn.
//!
//! Which dialect a line belongs to shows in its `type`; no two use the same one in a different sense but `result`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::codex;
use crate::{
    agents::{AgentEvent, ToolCall, program::raw},
    protocol::{Usage, event::DeltaKind},
};

/// What the events of a turn have told so far.
#[derive(Debug, Default)]
pub(super) struct StreamJson {
    spoken: bool,
    /// True when text came in deltas: the whole messages that follow repeat it.
    streamed: bool,
    said: bool,
    tools: bool,
    /// The inputs of Claude's calls as they are written: by index, the call and its prefix.
    inputs: BTreeMap<u64, (String, String)>,
    /// What failed, where an event said so.
    pub(super) failure: Option<String>,
    /// The stop reason, where it is not the ordinary one.
    pub(super) reason: Option<String>,
}

impl StreamJson {
    /// True once an event was understood.
    pub(super) const fn is_spoken(&self) -> bool {
        self.spoken
    }

    /// True once a tool was called.
    pub(super) const fn has_tools(&self) -> bool {
        self.tools
    }

    /// Reads a line. None when it is no event of a known dialect.
    pub(super) fn read(&mut self, line: &Map<String, Value>) -> Option<Vec<AgentEvent>> {
        let kind = line.get("type")?.as_str()?;
        let events = match kind {
            "system" if line.contains_key("subtype") => vec![passed(line)],
            "stream_event" => self.stream_event(line.get("event")?),
            "assistant" => self.assistant(line.get("message")?.get("content")?),
            "user" => tool_results(line.get("message")?.get("content")?),
            "result" if line.contains_key("subtype") => self.claude_result(line),
            "result" if line.contains_key("status") => self.gemini_result(line),
            "init" if line.contains_key("session_id") => vec![passed(line)],
            "message" => gemini_message(line)?,
            "tool_use" => vec![started(line.get("tool_id")?, line.get("tool_name")?, line.get("parameters"))?],
            "tool_result" => vec![gemini_tool_result(line)?],
            "error" => vec![fault(error_text(line)?)],
            "turn.failed" => {
                self.failure = Some(error_text(line).unwrap_or_else(|| "the turn failed".into()));
                Vec::new()
            }
            kind => codex::read(kind, line, self.said)?,
        };
        self.spoken = true;
        for event in &events {
            match event {
                AgentEvent::Delta { kind: DeltaKind::Text, .. } => self.said = true,
                AgentEvent::ToolStarted(_) => self.tools = true,
                _ => {}
            }
        }
        Some(events)
    }

    /// An event of Anthropic's stream, which Claude passes on with `--include-partial-messages`.
    fn stream_event(&mut self, event: &Value) -> Vec<AgentEvent> {
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        match text(event, "type") {
            "content_block_start" => {
                let Some(block) = event.get("content_block").filter(|block| text(block, "type") == "tool_use") else {
                    return Vec::new();
                };
                self.inputs.insert(index, (text(block, "id").to_owned(), String::new()));
                let call = |id: &Value, name: &Value| started(id, name, None);
                block.get("id").zip(block.get("name")).and_then(|(id, name)| call(id, name)).into_iter().collect()
            }
            "content_block_delta" => {
                let Some(delta) = event.get("delta") else { return Vec::new() };
                match text(delta, "type") {
                    "text_delta" => {
                        self.streamed = true;
                        said(DeltaKind::Text, text(delta, "text"))
                    }
                    "thinking_delta" => {
                        self.streamed = true;
                        said(DeltaKind::Reasoning, text(delta, "thinking"))
                    }
                    "input_json_delta" => {
                        let Some((call_id, prefix)) = self.inputs.get_mut(&index) else { return Vec::new() };
                        prefix.push_str(text(delta, "partial_json"));
                        vec![AgentEvent::ToolDelta { call_id: call_id.clone(), input_so_far: prefix.clone() }]
                    }
                    _ => Vec::new(),
                }
            }
            "message_start" => {
                self.inputs.clear();
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// A whole message of Claude's: its text only where it did not come in deltas.
    fn assistant(&self, content: &Value) -> Vec<AgentEvent> {
        if let Some(text) = content.as_str() {
            return if self.streamed { Vec::new() } else { said(DeltaKind::Text, text) };
        }
        let block = |block: &Value| match text(block, "type") {
            "text" if !self.streamed => said(DeltaKind::Text, text(block, "text")),
            "thinking" if !self.streamed => said(DeltaKind::Reasoning, text(block, "thinking")),
            "tool_use" => {
                let both = block.get("id").zip(block.get("name"));
                both.and_then(|(id, name)| started(id, name, block.get("input"))).into_iter().collect()
            }
            _ => Vec::new(),
        };
        content.as_array().into_iter().flatten().flat_map(block).collect()
    }

    fn claude_result(&mut self, line: &Map<String, Value>) -> Vec<AgentEvent> {
        let result = line.get("result").and_then(Value::as_str).unwrap_or_default();
        let mut events = Vec::new();
        if line.get("is_error").and_then(Value::as_bool).unwrap_or(false) {
            let errors = line.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let errors: Vec<&str> = errors.collect();
            let subtype = line.get("subtype").and_then(Value::as_str).unwrap_or("error");
            let what =
                [result, &errors.join("; "), subtype].into_iter().find(|what| !what.is_empty()).map(str::to_owned);
            self.failure = what;
        } else {
            if !self.said {
                events.extend(said(DeltaKind::Text, result));
            }
            let stop = line.get("stop_reason").and_then(Value::as_str);
            self.reason = stop.filter(|stop| *stop != "end_turn").map(str::to_owned);
        }
        if let Some(usage) = line.get("usage") {
            let number = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
            // The cache stands apart from the input there; one process is one turn, so the total cost is the turn's.
            let cached = number("cache_read_input_tokens");
            events.push(AgentEvent::Usage(Usage {
                input_tokens: number("input_tokens") + cached + number("cache_creation_input_tokens"),
                output_tokens: number("output_tokens"),
                cached_tokens: cached,
                cost_usd: line.get("total_cost_usd").and_then(Value::as_f64),
                ..Usage::default()
            }));
        }
        events
    }

    fn gemini_result(&mut self, line: &Map<String, Value>) -> Vec<AgentEvent> {
        if line.get("status").and_then(Value::as_str) == Some("error") {
            self.failure = Some(error_text(line).unwrap_or_else(|| "the turn failed".into()));
        }
        let Some(stats) = line.get("stats") else { return Vec::new() };
        let number = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (input, output) = (number("input_tokens"), number("output_tokens"));
        vec![AgentEvent::Usage(Usage {
            input_tokens: input,
            output_tokens: output,
            cached_tokens: number("cached"),
            ..Usage::default()
        })]
    }
}

fn passed(line: &Map<String, Value>) -> AgentEvent {
    raw(&Value::Object(line.clone()))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn said(kind: DeltaKind, text: &str) -> Vec<AgentEvent> {
    if text.is_empty() { Vec::new() } else { vec![AgentEvent::Delta { kind, text: text.to_owned() }] }
}

pub(super) fn fault(message: String) -> AgentEvent {
    AgentEvent::Fault { code: "agent_error".into(), message }
}

/// The message of an error, which stands in one of three places.
fn error_text(line: &Map<String, Value>) -> Option<String> {
    let error = line.get("error");
    let message = error.and_then(|error| error.get("message").or(Some(error))).or_else(|| line.get("message"));
    message?.as_str().map(str::to_owned)
}

fn started(id: &Value, name: &Value, input: Option<&Value>) -> Option<AgentEvent> {
    Some(AgentEvent::ToolStarted(ToolCall {
        call_id: id.as_str()?.to_owned(),
        name: name.as_str()?.to_owned(),
        input: input.cloned().unwrap_or(Value::Null),
        ..ToolCall::default()
    }))
}

/// The results of Claude's tools, which come as a message of the user.
fn tool_results(content: &Value) -> Vec<AgentEvent> {
    let blocks = content.as_array().into_iter().flatten().filter(|block| text(block, "type") == "tool_result");
    let finished = blocks.map(|block| AgentEvent::ToolFinished {
        call_id: text(block, "tool_use_id").to_owned(),
        output: block.get("content").cloned().unwrap_or(Value::Null),
        is_error: block.get("is_error").and_then(Value::as_bool).unwrap_or(false),
    });
    finished.collect()
}

/// The user's own message comes back first; it is no news.
fn gemini_message(line: &Map<String, Value>) -> Option<Vec<AgentEvent>> {
    let content = line.get("content")?.as_str()?;
    match line.get("role")?.as_str()? {
        "assistant" => Some(said(DeltaKind::Text, content)),
        "user" => Some(Vec::new()),
        _ => None,
    }
}

fn gemini_tool_result(line: &Map<String, Value>) -> Option<AgentEvent> {
    let is_error = line.get("status")?.as_str()? == "error";
    let output = line.get("output").or_else(|| line.get("error")).cloned();
    let call_id = line.get("tool_id")?.as_str()?.to_owned();
    Some(AgentEvent::ToolFinished { call_id, output: output.unwrap_or_else(|| json!(null)), is_error })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of these lines, without what is passed on as it is.
    fn read(stream: &mut StreamJson, lines: &[Value]) -> Vec<AgentEvent> {
        let one = |line: &Value| stream.read(line.as_object().unwrap()).unwrap_or_else(|| panic!("not read: {line}"));
        let all = lines.iter().flat_map(one);
        all.filter(|event| !matches!(event, AgentEvent::Raw(_))).collect()
    }

    fn delta(kind: DeltaKind, text: &str) -> AgentEvent {
        AgentEvent::Delta { kind, text: text.into() }
    }

    fn call(input: Value) -> AgentEvent {
        AgentEvent::ToolStarted(ToolCall { call_id: "t".into(), name: "Bash".into(), input, ..ToolCall::default() })
    }

    #[test]
    fn claude_is_told_once_whether_it_streams_or_not() {
        let partial = |event: Value| json!({"type": "stream_event", "event": event});
        let deltas = [
            json!({"type": "system", "subtype": "init", "model": "m"}),
            partial(
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            ),
            partial(json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}})),
            partial(
                json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "Bash"}}),
            ),
            partial(
                json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"a"}}),
            ),
        ];
        let whole = [
            json!({"type": "assistant", "message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}]}}),
            json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t", "content": "a", "is_error": true}]}}),
            json!({"type": "result", "subtype": "success", "is_error": false, "result": "Hi", "stop_reason": "max_tokens", "total_cost_usd": 0.5,
                "usage": {"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 4, "output_tokens": 8}}),
        ];
        let tail = [
            call(json!({"command": "ls"})),
            AgentEvent::ToolFinished { call_id: "t".into(), output: json!("a"), is_error: true },
            AgentEvent::Usage(Usage {
                input_tokens: 7,
                output_tokens: 8,
                cached_tokens: 2,
                cost_usd: Some(0.5),
                ..Usage::default()
            }),
        ];
        let talk = [delta(DeltaKind::Reasoning, "hm"), delta(DeltaKind::Text, "Hi")];
        let mut stream = StreamJson::default();
        assert_eq!(read(&mut stream, &whole), [&talk[..], &tail[..]].concat());
        assert_eq!((stream.reason.as_deref(), stream.has_tools()), (Some("max_tokens"), true));
        let begun = [call(Value::Null), AgentEvent::ToolDelta { call_id: "t".into(), input_so_far: "{\"a".into() }];
        let lines = [&deltas[..], &whole[..]].concat();
        assert_eq!(read(&mut StreamJson::default(), &lines), [&talk[..], &begun[..], &tail[..]].concat());
    }

    #[test]
    fn a_claude_result_speaks_where_nothing_else_did_and_an_error_is_a_failure() {
        let mut stream = StreamJson::default();
        let result = json!({"type": "result", "subtype": "success", "is_error": false, "result": "only here"});
        assert_eq!(read(&mut stream, &[result]), [delta(DeltaKind::Text, "only here")]);
        for (line, message) in [
            (
                json!({"type": "result", "subtype": "success", "is_error": true, "result": "Not logged in"}),
                "Not logged in",
            ),
            (
                json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "errors": ["a", "b"]}),
                "a; b",
            ),
            (json!({"type": "result", "subtype": "error_max_turns", "is_error": true}), "error_max_turns"),
        ] {
            let mut stream = StreamJson::default();
            assert_eq!(read(&mut stream, &[line]), []);
            assert_eq!(stream.failure.as_deref(), Some(message));
        }
    }

    #[test]
    fn gemini_is_read() {
        let lines = [
            json!({"type": "init", "session_id": "s", "model": "m"}),
            json!({"type": "message", "role": "user", "content": "mine"}),
            json!({"type": "message", "role": "assistant", "content": "Hi", "delta": true}),
            json!({"type": "tool_use", "tool_id": "t", "tool_name": "Bash", "parameters": {"command": "ls"}}),
            json!({"type": "tool_result", "tool_id": "t", "status": "success", "output": "a"}),
            json!({"type": "error", "severity": "warning", "message": "loop"}),
            json!({"type": "result", "status": "error", "error": {"message": "quota"}, "stats": {"input_tokens": 5, "output_tokens": 2, "cached": 1}}),
        ];
        let mut stream = StreamJson::default();
        let usage = Usage { input_tokens: 5, output_tokens: 2, cached_tokens: 1, ..Usage::default() };
        let expected = [
            delta(DeltaKind::Text, "Hi"),
            call(json!({"command": "ls"})),
            AgentEvent::ToolFinished { call_id: "t".into(), output: json!("a"), is_error: false },
            fault("loop".into()),
            AgentEvent::Usage(usage),
        ];
        assert_eq!(read(&mut stream, &lines), expected);
        assert_eq!(stream.failure.as_deref(), Some("quota"));
    }

    #[test]
    fn other_objects_are_not_taken_for_events() {
        let mut stream = StreamJson::default();
        let others = [
            json!({"type": "weather"}),
            json!({"type": 1}),
            json!({"kind": "message"}),
            json!({"type": "message", "to": "me"}),
            json!({"type": "result", "value": 1}),
            json!({"type": "user", "name": "ann"}),
            json!({"type": "error", "level": 3}),
        ];
        for other in others {
            assert_eq!(stream.read(other.as_object().unwrap()), None, "{other}");
        }
        assert!(!stream.is_spoken());
    }
}
