//! What a prompt is made of: text, files, and the conversation so far where the agent cannot load it. Pure.

use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, program::text_of},
    protocol::Attachment,
};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, media_type: &str, content_base64: &str) -> Attachment {
        Attachment { name: name.into(), media_type: media_type.into(), content_base64: content_base64.into() }
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
}
