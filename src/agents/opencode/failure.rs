//! Errors of OpenCode's in words for a person. Pure.

use serde_json::Value;

use crate::agents::Outcome;

/// What a turn ended with, when it ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was stopped.
    Aborted,
    /// With these words.
    Said {
        text: String,
        /// The provider refused the credentials, or there are none.
        credentials: bool,
    },
}

impl Failure {
    /// Reads the `error` of a message or of `session.error`.
    pub(super) fn read(error: &Value) -> Self {
        let name = error.get("name").and_then(Value::as_str).unwrap_or("error");
        let data = error.get("data").unwrap_or(&Value::Null);
        let message = data.get("message").and_then(Value::as_str).unwrap_or(name);
        // Unexpected errors come with a stack.
        let message = message.lines().next().unwrap_or(name);
        let status = data.get("statusCode").and_then(Value::as_u64);
        if name == "MessageAbortedError" {
            return Self::Aborted;
        }
        let text = match status {
            Some(status) => format!("{message} (HTTP {status})"),
            None => message.to_owned(),
        };
        let credentials = name == "ProviderAuthError" || matches!(status, Some(401 | 403));
        Self::Said { text, credentials }
    }

    pub(super) fn outcome(&self, agent: &str) -> Outcome {
        match self {
            Self::Aborted => Outcome::Cancelled,
            Self::Said { text, credentials: false } => {
                Outcome::failed("agent_error", format!("agent `{agent}`: {text}"))
            }
            Self::Said { text, credentials: true } => {
                let message = format!(
                    "agent `{agent}`: the credentials were refused: {text}; run `opencode auth login`, or check the key of the provider"
                );
                Outcome::failed("agent_error", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_keep_their_words_and_lose_their_stack() {
        let api = |status| json!({"name": "APIError", "data": {"message": "mock error", "statusCode": status}});
        let words = |error: &Value| match Failure::read(error).outcome("a") {
            Outcome::Failed(error) => error.message,
            other => format!("{other:?}"),
        };
        assert_eq!(words(&api(500)), "agent `a`: mock error (HTTP 500)");
        assert!(
            words(&api(401)).contains("the credentials were refused: mock error (HTTP 401); run `opencode auth login`")
        );
        let stack = json!({"name": "UnknownError", "data": {"message": "Image could not be decoded\n    at catch"}});
        assert_eq!(words(&stack), "agent `a`: Image could not be decoded");
        assert_eq!(words(&json!({"name": "MessageAbortedError", "data": {}})), "Cancelled");
        assert_eq!(words(&json!("odd")), "agent `a`: error");
    }
}
