//! Lines of `codex exec --json`: threads, turns and items. Pure.

use serde_json::{Map, Value, json};

use super::stream_json::{fault, said};
use crate::{
    agents::{AgentEvent, ToolCall, program::raw},
    protocol::{ToolStatus, Usage, event::DeltaKind},
};

/// Reads a line of that type; none when codex has no such lines. `said` is true when text was told before: messages come
/// whole, and two of them are not one sentence.
pub(super) fn read(kind: &str, line: &Map<String, Value>, said: bool) -> Option<Vec<AgentEvent>> {
    match kind {
        "thread.started" => Some(vec![raw(&Value::Object(line.clone()))]),
        "turn.started" => Some(Vec::new()),
        "turn.completed" => Some(line.get("usage").map(usage).into_iter().collect()),
        "item.started" | "item.updated" | "item.completed" => Some(item(kind, line.get("item")?, said)),
        _ => None,
    }
}

fn usage(usage: &Value) -> AgentEvent {
    let number = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    AgentEvent::Usage(Usage {
        input_tokens: number("input_tokens"),
        output_tokens: number("output_tokens"),
        cached_tokens: number("cached_input_tokens"),
        reasoning_tokens: number("reasoning_output_tokens"),
        ..Usage::default()
    })
}

fn item(event: &str, item: &Value, before: bool) -> Vec<AgentEvent> {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let completed = event == "item.completed";
    match text("type") {
        "agent_message" if completed => {
            let gap = if before { "\n\n" } else { "" };
            said(DeltaKind::Text, &format!("{gap}{}", text("text")))
        }
        "reasoning" if completed => said(DeltaKind::Reasoning, text("text")),
        "agent_message" | "reasoning" => Vec::new(),
        "todo_list" => vec![AgentEvent::Plan(item.get("items").cloned().unwrap_or_else(|| json!([])))],
        "error" => vec![fault(text("message").to_owned())],
        kind => tool(event, kind, text("id"), item),
    }
}

/// Everything else is work: commands, changes of files, searches, other servers' tools.
fn tool(event: &str, kind: &str, id: &str, item: &Value) -> Vec<AgentEvent> {
    let field = |name: &str| item.get(name).cloned().unwrap_or(Value::Null);
    let (name, input) = match kind {
        "command_execution" => ("bash".to_owned(), json!({"command": field("command")})),
        "mcp_tool_call" => {
            let word = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (format!("{}.{}", word("server"), word("tool")), field("arguments"))
        }
        "web_search" => (kind.to_owned(), json!({"query": field("query")})),
        "file_change" => (kind.to_owned(), json!({"changes": field("changes")})),
        _ => (kind.to_owned(), item.clone()),
    };
    let call = ToolCall { call_id: id.to_owned(), name, input, kind: Some(kind.to_owned()), title: None };
    let output = ["aggregated_output", "result", "error"].into_iter().map(field).find(|output| !output.is_null());
    let output = output.unwrap_or(Value::Null);
    let call_id = id.to_owned();
    let mut events = vec![AgentEvent::ToolStarted(call)];
    match event {
        "item.completed" => {
            let is_error = item.get("status").and_then(Value::as_str) == Some("failed")
                || item.get("exit_code").and_then(Value::as_i64).is_some_and(|code| code != 0);
            events.push(AgentEvent::ToolFinished { call_id, output, is_error });
        }
        "item.updated" => events.push(AgentEvent::ToolUpdated { call_id, status: ToolStatus::Running, output }),
        _ => {}
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::stream_json::StreamJson;
    use super::*;

    #[test]
    fn a_turn_of_codex_is_read() {
        let command = |kind: &str, fields: Value| {
            let mut item = json!({"id": "i1", "type": "command_execution", "command": "ls"});
            item.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({"type": kind, "item": item})
        };
        let message =
            |text: &str| json!({"type": "item.completed", "item": {"id": "i2", "type": "agent_message", "text": text}});
        let lines = [
            json!({"type": "turn.started"}),
            command("item.started", json!({"status": "in_progress"})),
            command("item.completed", json!({"status": "completed", "exit_code": 2, "aggregated_output": "no"})),
            message("one"),
            message("two"),
            json!({"type": "item.completed", "item": {"type": "error", "message": "metadata"}}),
            json!({"type": "turn.completed", "usage": {"input_tokens": 9, "cached_input_tokens": 3, "output_tokens": 4}}),
            json!({"type": "turn.failed", "error": {"message": "401 Unauthorized"}}),
        ];
        let mut stream = StreamJson::default();
        let events: Vec<_> = lines.iter().flat_map(|line| stream.read(line.as_object().unwrap()).unwrap()).collect();
        let call = AgentEvent::ToolStarted(ToolCall {
            call_id: "i1".into(),
            name: "bash".into(),
            kind: Some("command_execution".into()),
            title: None,
            input: json!({"command": "ls"}),
        });
        let delta = |text: &str| AgentEvent::Delta { kind: DeltaKind::Text, text: text.into() };
        let expected = [
            call.clone(),
            call,
            AgentEvent::ToolFinished { call_id: "i1".into(), output: json!("no"), is_error: true },
            delta("one"),
            delta("\n\ntwo"),
            fault("metadata".into()),
            AgentEvent::Usage(Usage { input_tokens: 9, cached_tokens: 3, output_tokens: 4, ..Usage::default() }),
        ];
        assert_eq!(events, expected);
        assert_eq!(stream.failure.as_deref(), Some("401 Unauthorized"));
    }
}
