//! Claude Code's tools: what each does, in one line, and what came back. Pure.

use serde_json::{Map, Value, json};

use super::wire::text;
use crate::agents::{ToolCall, input_summary, whole_input};

/// The longest title, in characters.
const TITLE: usize = 200;

/// A call as it is announced: `input` is null until the model has written it.
pub(super) fn card(call_id: &str, name: &str, input: Value) -> ToolCall {
    ToolCall {
        call_id: call_id.to_owned(),
        name: name.to_owned(),
        title: title(name, &input),
        kind: kind(name).map(str::to_owned),
        input,
    }
}

/// The sort of work, in the words of the Agent Client Protocol, so that clients need to know only one list.
fn kind(name: &str) -> Option<&'static str> {
    Some(match name {
        "Read" | "NotebookRead" | "LS" => "read",
        "Edit" | "MultiEdit" | "Write" | "NotebookEdit" => "edit",
        "Bash" | "BashOutput" | "KillShell" | "KillBash" => "execute",
        "Glob" | "Grep" | "ToolSearch" => "search",
        "WebFetch" | "WebSearch" => "fetch",
        "Agent" | "Task" | "TodoWrite" => "think",
        "EnterPlanMode" | "ExitPlanMode" => "switch_mode",
        _ if name.starts_with("mcp__") => "other",
        _ => return None,
    })
}

/// One line for a person; none while the input is not known.
fn title(name: &str, input: &Value) -> Option<String> {
    if input.as_object().is_none_or(Map::is_empty) {
        return None;
    }
    let known = |field: &str| Some(text(input, field)).filter(|text| !text.is_empty()).map(str::to_owned);
    let title = match name {
        "Bash" => known("command"),
        "Agent" | "Task" => known("description"),
        "AskUserQuestion" => {
            let first = input.get("questions").and_then(|questions| questions.get(0));
            first.map(|first| text(first, "question").to_owned())
        }
        _ => None,
    };
    let title = title.or_else(|| input_summary(input).map(|summary| format!("{} {summary}", label(name))));
    let title = title.unwrap_or_else(|| label(name));
    Some(title.lines().next().unwrap_or_default().chars().take(TITLE).collect())
}

/// A tool's name for a person: `mcp__github__get_issue` is "github get_issue".
pub(super) fn label(name: &str) -> String {
    match name.strip_prefix("mcp__") {
        Some(rest) => rest.replacen("__", " ", 1),
        None => name.to_owned(),
    }
}

/// What a call would do, in one line that tells two different calls apart: stored rules go by it.
pub(super) fn summary(input: &Value) -> Option<String> {
    input_summary(input).or_else(|| whole_input(input))
}

/// The result of a call: text as text; where there is more than text, the text and the rest beside it. Images are
/// named and not kept: the model has seen them.
pub(super) fn output(content: &Value) -> Value {
    let Some(blocks) = content.as_array() else { return content.clone() };
    let is_text = |block: &&Value| text(block, "type") == "text";
    let texts: Vec<&str> = blocks.iter().filter(is_text).map(|block| text(block, "text")).collect();
    let others: Vec<Value> = blocks.iter().filter(|block| !is_text(block)).map(without_data).collect();
    let texts = texts.join("\n");
    if others.is_empty() { Value::String(texts) } else { json!({"text": texts, "content": others}) }
}

fn without_data(block: &Value) -> Value {
    let Some(source) = block.get("source") else { return block.clone() };
    let size = source.get("data").and_then(Value::as_str).map_or(0, str::len);
    json!({"type": block.get("type"), "media_type": source.get("media_type"), "base64_bytes": size})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_say_what_is_done() {
        let title = |name: &str, input: Value| title(name, &input);
        let cases = [
            ("Bash", json!({"command": "ls\nrm x", "description": "List"}), Some("ls")),
            ("Read", json!({"file_path": "/a"}), Some("Read /a")),
            ("Grep", json!({"pattern": "x"}), Some("Grep x")),
            ("Agent", json!({"description": "look around", "prompt": "…"}), Some("look around")),
            ("AskUserQuestion", json!({"questions": [{"question": "Why?"}]}), Some("Why?")),
            ("mcp__git_hub__get_issue", json!({"number": 1}), Some("git_hub get_issue")),
            ("Read", Value::Null, None),
            ("Read", json!({}), None),
        ];
        for (name, input, expected) in cases {
            assert_eq!(title(name, input).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn two_calls_have_two_summaries() {
        assert_eq!(summary(&json!({"command": "ls"})).as_deref(), Some("ls"));
        assert_eq!(summary(&json!({"number": 1})).as_deref(), Some(r#"{"number":1}"#));
        assert_ne!(summary(&json!({"number": 1})), summary(&json!({"number": 2})));
        assert_eq!(summary(&json!({})), None);
    }

    #[test]
    fn output_is_text_where_it_can_be() {
        assert_eq!(output(&json!("a")), json!("a"));
        assert_eq!(output(&json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), json!("a\nb"));
        let image = json!([{"type": "text", "text": "a"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]);
        let expected =
            json!({"text": "a", "content": [{"type": "image", "media_type": "image/png", "base64_bytes": 4}]});
        assert_eq!(output(&image), expected);
    }
}
