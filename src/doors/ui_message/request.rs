//! What a chat transport posts: the conversation as the client has it, or just a text. Pure.
//!
//! The session has the conversation already, so only the last message counts: what the user says, or how the user answered
//! what the agent asked.

use std::str::FromStr as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    error::{ApiError, Code},
    ids::ChoiceId,
    protocol::{Attachment, Policy, SendMessage, command::NOT_BLANK},
};

/// The longest id of a message that comes back as `client_id`, in characters.
const MAX_CLIENT_ID: usize = 64;

/// The body of a chat call. Fields that it does not have are let by: an application sends its own along.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend(
    "additionalProperties" = true,
    "allOf" = [{"anyOf": [said("text"), said("prompt"), messages()]}],
))]
pub struct ChatRequest {
    /// The session key, where the path does not have it.
    pub id: Option<String>,
    /// The conversation as the client has it; the last message is what is said.
    pub messages: Option<Vec<ChatMessage>>,
    /// What the user says, in place of `messages`.
    #[schemars(length(max = 1_048_576))]
    pub text: Option<String>,
    /// The same.
    #[schemars(length(max = 1_048_576))]
    pub prompt: Option<String>,
    /// Why it is posted. Asking for another answer sends the last message once more, as a new turn.
    pub trigger: Option<Trigger>,
    /// What to do when the session is busy.
    pub policy: Policy,
    /// Another agent for this turn.
    pub agent: Option<String>,
    /// Another model for this turn.
    #[schemars(length(max = 200))]
    pub model: Option<String>,
    /// Another mode for this turn.
    #[schemars(length(max = 200))]
    pub mode: Option<String>,
    /// Another permission mode for this turn.
    #[schemars(extend("enum" = ["default", "accept_edits", "plan", "dont_ask", "bypass", null]))]
    pub permission_mode: Option<String>,
}

/// Why a chat is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The user said or answered something.
    SubmitMessage,
    /// The user wants another answer.
    RegenerateMessage,
}

/// A message as the client has it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = true))]
pub struct ChatMessage {
    /// The client's id of it.
    pub id: Option<String>,
    /// Who speaks: `user`, `assistant` or `system`.
    pub role: String,
    /// What it is made of.
    pub parts: Vec<ChatPart>,
    /// The same in older clients: a text, or parts.
    content: Option<Content>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Content {
    Text(String),
    Parts(Vec<ChatPart>),
}

/// A piece of a message; fields of other pieces than texts, files and answered calls are of no interest here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("additionalProperties" = true))]
pub struct ChatPart {
    /// `text`, `file`, `dynamic-tool`, `tool-…` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text.
    pub text: Option<String>,
    /// A file's media type.
    pub media_type: Option<String>,
    /// A file as a `data:` URL.
    pub url: Option<String>,
    /// A file's name.
    pub filename: Option<String>,
    /// How far a call of a tool is.
    pub state: Option<String>,
    /// What the user answered for it.
    pub approval: Option<Approval>,
}

/// What the user answered.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = true))]
pub struct Approval {
    /// The id of the question.
    pub id: String,
    /// Yes or no; none before there is an answer.
    pub approved: Option<bool>,
}

/// What the client wants.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// The user says something.
    Message(Box<SendMessage>),
    /// The user has answered permissions.
    Answers(Vec<(ChoiceId, bool)>),
}

impl ChatRequest {
    /// What the client wants.
    ///
    /// # Errors
    /// `missing_text` where nobody says anything; `invalid_attachment` for a file that is no `data:` URL;
    /// `choice_not_found` for an answer to no question.
    pub fn said(self) -> Result<Said, ApiError> {
        let mut message = SendMessage {
            policy: self.policy,
            agent: self.agent,
            model: self.model,
            mode: self.mode,
            permission_mode: self.permission_mode,
            metadata: Map::new(),
            ..SendMessage::default()
        };
        let text = [self.text, self.prompt].into_iter().flatten().find(|text| !text.trim().is_empty());
        if text.is_some() {
            message.text = text;
            return Ok(Said::Message(Box::new(message)));
        }
        let last = self.messages.unwrap_or_default().pop().ok_or_else(missing)?;
        match last.role.as_str() {
            "user" => {
                let client_id = last.id.clone().filter(|id| !id.is_empty() && id.chars().count() <= MAX_CLIENT_ID);
                (message.text, message.attachments) = last.content()?;
                message.client_id = client_id;
                Ok(Said::Message(Box::new(message)))
            }
            "assistant" => last.answers(),
            _ => Err(missing()),
        }
    }
}

impl ChatMessage {
    /// The texts, joined by line breaks, and the files.
    fn content(self) -> Result<(Option<String>, Vec<Attachment>), ApiError> {
        let mut parts = self.parts;
        let mut texts = Vec::new();
        match self.content {
            // A client that sends both sends the same twice.
            Some(Content::Text(text)) if parts.is_empty() => texts.push(text),
            Some(Content::Parts(older)) if parts.is_empty() => parts = older,
            _ => {}
        }
        let mut files = Vec::new();
        for part in parts {
            match (part.kind.as_str(), part.text) {
                ("text", Some(text)) => texts.push(text),
                ("file", _) => {
                    let url = part.url.unwrap_or_default();
                    files.push(file(&url, part.media_type, part.filename, files.len() + 1)?);
                }
                _ => {}
            }
        }
        if texts.iter().all(|text| text.trim().is_empty()) && files.is_empty() {
            return Err(missing());
        }
        Ok((Some(texts.join("\n")), files))
    }

    /// The permissions that the user has answered in it and that no result has followed yet.
    fn answers(self) -> Result<Said, ApiError> {
        let answered = self.parts.into_iter().filter(|part| part.state.as_deref() == Some("approval-responded"));
        let answers = answered.filter_map(|part| {
            let Approval { id, approved } = part.approval?;
            let unknown = |_| ApiError::new(Code::ChoiceNotFound, format!("There is no choice {id:?}."));
            Some(ChoiceId::from_str(&id).map_err(unknown).map(|id| (id, approved.unwrap_or(false))))
        });
        let answers: Vec<_> = answers.collect::<Result<_, _>>()?;
        if answers.is_empty() { Err(missing()) } else { Ok(Said::Answers(answers)) }
    }
}

fn missing() -> ApiError {
    let message = "Missing user message text: the last message must be the user's, with a text or a file, or the assistant's \
                   with an answered approval.";
    ApiError::new(Code::MissingText, message)
}

/// A file out of its `data:` URL.
fn file(url: &str, media_type: Option<String>, name: Option<String>, number: usize) -> Result<Attachment, ApiError> {
    let invalid = |what: &str| ApiError::new(Code::InvalidAttachment, format!("A file of the message {what}."));
    let rest =
        url.strip_prefix("data:").ok_or_else(|| invalid("has no data: URL; nothing is fetched from other places"))?;
    let (head, data) = rest.split_once(',').ok_or_else(|| invalid("has a data: URL without data"))?;
    let (told, base64) = match head.strip_suffix(";base64") {
        Some(told) => (told, true),
        None => (head, false),
    };
    let plain = told.split(';').next().unwrap_or_default();
    let media_type = media_type.filter(|kind| kind.contains('/') && !kind.contains('*'));
    let media_type = media_type.unwrap_or_else(|| if plain.contains('/') { plain } else { "text/plain" }.to_owned());
    let content_base64 = if base64 && !data.contains('%') {
        data.to_owned()
    } else {
        let bytes: Vec<u8> = percent_decode_str(data).collect();
        if base64 {
            String::from_utf8(bytes).map_err(|_bad| invalid("is no base64"))?
        } else {
            BASE64_STANDARD.encode(bytes)
        }
    };
    let ending = media_type.split_once('/').map_or("bin", |(_, sub)| sub.split(['+', ';']).next().unwrap_or(sub));
    let name = name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| format!("file-{number}.{ending}"));
    Ok(Attachment { name, media_type, content_base64 })
}

/// The schema of a body that says something by one field.
fn said(field: &str) -> Value {
    serde_json::json!({
        "type": "object", "additionalProperties": true, "required": [field], "properties": {field: {"type": "string", "pattern": NOT_BLANK}},
    })
}

/// The schema of a body that says something by its messages.
fn messages() -> Value {
    let part = serde_json::json!({
        "type": "object", "additionalProperties": true, "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string", "pattern": NOT_BLANK}},
    });
    let message = serde_json::json!({
        "type": "object", "additionalProperties": true, "required": ["role", "parts"],
        "properties": {"role": {"const": "user"}, "parts": {"type": "array", "minItems": 1, "items": part}},
    });
    serde_json::json!({
        "type": "object", "additionalProperties": true, "required": ["messages"],
        "properties": {"messages": {"type": "array", "minItems": 1, "items": message}},
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(body: Value) -> Result<Said, Code> {
        serde_json::from_value::<ChatRequest>(body).unwrap().said().map_err(|error| error.code)
    }

    fn message(body: Value) -> SendMessage {
        match said(body) {
            Ok(Said::Message(message)) => *message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_last_message_is_said() {
        let parts = |text: &str| json!([{"type": "step-start"}, {"type": "text", "text": text}]);
        let body = json!({
            "id": "k", "trigger": "submit-message", "messageId": null, "own": {"field": 1}, "agent": "echo",
            "messages": [
                {"id": "1", "role": "user", "parts": parts("first")},
                {"id": "2", "role": "assistant", "parts": parts("answer")},
                {"id": "3", "role": "user", "parts": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        });
        let message = message(body);
        assert_eq!((message.text.as_deref(), message.client_id.as_deref()), (Some("a\nb"), Some("3")));
        assert_eq!(message.agent.as_deref(), Some("echo"));
    }

    #[test]
    fn older_and_shorter_forms_are_taken() {
        for body in [
            json!({"text": "hi"}),
            json!({"prompt": "hi", "text": " "}),
            json!({"messages": [{"role": "user", "content": "hi"}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
        ] {
            assert_eq!(message(body).text.as_deref(), Some("hi"));
        }
        let long = json!({"messages": [{"id": "x".repeat(65), "role": "user", "content": "hi"}]});
        assert_eq!(message(long).client_id, None);
    }

    #[test]
    fn files_are_data_urls() {
        let file = |part: Value| said(json!({"messages": [{"role": "user", "parts": [part]}]}));
        let png =
            json!({"type": "file", "mediaType": "image/png", "filename": "a.png", "url": "data:image/png;base64,YWJj"});
        let Ok(Said::Message(message)) = file(png) else { panic!() };
        let attachment = |name: &str, media_type: &str, content: &str| Attachment {
            name: name.into(),
            media_type: media_type.into(),
            content_base64: content.into(),
        };
        assert_eq!(message.attachments, [attachment("a.png", "image/png", "YWJj")]);
        let plain = json!({"type": "file", "url": "data:,a%20b"});
        let Ok(Said::Message(message)) = file(plain) else { panic!() };
        assert_eq!(message.attachments, [attachment("file-1.plain", "text/plain", "YSBi")]);
        for bad in ["http://127.0.0.1/x", "data:nothing", ""] {
            let part = json!({"type": "file", "mediaType": "image/png", "url": bad});
            assert_eq!(file(part), Err(Code::InvalidAttachment), "{bad}");
        }
    }

    #[test]
    fn an_answered_approval_is_an_answer() {
        let id = ChoiceId::new();
        let part = |state: &str, approved: Value| {
            json!({"type": "dynamic-tool", "toolName": "x", "toolCallId": "c", "state": state, "input": {},
                "approval": {"id": id.to_string(), "approved": approved}})
        };
        let last = |part: Value| said(json!({"messages": [{"role": "assistant", "parts": [part]}]}));
        assert_eq!(last(part("approval-responded", json!(true))), Ok(Said::Answers(vec![(id, true)])));
        assert_eq!(last(part("approval-responded", json!(false))), Ok(Said::Answers(vec![(id, false)])));
        assert_eq!(last(part("output-available", json!(true))), Err(Code::MissingText));
        let other =
            json!({"type": "dynamic-tool", "state": "approval-responded", "approval": {"id": "x", "approved": true}});
        assert_eq!(last(other), Err(Code::ChoiceNotFound));
    }

    #[test]
    fn nothing_said_is_refused() {
        for body in [
            json!({}),
            json!({"messages": []}),
            json!({"messages": [{"role": "user", "parts": [{"type": "text", "text": " "}]}]}),
            json!({"messages": [{"role": "system", "parts": [{"type": "text", "text": "x"}]}]}),
            json!({"messages": [{"role": "assistant", "parts": [{"type": "text", "text": "x"}]}]}),
        ] {
            assert_eq!(said(body.clone()), Err(Code::MissingText), "{body}");
        }
    }
}
