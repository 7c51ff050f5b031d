//! The body of `POST /v1/responses`. Fields that are not listed are taken and mean nothing here. Pure.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    chat_request::{forced, is_text, unused},
    content::Content,
    conversation::{Conversation, Said, conversation},
    input::entry,
    refused::{FORMAT, TOOLS, invalid, unsupported},
};
use crate::{error::ApiError, ids::SessionKey, protocol::Role};

/// A request for a response.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["model", "input"]))]
pub struct ResponseRequest {
    /// An agent's id, or `agent/model`.
    #[schemars(length(min = 1, max = 300))]
    pub model: String,
    /// A text, or a list of items whose last word is the user's.
    #[schemars(schema_with = "input", required)]
    pub input: Value,
    /// What the agent is told before all else. In a session that has begun with the same, it has it already.
    pub instructions: Option<String>,
    /// Events as they come, or one answer.
    pub stream: Option<bool>,
    /// Answer at once; the response is asked for again until it is over. Needs a session.
    pub background: Option<bool>,
    /// The response to go on from; it must be the last of its session.
    pub previous_response_id: Option<String>,
    /// The key of the session, or an object with it as `id`; made if there is none.
    #[schemars(schema_with = "key_or_object")]
    pub conversation: Option<Value>,
    /// The key of the session, where neither `X-Session-Key` nor `conversation` says it.
    pub user: Option<String>,
    /// True keeps the conversation in a session of its own, where no key is given.
    pub store: Option<bool>,
    /// Kept with the turn, where there is a session: at most 16 KiB as JSON.
    pub metadata: Option<Map<String, Value>>,
    /// Not taken, unless `tool_choice` is `none`.
    #[schemars(length(max = 0))]
    pub tools: Option<Vec<Value>>,
    /// Whether tools may be called.
    #[schemars(extend("enum" = ["none", "auto", null]))]
    pub tool_choice: Option<Value>,
    /// The form of the answer: `{"format": {"type": "text"}}`.
    #[schemars(schema_with = "text_settings")]
    pub text: Option<Value>,
    /// Not taken: prompts are not stored here.
    #[schemars(extend("enum" = [null]))]
    pub prompt: Option<Value>,
}

impl ResponseRequest {
    /// Refuses what an agent cannot do, rather than to leave it out in silence.
    ///
    /// # Errors
    /// `unsupported_parameter` and `invalid_json`, with the field as `param`.
    pub fn check(&self) -> Result<(), ApiError> {
        let form = self.text.as_ref().and_then(|text| text.get("format"));
        let refused = match () {
            () if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) && !unused(self.tool_choice.as_ref()) => {
                ("tools", TOOLS)
            }
            () if forced(self.tool_choice.as_ref()) => ("tool_choice", TOOLS),
            () if form.is_some_and(|form| !is_text(form)) => ("text.format", FORMAT),
            () if self.prompt.as_ref().is_some_and(|prompt| !prompt.is_null()) => {
                ("prompt", "prompts are not stored here; send the text")
            }
            () if self.background == Some(true) && self.stream == Some(true) => {
                ("background", "in the background nothing is streamed; leave out one of the two")
            }
            () if self.text.as_ref().is_some_and(|text| !text.is_null() && !text.is_object()) => {
                return Err(invalid("text", "an object"));
            }
            () => return Ok(()),
        };
        Err(unsupported(refused.0, refused.1))
    }

    /// The key that `conversation` names.
    ///
    /// # Errors
    /// `invalid_json`.
    pub fn conversation_key(&self) -> Result<Option<&str>, ApiError> {
        match &self.conversation {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(key)) => Ok(Some(key)),
            Some(other) => {
                let key = other.get("id").and_then(Value::as_str);
                key.map(Some).ok_or_else(|| invalid("conversation", "the key of a session, or an object with it as id"))
            }
        }
    }

    /// The conversation that the input tells, after the instructions.
    ///
    /// # Errors
    /// `invalid_json` and `unsupported_parameter`, with the place as `param`.
    pub fn take_conversation(&mut self) -> Result<Conversation, ApiError> {
        let told = self.instructions.clone().filter(|text| !text.trim().is_empty());
        let text = |role, text| Said { role, content: Content { text, files: Vec::new() } };
        let mut said: Vec<Said> = told.map(|told| text(Role::System, told)).into_iter().collect();
        match std::mem::take(&mut self.input) {
            Value::String(input) => said.push(text(Role::User, input)),
            Value::Array(items) => {
                for (number, item) in items.into_iter().enumerate() {
                    said.extend(entry(item, &format!("input[{number}]"))?);
                }
            }
            _ => return Err(invalid("input", "a text or a list of items")),
        }
        conversation(said, "input")
    }
}

fn input(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = serde_json::json!({
        "type": "object", "required": ["role"],
        "properties": {
            "type": {"const": "message"},
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
            "content": super::content_form(),
        },
    });
    schemars::json_schema!({
        "description": "A text, or a list of items whose last word is the user's.",
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": item}],
    })
}

fn key_or_object(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let key = generator.subschema_for::<SessionKey>();
    schemars::json_schema!({
        "description": "The key of the session, or an object with it as `id`; made if there is none.",
        "anyOf": [
            key, {"type": "null"}, {"type": "object", "required": ["id"], "properties": {"id": key}},
        ],
    })
}

fn text_settings(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let form = super::chat_request::text_form(generator);
    schemars::json_schema!({
        "description": "The form of the answer: `{\"format\": {\"type\": \"text\"}}`.",
        "anyOf": [{"type": "object", "properties": {"format": form}}, {"type": "null"}],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Code;

    fn request(fields: Value) -> ResponseRequest {
        let mut body = json!({"model": "echo", "input": "hi"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_text_or_items_after_the_instructions() {
        let read = request(json!({"instructions": "be kind"})).take_conversation().unwrap();
        assert_eq!((read.system().as_deref(), &*read.text), (Some("be kind"), "hi"));
        let items = json!([{"role": "user", "content": "a"}, {"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "b"}]}, {"type": "reasoning", "summary": []}, {"role": "user", "content": "c"}]);
        let read = request(json!({"input": items})).take_conversation().unwrap();
        assert_eq!((read.before.len(), &*read.text), (2, "c"));
    }

    #[test]
    fn a_conversation_is_a_key_or_an_object() {
        assert_eq!(request(json!({"conversation": "web:a"})).conversation_key(), Ok(Some("web:a")));
        assert_eq!(request(json!({"conversation": {"id": "web:a"}})).conversation_key(), Ok(Some("web:a")));
        assert_eq!(request(json!({})).conversation_key(), Ok(None));
        assert_eq!(request(json!({"conversation": 7})).conversation_key().unwrap_err().code, Code::InvalidJson);
    }

    #[test]
    fn what_an_agent_cannot_do_is_refused_by_name() {
        for (fields, param) in [
            (json!({"tools": [{"type": "web_search"}]}), "tools"),
            (json!({"tool_choice": {"type": "function", "name": "f"}}), "tool_choice"),
            (json!({"text": {"format": {"type": "json_schema"}}}), "text.format"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (json!({"background": true, "stream": true}), "background"),
        ] {
            let error = request(fields).check().unwrap_err();
            assert_eq!((error.code, &error.details["param"]), (Code::UnsupportedParameter, &param.into()));
        }
        assert_eq!(
            request(json!({"text": {"format": {"type": "text"}}, "tools": [], "temperature": 1})).check(),
            Ok(())
        );
    }
}
