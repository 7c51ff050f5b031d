//! Calls of the Vercel AI SDK.

use serde_json::{Value, json};

use super::{document::Document, operation::Operation, refusals::CHANGE};
use crate::{
    doors::ui_message::ChatRequest,
    error::Code,
    ids::{SessionKey, TurnId},
};

const ABOUT: &str = "What `useChat` posts. The last of `messages` is sent to the session, which has the conversation already; its turn is the \
     answer, as a UI message stream (version 1), from its start to its end. Where the last message is the assistant's with \
     answered approvals, they are answered and the same turn goes on. A lost connection cancels nothing.";

const AGAIN: &str = "The turn that runs, or else the next one that waits, from its start, as the default transport of `useChat` asks for it. \
     204 where nothing is at work.";

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Vercel AI SDK", "Chats of `useChat`: UI message streams.");
    let chat = doc.taken::<ChatRequest>();
    let key = doc.taken::<SessionKey>();
    let id = json!({"type": "object", "additionalProperties": true, "required": ["id"], "properties": {"id": key}});
    let with_id = json!({"allOf": [chat, id]});

    let said = |text: &str| json!({"id": "m-1", "role": "user", "parts": [{"type": "text", "text": text}]});
    let messages =
        json!({"id": "web:alice", "trigger": "submit-message", "messages": [said("What is in this folder?")]});
    let again = json!({"id": "web:alice", "trigger": "regenerate-message", "messages": [said("Once more")]});
    let call = doc.post("/v1/chat", "chat", "Send a chat message and stream its turn").about(ABOUT).writes();
    sends(call).takes_form(with_id, &[("messages", messages), ("again", again)]).refuses(&[Code::InvalidId]).done();

    let messages = json!({"messages": [said("What is in this folder?")]});
    let call = doc.post("/v1/sessions/{key}/chat", "chatWithSession", "The same for the session of the path");
    sends(call.about(ABOUT).writes())
        .takes_form(
            chat,
            &[
                ("text", json!({"text": "Hello"})),
                ("prompt", json!({"prompt": "Hello", "agent": "echo"})),
                ("messages", messages),
            ],
        )
        .done();

    let turn = doc.taken::<TurnId>();
    let about = format!("{AGAIN} Also where there is no such session yet.");
    let call = doc.get("/v1/chat/{key}/stream", "resumeChat", "The turn at work once more").about(&about);
    resumes(call, &turn).done();
    let call = doc.get("/v1/sessions/{key}/chat/stream", "resumeChatOfSession", "The same of a session that is there");
    resumes(call.about(AGAIN), &turn).refuses(&[Code::SessionNotFound]).done();
}

fn sends(call: Operation<'_>) -> Operation<'_> {
    streams(call).once().refuses(CHANGE).refuses(&[
        Code::MissingText,
        Code::InvalidAttachment,
        Code::InvalidPermissionMode,
        Code::UnknownAgent,
        Code::InvalidChoicePayload,
        Code::TurnNotFound,
        Code::ChoiceNotFound,
        Code::SessionBusy,
        Code::SessionArchived,
        Code::ContentTooLarge,
        Code::QueueFull,
        Code::BudgetExceeded,
        Code::TooManySubscribers,
    ])
}

fn resumes<'a>(call: Operation<'a>, turn: &Value) -> Operation<'a> {
    streams(call.reads())
        .query("turn", "This turn, be it over or not; `last` is the newest where none is at work.", {
            json!({"anyOf": [turn, {"type": "string", "const": "last"}]})
        })
        .answers_nothing(204, "Nothing is at work.")
        .refuses(&[Code::TurnNotFound, Code::TooManySubscribers, Code::TooManySessions])
}

fn streams(call: Operation<'_>) -> Operation<'_> {
    let version = || json!({"type": "string", "pattern": "^(ai/)?([5-9]|[1-9][0-9]{1,3})(\\.[0-9.]*)?$"});
    call.query("ui", "The version of the AI SDK, for the parts that not all of them know.", version())
        .header("x-ai-sdk-version", "The same.", version())
        .answers_as(
            200,
            "The turn as a UI message stream: `data:` lines with a part each, then `[DONE]`. `x-turn-id` names the turn.",
            "text/event-stream",
            json!({"schema": {"description": "Server-sent events, each with one part as JSON in its `data`."}}),
        )
}
