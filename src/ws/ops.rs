//! What a client can ask over a WebSocket: the frames, and what they do.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    error::{ApiError, Code},
    gateway::{Filter, From, Gateway, Idempotency, Principal, Scope, Subscription},
    http::{Named, abort_json, accepted_json, decode_value, message_once, parse_key, require},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::{ChoiceAnswer, ResolvedBy, SendMessage},
    timestamp::Timestamp,
};

/// The names, for the message about an unknown one.
const NAMES: &str = "subscribe, unsubscribe, send, abort, cancel, answer, snapshot, ping";

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    /// Follow a session.
    Subscribe { session: SessionKey, from: From, filter: Filter },
    /// Follow it no more.
    Unsubscribe { session: SessionKey },
    /// Send a message.
    Send { session: SessionKey, message: Box<SendMessage>, once: Option<Idempotency> },
    /// Stop the running turn.
    Abort { session: SessionKey },
    /// Stop a turn.
    Cancel { session: SessionKey, turn: TurnId },
    /// Answer a choice.
    Answer { session: SessionKey, choice: ChoiceId, answer: ChoiceAnswer },
    /// Look.
    Snapshot { session: SessionKey },
    /// Is anybody there?
    Ping,
}

/// What came of it.
pub(super) enum Done {
    /// The `result` of the reply.
    Result(Value),
    /// A stream to show.
    Subscribed(SessionKey, Subscription),
    /// A stream to drop.
    Unsubscribed(SessionKey),
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidJson, message)
}

/// Reads a frame into the `id` of its reply (null where there is none) and what it asks. `own` is the session of the
/// socket's path: ops that name none mean it.
pub(super) fn parse(text: &str, own: Option<&SessionKey>) -> (Value, Result<Op, ApiError>) {
    let mut fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return (Value::Null, Err(invalid("A frame must be a JSON object."))),
        Err(error) => return (Value::Null, Err(invalid(format!("The frame is not JSON: {error}.")))),
    };
    match fields.remove("id") {
        Some(id @ (Value::String(_) | Value::Number(_))) => (id, op(fields, own)),
        _ => (Value::Null, Err(invalid("The field id must be a text or a number.").with("field", "id"))),
    }
}

fn op(mut fields: Map<String, Value>, own: Option<&SessionKey>) -> Result<Op, ApiError> {
    let name = match fields.remove("op") {
        Some(Value::String(name)) => name,
        _ => return Err(invalid(format!("The field op must be one of {NAMES}.")).with("field", "op")),
    };
    if name == "ping" {
        return nothing_more(fields, Op::Ping);
    }
    let session = match (fields.remove("session"), own) {
        (Some(Value::String(key)), _) => parse_key(&key),
        (None, Some(own)) => Ok(own.clone()),
        _ => Err(invalid("The field session must be a session key.").with("field", "session")),
    };
    match name.as_str() {
        "subscribe" => subscribe(fields, session?),
        "unsubscribe" => nothing_more(fields, Op::Unsubscribe { session: session? }),
        "send" => send(fields, session?),
        "abort" => nothing_more(fields, Op::Abort { session: session? }),
        "cancel" => {
            let turn = TurnId::named(&id_field(&mut fields, "turn_id")?)?;
            nothing_more(fields, Op::Cancel { session: session?, turn })
        }
        "answer" => {
            let choice = ChoiceId::named(&id_field(&mut fields, "choice_id")?)?;
            let answer = decode_value(Value::Object(fields), Code::InvalidChoicePayload)?;
            Ok(Op::Answer { session: session?, choice, answer })
        }
        "snapshot" => nothing_more(fields, Op::Snapshot { session: session? }),
        _ => Err(invalid(format!("There is no op {name:?}; there are {NAMES}.")).with("field", "op")),
    }
}

/// Refuses fields that an op does not have, so that a typo is an error.
fn nothing_more(fields: Map<String, Value>, op: Op) -> Result<Op, ApiError> {
    match fields.keys().next() {
        None => Ok(op),
        Some(name) => Err(invalid(format!("This op has no field {name:?}.")).with("field", name)),
    }
}

fn id_field(fields: &mut Map<String, Value>, name: &str) -> Result<String, ApiError> {
    match fields.remove(name) {
        Some(Value::String(id)) => Ok(id),
        _ => Err(invalid(format!("The field {name} must be an id.")).with("field", name)),
    }
}

fn subscribe(fields: Map<String, Value>, session: SessionKey) -> Result<Op, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        after: Option<u64>,
        types: Option<Vec<String>>,
        raw: Option<bool>,
    }
    let fields: Fields = decode_value(Value::Object(fields), Code::InvalidJson)?;
    let from = fields.after.map_or(From::Now, From::After);
    let filter = Filter { types: fields.types.unwrap_or_default(), turn: None, raw: fields.raw.unwrap_or(false) };
    Ok(Op::Subscribe { session, from, filter })
}

fn send(mut fields: Map<String, Value>, session: SessionKey) -> Result<Op, ApiError> {
    let key = match fields.remove("idempotency_key") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key),
        Some(_) => return Err(invalid("The field idempotency_key must be a text.").with("field", "idempotency_key")),
    };
    let message: SendMessage = decode_value(Value::Object(fields), Code::InvalidJson)?;
    let once = key.map(|key| message_once(&key, &session, &message));
    Ok(Op::Send { session, message: Box::new(message), once: once.transpose()? })
}

/// Does it.
///
/// # Errors
/// What the gateway refuses, and `missing_scope`.
pub(super) async fn run(gateway: &Gateway, who: &Principal, op: Op) -> Result<Done, ApiError> {
    let writes = matches!(op, Op::Send { .. } | Op::Abort { .. } | Op::Cancel { .. } | Op::Answer { .. });
    require(who, if writes { Scope::Write } else { Scope::Read })?;
    Ok(Done::Result(match op {
        Op::Subscribe { session, from, filter } => {
            let subscription = gateway.subscribe(who, &session, from, filter).await?;
            return Ok(Done::Subscribed(session, subscription));
        }
        Op::Unsubscribe { session } => return Ok(Done::Unsubscribed(session)),
        Op::Send { session, message, once } => accepted_json(&gateway.send(who, &session, *message, "ws", once).await?),
        Op::Abort { session } => abort_json(gateway.abort(who, &session).await?),
        Op::Cancel { session, turn } => json!({"turn": gateway.cancel_turn(who, &session, turn).await?}),
        Op::Answer { session, choice, answer } => {
            gateway.answer(who, &session, choice, answer, ResolvedBy::Ws).await?;
            json!({"ok": true})
        }
        Op::Snapshot { session } => json!(gateway.snapshot(who, &session).await?),
        Op::Ping => json!({"at": Timestamp::now()}),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SessionKey {
        text.parse().unwrap()
    }

    #[test]
    fn ops_are_read_with_their_fields() {
        let (id, op) = parse(r#"{"id":7,"op":"subscribe","session":"a","after":3,"types":["turn."]}"#, None);
        let filter = Filter { types: vec!["turn.".into()], turn: None, raw: false };
        assert_eq!((id, op.unwrap()), (7.into(), Op::Subscribe { session: key("a"), from: From::After(3), filter }));

        let (_, op) =
            parse(r#"{"id":"x","op":"send","text":"hi","policy":"reject","idempotency_key":"k"}"#, Some(&key("own")));
        let op = op.unwrap();
        let Op::Send { session, message, once } = op else { panic!("{op:?}") };
        assert_eq!((session, message.text.as_deref()), (key("own"), Some("hi")));
        assert_eq!(once.unwrap().key, "k");
    }

    #[test]
    fn the_same_message_has_the_same_hash_whatever_its_frame() {
        let hash = |text: &str| match parse(text, None).1.unwrap() {
            Op::Send { once, .. } => once.unwrap().request_hash,
            op => panic!("{op:?}"),
        };
        let one = hash(r#"{"id":1,"op":"send","session":"a","text":"hi","idempotency_key":"k"}"#);
        assert_eq!(one, hash(r#"{"idempotency_key":"k","text":"hi","session":"a","op":"send","id":2}"#));
        assert_ne!(one, hash(r#"{"id":1,"op":"send","session":"b","text":"hi","idempotency_key":"k"}"#));
    }

    #[test]
    fn bad_frames_say_what_is_wrong_and_keep_their_id() {
        for (text, id, code, word) in [
            ("{", json!(null), Code::InvalidJson, "not JSON"),
            ("[]", json!(null), Code::InvalidJson, "object"),
            (r#"{"op":"ping"}"#, json!(null), Code::InvalidJson, "id"),
            (r#"{"id":{},"op":"ping"}"#, json!(null), Code::InvalidJson, "id"),
            (r#"{"id":1}"#, json!(1), Code::InvalidJson, "subscribe, unsubscribe"),
            (r#"{"id":"1","op":"nope","session":"a"}"#, json!("1"), Code::InvalidJson, "subscribe, unsubscribe"),
            (r#"{"id":1,"op":"snapshot"}"#, json!(1), Code::InvalidJson, "session"),
            (r#"{"id":1,"op":"snapshot","session":"a b"}"#, json!(1), Code::InvalidId, "a b"),
            (r#"{"id":1,"op":"ping","extra":1}"#, json!(1), Code::InvalidJson, "extra"),
            (r#"{"id":1,"op":"subscribe","session":"a","after":-1}"#, json!(1), Code::InvalidJson, "after"),
            (r#"{"id":1,"op":"send","session":"a","txet":"x"}"#, json!(1), Code::InvalidJson, "txet"),
            (r#"{"id":1,"op":"cancel","session":"a","turn_id":"turn_1"}"#, json!(1), Code::TurnNotFound, "turn_1"),
            (r#"{"id":1,"op":"answer","session":"a"}"#, json!(1), Code::InvalidJson, "choice_id"),
        ] {
            let (echoed, op) = parse(text, None);
            let error = op.unwrap_err();
            assert_eq!((echoed, error.code), (id, code), "{text}");
            assert!(error.message.contains(word), "{text}: {}", error.message);
        }
    }
}
