//! Events and frames as named schemas: one for each type of event, one for each control frame, and those of WebSockets.
//! They are made from the types, so a new event is described by being one.

use serde_json::{Map, Value, json};

use super::document::Document;
use crate::{
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::{ChoiceAnswer, Control, EventBody, SendMessage},
    timestamp::Timestamp,
};

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// `turn.queued` as `TurnQueued`.
pub(super) fn pascal(kind: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_uppercase() + rest
    };
    kind.split(['.', '_']).map(word).collect()
}

/// The variants of an adjacently tagged enum: type, description, `data`.
fn variants(schema: &Value) -> Vec<(String, Value, Value)> {
    let variants = schema.get("oneOf").and_then(Value::as_array);
    let one = |variant: &Value| {
        let kind = variant.pointer("/properties/type/const")?.as_str()?.to_owned();
        let data = variant.pointer("/properties/data")?.clone();
        Some((kind, variant.get("description").cloned().unwrap_or_default(), data))
    };
    variants.into_iter().flatten().filter_map(one).collect()
}

/// One of several by `type`.
fn one_of(about: &str, by_type: &[(String, String)]) -> Value {
    let mapping: Map<String, Value> =
        by_type.iter().map(|(kind, name)| (kind.clone(), format!("#/components/schemas/{name}").into())).collect();
    let refs: Vec<Value> = by_type.iter().map(|(_, name)| reference(name)).collect();
    json!({"description": about, "oneOf": refs, "discriminator": {"propertyName": "type", "mapping": mapping}})
}

/// Adds the schemas of events and frames.
pub(super) fn describe(doc: &mut Document) {
    let (key, turn, at) = (doc.taken::<SessionKey>(), doc.taken::<TurnId>(), doc.taken::<Timestamp>());
    let turn_id = json!({"description": "Null outside a turn.", "anyOf": [turn, {"type": "null"}]});
    let envelope = |kind: &str, about: Value, data: Value, seq: bool| {
        let mut fields = Map::new();
        if seq {
            let about = "Its place in the log of its session key, from 1 without gaps. The cursor.";
            fields.insert(
                "seq".into(),
                json!({"description": about, "type": "integer", "format": "int64", "minimum": 1}),
            );
        }
        fields.insert("type".into(), json!({"type": "string", "const": kind}));
        let of = if seq {
            key.clone()
        } else {
            json!({"description": "Null where it is about no single session.", "anyOf": [key, {"type": "null"}]})
        };
        fields.insert("session".into(), of);
        fields.insert("turn_id".into(), turn_id.clone());
        fields.insert("at".into(), at.clone());
        fields.insert("data".into(), data);
        let required: Vec<String> = fields.keys().cloned().collect();
        if seq {
            let about = "Where a WebSocket follows all sessions: the place behind this event, to come back with.";
            fields.insert("cursor".into(), json!({"description": about, "type": "string"}));
        }
        json!({"description": about, "type": "object", "properties": fields, "required": required})
    };

    let mut events = Vec::new();
    for (kind, about, data) in variants(&doc.sent_in_place::<EventBody>()) {
        let name = pascal(&kind) + "Event";
        doc.schema(&name, envelope(&kind, about, data, true));
        events.push((kind, name));
    }
    doc.schema(
        "Event",
        one_of("An entry of the log of a session. New types may appear: ignore what you do not know.", &events),
    );

    let mut frames = Vec::new();
    for (kind, about, data) in variants(&doc.sent_in_place::<Control>()) {
        let name = pascal(&kind) + "Frame";
        doc.schema(&name, envelope(&kind, about, data, false));
        frames.push((kind, name));
    }
    doc.schema(
        "ControlFrame",
        one_of("A frame of a stream that is no part of the log: no `seq`, never a cursor.", &frames),
    );
    doc.schema(
        "StreamFrame",
        json!({"description": "What a stream shows.", "anyOf": [reference("Event"), reference("ControlFrame")]}),
    );
    sockets(doc, &at);
}

/// What goes over a WebSocket in both directions.
fn sockets(doc: &mut Document, at: &Value) {
    let ping = json!({
        "description": "A sign of life, every `stream.heartbeat`.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "const": "ping"},
            "session": {"type": "null"},
            "turn_id": {"type": "null"},
            "at": at,
            "data": {"type": "object", "properties": {"at": at}, "required": ["at"]},
        },
        "required": ["type", "session", "turn_id", "at", "data"],
    });
    doc.schema("PingFrame", ping);
    let id = json!({"description": "Comes back in the reply.", "type": ["string", "number"]});
    let reply = |ok: bool, name: &str, schema: Value| {
        json!({
            "type": "object",
            "properties": {"type": {"type": "string", "const": "reply"}, "id": {"type": ["string", "number", "null"]}, "ok": {"const": ok}, name: schema},
            "required": ["type", "id", "ok", name],
        })
    };
    let replies = [reply(true, "result", json!({"type": "object"})), reply(false, "error", reference("Error"))];
    doc.schema("SocketReply", json!({"description": "The answer to a frame of the client.", "oneOf": replies}));
    doc.schema(
        "SocketFrame",
        json!({
            "description": "What the server sends over a WebSocket.",
            "anyOf": [reference("Event"), reference("ControlFrame"), reference("PingFrame"), reference("SocketReply")],
        }),
    );

    let session = doc.taken::<SessionKey>();
    let (turn, choice) = (doc.taken::<TurnId>(), doc.taken::<ChoiceId>());
    let (message, answer) = (doc.taken_in_place::<SendMessage>(), doc.taken_in_place::<ChoiceAnswer>());
    let fields = |schema: &Value| schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut sends = fields(&message);
    sends.insert("idempotency_key".into(), json!({"type": ["string", "null"], "minLength": 1, "maxLength": 256}));
    let mut answers = fields(&answer);
    answers.insert("choice_id".into(), choice);
    let any = json!({"anyOf": [session, {"description": "All that you may see.", "type": "string", "const": "*"}]});
    let subscribes = json!({
        "session": any,
        "after": {
            "description": "Your last `seq`, or for `*` your last cursor; 0 is the beginning. Without it, live from now.",
            "type": ["integer", "string", "null"], "minimum": 0,
        },
        "types": {"description": "Prefixes of event types.", "type": ["array", "null"], "items": {"type": "string"}},
        "raw": {"description": "With `agent.raw` frames.", "type": ["boolean", "null"]},
    });
    let none = Map::new;
    let ops = [
        ("subscribe", "Follow a session, or all.", subscribes.as_object().cloned().unwrap_or_default(), None),
        ("unsubscribe", "Follow it no more.", Map::from_iter([("session".to_owned(), any)]), None),
        ("send", "Send a message.", sends, None),
        ("abort", "Stop the running turn.", none(), None),
        ("cancel", "Stop a turn.", Map::from_iter([("turn_id".to_owned(), turn)]), Some("turn_id")),
        ("answer", "Answer a question.", answers, Some("choice_id")),
        ("snapshot", "A session as it is now.", none(), None),
        ("ping", "Is anybody there?", none(), None),
    ];
    let op = |(name, about, more, needs): (&str, &str, Map<String, Value>, Option<&str>)| {
        let mut properties = Map::from_iter([
            ("id".to_owned(), id.clone()),
            ("op".to_owned(), json!({"type": "string", "const": name})),
        ]);
        if name != "ping" {
            properties.insert("session".into(), session.clone());
        }
        properties.extend(more);
        let required: Vec<&str> = ["id", "op"].into_iter().chain(needs).collect();
        json!({"title": name, "description": about, "type": "object", "properties": properties, "required": required, "additionalProperties": false})
    };
    let about = "What a client sends over a WebSocket. `session` may be left out where the path names one.";
    let ops: Vec<Value> = ops.into_iter().map(op).collect();
    doc.schema("SocketRequest", json!({"description": about, "oneOf": ops}));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::protocol::EventBody;

    #[test]
    fn every_type_has_its_name() {
        let document = super::super::document();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["TurnQueuedEvent"]["properties"]["type"]["const"], "turn.queued");
        assert_eq!(
            schemas["AgentStatusEvent"]["properties"]["data"]["properties"]["status"]["$ref"],
            "#/components/schemas/AgentStatus"
        );
        assert!(schemas["SessionHelloFrame"]["properties"].get("seq").is_none());
        let mapping = schemas["Event"]["discriminator"]["mapping"].as_object().unwrap();
        let named: BTreeSet<&str> = mapping.keys().map(String::as_str).collect();
        assert_eq!(named, BTreeSet::from(EventBody::TYPES));
    }
}
