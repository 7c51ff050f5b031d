//! What to answer, decided by keywords in the last user text. The first that is found wins:
//!
//! | keyword | answer |
//! |---|---|
//! | `PLAIN` | "Hello from mock": for a text that may have other keywords in it, as one with an earlier conversation |
//! | `ERR401`, `ERR429`, `ERR500` | that status, with an error body of the dialect |
//! | (a tool result stands after the text) | "Tool finished, all done."; where the text has `SLOW` in it, three seconds of the slow answer |
//! | `USE_TOOL` | a call of a shell or write tool; `TOOL_NAME:x`, `TOOL_CMD:[…]`, `TOOL_PATH:[…]` say which and what, `TOOL_INPUT:{…}` the whole input |
//! | `SLOW` | "slow0 slow1 …", a word every 100 ms for a minute: made to be cancelled |
//! | anything else | "Hello from mock" |
//!
//! `THINK` puts reasoning before a text or a tool call.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Words of the slow answer.
const SLOW_WORDS: usize = 600;
/// Time between two of them.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
/// Time between two words of the ordinary answer: what is streamed can be seen to be, though agents gather for some time.
const WORD_PAUSE: Duration = Duration::from_millis(60);
/// Tools that are taken when the text names none, best first.
const PREFERRED: [&str; 14] = [
    "Bash",
    "run_shell_command",
    "bash",
    "shell",
    "exec_command",
    "local_shell",
    "shell_command",
    "exec",
    "Write",
    "write_file",
    "write",
    "edit",
    "Edit",
    "apply_patch",
];

/// A tool as the request offers it.
pub struct Tool {
    pub name: String,
    /// The JSON schema of its input; null where the dialect has none.
    pub schema: Value,
}

/// What of a request decides the answer.
pub struct Asked {
    /// The last text of the user.
    pub text: String,
    /// True when a tool's result came after it.
    pub tool_result: bool,
    pub tools: Vec<Tool>,
}

/// An answer, apart from its dialect.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    Error(u16),
    Say { thoughts: Vec<String>, words: Vec<String>, pause: Duration },
    Call { thoughts: Vec<String>, name: String, input: Value },
}

impl Plan {
    /// Decides.
    pub fn of(asked: &Asked) -> Self {
        let text = asked.text.as_str();
        let hello = || words(&["Hello ", "from ", "mock"]);
        if text.contains("PLAIN") {
            return Self::Say { thoughts: Vec::new(), words: hello(), pause: Duration::ZERO };
        }
        for status in [401, 429, 500] {
            if text.contains(&format!("ERR{status}")) {
                return Self::Error(status);
            }
        }
        let thinks = text.contains("THINK") && !asked.tool_result;
        let thoughts = if thinks { words(&["let me ", "think"]) } else { Vec::new() };
        if asked.tool_result && !text.contains("SLOW") {
            return Self::Say { thoughts, words: words(&["Tool ", "finished, ", "all done."]), pause: Duration::ZERO };
        }
        if text.contains("USE_TOOL")
            && !asked.tool_result
            && let Some(tool) = pick(&asked.tools, text)
        {
            return Self::Call { thoughts, name: tool.name.clone(), input: input_for(tool, text) };
        }
        if text.contains("SLOW") {
            let count = if asked.tool_result { SLOW_WORDS / 20 } else { SLOW_WORDS };
            let words = (0..count).map(|i| format!("slow{i} ")).collect();
            return Self::Say { thoughts, words, pause: SLOW_PAUSE };
        }
        Self::Say { thoughts, words: hello(), pause: WORD_PAUSE }
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// The tool that the text names, else the first preferred one, else the first.
fn pick<'a>(tools: &'a [Tool], text: &str) -> Option<&'a Tool> {
    let named = text
        .split_once("TOOL_NAME:")
        .map(|(_, rest)| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
    let by_name = |name: &str| tools.iter().find(|tool| tool.name == name);
    named.and_then(by_name).or_else(|| PREFERRED.iter().find_map(|name| by_name(name))).or_else(|| tools.first())
}

/// What stands between `KEY:[` and the next `]`.
fn argument<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(key)?;
    Some(rest.split_once(']')?.0)
}

/// An input that fits the tool's schema and does what the text says.
fn input_for(tool: &Tool, text: &str) -> Value {
    if let Some((_, rest)) = text.split_once("TOOL_INPUT:")
        && let Some(Ok(input)) = serde_json::Deserializer::from_str(rest).into_iter().next()
    {
        return input;
    }
    let command = argument(text, "TOOL_CMD:[").unwrap_or("echo hi > tool_out.txt && cat tool_out.txt");
    let default_path = std::env::temp_dir().join("mock-llm-hello.txt");
    let path = argument(text, "TOOL_PATH:[").map_or_else(|| default_path.display().to_string(), str::to_owned);
    let nothing = Map::new();
    let properties = tool.schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let has = |name: &str| properties.contains_key(name);
    let mut input = Map::new();
    if matches!(tool.name.as_str(), "Write" | "write_file" | "write") {
        let key = ["filePath", "path"].into_iter().find(|key| has(key)).unwrap_or("file_path");
        input.insert(key.into(), path.into());
        input.insert("content".into(), "hi from tool\n".into());
        return Value::Object(input);
    }
    if let Some(schema) = properties.get("command") {
        let wants_list = schema.get("type").is_some_and(|kind| kind == "array");
        input.insert("command".into(), if wants_list { json!(["bash", "-lc", command]) } else { command.into() });
    } else if has("cmd") {
        input.insert("cmd".into(), command.into());
    }
    if has("description") {
        input.insert("description".into(), "mock command".into());
    }
    if has("is_background") {
        input.insert("is_background".into(), false.into());
    }
    for name in tool.schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let schema = properties.get(name).unwrap_or(&Value::Null);
        input.entry(name).or_insert_with(|| placeholder(schema));
    }
    Value::Object(input)
}

/// A value of a schema's type.
pub fn placeholder(schema: &Value) -> Value {
    if let Some(first) = schema.get("enum").and_then(|list| list.get(0)) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => false.into(),
        Some("number" | "integer") => 1.into(),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => "x".into(),
    }
}

/// The text of a message's content: a string, or a list of strings and objects with `text`; joined by line ends.
pub fn text_of(content: &Value) -> String {
    let piece = |part: &Value| part.as_str().or_else(|| part.get("text")?.as_str()).map(str::to_owned);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(piece).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// A list in a request; empty where it is missing.
pub fn list<'a>(body: &'a Value, name: &str) -> &'a [Value] {
    body.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in a request; empty where it is missing.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
