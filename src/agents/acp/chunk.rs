//! Pieces of text as they stand in a line. Most of what an agent says is these, so they are read without making a tree of
//! objects first; whatever is more than a plain piece is left to be read as a message. Pure.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

use crate::protocol::event::DeltaKind;

/// A piece of text in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) kind: DeltaKind,
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Notification<'a> {
    method: &'a str,
    #[serde(borrow)]
    params: Params<'a>,
    id: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    session_id: &'a str,
    #[serde(borrow)]
    update: Update<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    session_update: &'a str,
    #[serde(borrow)]
    content: Content<'a>,
    /// It may hold what was used.
    #[serde(rename = "_meta")]
    meta: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(rename = "_meta")]
    meta: Option<IgnoredAny>,
}

impl Chunk {
    /// The piece of text that a line brings for this session, and nothing else; none for any other line.
    pub(super) fn read(line: &str, session: &str) -> Option<Self> {
        let Notification { method, params: Params { session_id, update }, id } = serde_json::from_str(line).ok()?;
        let kind = match update.session_update {
            "agent_message_chunk" => DeltaKind::Text,
            "agent_thought_chunk" => DeltaKind::Reasoning,
            _ => return None,
        };
        let plain = id.is_none() && update.meta.is_none() && update.content.meta.is_none();
        let ours = method == "session/update" && session_id == session;
        let text = update.content.text;
        (plain && ours && !text.is_empty()).then(|| Self { kind, text: text.into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(change: &str, value: Value) -> String {
        let mut line = json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update":
            {"sessionUpdate": "agent_message_chunk", "messageId": "m", "content": {"type": "text", "text": "a \"b\"\nü"}}}});
        if let Some((place, name)) = change.rsplit_once('/') {
            line.pointer_mut(place).unwrap()[name] = value;
        }
        line.to_string()
    }

    #[test]
    fn a_plain_piece_is_read_as_it_is() {
        let read = |line: String| Chunk::read(&line, "s");
        let text = "a \"b\"\nü".to_owned();
        assert_eq!(read(line("", Value::Null)), Some(Chunk { kind: DeltaKind::Text, text: text.clone() }));
        let thought = line("/params/update/sessionUpdate", "agent_thought_chunk".into());
        assert_eq!(read(thought), Some(Chunk { kind: DeltaKind::Reasoning, text }));
    }

    #[test]
    fn everything_else_is_left_to_be_read_as_a_message() {
        for (change, value) in [
            ("/id", json!(1)),
            ("/method", json!("session/x")),
            ("/params/sessionId", json!("other")),
            ("/params/update/sessionUpdate", json!("user_message_chunk")),
            ("/params/update/_meta", json!({"usage": {}})),
            ("/params/update/content/_meta", json!({"usage": {}})),
            ("/params/update/content/text", json!("")),
            ("/params/update/content/text", json!(5)),
            ("/params/update/content", json!({"type": "image", "data": "A"})),
            ("/params/update/content", json!("text")),
        ] {
            let line = line(change, value);
            assert_eq!(Chunk::read(&line, "s"), None, "{line}");
        }
        for line in ["", "noise", "[]", "{", "null"] {
            assert_eq!(Chunk::read(line, "s"), None);
        }
    }
}
