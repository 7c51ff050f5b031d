//! Tool calls: partial updates are merged, and what is new is told. Pure.
//!
//! Agents announce a call early with little, late with more, or not at all (a permission may be the first that is
//! heard of it), so every mention of an id is an upsert.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{
    agents::{AgentEvent, ToolCall},
    protocol::ToolStatus,
};

/// The calls of the running turn.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Call>);

#[derive(Debug)]
struct Call {
    card: ToolCall,
    /// True once the agent itself has named the tool, apart from its kind.
    named: bool,
    /// Where it works, for a summary.
    path: Option<String>,
    status: ToolStatus,
    output: Value,
    finished: bool,
    /// True once its permission was refused.
    rejected: bool,
}

impl Tools {
    /// Forgets all calls: a turn is over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A call is not to happen.
    pub(super) fn reject(&mut self, call_id: &str) {
        if let Some(call) = self.0.get_mut(call_id) {
            call.rejected = true;
        }
    }

    /// Ends the calls that were rejected and of which the agent has said nothing since: it goes on without them, and not
    /// every agent says so.
    pub(super) fn end_rejected(&mut self) -> Vec<AgentEvent> {
        let open = self.0.values_mut().filter(|call| call.rejected && !call.finished);
        open.map(|call| {
            call.finished = true;
            let (call_id, output) = (call.card.call_id.clone(), "rejected".into());
            AgentEvent::ToolFinished { call_id, output, is_error: true }
        })
        .collect()
    }

    /// What is known of a call.
    pub(super) fn card(&self, call_id: &str) -> Option<&ToolCall> {
        self.0.get(call_id).map(|call| &call.card)
    }

    /// The path that a call works on, where that is told.
    pub(super) fn path(&self, call_id: &str) -> Option<&str> {
        self.0.get(call_id)?.path.as_deref()
    }

    /// Merges a `tool_call` or `tool_call_update`.
    pub(super) fn update(&mut self, update: &Value) -> Vec<AgentEvent> {
        let mut events = self.announce(update);
        let Some(call) = call_id(update).and_then(|id| self.0.get_mut(id)) else { return events };
        if call.finished {
            return events;
        }
        let output = output(update).filter(|output| *output != call.output);
        let status = match update.get("status").and_then(Value::as_str) {
            Some("pending") => ToolStatus::Pending,
            Some("in_progress") => ToolStatus::Running,
            Some("completed") => ToolStatus::Completed,
            Some("failed") => ToolStatus::Failed,
            _ => call.status,
        };
        let changed = output.is_some() || status != call.status;
        call.status = status;
        if let Some(output) = output {
            call.output = output;
        }
        let call_id = call.card.call_id.clone();
        if matches!(status, ToolStatus::Completed | ToolStatus::Failed) {
            call.finished = true;
            // The session holds it from here on.
            let output = std::mem::take(&mut call.output);
            events.push(AgentEvent::ToolFinished { call_id, output, is_error: status == ToolStatus::Failed });
        } else if changed {
            events.push(AgentEvent::ToolUpdated { call_id, status, output: call.output.clone() });
        }
        events
    }

    /// Merges what describes the call (not how it goes): also the `toolCall` of a permission.
    pub(super) fn announce(&mut self, update: &Value) -> Vec<AgentEvent> {
        let Some(id) = call_id(update) else { return Vec::new() };
        let known = self.0.contains_key(id);
        let call = self.0.entry(id.to_owned()).or_insert_with(|| Call {
            card: ToolCall { call_id: id.to_owned(), name: "tool".to_owned(), ..ToolCall::default() },
            named: false,
            path: None,
            status: ToolStatus::Pending,
            output: Value::Null,
            finished: false,
            rejected: false,
        });
        if call.finished {
            return Vec::new();
        }
        let before = call.card.clone();
        let text = |field: &str| update.get(field).and_then(Value::as_str).map(str::to_owned);
        call.card.title = text("title").filter(|title| !title.is_empty()).or(call.card.title.take());
        call.card.kind = text("kind").or(call.card.kind.take());
        if let Some(name) = tool_name(update) {
            call.card.name = name.to_owned();
            call.named = true;
        } else if let (false, Some(kind)) = (call.named, &call.card.kind) {
            call.card.name.clone_from(kind);
        }
        if let Some(input) = update.get("rawInput").filter(|input| !is_empty(input)) {
            call.card.input = input.clone();
        }
        call.path = path(update).or(call.path.take());
        if known && call.card == before {
            return Vec::new();
        }
        vec![AgentEvent::ToolStarted(call.card.clone())]
    }
}

fn call_id(update: &Value) -> Option<&str> {
    update.get("toolCallId")?.as_str()
}

/// The protocol has no tool name; some agents put it in their own metadata.
fn tool_name(update: &Value) -> Option<&str> {
    let meta = update.get("_meta")?.as_object()?;
    let own = meta.get("toolName");
    own.or_else(|| meta.values().find_map(|value| value.get("toolName")))?.as_str()
}

fn path(update: &Value) -> Option<String> {
    let first = |field: &str| update.get(field)?.as_array()?.iter().find_map(|item| item.get("path")?.as_str());
    first("locations").or_else(|| first("content")).map(str::to_owned)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// What came back: the content where there is some (plain text as text, diffs beside it), else the raw output.
fn output(update: &Value) -> Option<Value> {
    let blocks = update.get("content").and_then(Value::as_array).filter(|blocks| !blocks.is_empty());
    let Some(blocks) = blocks else {
        return update.get("rawOutput").filter(|output| !is_empty(output)).cloned();
    };
    let kind = |block: &Value, kind: &str| block.get("type").and_then(Value::as_str) == Some(kind);
    let text = blocks.iter().filter_map(|block| block.get("content")?.get("text")?.as_str());
    let text = text.collect::<Vec<_>>().join("\n");
    let diff = |block: &Value| {
        let field = |name| block.get(name).cloned().unwrap_or(Value::Null);
        json!({"path": field("path"), "old_text": field("oldText"), "new_text": field("newText")})
    };
    let diffs: Vec<Value> = blocks.iter().filter(|block| kind(block, "diff")).map(diff).collect();
    let is_other = |block: &&Value| {
        !kind(block, "diff") && block.get("content").is_none_or(|content| content.get("text").is_none())
    };
    let others: Vec<Value> = blocks.iter().filter(is_other).cloned().collect();
    if diffs.is_empty() && others.is_empty() {
        return Some(Value::String(text));
    }
    let mut whole = Map::new();
    if !text.is_empty() {
        whole.insert("text".into(), text.into());
    }
    if !diffs.is_empty() {
        whole.insert("diffs".into(), diffs.into());
    }
    if !others.is_empty() {
        whole.insert("content".into(), others.into());
    }
    Some(Value::Object(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(name: &str, title: &str, input: Value) -> AgentEvent {
        let card = ToolCall {
            call_id: "c".into(),
            name: name.into(),
            title: Some(title.into()),
            kind: Some("execute".into()),
            input,
        };
        AgentEvent::ToolStarted(card)
    }

    fn finished(output: Value, is_error: bool) -> AgentEvent {
        AgentEvent::ToolFinished { call_id: "c".into(), output, is_error }
    }

    #[test]
    fn late_details_are_merged_and_told_once() {
        let mut tools = Tools::default();
        let first =
            json!({"toolCallId": "c", "title": "Terminal", "kind": "execute", "status": "pending", "rawInput": {}});
        assert_eq!(tools.update(&first), [started("execute", "Terminal", Value::Null)]);
        assert_eq!(tools.update(&first), []);
        let details = json!({"toolCallId": "c", "title": "ls", "rawInput": {"command": "ls"},
            "_meta": {"claudeCode": {"toolName": "Bash"}}});
        assert_eq!(tools.update(&details), [started("Bash", "ls", json!({"command": "ls"}))]);
        let running = json!({"toolCallId": "c", "status": "in_progress"});
        let news = AgentEvent::ToolUpdated { call_id: "c".into(), status: ToolStatus::Running, output: Value::Null };
        assert_eq!(tools.update(&running), [news]);
        let done = json!({"toolCallId": "c", "status": "completed", "content": [
            {"type": "content", "content": {"type": "text", "text": "a"}},
            {"type": "content", "content": {"type": "text", "text": "b"}}]});
        assert_eq!(tools.update(&done), [finished(json!("a\nb"), false)]);
        assert_eq!(tools.update(&done), []);
    }

    #[test]
    fn an_update_for_an_unknown_call_announces_it() {
        let mut tools = Tools::default();
        let done = json!({"toolCallId": "c", "title": "touch x", "kind": "execute", "status": "failed", "content": [],
            "rawOutput": {"stderr": "no"}});
        let expected = [started("execute", "touch x", Value::Null), finished(json!({"stderr": "no"}), true)];
        assert_eq!(tools.update(&done), expected);
    }

    #[test]
    fn output_that_came_before_the_end_is_not_lost() {
        let mut tools = Tools::default();
        tools.update(&json!({"toolCallId": "c", "rawOutput": "partial"}));
        assert_eq!(
            tools.update(&json!({"toolCallId": "c", "status": "completed"})),
            [finished(json!("partial"), false)]
        );
    }

    #[test]
    fn a_rejected_call_ends_once_in_the_agents_words_where_it_has_some() {
        let mut tools = Tools::default();
        for id in ["told", "silent", "allowed"] {
            tools.update(&json!({"toolCallId": id, "title": "t"}));
        }
        tools.reject("told");
        tools.reject("silent");
        tools.reject("never announced");
        let told = tools.update(&json!({"toolCallId": "told", "status": "failed", "rawOutput": "the user said no"}));
        assert_eq!(
            told,
            [AgentEvent::ToolFinished { call_id: "told".into(), output: "the user said no".into(), is_error: true }]
        );
        let over = AgentEvent::ToolFinished { call_id: "silent".into(), output: "rejected".into(), is_error: true };
        assert_eq!(tools.end_rejected(), [over]);
        assert_eq!(tools.end_rejected(), []);
    }

    #[test]
    fn diffs_stand_beside_the_text() {
        let update = json!({"content": [{"type": "diff", "path": "/a", "oldText": null, "newText": "x"},
            {"type": "content", "content": {"type": "text", "text": "t"}}, {"type": "terminal", "terminalId": "1"}]});
        let expected = json!({"text": "t", "diffs": [{"path": "/a", "old_text": null, "new_text": "x"}],
            "content": [{"type": "terminal", "terminalId": "1"}]});
        assert_eq!(output(&update), Some(expected));
        assert_eq!(output(&json!({"content": []})), None);
    }
}
