//! Calls that follow a session: pages of its log, SSE, WebSocket.

use serde_json::{Value, json};

use super::{document::Document, frames, operation::Operation};
use crate::error::Code;

/// A `seq` in a parameter.
fn seq() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0})
}

pub(super) fn describe(doc: &mut Document) {
    doc.topic("Events", "The log of a session: every fact once, numbered without gaps, stored before it is shown. What only told how far a turn had come may be pruned some time after its end.");
    frames::describe(doc);

    let id = json!({"anyOf": [seq(), {"type": "null"}]});
    doc.schema(
        "EventList",
        json!({
            "description": "A page of the log, oldest first, whichever way it goes.",
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
                "first_id": id, "last_id": id,
                "has_more": {"type": "boolean", "description": "True when there are more in that direction."},
                "gaps": {
                    "description": "What was pruned between these events (see `events.keep_deltas`); only where something was.",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"from": seq(), "to": seq(), "reason": {"type": "string", "const": "pruned"}},
                        "required": ["from", "to", "reason"],
                    },
                },
            },
            "required": ["data", "first_id", "last_id", "has_more"],
        }),
    );
    doc.get("/v1/sessions/{key}/events", "listEvents", "The log: as a stream, or in pages")
        .about(
            "With `Accept: application/json` (and not `text/event-stream`) it is a page. Else it is a stream of \
             server-sent events: `id` is the `seq`, `event` the type, `data` a `StreamFrame`. It begins with \
             `session.hello`, is live after what was missed, and stays open until the client leaves, the session is \
             deleted or the server stops. A comment comes after every `stream.heartbeat` of silence.",
        )
        .reads()
        .query("after", "The events after this one; 0 is the beginning. A stream without it is live from now.", seq())
        .query("before", "Pages only: the events right before this one. Not together with `after`.", seq())
        .query(
            "limit",
            "Pages only: events at most.",
            json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        )
        .types()
        .query("raw", "Streams only: with `agent.raw` frames.", json!({"type": "boolean"}))
        .header("last-event-id", "Your last `seq`; wins over `after`. Only streams use it.", seq())
        .answers_as(
            200,
            "The stream, or the page.",
            "application/json",
            json!({"schema": {"$ref": "#/components/schemas/EventList"}}),
        )
        .answers_as(
            200,
            "The stream, or the page.",
            "text/event-stream",
            json!({"schema": {"type": "string"}, "x-event-schema": {"$ref": "#/components/schemas/StreamFrame"}}),
        )
        .refuses(&[
            Code::SessionNotFound,
            Code::InvalidLimit,
            Code::InvalidCursor,
            Code::TooManySubscribers,
            Code::TooManySessions,
            Code::AgentError,
        ])
        .done();

    all_sessions(doc);

    let socket = doc
        .get("/v1/sessions/{key}/ws", "openSessionSocket", "A WebSocket that follows one session")
        .about(
            "Subscribes by itself. A session that does not exist is told by the close code 4004. Text frames of JSON: \
             the client sends `SocketRequest`, the server `SocketFrame`.",
        )
        .reads()
        .query("after", "The events after this one; 0 is the beginning. Without it, live from now.", seq())
        .types()
        .query("raw", "With `agent.raw` frames.", json!({"type": "boolean"}))
        .refuses(&[Code::InvalidCursor]);
    upgrade(socket);
    upgrade(
        doc.get("/v1/ws", "openSocket", "A WebSocket for many sessions")
            .about("Text frames of JSON: the client sends `SocketRequest`, the server `SocketFrame`.")
            .reads(),
    );
}

/// The feed.
fn all_sessions(doc: &mut Document) {
    let cursor = || json!({"type": "string"});
    let id = json!({"description": "A cursor of the feed.", "type": ["string", "null"]});
    doc.schema(
        "FeedList",
        json!({
            "description": "A page over all sessions, oldest first, whichever way it goes. It may be short and have more behind it.",
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
                "first_id": id, "last_id": id,
                "has_more": {"type": "boolean", "description": "True when there are more in that direction."},
            },
            "required": ["data", "first_id", "last_id", "has_more"],
        }),
    );
    doc.get("/v1/events", "listAllEvents", "The logs of all sessions that you may see: as a stream, or in pages")
        .about(
            "As the log of one session, with an opaque cursor as `id`. The stream begins with `stream.hello`; \
             a place that no event stands at comes as an `id` alone (over WebSocket as `stream.cursor`). It brings no \
             session into memory.",
        )
        .reads()
        .query(
            "after",
            "The events after this cursor; 0 is the beginning. A stream without it is live from now.",
            cursor(),
        )
        .query("before", "Pages only: the events right before this cursor. Not together with `after`.", cursor())
        .query(
            "limit",
            "Pages only: events at most.",
            json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        )
        .types()
        .header("last-event-id", "Your last cursor; wins over `after`. Only streams use it.", cursor())
        .answers_as(
            200,
            "The stream, or the page.",
            "application/json",
            json!({"schema": {"$ref": "#/components/schemas/FeedList"}}),
        )
        .answers_as(
            200,
            "The stream, or the page.",
            "text/event-stream",
            json!({"schema": {"type": "string"}, "x-event-schema": {"$ref": "#/components/schemas/StreamFrame"}}),
        )
        .refuses(&[Code::InvalidLimit, Code::InvalidCursor, Code::TooManySubscribers])
        .done();
}

/// The handshake of a WebSocket.
fn upgrade(operation: Operation<'_>) {
    operation
        .header("sec-websocket-protocol", "`greenroom.v1`, if you like.", json!({"type": "string"}))
        .answers_nothing(101, "The connection is a WebSocket now.")
        .refuses(&[Code::InvalidParameter, Code::UpgradeRequired])
        .extension(
            "x-websocket",
            json!({
                "subprotocol": "greenroom.v1",
                "client": {"$ref": "#/components/schemas/SocketRequest"},
                "server": {"$ref": "#/components/schemas/SocketFrame"},
                "close": {
                    "1000": "The answer to your close.",
                    "1001": "The server stops: come back with your cursor.",
                    "1002": "Not WebSocket.",
                    "1003": "A binary frame.",
                    "1007": "Text that is not UTF-8.",
                    "1008": "Policy: silent for too long, or too many bad frames in a row.",
                    "1009": "A message over `limits.max_frame`.",
                    "1013": "Too slow or too many: come back with your cursor.",
                    "4004": "No such session.",
                },
            }),
        )
        .done();
}
