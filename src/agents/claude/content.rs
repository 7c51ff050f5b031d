//! What a prompt is made of: text, files, and the conversation so far where there is none to resume. Pure.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, program::text_of},
    protocol::Attachment,
};

/// What the model takes as an image.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// True for a text that the agent runs as a command of its own: `/name`, with or without more after it.
pub(super) fn is_command(text: &str) -> bool {
    let name = text.strip_prefix('/').map(|rest| rest.split(char::is_whitespace).next().unwrap_or_default());
    name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains('/'))
}

/// The content blocks of a prompt, and a fault for each file that cannot be given to the model.
pub(super) fn blocks(text: &str, attachments: &[Attachment], replay: Option<&str>) -> (Value, Vec<AgentEvent>) {
    let (mut blocks, mut faults) = (Vec::new(), Vec::new());
    let texts = replay.into_iter().chain(Some(text).filter(|text| !text.is_empty()));
    blocks.extend(texts.map(|text| json!({"type": "text", "text": text})));
    for file in attachments {
        match block(file) {
            Some(block) => blocks.push(block),
            None => {
                let message =
                    format!("the agent takes no files like `{}` ({}); it is left out", file.name, file.media_type);
                blocks.push(json!({"type": "text", "text": format!("[{message}]")}));
                faults.push(AgentEvent::Fault { code: "attachment_not_supported".into(), message });
            }
        }
    }
    (Value::Array(blocks), faults)
}

fn block(file: &Attachment) -> Option<Value> {
    let Attachment { name, media_type, content_base64 } = file;
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let source = || json!({"type": "base64", "media_type": kind, "data": content_base64});
    if IMAGES.contains(&kind) {
        return Some(json!({"type": "image", "source": source()}));
    }
    if kind == "application/pdf" {
        return Some(json!({"type": "document", "title": name, "source": source()}));
    }
    // Text is text, whatever it is called: what is sent as source code often has no media type of its own.
    let text = text_of(file).or_else(|| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(content_base64).ok()?;
        String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
    })?;
    let source = json!({"type": "text", "media_type": "text/plain", "data": text});
    Some(json!({"type": "document", "title": name, "source": source}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, media_type: &str, content_base64: &str) -> Attachment {
        Attachment { name: name.into(), media_type: media_type.into(), content_base64: content_base64.into() }
    }

    #[test]
    fn files_become_blocks_and_what_cannot_is_said() {
        let files = [
            file("p.png", "image/png", "AA=="),
            file("a.pdf", "application/pdf", "AA=="),
            file("a.rs", "application/octet-stream", "aGk="),
            file("z.zip", "application/zip", "/wA="),
        ];
        let (content, faults) = blocks("look", &files, Some("before"));
        let source = |kind: &str| json!({"type": "base64", "media_type": kind, "data": "AA=="});
        let plain = json!({"type": "text", "media_type": "text/plain", "data": "hi"});
        let expected = json!([
            {"type": "text", "text": "before"},
            {"type": "text", "text": "look"},
            {"type": "image", "source": source("image/png")},
            {"type": "document", "title": "a.pdf", "source": source("application/pdf")},
            {"type": "document", "title": "a.rs", "source": plain},
            {"type": "text", "text": "[the agent takes no files like `z.zip` (application/zip); it is left out]"},
        ]);
        assert_eq!(content, expected);
        assert!(matches!(&faults[..], [AgentEvent::Fault { message, .. }] if message.contains("z.zip")));
    }

    #[test]
    fn commands_are_told_from_paths() {
        let commands = ["/cost", "/review 12", "/mcp__x__y now"];
        let texts = ["hi /cost", "/tmp/x is broken", "/ x", "//", "/1", ""];
        assert!(commands.into_iter().all(is_command) && !texts.into_iter().any(is_command));
    }
}
