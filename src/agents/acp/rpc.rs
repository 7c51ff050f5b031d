//! JSON-RPC 2.0 as text: what a line says, and the lines that we write. No I/O.

use serde_json::{Value, json};

/// The method is not known.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// The agent asks. The id goes back exactly as it came: agents use numbers and texts.
    Request { id: Value, method: String, params: Value },
    /// The agent tells.
    Notification { method: String, params: Value },
    /// The agent answers a request of ours.
    Response { id: u64, result: Result<Value, RpcError> },
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Value,
}

impl RpcError {
    /// For a person: the message, and the details where they say more.
    pub(super) fn text(&self) -> String {
        let fields = ["details", "message", "error"];
        let details = self.data.as_str().or_else(|| fields.iter().find_map(|field| self.data.get(field)?.as_str()));
        match details {
            Some(details) if !self.message.contains(details) => format!("{}: {details}", self.message),
            _ => self.message.clone(),
        }
    }

    /// True when the model's provider, or the agent, refused the credentials.
    pub(super) fn is_about_credentials(&self) -> bool {
        let text = self.text();
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        self.code == 401 || words.any(|word| word == "401")
    }
}

/// Reads a line; none when it is not a JSON-RPC message.
pub(super) fn parse(line: &str) -> Option<Message> {
    let Ok(Value::Object(mut message)) = serde_json::from_str(line) else { return None };
    let id = message.remove("id").filter(|id| !id.is_null());
    if let Some(Value::String(method)) = message.remove("method") {
        let params = message.remove("params").unwrap_or(Value::Null);
        return Some(match id {
            Some(id) => Message::Request { id, method, params },
            None => Message::Notification { method, params },
        });
    }
    // Our own ids are numbers; some agents give them back as text.
    let id = id?;
    let id = id.as_u64().or_else(|| id.as_str()?.parse().ok())?;
    let result = match (message.remove("error").filter(|error| !error.is_null()), message.remove("result")) {
        (Some(error), _) => Err(RpcError {
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: error.get("message").and_then(Value::as_str).unwrap_or("error without a message").to_owned(),
            data: error.get("data").cloned().unwrap_or(Value::Null),
        }),
        (None, Some(result)) => Ok(result),
        (None, None) => return None,
    };
    Some(Message::Response { id, result })
}

/// The line of a request.
pub(super) fn request(id: u64, method: &str, params: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// The line of a notification.
pub(super) fn notification(method: &str, params: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

/// The line of an answer.
pub(super) fn reply(id: &Value, result: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// The line of a refusal.
pub(super) fn refusal(id: &Value, code: i64, message: &str) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
}

fn line(message: &Value) -> String {
    format!("{message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let echoed: Value = serde_json::from_str(&reply(&id, &Value::Null)).unwrap();
            assert_eq!(echoed.get("id"), Some(&id));
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
