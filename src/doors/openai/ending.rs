//! How a turn ended, in the words of OpenAI's clients. Pure.

use serde_json::{Value, json};

use crate::{
    error::{ApiError, Code},
    protocol::{TurnError, TurnState, Usage, frame::EndReason},
};

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Well; with the agent's stop reason where it is not the ordinary one.
    Done(Option<String>),
    /// Without an answer.
    Failed(ApiError),
}

impl Ending {
    /// The end that `turn.finished` tells.
    #[must_use]
    pub fn of(state: TurnState, reason: Option<&str>, error: Option<&TurnError>) -> Self {
        if state == TurnState::Completed {
            return Self::Done(reason.map(str::to_owned));
        }
        let because = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let failed = match (state, error) {
            (_, Some(error)) => {
                // A code that an adapter made up is told in the words of the agent.
                let fits = |code: Code| code.status() >= 500 || code == Code::BudgetExceeded;
                let known = Code::ALL.iter().copied().find(|code| code.as_str() == error.code && fits(*code));
                ApiError::new(known.unwrap_or(Code::AgentError), error.message.clone())
            }
            (TurnState::Interrupted, None) => {
                ApiError::new(Code::ShuttingDown, format!("the server stopped under the turn{because}; send it again"))
            }
            (_, None) => ApiError::new(Code::AgentError, format!("the turn was {}{because}", state.as_str())),
        };
        Self::Failed(failed.with("state", state))
    }

    /// The stream has ended before the turn.
    #[must_use]
    pub fn cut(reason: EndReason) -> ApiError {
        let (code, message) = match reason {
            EndReason::ShuttingDown => (Code::ShuttingDown, "the server stops"),
            EndReason::CredentialsRevoked => (Code::InvalidCredentials, "the credentials have ended"),
            EndReason::AccessLost | EndReason::SessionDeleted => (Code::SessionNotFound, "the session is gone"),
            EndReason::StoreUnavailable => (Code::StoreUnavailable, "the database cannot be read now"),
            EndReason::TooSlow => (Code::Overloaded, "the answer was not taken in time"),
            EndReason::SessionFailed => (Code::Internal, "the session failed inside"),
        };
        ApiError::new(code, format!("{message}; the answer is not whole"))
    }

    /// `finish_reason` of a completion: `stop`, `length`, `content_filter`.
    #[must_use]
    pub fn finish_reason(reason: Option<&str>) -> &'static str {
        match incomplete(reason) {
            Some("max_output_tokens") => "length",
            Some(_) => "content_filter",
            None => "stop",
        }
    }
}

/// Why an answer is not whole, as responses call it; none where it is.
#[must_use]
pub fn incomplete(reason: Option<&str>) -> Option<&'static str> {
    match reason {
        Some("max_tokens" | "length" | "max_output_tokens" | "max_turn_requests" | "max_turns") => {
            Some("max_output_tokens")
        }
        Some("refusal" | "content_filter" | "safety") => Some("content_filter"),
        _ => None,
    }
}

/// The error object of a stream, which has no status: `type`, `code`, `message`, `param`.
#[must_use]
pub fn error_object(error: &ApiError) -> Value {
    json!({"type": error.code.kind(), "code": error.code.as_str(), "message": error.message, "param": null})
}

/// The usage as completions tell it.
#[must_use]
pub fn chat_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

/// The usage as responses tell it.
#[must_use]
pub fn response_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(state: TurnState, error: Option<(&str, &str)>) -> Code {
        let error = error.map(|(code, message)| TurnError { code: code.into(), message: message.into() });
        match Ending::of(state, None, error.as_ref()) {
            Ending::Failed(error) => error.code,
            Ending::Done(_) => panic!("it failed"),
        }
    }

    #[test]
    fn ends_have_names_that_clients_know() {
        assert_eq!(Ending::of(TurnState::Completed, Some("x"), None), Ending::Done(Some("x".into())));
        for (reason, name) in [(None, "stop"), (Some("max_tokens"), "length"), (Some("refusal"), "content_filter")] {
            assert_eq!(Ending::finish_reason(reason), name);
        }
        assert_eq!(code(TurnState::Failed, Some(("agent_unavailable", "x"))), Code::AgentUnavailable);
        assert_eq!(code(TurnState::Failed, Some(("session_not_found", "x"))), Code::AgentError);
        assert_eq!(code(TurnState::Cancelled, None), Code::AgentError);
        assert_eq!(code(TurnState::Interrupted, None), Code::ShuttingDown);
    }

    #[test]
    fn usage_adds_up() {
        let usage =
            Usage { input_tokens: 5, output_tokens: 7, cached_tokens: 2, reasoning_tokens: 3, ..Usage::default() };
        assert_eq!(chat_usage(&usage)["total_tokens"], 12);
        assert_eq!(chat_usage(&usage)["prompt_tokens_details"]["cached_tokens"], 2);
        assert_eq!(response_usage(&usage)["output_tokens_details"]["reasoning_tokens"], 3);
    }
}
