//! What a prompt is made of: text, files, and the conversation so far for an agent that cannot load it. Pure.

use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, input_summary},
    protocol::{Attachment, Message, Part, Role},
};

/// The most of a conversation that is replayed, in bytes; the newest is kept.
pub(super) const REPLAY_LIMIT: usize = 100_000;

/// What the agent says that it takes in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Accepts {
    pub(super) image: bool,
    pub(super) embedded: bool,
}

impl Accepts {
    /// Reads the answer to `initialize`.
    pub(super) fn read(initialized: &Value) -> Self {
        let flag = |name| {
            let prompt = initialized.get("agentCapabilities").and_then(|all| all.get("promptCapabilities"));
            prompt.and_then(|prompt| prompt.get(name)).and_then(Value::as_bool).unwrap_or(false)
        };
        Self { image: flag("image"), embedded: flag("embeddedContext") }
    }
}

/// The content blocks of a prompt, and a fault for each file that the agent cannot take.
pub(super) fn blocks(
    text: &str,
    attachments: &[Attachment],
    replay: Option<&str>,
    accepts: Accepts,
) -> (Vec<Value>, Vec<AgentEvent>) {
    let (mut blocks, mut faults) = (Vec::new(), Vec::new());
    if let Some(replay) = replay {
        blocks.push(json!({"type": "text", "text": replay}));
    }
    if !text.is_empty() {
        blocks.push(json!({"type": "text", "text": text}));
    }
    for file in attachments {
        match block(file, accepts) {
            Some(block) => blocks.push(block),
            None => {
                let message =
                    format!("the agent takes no files like `{}` ({}); it is left out", file.name, file.media_type);
                blocks.push(json!({"type": "text", "text": format!("[{message}]")}));
                faults.push(AgentEvent::Fault { code: "attachment_not_supported".into(), message });
            }
        }
    }
    (blocks, faults)
}

fn block(file: &Attachment, accepts: Accepts) -> Option<Value> {
    let Attachment { name, media_type, content_base64 } = file;
    let text = || text_of(file);
    if media_type.starts_with("image/") && accepts.image {
        return Some(json!({"type": "image", "mimeType": media_type, "data": content_base64}));
    }
    if accepts.embedded && !media_type.starts_with("image/") {
        let uri = format!("attachment:///{}", encoded(name));
        let resource = match text() {
            Some(text) => json!({"uri": uri, "mimeType": media_type, "text": text}),
            None => json!({"uri": uri, "mimeType": media_type, "blob": content_base64}),
        };
        return Some(json!({"type": "resource", "resource": resource}));
    }
    let text = text()?;
    Some(json!({"type": "text", "text": format!("The attached file `{name}` ({media_type}):\n\n{text}")}))
}

/// The content of a file that is text by its media type and by its bytes.
fn text_of(file: &Attachment) -> Option<String> {
    use base64::Engine as _;
    let kind = file.media_type.split(';').next().unwrap_or_default().trim();
    let textual = kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || ["application/json", "application/xml", "application/yaml", "application/toml", "application/javascript"]
            .contains(&kind);
    if !textual {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(&file.content_base64).ok()?;
    String::from_utf8(bytes).ok()
}

/// A file name as the last piece of an address.
fn encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The conversation so far as a text of at most `limit` bytes and a few lines around it; none when there is nothing
/// to tell.
pub(super) fn replay(transcript: &[Message], limit: usize) -> Option<String> {
    let told: Vec<String> = transcript.iter().map(told).filter(|text| !text.is_empty()).collect();
    let mut left = limit;
    let mut kept = Vec::new();
    for text in told.iter().rev() {
        if text.len() > left {
            // The newest message is told in any case, with its end.
            if kept.is_empty() {
                let from = (text.len() - left..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
                kept.push(format!("[…]{}", text.get(from..).unwrap_or_default()));
            }
            break;
        }
        left -= text.len();
        kept.push(text.clone());
    }
    if kept.is_empty() {
        return None;
    }
    kept.reverse();
    let omitted = told.len() - kept.len();
    let omitted = if omitted == 0 { String::new() } else { format!("[{omitted} earlier messages are left out]\n\n") };
    Some(format!(
        "This is the conversation so far, from a process that has ended. Go on from there; do not answer it \
         again.\n\n<conversation>\n{omitted}{}\n</conversation>\n\nThe new message:\n",
        kept.join("\n\n")
    ))
}

/// A message as text. Reasoning is left out: it was never part of the conversation.
fn told(message: &Message) -> String {
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Part::Reasoning { .. } => None,
        Part::ToolCall { name, title, input, is_error, .. } => {
            let what = input_summary(input).or_else(|| title.clone()).unwrap_or_default();
            let failed = if *is_error { ", failed" } else { "" };
            Some(format!("[used tool {name}: {what}{failed}]"))
        }
        Part::File { name, media_type, .. } => Some(format!("[file {name}, {media_type}]")),
    });
    let text = parts.collect::<Vec<_>>().join("\n");
    let who = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
        Role::System => "Note",
    };
    if text.is_empty() { text } else { format!("{who}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::MessageId, timestamp::Timestamp};

    fn file(name: &str, media_type: &str, content_base64: &str) -> Attachment {
        Attachment { name: name.into(), media_type: media_type.into(), content_base64: content_base64.into() }
    }

    fn message(role: Role, text: &str) -> Message {
        Message {
            id: MessageId::new(),
            role,
            parts: vec![Part::Reasoning { text: "secret thought".into() }, Part::Text { text: text.into() }],
            turn_id: None,
            agent: None,
            client_id: None,
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn files_go_in_the_form_that_the_agent_takes() {
        let files = [
            file("a b.txt", "text/plain", "aGk="),
            file("p.png", "image/png", "AA=="),
            file("z.zip", "application/zip", "AA=="),
        ];
        let all = Accepts { image: true, embedded: true };
        let (rich, faults) = blocks("look", &files, None, all);
        let expected = [
            json!({"type": "text", "text": "look"}),
            json!({"type": "resource", "resource": {"uri": "attachment:///a%20b.txt", "mimeType": "text/plain", "text": "hi"}}),
            json!({"type": "image", "mimeType": "image/png", "data": "AA=="}),
            json!({"type": "resource", "resource": {"uri": "attachment:///z.zip", "mimeType": "application/zip", "blob": "AA=="}}),
        ];
        assert_eq!((rich.as_slice(), faults.len()), (expected.as_slice(), 0));
        let (plain, faults) = blocks("", &files, Some("before"), Accepts::default());
        assert_eq!(plain.len(), 4);
        assert_eq!(plain[0], json!({"type": "text", "text": "before"}));
        assert_eq!(plain[1]["text"], "The attached file `a b.txt` (text/plain):\n\nhi");
        let named = |fault: &AgentEvent, name: &str| matches!(fault, AgentEvent::Fault { message, .. } if message.contains(name));
        assert!(faults.len() == 2 && named(&faults[0], "p.png") && named(&faults[1], "z.zip"), "{faults:?}");
    }

    #[test]
    fn a_replay_keeps_the_newest_and_says_what_it_leaves_out() {
        let transcript =
            [message(Role::User, "first"), message(Role::Assistant, "second"), message(Role::User, "third")];
        let all = replay(&transcript, 1000).unwrap();
        assert!(
            all.contains("<conversation>\nUser: first\n\nAssistant: second\n\nUser: third\n</conversation>"),
            "{all}"
        );
        assert!(!all.contains("secret thought") && !all.contains("left out"));
        let some = replay(&transcript, 30).unwrap();
        assert!(some.contains("[1 earlier messages are left out]\n\nAssistant: second\n\nUser: third"), "{some}");
        let cut = replay(&[message(Role::User, &"ä".repeat(100))], 21).unwrap();
        assert!(cut.contains(&format!("\n[…]{}\n", "ä".repeat(10))), "{cut}");
        assert_eq!(replay(&[], 1000), None);
    }
}
