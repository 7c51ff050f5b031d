//! What a prompt is made of: text, images, text files, skills, and the conversation so far where there is no thread to
//! resume. Pure.

use serde_json::{Value, json};

use super::settings::Skill;
use crate::{
    agents::{AgentEvent, program::text_of},
    protocol::Attachment,
};

/// The input of a turn, and a fault for each file that cannot be given to the agent.
pub(super) fn input(
    text: &str,
    attachments: &[Attachment],
    replay: Option<&str>,
    skills: &[Skill],
) -> (Vec<Value>, Vec<AgentEvent>) {
    let (mut input, mut faults) = (Vec::new(), Vec::new());
    input.extend(replay.map(text_item));
    if !text.is_empty() {
        input.push(text_item(text));
    }
    input.extend(skill(text, skills));
    for file in attachments {
        let Attachment { name, media_type, content_base64 } = file;
        if media_type.starts_with("image/") {
            input.push(json!({"type": "image", "url": format!("data:{media_type};base64,{content_base64}")}));
        } else if let Some(text) = text_of(file) {
            input.push(text_item(&format!("The attached file `{name}` ({media_type}):\n\n{text}")));
        } else {
            let message = format!("the agent takes no files like `{name}` ({media_type}); it is left out");
            input.push(text_item(&format!("[{message}]")));
            faults.push(AgentEvent::Fault { code: "attachment_not_supported".into(), message });
        }
    }
    (input, faults)
}

/// A text as input.
pub(super) fn text_item(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// The skill that a text begins with, as in `/name …` or `$name …`.
fn skill(text: &str, skills: &[Skill]) -> Option<Value> {
    let name = text.strip_prefix(['/', '$'])?.split_whitespace().next()?;
    let skill = skills.iter().find(|skill| skill.name == name)?;
    Some(json!({"type": "skill", "name": skill.name, "path": skill.path}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, media_type: &str, content_base64: &str) -> Attachment {
        Attachment { name: name.into(), media_type: media_type.into(), content_base64: content_base64.into() }
    }

    #[test]
    fn files_go_as_images_or_as_text_and_others_are_named() {
        let files = [
            file("p.png", "image/png", "AA=="),
            file("a.txt", "text/plain", "aGk="),
            file("z.zip", "application/zip", "AA=="),
        ];
        let (input, faults) = input("look", &files, Some("before"), &[]);
        assert_eq!(input.len(), 5);
        assert_eq!(input[..2], [text_item("before"), text_item("look")]);
        assert_eq!(input[2], json!({"type": "image", "url": "data:image/png;base64,AA=="}));
        assert_eq!(input[3]["text"], "The attached file `a.txt` (text/plain):\n\nhi");
        assert!(input[4]["text"].as_str().is_some_and(|text| text.contains("z.zip")), "{input:?}");
        assert!(matches!(&faults[..], [AgentEvent::Fault { message, .. }] if message.contains("z.zip")), "{faults:?}");
    }

    #[test]
    fn a_skill_is_called_by_its_name() {
        let skills = [Skill { name: "tidy".into(), description: String::new(), path: "/s/tidy".into() }];
        let called = |text| input(text, &[], None, &skills).0.get(1).cloned();
        let item = json!({"type": "skill", "name": "tidy", "path": "/s/tidy"});
        assert_eq!((called("/tidy up"), called("$tidy")), (Some(item.clone()), Some(item)));
        assert_eq!((called("tidy up"), called("/other"), called("/")), (None, None, None));
    }
}
