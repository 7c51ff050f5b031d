//! What a line says, and the lines that we send. Pure.

use serde_json::{Map, Value, json};

/// What a line says, as far as the conversation's course goes. What it tells of the answer stays a [`Value`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// The agent asks, and waits.
    Request {
        /// Its id of the request.
        id: String,
        /// With `subtype`.
        request: Value,
    },
    /// It no longer waits for the answer to that request.
    Withdrawn(String),
    /// It answers a request of ours.
    Response {
        /// Our id.
        id: String,
        /// The answer, or why not.
        result: Result<Value, String>,
    },
    /// How far a line of ours is that had a `uuid`.
    Lifecycle {
        /// Which.
        uuid: String,
        /// How far.
        state: Lifecycle,
    },
    /// A turn of the agent's is over.
    Result(Value),
    /// A sign of life without content.
    KeepAlive,
    /// Anything else, by its `type`.
    Told(Value),
}

/// How far a line of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// It waits.
    Queued,
    /// A turn has taken it.
    Started,
    /// That turn has ended well.
    Completed,
    /// It was dropped, or that turn was stopped or failed.
    Dropped,
}

/// A text field; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Reads a line. It may have its fields in any order.
pub(super) fn read(object: Map<String, Value>) -> Message {
    let message = Value::Object(object);
    match text(&message, "type") {
        "control_request" => Message::Request {
            id: text(&message, "request_id").to_owned(),
            request: message.get("request").cloned().unwrap_or(Value::Null),
        },
        "control_cancel_request" => Message::Withdrawn(text(&message, "request_id").to_owned()),
        "control_response" => response(message.get("response").unwrap_or(&Value::Null)),
        "command_lifecycle" => {
            let state = match text(&message, "state") {
                "queued" => Lifecycle::Queued,
                "started" => Lifecycle::Started,
                "completed" => Lifecycle::Completed,
                "cancelled" | "discarded" | "refused" => Lifecycle::Dropped,
                _ => return Message::Told(message),
            };
            Message::Lifecycle { uuid: text(&message, "command_uuid").to_owned(), state }
        }
        "result" => Message::Result(message),
        "keep_alive" => Message::KeepAlive,
        _ => Message::Told(message),
    }
}

fn response(response: &Value) -> Message {
    let result = match text(response, "subtype") {
        "error" => Err(text(response, "error").to_owned()),
        _ => Ok(response.get("response").cloned().unwrap_or(Value::Null)),
    };
    Message::Response { id: text(response, "request_id").to_owned(), result }
}

/// A request: `request` has a `subtype` and its fields.
pub(super) fn request(id: &str, request: &Value) -> Value {
    json!({"type": "control_request", "request_id": id, "request": request})
}

/// An answer.
pub(super) fn reply(id: &str, response: &Value) -> Value {
    let response = json!({"subtype": "success", "request_id": id, "response": response});
    json!({"type": "control_response", "response": response})
}

/// A refusal to do what was asked.
pub(super) fn refusal(id: &str, error: &str) -> Value {
    json!({"type": "control_response", "response": {"subtype": "error", "request_id": id, "error": error}})
}

/// A message of the user. `next` goes into the running turn at its next safe point.
pub(super) fn user(uuid: &str, content: &Value, next: bool) -> Value {
    let mut message = json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
        "message": {"role": "user", "content": content}});
    if let (true, Some(fields)) = (next, message.as_object_mut()) {
        fields.insert("priority".into(), "next".into());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Message {
        let Value::Object(object) = value else { panic!("no object") };
        read(object)
    }

    #[test]
    fn lines_are_told_apart_by_their_type_wherever_it_stands() {
        let asked = json!({"request": {"subtype": "can_use_tool"}, "request_id": "r", "type": "control_request"});
        let request = json!({"subtype": "can_use_tool"});
        assert_eq!(parse(asked), Message::Request { id: "r".into(), request });
        let withdrawn = json!({"type": "control_cancel_request", "request_id": "r"});
        assert_eq!(parse(withdrawn), Message::Withdrawn("r".into()));
        let good = json!({"type": "control_response", "response": {"subtype": "success", "request_id": "1", "response": {"a": 1}}});
        assert_eq!(parse(good), Message::Response { id: "1".into(), result: Ok(json!({"a": 1})) });
        let bad =
            json!({"type": "control_response", "response": {"subtype": "error", "request_id": "1", "error": "no"}});
        assert_eq!(parse(bad), Message::Response { id: "1".into(), result: Err("no".into()) });
        let states = ["queued", "started", "completed", "cancelled", "refused"].map(|state| {
            let told = json!({"type": "command_lifecycle", "command_uuid": "u", "state": state});
            match parse(told) {
                Message::Lifecycle { state, .. } => state,
                other => panic!("{other:?}"),
            }
        });
        use Lifecycle::{Completed, Dropped, Queued, Started};
        assert_eq!(states, [Queued, Started, Completed, Dropped, Dropped]);
        for other in [json!({}), json!({"type": 7}), json!({"type": "hologram"})] {
            assert_eq!(parse(other.clone()), Message::Told(other));
        }
    }

    #[test]
    fn a_line_for_the_running_turn_says_so() {
        assert_eq!(user("u", &json!("x"), true)["priority"], "next");
        assert_eq!(user("u", &json!("x"), false).get("priority"), None);
    }
}
