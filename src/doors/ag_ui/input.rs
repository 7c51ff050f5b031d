//! What a client asks: a `RunAgentInput`, read as a message for the session or as answers to its questions.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};

use super::content;
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{SendMessage, command::NOT_BLANK},
};

/// Characters of a run's id at most.
const MAX_RUN_ID: usize = 200;
/// Characters of a message's id that a turn keeps as its `client_id`.
const MAX_CLIENT_ID: usize = 64;

/// The body of `POST /v1/ag-ui`. Its objects are open: what is not known is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunAgentInput {
    thread_id: String,
    run_id: String,
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(default)]
    parent_run_id: Option<String>,
    /// Kept as they came: all but the last are read for their role alone.
    messages: Vec<Box<RawValue>>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    context: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    forwarded_props: Option<Value>,
    #[serde(default)]
    resume: Option<Vec<Resume>>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    name: String,
}

/// An answer to an interrupt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The interrupt: the id of the choice.
    pub interrupt_id: String,
    /// `resolved`, or `cancelled`, which turns it down.
    pub status: Status,
    /// The answer.
    #[serde(default)]
    pub payload: Option<Value>,
}

/// How an interrupt ended at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is an answer.
    Resolved,
    /// There is none, and there will be none.
    Cancelled,
}

/// A run that a client asks for.
#[derive(Debug)]
pub struct Run {
    /// The thread: the session.
    pub thread: SessionKey,
    /// The client's id of the run.
    pub id: String,
    /// The run that this one goes on from, as the client says.
    pub parent: Option<String>,
    /// True when the client says a protocol version, which it does since 1.0.
    pub declares_version: bool,
    /// What it asks.
    pub asks: Asks,
    /// The client's messages, as they came.
    pub messages: Vec<Box<RawValue>>,
    /// How many of them there are up to the last one of the user.
    pub up_to_user: usize,
    /// The names of the client's own tools, which the agent cannot call.
    pub tools: Vec<String>,
    /// How many texts of context there are, which the agent does not get.
    pub context: usize,
}

/// What a run asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Asks {
    /// Its last message of the user.
    Message {
        /// The message.
        message: Box<SendMessage>,
        /// True when it is the last of all; else the client has something of the answer already.
        is_new: bool,
    },
    /// Answers; never empty.
    Answers(Vec<Resume>),
}

/// What every message has.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "id")]
    _id: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
}

impl RunAgentInput {
    /// Reads it.
    ///
    /// # Errors
    /// `invalid_id` for a thread that cannot be a session, `invalid_parameter`, `missing_text` without a message of the
    /// user, `invalid_attachment`, `invalid_json` with the field.
    pub fn read(self) -> Result<Run, ApiError> {
        let thread = self.thread_id.parse();
        let thread = thread.map_err(|error| {
            let message = format!("threadId {:?} is no session key: {error}.", self.thread_id);
            ApiError::new(Code::InvalidId, message).with("field", "threadId")
        })?;
        if self.run_id.trim().is_empty() || self.run_id.chars().count() > MAX_RUN_ID {
            let message = format!("A runId has 1 to {MAX_RUN_ID} characters.");
            return Err(ApiError::new(Code::InvalidParameter, message).with("field", "runId"));
        }
        let mut user = None;
        for (at, message) in self.messages.iter().enumerate() {
            let head: Head<'_> = content::decode(message.get(), &format!("messages[{at}]"))?;
            if head.role == "user" {
                user = Some((at, message));
            }
        }
        let resume = self.resume.unwrap_or_default();
        let asks = match user {
            _ if !resume.is_empty() => Asks::Answers(resume),
            Some((at, message)) => {
                let field = format!("messages[{at}]");
                let message = message_of(message, &field, self.forwarded_props.as_ref())?;
                Asks::Message { message: Box::new(message), is_new: at + 1 == self.messages.len() }
            }
            None => {
                let message = "messages: the last one must be from the user, and it is what is sent.";
                return Err(ApiError::new(Code::MissingText, message).with("field", "messages"));
            }
        };
        Ok(Run {
            thread,
            id: self.run_id,
            parent: self.parent_run_id,
            declares_version: self.protocol_version.is_some(),
            asks,
            up_to_user: user.map_or(0, |(at, _)| at + 1),
            messages: self.messages,
            tools: self.tools.unwrap_or_default().into_iter().map(|tool| tool.name).collect(),
            context: self.context.map_or(0, |context| context.len()),
        })
    }
}

/// The message of the user as the session takes it.
fn message_of(message: &RawValue, field: &str, props: Option<&Value>) -> Result<SendMessage, ApiError> {
    let user: content::User = content::decode(message.get(), field)?;
    let (text, attachments) = user.content.read(field)?;
    Ok(SendMessage {
        text: Some(text),
        attachments,
        agent: prop(props, "agent")?,
        model: prop(props, "model")?,
        mode: prop(props, "mode")?,
        permission_mode: prop(props, "permission_mode")?,
        client_id: Some(user.id).filter(|id| !id.is_empty() && id.chars().count() <= MAX_CLIENT_ID),
        metadata: Map::new(),
        ..SendMessage::default()
    })
}

/// A setting for the turn. `forwardedProps` is the application's own: what else it holds is not ours to judge.
fn prop(props: Option<&Value>, name: &str) -> Result<Option<String>, ApiError> {
    match props.and_then(|props| props.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(_) => {
            let message = format!("forwardedProps.{name} is a text.");
            Err(ApiError::new(Code::InvalidJson, message).with("field", format!("forwardedProps.{name}")))
        }
    }
}

impl JsonSchema for RunAgentInput {
    fn schema_name() -> Cow<'static, str> {
        "RunAgentInput".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let key = generator.subschema_for::<SessionKey>();
        let setting =
            |about: &str| serde_json::json!({"type": ["string", "null"], "maxLength": 200, "description": about});
        json_schema!({
            "description": "What an AG-UI client sends. Other fields are allowed.",
            "type": "object",
            "required": ["threadId", "runId", "messages"],
            "properties": {
                "threadId": {"description": "The key of the session.", "allOf": [key]},
                "runId": {
                    "description": "The client's id of the run. Sent again it is the same run, not another one.",
                    "type": "string", "minLength": 1, "maxLength": MAX_RUN_ID, "pattern": NOT_BLANK,
                },
                "protocolVersion": {"type": ["string", "null"]},
                "parentRunId": {"type": ["string", "null"]},
                "state": {"description": "The client's own; left alone."},
                "messages": {
                    "description": "What the client shows of the thread. The last one must be from the user, and it is what is sent: the session knows the others. Its `content` is a text, or a list of parts: `text`, and `image`, `audio`, `video` or `document` with a `source` of type `data`, or one of type `url` that is a base64 `data:` URL.",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["id", "role"],
                        "properties": {"id": {"type": "string"}, "role": {"type": "string"}},
                        "additionalProperties": true,
                    },
                },
                "tools": {
                    "description": "The client's own tools. Agents here cannot call them, and the run says so.",
                    "type": ["array", "null"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}},
                        "additionalProperties": true,
                    },
                },
                "context": {"description": "Not given to the agent, and the run says so.", "type": ["array", "null"], "items": {}},
                "forwardedProps": {
                    "description": "The application's own, and settings for this turn.",
                    "properties": {
                        "agent": setting("Another agent."),
                        "model": setting("Another model."),
                        "mode": setting("Another mode."),
                        "permission_mode": {
                            "description": "Another permission mode.",
                            "enum": ["default", "accept_edits", "plan", "dont_ask", "bypass", null],
                        },
                    },
                },
                "resume": {
                    "description": "Answers to the interrupts of the run before; with one, the messages are not looked at.",
                    "type": ["array", "null"],
                    "items": {
                        "type": "object",
                        "required": ["interruptId", "status"],
                        "properties": {
                            "interruptId": {"description": "The id of the choice.", "type": "string"},
                            "status": {"enum": ["resolved", "cancelled"]},
                            "payload": {"description": "The answer, as the interrupt's `responseSchema` has it."},
                        },
                        "additionalProperties": true,
                    },
                },
            },
            "additionalProperties": true,
        })
    }
}
