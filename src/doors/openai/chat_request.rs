//! The body of `POST /v1/chat/completions`. Fields that are not listed are taken and mean nothing here: they ask for
//! ways of sampling, which are an agent's own. Pure.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    conversation::{Conversation, conversation},
    input::entry,
    refused::{FORMAT, STOP, TOOLS, unsupported},
};
use crate::error::ApiError;

/// A request for a completion.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["model", "messages"]))]
pub struct ChatRequest {
    /// An agent's id, or `agent/model`.
    #[schemars(length(min = 1, max = 300))]
    pub model: String,
    /// The conversation; its last word is the user's. In a session that has begun only what the user says after the last
    /// answer counts: the session has the rest.
    #[schemars(schema_with = "messages", required)]
    pub messages: Vec<Value>,
    /// Chunks as they come, or one answer.
    pub stream: Option<bool>,
    /// What a stream tells beside the text.
    pub stream_options: Option<StreamOptions>,
    /// The key of the session, where `X-Session-Key` does not say it; made if there is none.
    pub user: Option<String>,
    /// True keeps the conversation in a session of its own, where no key is given.
    pub store: Option<bool>,
    /// Kept with the turn, where there is a session: at most 16 KiB as JSON.
    pub metadata: Option<Map<String, Value>>,
    /// Answers; an agent gives one.
    #[schemars(range(min = 1, max = 1))]
    pub n: Option<u64>,
    /// Not taken, unless `tool_choice` is `none`.
    #[schemars(length(max = 0))]
    pub tools: Option<Vec<Value>>,
    /// Not taken.
    #[schemars(length(max = 0))]
    pub functions: Option<Vec<Value>>,
    /// Whether tools may be called.
    #[schemars(extend("enum" = ["none", "auto", null]))]
    pub tool_choice: Option<Value>,
    /// The form of the answer: `text`.
    #[schemars(schema_with = "text_form")]
    pub response_format: Option<Value>,
    /// What the answer is made of: `text`.
    #[schemars(schema_with = "text_only")]
    pub modalities: Option<Vec<Value>>,
    /// Not taken.
    #[schemars(extend("enum" = [false, null]))]
    pub logprobs: Option<bool>,
    /// Not taken.
    #[schemars(schema_with = "nothing")]
    pub stop: Option<Value>,
}

/// What a stream tells beside the text.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: Option<bool>,
}

impl ChatRequest {
    /// Refuses what an agent cannot do, rather than to leave it out in silence.
    ///
    /// # Errors
    /// `unsupported_parameter`, with the field as `param`.
    pub fn check(&self) -> Result<(), ApiError> {
        let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let refused = match () {
            () if self.n.is_some_and(|n| n != 1) => ("n", "an agent gives one answer"),
            () if some(&self.tools) && !unused(self.tool_choice.as_ref()) => ("tools", TOOLS),
            () if some(&self.functions) => ("functions", TOOLS),
            () if forced(self.tool_choice.as_ref()) => ("tool_choice", TOOLS),
            () if self.response_format.as_ref().is_some_and(|form| !is_text(form)) => ("response_format", FORMAT),
            () if self.modalities.iter().flatten().any(|kind| kind != "text") => ("modalities", FORMAT),
            () if self.logprobs == Some(true) => ("logprobs", "an agent does not tell probabilities"),
            () if self.stop.as_ref().is_some_and(is_something) => ("stop", STOP),
            () => return Ok(()),
        };
        Err(unsupported(refused.0, refused.1))
    }

    /// The conversation that the messages tell.
    ///
    /// # Errors
    /// `invalid_json` and `unsupported_parameter`, with the place as `param`.
    pub fn conversation(&mut self) -> Result<Conversation, ApiError> {
        let messages = std::mem::take(&mut self.messages).into_iter().enumerate();
        let said = messages.map(|(number, message)| entry(message, &format!("messages[{number}]")));
        conversation(said.filter_map(Result::transpose).collect::<Result<_, _>>()?, "messages")
    }

    /// True when a stream is to end with the usage.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.stream_options.is_some_and(|options| options.include_usage == Some(true))
    }
}

/// True when tools must not be called.
pub(super) fn unused(choice: Option<&Value>) -> bool {
    choice.is_some_and(|choice| choice == "none")
}

/// True when a tool must be called.
pub(super) fn forced(choice: Option<&Value>) -> bool {
    choice.is_some_and(|choice| !choice.is_null() && choice != "none" && choice != "auto")
}

/// `{"type": "text"}`
pub(super) fn is_text(form: &Value) -> bool {
    form.is_null() || form.get("type").is_some_and(|kind| kind == "text")
}

fn is_something(value: &Value) -> bool {
    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) && value != ""
}

fn messages(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array", "minItems": 1,
        "items": {
            "type": "object", "required": ["role"],
            "properties": {
                "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
                "content": super::content_form(),
            },
        },
    })
}

pub(super) fn text_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let text = serde_json::json!({"type": "object", "required": ["type"], "properties": {"type": {"const": "text"}}});
    schemars::json_schema!({"description": "The form of the answer: text.", "anyOf": [text, {"type": "null"}]})
}

fn text_only(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"description": "Text is all that there is.", "type": ["array", "null"], "items": {"const": "text"}})
}

fn nothing(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"description": "Not taken.", "enum": [null, "", []]})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Code;

    fn request(fields: Value) -> ChatRequest {
        let mut body = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn what_means_nothing_here_is_taken() {
        let usual = json!({"temperature": 0.2, "top_p": 1, "max_tokens": 5, "seed": 1, "tools": [], "stop": null,
            "tool_choice": "auto", "response_format": {"type": "text"}, "logprobs": false, "future": {"x": 1}});
        assert_eq!(request(usual).check(), Ok(()));
        assert_eq!(request(json!({"tools": [{"type": "function"}], "tool_choice": "none"})).check(), Ok(()));
        let mut request = request(json!({"stream_options": {"include_usage": true}}));
        assert!(request.wants_usage());
        assert_eq!(request.conversation().unwrap().text, "hi");
    }

    #[test]
    fn what_an_agent_cannot_do_is_refused_by_name() {
        let refused = |fields: Value| {
            let error = request(fields).check().unwrap_err();
            (error.code, error.details["param"].as_str().unwrap().to_owned())
        };
        let tool = json!([{"type": "function", "function": {"name": "f"}}]);
        for (fields, param) in [
            (json!({"n": 2}), "n"),
            (json!({"tools": tool}), "tools"),
            (json!({"functions": tool}), "functions"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"response_format": {"type": "json_object"}}), "response_format"),
            (json!({"modalities": ["text", "audio"]}), "modalities"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"stop": ["\n"]}), "stop"),
        ] {
            assert_eq!(refused(fields), (Code::UnsupportedParameter, param.into()));
        }
    }
}
