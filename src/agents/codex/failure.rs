//! Errors of Codex and of its model's provider, in words and codes for a person. Pure.

use serde_json::Value;

use crate::{
    agents::{Outcome, program::RpcError},
    config::known,
};

/// How a turn failed. `error` is codex's own: `{message, codexErrorInfo, additionalDetails}`.
pub(super) fn outcome(agent: &str, error: &Value) -> Outcome {
    let text = text(error);
    if is_about_credentials(error) {
        let message = format!("agent `{agent}`: the credentials were refused: {}, or check the key ({text})", login());
        return Outcome::failed("agent_error", message);
    }
    let code = if info(error) == Some("modelNotFound") { "model_not_found" } else { "agent_error" };
    Outcome::failed(code, format!("agent `{agent}`: {text}"))
}

/// How a turn failed that codex did not begin.
pub(super) fn refused(agent: &str, error: &RpcError) -> Outcome {
    let text = error.text();
    if error.is_about_credentials() {
        let message = format!("agent `{agent}`: the credentials were refused: {} ({text})", login());
        return Outcome::failed("agent_error", message);
    }
    Outcome::failed("agent_error", format!("agent `{agent}`: {text}"))
}

/// Its message, and its details where they say more.
pub(super) fn text(error: &Value) -> String {
    let field = |name: &str| error.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let message = field("message").unwrap_or("an error without a message");
    match field("additionalDetails") {
        Some(details) if !message.contains(details) => format!("{message}: {details}"),
        _ => message.to_owned(),
    }
}

/// What to do without credentials.
pub(super) fn login() -> &'static str {
    known::find("codex").map_or("log in", |known| known.login)
}

/// The kind of the error: a plain name, or the name of the one field.
fn info(error: &Value) -> Option<&str> {
    let info = error.get("codexErrorInfo")?;
    info.as_str().or_else(|| info.as_object()?.keys().next().map(String::as_str))
}

fn is_about_credentials(error: &Value) -> bool {
    let fields = error.get("codexErrorInfo").and_then(Value::as_object);
    let status = fields.and_then(|fields| fields.values().find_map(|field| field.get("httpStatusCode")?.as_u64()));
    info(error) == Some("unauthorized") || status == Some(401)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failed(error: Value) -> (String, String) {
        match outcome("a", &error) {
            Outcome::Failed(error) => (error.code, error.message),
            other => panic!("must fail: {other:?}"),
        }
    }

    #[test]
    fn refused_credentials_say_what_to_do() {
        for info in [json!({"httpConnectionFailed": {"httpStatusCode": 401}}), json!("unauthorized")] {
            let (code, message) = failed(json!({"message": "no entry", "codexErrorInfo": info}));
            assert_eq!(code, "agent_error");
            assert!(message.contains("credentials") && message.contains("codex login"), "{message}");
            assert!(message.contains("no entry"), "{message}");
        }
    }

    #[test]
    fn others_keep_their_words() {
        let too_many = json!({"message": "exceeded retry limit", "additionalDetails": "429 Too Many Requests",
            "codexErrorInfo": {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}});
        let expected = ("agent_error".to_owned(), "agent `a`: exceeded retry limit: 429 Too Many Requests".to_owned());
        assert_eq!(failed(too_many), expected);
        assert_eq!(failed(json!({"message": "m", "codexErrorInfo": "modelNotFound"})).0, "model_not_found");
        assert_eq!(failed(Value::Null).1, "agent `a`: an error without a message");
    }
}
