//! Tool calls of the running turn: each part is told as often as there is news of it. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, ToolCall},
    protocol::ToolStatus,
};

/// The calls, by the id of their part: providers give ids of calls twice.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Call>);

#[derive(Debug)]
struct Call {
    card: ToolCall,
    /// The provider's id, which questions name.
    provider_id: String,
    running: bool,
    output: String,
    finished: bool,
}

impl Tools {
    /// The call that a question names.
    pub(super) fn by_provider_id(&self, id: &str) -> Option<&ToolCall> {
        let open = |call: &&Call| call.provider_id == id && !call.finished;
        self.0.values().find(open).map(|call| &call.card)
    }

    /// Takes a part of type `tool` as it is now.
    pub(super) fn update(&mut self, id: &str, part: &Value) -> Vec<AgentEvent> {
        let state = part.get("state").unwrap_or(&Value::Null);
        let text = |holder: &Value, name: &str| holder.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = text(part, "tool").unwrap_or_else(|| "tool".to_owned());
        let mut events = Vec::new();
        let known = self.0.contains_key(id);
        let call = self.0.entry(id.to_owned()).or_insert_with(|| Call {
            card: ToolCall {
                call_id: id.to_owned(),
                kind: kind(&name).map(str::to_owned),
                name,
                ..ToolCall::default()
            },
            provider_id: text(part, "callID").unwrap_or_default(),
            running: false,
            output: String::new(),
            finished: false,
        });
        if call.finished {
            return events;
        }
        let before = call.card.clone();
        call.card.title = text(state, "title").filter(|title| !title.is_empty()).or(call.card.title.take());
        if let Some(input) = state.get("input").filter(|input| input.as_object().is_some_and(|input| !input.is_empty()))
        {
            call.card.input = input.clone();
        }
        if !known || call.card != before {
            events.push(AgentEvent::ToolStarted(call.card.clone()));
        }
        let call_id = || id.to_owned();
        match state.get("status").and_then(Value::as_str) {
            Some("pending") => {
                if let Some(input_so_far) = text(state, "raw").filter(|raw| !raw.is_empty()) {
                    events.push(AgentEvent::ToolDelta { call_id: call_id(), input_so_far });
                }
            }
            Some("running") => {
                let output = state.get("metadata").and_then(|metadata| text(metadata, "output")).unwrap_or_default();
                if !call.running || output != call.output {
                    let shown = if output.is_empty() { Value::Null } else { Value::from(output.as_str()) };
                    let status = ToolStatus::Running;
                    events.push(AgentEvent::ToolUpdated { call_id: call_id(), status, output: shown });
                }
                (call.running, call.output) = (true, output);
            }
            Some("completed") => {
                call.finished = true;
                events.push(AgentEvent::ToolFinished { call_id: call_id(), output: output(state), is_error: false });
            }
            Some("error") => {
                call.finished = true;
                let error = text(state, "error").unwrap_or_else(|| "the tool failed".to_owned());
                events.push(AgentEvent::ToolFinished { call_id: call_id(), output: error.into(), is_error: true });
            }
            _ => {}
        }
        events
    }
}

/// What came back: text, and beside it what was changed in a file.
fn output(state: &Value) -> Value {
    let text = state.get("output").cloned().unwrap_or(Value::Null);
    let change = state.get("metadata").and_then(|metadata| metadata.get("filediff")?.as_object());
    let Some(change) = change else { return text };
    let field = |name: &str| change.get(name).cloned().unwrap_or(Value::Null);
    json!({"text": text, "diffs": [{"path": field("file"), "old_text": field("before"), "new_text": field("after")}]})
}

/// The sort of work of a built-in tool, in the words of the Agent Client Protocol.
fn kind(tool: &str) -> Option<&'static str> {
    Some(match tool {
        "bash" | "shell" => "execute",
        "edit" | "write" | "patch" | "multiedit" | "apply_patch" => "edit",
        "read" => "read",
        "grep" | "glob" | "list" | "codesearch" => "search",
        "webfetch" | "websearch" => "fetch",
        "task" | "todowrite" | "question" | "skill" => "other",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(state: Value) -> Value {
        json!({"type": "tool", "tool": "bash", "callID": "call_0", "state": state})
    }

    #[test]
    fn a_call_is_told_step_by_step_and_each_step_once() {
        let mut tools = Tools::default();
        let pending = part(json!({"status": "pending", "input": {}, "raw": ""}));
        let first = tools.update("prt_1", &pending);
        assert!(matches!(&first[..], [AgentEvent::ToolStarted(card)] if card.call_id == "prt_1"
            && card.kind.as_deref() == Some("execute") && card.input.is_null()));
        assert_eq!(tools.update("prt_1", &pending), []);
        let running = part(json!({"status": "running", "input": {"command": "ls"}}));
        let events = tools.update("prt_1", &running);
        let AgentEvent::ToolStarted(card) = &events[0] else { panic!("the input is news: {events:?}") };
        assert_eq!((events.len(), &card.input), (2, &json!({"command": "ls"})));
        assert_eq!(tools.by_provider_id("call_0"), Some(card));
        assert_eq!(tools.update("prt_1", &running), []);
        let more = part(json!({"status": "running", "input": {"command": "ls"}, "metadata": {"output": "a\n"}}));
        let news =
            AgentEvent::ToolUpdated { call_id: "prt_1".into(), status: ToolStatus::Running, output: "a\n".into() };
        assert_eq!(tools.update("prt_1", &more), [news]);
        let done = part(json!({"status": "completed", "input": {"command": "ls"}, "output": "a\nb\n"}));
        let end = AgentEvent::ToolFinished { call_id: "prt_1".into(), output: "a\nb\n".into(), is_error: false };
        assert_eq!(tools.update("prt_1", &done), [end]);
        assert_eq!(tools.update("prt_1", &done), []);
        assert_eq!(tools.update("prt_1", &running), [], "late news");
        assert_eq!(tools.by_provider_id("call_0"), None);
    }

    #[test]
    fn errors_and_changes_of_files_are_told() {
        let mut tools = Tools::default();
        let failed = part(json!({"status": "error", "input": {"command": "x"}, "error": "no"}));
        let events = tools.update("a", &failed);
        let end = AgentEvent::ToolFinished { call_id: "a".into(), output: "no".into(), is_error: true };
        assert_eq!(events.last(), Some(&end));
        let edited = json!({"output": "ok", "metadata": {"filediff": {"file": "/w/a", "before": "1", "after": "2"}}});
        let expected = json!({"text": "ok", "diffs": [{"path": "/w/a", "old_text": "1", "new_text": "2"}]});
        assert_eq!(output(&edited), expected);
    }
}
