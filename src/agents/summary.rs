//! What a tool call would do, in one line: for people, and for the rules that answer again.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The tool input in one line for a person: the command with its arguments, path, query, address (with the method, unless that
/// is GET, and a hash where something is sent) or code, the first of them that is there. Rules go by it, so it tells apart
/// what is done; what is written to a path does not count.
#[must_use]
pub fn input_summary(input: &Value) -> Option<String> {
    let words = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    };
    let first = |keys: &[&str]| keys.iter().find_map(|key| input.get(key).and_then(words));
    if let Some(command) = first(&["command", "cmd"]) {
        let arguments = first(&["args", "arguments"]).filter(|arguments| !arguments.is_empty());
        return Some(shortened(&[command].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")));
    }
    if let Some(place) = first(&["file_path", "filePath", "path", "query", "pattern"]) {
        return Some(shortened(&place));
    }
    if let Some(url) = first(&["url"]) {
        let method = first(&["method"]).filter(|method| !method.eq_ignore_ascii_case("get"));
        let line = method.into_iter().chain([url]).collect::<Vec<_>>().join(" ");
        let sends = ["body", "data", "json"].iter().any(|key| input.get(key).is_some_and(|body| !body.is_null()));
        return Some(if sends { shortened_with(&line, &input.to_string()) } else { shortened(&line) });
    }
    first(&["code", "script"]).map(|code| shortened(&code))
}

/// An input that says nothing of what [`input_summary`] looks for, as it is, so that rules tell two calls apart. None for an
/// empty one.
#[must_use]
pub fn whole_input(input: &Value) -> Option<String> {
    input.as_object().filter(|fields| !fields.is_empty())?;
    Some(shortened(&input.to_string()))
}

/// Characters of a summary.
const SUMMARY: usize = 200;

/// A text of at most 200 characters as it is; of a longer one the beginning, and a hash of the whole. Rules for questions
/// are stored with summaries: what is allowed must not be allowed to everything that begins in the same way.
#[must_use]
pub fn shortened(text: &str) -> String {
    if text.chars().nth(SUMMARY).is_none() { text.to_owned() } else { shortened_with(text, text) }
}

/// At most 200 characters of a text, and a hash of the whole that it stands for.
fn shortened_with(text: &str, whole: &str) -> String {
    let digest = Sha256::digest(whole.as_bytes());
    let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let cut = text.char_indices().nth(SUMMARY);
    let (begin, more) = cut.map_or((text, ""), |(at, _)| (text.get(..at).unwrap_or_default(), "…"));
    format!("{begin}{more} [sha256 {hash}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_inputs_that_begin_alike_have_different_summaries() {
        let command =
            |end: &str| input_summary(&serde_json::json!({"command": format!("{}{end}", "ä".repeat(200))})).unwrap();
        assert_eq!(command("").chars().count(), 200);
        assert_ne!(command("; ls"), command("; rm -rf /"));
        assert!(command("; ls").starts_with(&"ä".repeat(200)) && command("; ls").contains("sha256"));
    }

    #[test]
    fn what_does_something_else_has_another_summary() {
        let summary = |input| input_summary(&input).unwrap();
        assert_eq!(summary(json!({"command": "git", "args": ["status"]})), "git status");
        assert_eq!(summary(json!({"command": ["git", "push", "-f"], "args": []})), "git push -f");
        assert_eq!(summary(json!({"path": "/x", "content": "a"})), summary(json!({"path": "/x", "content": "b"})));
        assert_eq!(summary(json!({"url": "http://a/", "method": "GET"})), "http://a/");
        assert_eq!(summary(json!({"url": "http://a/", "method": "DELETE"})), "DELETE http://a/");
        let post = |body: &str| summary(json!({"url": "http://a/", "method": "POST", "body": body}));
        assert!(post("x").starts_with("POST http://a/ [sha256 ") && post("x") != post("y"), "{}", post("x"));
        assert_eq!(summary(json!({"code": "print(1)"})), "print(1)");
        assert_eq!(input_summary(&json!({"command": 7})), None);
        assert_eq!(input_summary(&json!({"other": 7})), None);
    }
}
