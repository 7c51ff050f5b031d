//! One entry of a list of messages or items, as who says what. Pure.

use serde_json::{Map, Value};

use super::{
    content::{Content, content},
    conversation::Said,
    refused::{invalid, unsupported},
};
use crate::{error::ApiError, protocol::Role};

/// Reads one message of chat completions, or one item of the input of responses; none for an item that says nothing to
/// an agent.
///
/// A call of a tool that another model made is told as text of the assistant, and its result as the tool's.
///
/// # Errors
/// `invalid_json` and `unsupported_parameter`, with the place as `param`.
pub fn entry(value: Value, at: &str) -> Result<Option<Said>, ApiError> {
    let Value::Object(mut item) = value else { return Err(invalid(at, "an object")) };
    let kind = match item.remove("type") {
        None => "message".to_owned(),
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(invalid(&format!("{at}.type"), "a text")),
    };
    let said = |role, text: String| Ok(Some(Said { role, content: Content { text, files: Vec::new() } }));
    match kind.as_str() {
        "message" => message(item, at).map(Some),
        "function_call" | "custom_tool_call" => {
            let name = item.get("name").and_then(Value::as_str).unwrap_or("tool");
            let input = item.get("arguments").or_else(|| item.get("input")).and_then(Value::as_str);
            said(Role::Assistant, called(name, input.unwrap_or_default()))
        }
        "function_call_output" | "custom_tool_call_output" => {
            let read = content(item.remove("output").unwrap_or_default(), &format!("{at}.output"))?;
            Ok(Some(Said { role: Role::Tool, content: read }))
        }
        // What a model thought was never part of the conversation.
        "reasoning" => Ok(None),
        other => Err(unsupported(&format!("{at}.type"), format!("{other:?} cannot be given to an agent"))),
    }
}

fn message(mut item: Map<String, Value>, at: &str) -> Result<Said, ApiError> {
    let place = format!("{at}.role");
    let role = match item.get("role").and_then(Value::as_str) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        Some("tool" | "function") => Role::Tool,
        _ => return Err(invalid(&place, "one of system, developer, user, assistant, tool")),
    };
    let mut read = content(item.remove("content").unwrap_or_default(), &format!("{at}.content"))?;
    let calls = item.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    for call in calls.filter_map(|call| call.get("function").or_else(|| call.get("custom"))) {
        let name = call.get("name").and_then(Value::as_str).unwrap_or("tool");
        let input = call.get("arguments").or_else(|| call.get("input")).and_then(Value::as_str).unwrap_or_default();
        if !read.text.is_empty() {
            read.text.push('\n');
        }
        read.text.push_str(&called(name, input));
    }
    Ok(Said { role, content: read })
}

fn called(name: &str, input: &str) -> String {
    format!("[called {name}: {input}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Code;

    fn read(value: Value) -> (Role, String) {
        let said = entry(value, "x").unwrap().unwrap();
        (said.role, said.content.text)
    }

    #[test]
    fn messages_of_all_roles_are_read() {
        assert_eq!(read(json!({"role": "user", "content": "hi"})), (Role::User, "hi".into()));
        assert_eq!(read(json!({"role": "developer", "content": "be kind"})), (Role::System, "be kind".into()));
        let call = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}}]});
        assert_eq!(read(call), (Role::Assistant, r#"[called weather: {"city":"Rome"}]"#.into()));
        assert_eq!(read(json!({"role": "tool", "tool_call_id": "1", "content": "20 C"})), (Role::Tool, "20 C".into()));
    }

    #[test]
    fn items_of_responses_are_read() {
        let output = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]});
        assert_eq!(read(output), (Role::Assistant, "a".into()));
        let call = json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"});
        assert_eq!(read(call), (Role::Assistant, "[called f: {}]".into()));
        let result = json!({"type": "function_call_output", "call_id": "1", "output": "done"});
        assert_eq!(read(result), (Role::Tool, "done".into()));
        assert!(entry(json!({"type": "reasoning", "summary": []}), "x").unwrap().is_none());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let refused = |value| {
            let error = entry(value, "input[3]").unwrap_err();
            (error.code, error.details["param"].as_str().unwrap().to_owned())
        };
        assert_eq!(refused(json!("x")), (Code::InvalidJson, "input[3]".into()));
        assert_eq!(refused(json!({"role": "king", "content": ""})), (Code::InvalidJson, "input[3].role".into()));
        let item = json!({"type": "item_reference", "id": "msg_1"});
        assert_eq!(refused(item), (Code::UnsupportedParameter, "input[3].type".into()));
    }
}
