//! Calls in OpenAI's form.

use serde_json::{Value, json};

use super::{document::Document, refusals::CHANGE};
use crate::{
    doors::openai::{chat_request::ChatRequest, response_request::ResponseRequest},
    error::Code,
    http::models::{Model, Models},
    ids::SessionKey,
};

/// What a call can be refused for beside what all calls with a body can.
const REFUSED: &[Code] = &[
    Code::UnsupportedParameter,
    Code::ModelNotFound,
    Code::MissingText,
    Code::InvalidId,
    Code::InvalidAttachment,
    Code::MetadataTooLarge,
    Code::TurnNotFound,
    Code::SessionArchived,
    Code::ContentTooLarge,
    Code::QueueFull,
    Code::BudgetExceeded,
    Code::TooManySubscribers,
    Code::AgentUnavailable,
    Code::AgentTimeout,
];

const ABOUT_SESSIONS: &str = "\
With a session, which `X-Session-Key` or a field of the body names, the message is a turn of it: it is on disk before it runs, and \
the answer goes on when the client goes. Without one, nothing is kept: a client that goes stops it, and no question of the agent \
can be answered, so it gets what `choice.on_timeout` says, at once.";

pub(super) fn describe(doc: &mut Document) {
    doc.topic("OpenAI", "Chat completions and responses, for clients that speak them.");
    let key = doc.taken::<SessionKey>();
    let header = "The session; made if there is none. It comes back with the answer.";

    doc.post("/v1/chat/completions", "createChatCompletion", "A chat completion")
        .about(&format!(
            "{ABOUT_SESSIONS} Fields that are not listed are taken and mean nothing; what an agent cannot do is refused. \
             An agent runs its own tools: they are not told as `tool_calls`."
        ))
        .writes()
        .once()
        .header("x-session-key", header, key.clone())
        .takes::<ChatRequest>(&[
            ("stateless", json!({"model": "echo", "messages": [{"role": "user", "content": "Hello"}]})),
            (
                "session",
                json!({"model": "echo", "user": "web:docs", "messages": [
                    {"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"},
                ]}),
            ),
            (
                "streamed",
                json!({"model": "echo", "stream": true, "stream_options": {"include_usage": true},
                    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}),
            ),
        ])
        .answers_as(200, "The completion, or its chunks.", "application/json", json!({"schema": completion()}))
        .answers_as(200, "The completion, or its chunks.", "text/event-stream", json!({"schema": {"description": "Server-sent events."}}))
        .refuses(CHANGE)
        .refuses(REFUSED)
        .done();

    doc.post("/v1/responses", "createResponse", "A response")
        .about(&format!(
            "{ABOUT_SESSIONS} A response that is kept is a turn: `resp_` and `turn_` with the same characters. It is kept where a \
             session is named, with `store: true`, and in the background."
        ))
        .writes()
        .once()
        .header("x-session-key", header, key)
        .takes::<ResponseRequest>(&[
            ("stateless", json!({"model": "echo", "input": "Hello", "instructions": "Be short."})),
            ("kept", json!({"model": "echo", "input": [{"role": "user", "content": "Hello"}], "store": true})),
            ("streamed", json!({"model": "echo", "input": "Hello", "stream": true, "conversation": "web:docs"})),
        ])
        .answers_as(200, "The response, or its events.", "application/json", json!({"schema": response()}))
        .answers_as(200, "The response, or its events.", "text/event-stream", json!({"schema": {"description": "Server-sent events."}}))
        .refuses(CHANGE)
        .refuses(REFUSED)
        .refuses(&[Code::PreviousResponseNotFound, Code::PreviousResponseNotLast])
        .done();

    let id = json!({"type": "string", "pattern": "^resp_[0-7][0-9a-hjkmnp-tv-z]{25}$"});
    doc.get("/v1/responses/{id}", "getResponse", "A response that was kept")
        .reads()
        .path("id", "The response.", id.clone())
        .answers_as(200, "The response.", "application/json", json!({"schema": response()}))
        .refuses(&[Code::ResponseNotFound, Code::SessionNotFound, Code::TurnNotFound])
        .done();
    doc.post("/v1/responses/{id}/cancel", "cancelResponse", "Stop a response")
        .about("As it is after the call: `cancelled` once the agent has stopped.")
        .writes()
        .path("id", "The response.", id)
        .answers_as(200, "The response.", "application/json", json!({"schema": response()}))
        .refuses(CHANGE)
        .refuses(super::refusals::BODY)
        .refuses(&[Code::ResponseNotFound, Code::TurnNotFound, Code::TurnNotCancellable])
        .done();

    doc.get("/v1/models", "listModels", "The agents that could run now, and their models")
        .reads()
        .answers::<Models>(200, "All of them.")
        .done();
    doc.get("/v1/models/{id}", "getModel", "One of them")
        .reads()
        .path("id", "`agent`, or `agent/model`.", json!({"type": "string", "minLength": 1}))
        .answers::<Model>(200, "The model.")
        .refuses(&[Code::ModelNotFound])
        .done();
}

fn completion() -> Value {
    let choice = json!({
        "type": "object", "required": ["index", "message", "finish_reason"], "additionalProperties": true,
        "properties": {
            "index": {"const": 0},
            "message": {
                "type": "object", "required": ["role", "content"], "additionalProperties": true,
                "properties": {
                    "role": {"const": "assistant"}, "content": {"type": "string"},
                    "reasoning_content": {"description": "What the agent thought, where it tells.", "type": "string"},
                },
            },
            "finish_reason": {"enum": ["stop", "length", "content_filter"]},
        },
    });
    json!({
        "type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "additionalProperties": true,
        "properties": {
            "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
            "model": {"type": "string"}, "choices": {"type": "array", "items": choice}, "usage": {"type": "object"},
        },
    })
}

fn response() -> Value {
    let statuses = ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"];
    json!({
        "type": "object", "required": ["id", "object", "created_at", "status", "model", "output"], "additionalProperties": true,
        "properties": {
            "id": {"type": "string"}, "object": {"const": "response"}, "created_at": {"type": "integer"},
            "status": {"enum": statuses}, "model": {"type": "string"},
            "output": {"description": "Items of type `reasoning` and `message`, in order.", "type": "array", "items": {"type": "object"}},
            "conversation": {"description": "The session, by its key as `id`; null where nothing is kept.", "type": ["object", "null"]},
            "previous_response_id": {"type": ["string", "null"]},
            "error": {"type": ["object", "null"]}, "usage": {"type": ["object", "null"]},
        },
    })
}
