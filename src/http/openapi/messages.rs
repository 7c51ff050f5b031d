//! Calls about the transcript, and sending.

use serde_json::json;

use super::{document::Document, refusals::CHANGE};
use crate::{
    error::Code,
    gateway::Finished,
    http::{list::List, params::MAX_WAIT},
    ids::{MessageId, SessionId},
    protocol::{AcceptedTurn, Message, SendMessage},
};

/// What can be done with a turn.
pub(super) const TURN_CALLS: &[&str] = &["getTurn", "editTurn", "moveTurn", "cancelTurn", "retryTurn"];

pub(super) fn describe(doc: &mut Document) {
    let session = |rest: &str| format!("/v1/sessions/{{key}}{rest}");
    doc.topic("Messages", "The transcript, and sending a message.");

    let (message, conversation) = (doc.taken::<MessageId>(), doc.taken::<SessionId>());
    doc.get(&session("/messages"), "listMessages", "A page of the transcript")
        .reads()
        .page::<MessageId>()
        .query("around", "The messages around this one, oldest first, in place of a page.", message)
        .query("id", "An earlier conversation of the session, from before a reset.", conversation)
        .answers::<List<Message>>(200, "The page.")
        .leads_to(200, &["getMessage"], &[("id", "$response.body#/data/0/id")])
        .refuses(&[Code::SessionNotFound, Code::MessageNotFound])
        .done();

    doc.get(&session("/messages/{id}"), "getMessage", "One message")
        .reads()
        .id::<MessageId>("The message.", Code::MessageNotFound)
        .answers::<Message>(200, "The message.")
        .refuses(&[Code::SessionNotFound])
        .done();

    let attachment = json!({"name": "a.txt", "media_type": "text/plain", "content_base64": "aGVsbG8="});
    doc.post(&session("/messages"), "sendMessage", "Send a message")
        .about(
            "Makes the session if there is none. When a 2xx comes, the turn is on disk: it reaches one terminal state, \
             also over a crash. Ask for its end with `wait`, or for its events with `Accept: text/event-stream`: those \
             of the turn from `turn.queued` to `turn.finished`.",
        )
        .writes()
        .once()
        .query(
            "wait",
            "Seconds to wait for the end of the turn.",
            json!({"type": "number", "minimum": 0, "maximum": MAX_WAIT}),
        )
        .header(
            "prefer",
            "`wait=SECONDS`: the same as a preference. More than the maximum is the maximum; what is no number is none.",
            json!({"type": "string"}),
        )
        .takes::<SendMessage>(&[
            ("text", json!({"text": "What is in this folder?"})),
            ("steer", json!({"text": "Look at the tests too", "policy": "steer", "client_id": "m-17"})),
            ("file", json!({"text": "What does it say?", "attachments": [attachment]})),
            ("settings", json!({"text": "Plan it", "agent": "echo", "permission_mode": "plan", "metadata": {"from": "docs"}})),
        ])
        .answers::<Finished>(200, "The turn is over: asked for by `wait`.")
        .answers_as(
            200,
            "The turn is over: asked for by `wait`. Or the events of the turn.",
            "text/event-stream",
            json!({"schema": {"type": "string"}, "x-event-schema": {"$ref": "#/components/schemas/StreamFrame"}}),
        )
        .answers_with_location::<AcceptedTurn<'_>>(202, "The turn is accepted.")
        .leads_to(200, TURN_CALLS, &[("id", "$response.body#/turn/id")])
        .leads_to(202, TURN_CALLS, &[("id", "$response.body#/turn/id")])
        .refuses(CHANGE)
        .refuses(&[
            Code::MissingText,
            Code::InvalidAttachment,
            Code::MetadataTooLarge,
            Code::InvalidPermissionMode,
            Code::UnknownAgent,
            Code::TurnNotFound,
            Code::SessionBusy,
            Code::SessionArchived,
            Code::ContentTooLarge,
            Code::QueueFull, Code::BudgetExceeded,
            Code::TooManySubscribers,
        ])
        .done();
}
