//! What a prompt is made of: text, images and documents, the conversation so far, or a slash command. Pure.

use serde_json::{Value, json};

use crate::{
    agents::{AgentEvent, program::text_of},
    protocol::Attachment,
};

/// The parts of a prompt, and a fault for each file that cannot be taken.
pub(super) fn parts(text: &str, files: &[Attachment], replay: Option<&str>) -> (Vec<Value>, Vec<AgentEvent>) {
    let texts = [replay.unwrap_or_default(), text];
    let texts = texts.iter().filter(|text| !text.is_empty());
    let mut parts: Vec<Value> = texts.map(|text| json!({"type": "text", "text": text})).collect();
    let (more, faults) = file_parts(files);
    parts.extend(more);
    (parts, faults)
}

/// The files of a prompt. Models read images and PDF documents; what is text goes as text.
pub(super) fn file_parts(files: &[Attachment]) -> (Vec<Value>, Vec<AgentEvent>) {
    let (mut parts, mut faults) = (Vec::new(), Vec::new());
    for file in files {
        let Attachment { name, media_type, content_base64 } = file;
        if media_type.starts_with("image/") || media_type == "application/pdf" {
            let url = format!("data:{media_type};base64,{content_base64}");
            parts.push(json!({"type": "file", "mime": media_type, "filename": name, "url": url}));
        } else if let Some(text) = text_of(file) {
            let text = format!("The attached file `{name}` ({media_type}):\n\n{text}");
            parts.push(json!({"type": "text", "text": text}));
        } else {
            let message = format!("the agent takes no files like `{name}` ({media_type}); it is left out");
            parts.push(json!({"type": "text", "text": format!("[{message}]")}));
            faults.push(AgentEvent::Fault { code: "attachment_not_supported".into(), message });
        }
    }
    (parts, faults)
}

/// The command that a text calls, and its arguments; none when the agent has no such command.
pub(super) fn slash_command<'a>(text: &'a str, commands: &[String]) -> Option<(&'a str, &'a str)> {
    let rest = text.trim().strip_prefix('/')?;
    let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    commands.iter().any(|command| command == name).then_some((name, arguments.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, media_type: &str) -> Attachment {
        Attachment { name: name.into(), media_type: media_type.into(), content_base64: "aGk=".into() }
    }

    #[test]
    fn files_go_in_the_form_that_models_read() {
        let files = [file("p.png", "image/png"), file("a.json", "application/json"), file("z.zip", "application/zip")];
        let (parts, faults) = parts("look", &files, Some("before"));
        let expected = [
            json!({"type": "text", "text": "before"}),
            json!({"type": "text", "text": "look"}),
            json!({"type": "file", "mime": "image/png", "filename": "p.png", "url": "data:image/png;base64,aGk="}),
            json!({"type": "text", "text": "The attached file `a.json` (application/json):\n\nhi"}),
        ];
        assert_eq!((&parts[..4], parts.len(), faults.len()), (expected.as_slice(), 5, 1));
    }

    #[test]
    fn a_command_is_one_only_where_the_agent_has_it() {
        let commands = ["init".to_owned(), "a:b".to_owned()];
        assert_eq!(slash_command(" /init  do it \n", &commands), Some(("init", "do it")));
        assert_eq!(slash_command("/a:b", &commands), Some(("a:b", "")));
        for text in ["init", "/initial", "/usr/bin/init", "/"] {
            assert_eq!(slash_command(text, &commands), None, "{text}");
        }
    }
}
