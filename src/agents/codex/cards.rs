//! Items as tool calls: what each is called with, and what came back. Pure.

use serde_json::{Map, Value, json};

use super::shell::unwrapped;
use crate::agents::ToolCall;

/// The longest line that describes a question; what is longer is told apart by its digest.
const SUMMARY: usize = 1000;

/// The call that an item is; none for an item that is no tool.
pub(super) fn card(item: &Value) -> Option<ToolCall> {
    let text = |field: &str| item.get(field).and_then(Value::as_str);
    let any = |field: &str| item.get(field).cloned().unwrap_or_default();
    let call = |name: &str, kind: &str, title: String, input: Value| {
        Some(ToolCall {
            call_id: text("id")?.to_owned(),
            name: name.to_owned(),
            title: Some(title).filter(|title| !title.is_empty()),
            kind: Some(kind.to_owned()),
            input,
        })
    };
    match text("type")? {
        "commandExecution" => {
            let command = unwrapped(text("command").unwrap_or_default());
            let title = command.lines().next().unwrap_or_default().to_owned();
            call("shell", "execute", title, json!({"command": command, "cwd": any("cwd")}))
        }
        "fileChange" => {
            let changes = any("changes");
            let paths = paths(&changes);
            let input = json!({"path": paths.first(), "changes": changes});
            call("apply_patch", "edit", paths.join(", "), input)
        }
        "mcpToolCall" => {
            let (server, tool) = (text("server").unwrap_or("mcp"), text("tool").unwrap_or("tool"));
            call(&format!("{server}.{tool}"), "other", format!("{server}: {tool}"), any("arguments"))
        }
        "dynamicToolCall" => {
            let tool = text("tool").unwrap_or("tool");
            call(tool, "other", tool.to_owned(), any("arguments"))
        }
        "webSearch" => {
            let query = text("query").unwrap_or_default();
            call("web_search", "search", query.to_owned(), json!({"query": query, "action": any("action")}))
        }
        "imageView" => {
            let path = text("path").unwrap_or_default();
            call("view_image", "read", path.to_owned(), json!({"path": path}))
        }
        "imageGeneration" => {
            let prompt = text("revisedPrompt").unwrap_or_default();
            call("image_generation", "other", prompt.to_owned(), json!({"prompt": prompt}))
        }
        "collabAgentToolCall" => {
            let tool = text("tool").unwrap_or("agent");
            let input = json!({"prompt": any("prompt"), "model": any("model"), "agents": any("receiverThreadIds")});
            call(tool, "other", text("prompt").unwrap_or(tool).to_owned(), input)
        }
        "sleep" => call("sleep", "other", "sleep".to_owned(), json!({"duration_ms": any("durationMs")})),
        _ => None,
    }
}

/// What came back of a finished call, and whether it failed.
pub(super) fn result(item: &Value) -> (Value, bool) {
    let text = |field: &str| item.get(field).and_then(Value::as_str);
    let any = |field: &str| item.get(field).cloned().unwrap_or_default();
    let status = text("status").unwrap_or("completed");
    let failed = matches!(status, "failed" | "declined" | "errored")
        || item.get("success").and_then(Value::as_bool) == Some(false);
    let output = match text("type").unwrap_or_default() {
        "commandExecution" => {
            let output = text("aggregatedOutput").unwrap_or_default();
            match (item.get("exitCode").and_then(Value::as_i64), failed) {
                (Some(0) | None, false) => Value::from(output),
                (Some(code), _) => json!({"text": output, "exit_code": code}),
                (None, true) => json!({"text": output, "status": status}),
            }
        }
        "fileChange" => json!({"status": status, "diffs": any("changes")}),
        "mcpToolCall" => mcp(item),
        "dynamicToolCall" => content(&any("contentItems")),
        "webSearch" => any("results"),
        "imageGeneration" => json!({"status": status, "path": any("savedPath")}),
        "collabAgentToolCall" => any("agentsStates"),
        _ => Value::Null,
    };
    (output, failed)
}

/// The files of a change.
pub(super) fn paths(changes: &Value) -> Vec<&str> {
    changes.as_array().into_iter().flatten().filter_map(|change| change.get("path")?.as_str()).collect()
}

/// One line for a question. Rules are bound to it, so two different texts never give the same.
pub(super) fn summary(text: &str) -> String {
    use sha2::Digest as _;
    if text.chars().count() <= SUMMARY {
        return text.to_owned();
    }
    let begin: String = text.chars().take(SUMMARY).collect();
    let digest: String = sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{begin}… (sha256 {digest})")
}

fn mcp(item: &Value) -> Value {
    if let Some(message) = item.get("error").and_then(|error| error.get("message")?.as_str()) {
        return message.into();
    }
    match item.get("result") {
        Some(result) => content(result.get("content").unwrap_or(&Value::Null)),
        None => Value::Null,
    }
}

/// Blocks of content: as text where all are text.
fn content(blocks: &Value) -> Value {
    let Some(list) = blocks.as_array() else { return blocks.clone() };
    let text = |block: &Value| block.as_object().and_then(plain_text);
    match list.iter().map(text).collect::<Option<Vec<_>>>() {
        Some(texts) => texts.join("\n").into(),
        None => blocks.clone(),
    }
}

fn plain_text(block: &Map<String, Value>) -> Option<String> {
    block.get("text")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_what_was_run_and_how_it_ended() {
        let item = |status: &str, code: Value| {
            json!({"type": "commandExecution", "id": "c", "command": "/bin/bash -lc 'touch a\nls'", "cwd": "/w",
                "status": status, "aggregatedOutput": "out\n", "exitCode": code})
        };
        let shown = card(&item("inProgress", Value::Null)).unwrap();
        assert_eq!((shown.name.as_str(), shown.title.as_deref()), ("shell", Some("touch a")));
        assert_eq!(shown.input, json!({"command": "touch a\nls", "cwd": "/w"}));
        assert_eq!(result(&item("completed", json!(0))), (json!("out\n"), false));
        assert_eq!(result(&item("failed", json!(3))), (json!({"text": "out\n", "exit_code": 3}), true));
        assert_eq!(result(&item("declined", Value::Null)), (json!({"text": "out\n", "status": "declined"}), true));
    }

    #[test]
    fn a_change_shows_its_files_and_diffs() {
        let changes = json!([{"path": "/w/a", "kind": {"type": "add"}, "diff": "x\n"}, {"path": "/w/b", "diff": ""}]);
        let item = json!({"type": "fileChange", "id": "f", "changes": changes, "status": "completed"});
        let shown = card(&item).unwrap();
        assert_eq!((shown.title.as_deref(), &shown.input["path"]), (Some("/w/a, /w/b"), &json!("/w/a")));
        assert_eq!(result(&item), (json!({"status": "completed", "diffs": changes}), false));
    }

    #[test]
    fn other_tools_have_cards_too() {
        let mcp = json!({"type": "mcpToolCall", "id": "m", "server": "files", "tool": "read", "arguments": {"a": 1},
            "status": "completed", "result": {"content": [{"type": "text", "text": "one"}, {"text": "two"}]}});
        assert_eq!(card(&mcp).map(|card| (card.name, card.input)), Some(("files.read".into(), json!({"a": 1}))));
        assert_eq!(result(&mcp), (json!("one\ntwo"), false));
        let failed = json!({"type": "mcpToolCall", "id": "m", "status": "failed", "error": {"message": "no"}});
        assert_eq!(result(&failed), (json!("no"), true));
        let search = json!({"type": "webSearch", "id": "w", "query": "rust", "results": [1]});
        assert_eq!(card(&search).map(|card| card.name), Some("web_search".into()));
        assert_eq!(result(&search), (json!([1]), false));
        let dynamic = json!({"type": "dynamicToolCall", "id": "d", "tool": "t", "success": false,
            "contentItems": [{"type": "inputImage", "imageUrl": "x"}]});
        assert_eq!(result(&dynamic), (json!([{"type": "inputImage", "imageUrl": "x"}]), true));
        assert_eq!(card(&json!({"type": "agentMessage", "id": "a"})), None);
        assert_eq!(card(&json!({"type": "hologram", "id": "h"})), None);
    }

    #[test]
    fn long_summaries_stay_apart() {
        let (one, two) = (format!("{}1", "x".repeat(2000)), format!("{}2", "x".repeat(2000)));
        assert!(summary(&one) != summary(&two) && summary(&one).len() < 1200);
        assert_eq!(summary("touch a"), "touch a");
    }
}
