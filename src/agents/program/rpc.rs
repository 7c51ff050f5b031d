//! JSON-RPC 2.0: what an object says, and the objects that we send. No I/O.

use serde_json::{Map, Value, json};

/// Whether messages name the protocol: codex app-server speaks without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `"jsonrpc": "2.0"` stands in each message.
    Named,
    /// It does not.
    Bare,
}

/// The method is not known.
pub const METHOD_NOT_FOUND: i64 = -32601;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The agent asks. The id goes back exactly as it came: agents use numbers and texts.
    Request {
        /// Its id.
        id: Value,
        /// What for.
        method: String,
        /// With what.
        params: Value,
    },
    /// The agent tells.
    Notification {
        /// What about.
        method: String,
        /// With what.
        params: Value,
    },
    /// The agent answers a request of ours.
    Response {
        /// The id of the request.
        id: u64,
        /// The answer.
        result: Result<Value, RpcError>,
    },
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RpcError {
    /// The protocol's or the agent's code.
    pub code: i64,
    /// For a person.
    pub message: String,
    /// Details, as the agent gives them.
    pub data: Value,
}

impl RpcError {
    /// For a person: the message, and the details where they say more.
    #[must_use]
    pub fn text(&self) -> String {
        let fields = ["details", "message", "error"];
        let details = self.data.as_str().or_else(|| fields.iter().find_map(|field| self.data.get(field)?.as_str()));
        match details {
            Some(details) if !self.message.contains(details) => format!("{}: {details}", self.message),
            _ => self.message.clone(),
        }
    }

    /// True when the model's provider, or the agent, refused the credentials.
    #[must_use]
    pub fn is_about_credentials(&self) -> bool {
        let text = self.text();
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        self.code == 401 || words.any(|word| word == "401")
    }
}

/// Reads an object; gives it back when it is no JSON-RPC message.
///
/// # Errors
/// The object.
pub fn read(mut object: Map<String, Value>) -> Result<Message, Map<String, Value>> {
    let id = object.get("id").filter(|id| !id.is_null()).cloned();
    if object.get("method").is_some_and(Value::is_string) {
        let Some(Value::String(method)) = object.remove("method") else { return Err(object) };
        let params = object.remove("params").unwrap_or(Value::Null);
        return Ok(match id {
            Some(id) => Message::Request { id, method, params },
            None => Message::Notification { method, params },
        });
    }
    // Our own ids are numbers; some agents give them back as text.
    let Some(id) = id.and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok())) else { return Err(object) };
    let result = match (object.get("error").filter(|error| !error.is_null()), object.get("result")) {
        (Some(error), _) => Err(RpcError {
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: error.get("message").and_then(Value::as_str).unwrap_or("error without a message").to_owned(),
            data: error.get("data").cloned().unwrap_or(Value::Null),
        }),
        (None, Some(_)) => Ok(object.remove("result").unwrap_or(Value::Null)),
        (None, None) => return Err(object),
    };
    Ok(Message::Response { id, result })
}

/// A request.
#[must_use]
pub fn request(dialect: Dialect, id: u64, method: &str, params: &Value) -> Value {
    named(dialect, json!({"id": id, "method": method, "params": params}))
}

/// A notification.
#[must_use]
pub fn notification(dialect: Dialect, method: &str, params: &Value) -> Value {
    named(dialect, json!({"method": method, "params": params}))
}

/// An answer.
#[must_use]
pub fn reply(dialect: Dialect, id: &Value, result: &Value) -> Value {
    named(dialect, json!({"id": id, "result": result}))
}

/// A refusal.
#[must_use]
pub fn refusal(dialect: Dialect, id: &Value, code: i64, message: &str) -> Value {
    named(dialect, json!({"id": id, "error": {"code": code, "message": message}}))
}

fn named(dialect: Dialect, mut message: Value) -> Value {
    if let (Dialect::Named, Some(object)) = (dialect, message.as_object_mut()) {
        object.insert("jsonrpc".into(), "2.0".into());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Message> {
        let Ok(Value::Object(object)) = serde_json::from_str(line) else { return None };
        read(object).ok()
    }

    #[test]
    fn messages_are_told_apart_wherever_the_id_stands() {
        let request = parse(r#"{"method":"m","params":{"a":1},"id":"7f-3"}"#);
        assert_eq!(request, Some(Message::Request { id: json!("7f-3"), method: "m".into(), params: json!({"a": 1}) }));
        let notification = parse(r#"{"method":"m","id":null}"#);
        assert_eq!(notification, Some(Message::Notification { method: "m".into(), params: Value::Null }));
        let answer = parse(r#"{"result":{"x":1},"id":3}"#);
        assert_eq!(answer, Some(Message::Response { id: 3, result: Ok(json!({"x": 1})) }));
        assert_eq!(parse(r#"{"result":null,"id":"3"}"#), Some(Message::Response { id: 3, result: Ok(Value::Null) }));
        for noise in ["", "hello", "[1]", "{}", r#"{"id":3}"#, r#"{"id":-1,"result":1}"#, r#"{"jsonrpc":"2.0""#] {
            assert_eq!(parse(noise), None, "{noise}");
        }
    }

    #[test]
    fn ids_go_back_as_they_came() {
        for id in [json!("3"), json!(3), json!(0), json!(-1.5), json!("ü\"")] {
            let named = reply(Dialect::Named, &id, &Value::Null);
            assert_eq!((named.get("id"), named.get("jsonrpc")), (Some(&id), Some(&json!("2.0"))));
            assert_eq!(reply(Dialect::Bare, &id, &Value::Null), json!({"id": id, "result": null}));
        }
    }

    #[test]
    fn errors_are_readable_and_credentials_are_recognised() {
        let error = |code, message: &str, data| RpcError { code, message: message.into(), data };
        let text = error(-32603, "Internal error", json!({"details": "401 mock error"}));
        assert_eq!(text.text(), "Internal error: 401 mock error");
        assert!(text.is_about_credentials() && error(401, "no", Value::Null).is_about_credentials());
        assert!(!error(-32603, "took 4011 ms", Value::Null).is_about_credentials());
    }
}
