//! Calls in the words of other protocols.

use serde_json::json;

use super::{document::Document, refusals::CHANGE};
use crate::{doors::ag_ui::RunAgentInput, error::Code};

pub(super) fn describe(doc: &mut Document) {
    doc.topic("AG-UI", "Sessions for clients that speak AG-UI.");

    let message = json!({"id": "m-1", "role": "user", "content": "What is in this folder?"});
    let image = json!({"type": "image", "source": {"type": "data", "value": "aGVsbG8=", "mimeType": "image/png"}});
    let file = json!({"id": "m-1", "role": "user", "content": [{"type": "text", "text": "What is this?"}, image]});
    doc.post("/v1/ag-ui", "runAgent", "Run an agent, in the words of AG-UI")
        .about(
            "The thread is the session, and is made if there is none; a run is a turn. A question of the agent ends the \
             run with the outcome `interrupt`, and the run whose `resume` answers it tells the rest of the same turn. \
             The same `runId` again is the same run, told from its beginning; a lost connection cancels nothing.",
        )
        .writes()
        .once()
        .takes::<RunAgentInput>(&[
            ("text", json!({"threadId": "web:alice", "runId": "run-1", "messages": [message]})),
            ("file", json!({"threadId": "web:bob", "runId": "run-1", "messages": [file]})),
            (
                "settings",
                json!({"threadId": "web:carol", "runId": "run-1", "messages": [message], "forwardedProps": {"agent": "echo"}}),
            ),
        ])
        .answers_as(
            200,
            "The events of the run, from `RUN_STARTED` to `RUN_FINISHED` or `RUN_ERROR`.",
            "text/event-stream",
            json!({"schema": {"description": "Server-sent events, each with one AG-UI event as JSON in its `data`."}}),
        )
        .refuses(CHANGE)
        .refuses(&[
            Code::InvalidId,
            Code::MissingText,
            Code::InvalidAttachment,
            Code::InvalidPermissionMode,
            Code::InvalidChoicePayload,
            Code::UnknownAgent,
            Code::TurnNotFound,
            Code::ChoiceNotFound,
            Code::SessionArchived,
            Code::ContentTooLarge,
            Code::QueueFull,
            Code::BudgetExceeded,
            Code::TooManySubscribers,
        ])
        .done();
}
