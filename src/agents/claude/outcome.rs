//! How a turn ended, by its result. Pure.
//!
//! `is_error` tells, never `subtype`: a turn that failed at the provider has the subtype `success`.

use serde_json::Value;

use super::wire::text;
use crate::agents::Outcome;

/// What of a turn is needed to judge its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    /// The agent's name.
    pub(super) agent: &'a str,
    /// What to do about missing credentials.
    pub(super) login: &'a str,
    /// True when it was asked to stop.
    pub(super) cancelling: bool,
    /// Why the provider refused, where it did.
    pub(super) refused: Option<&'a str>,
}

/// Judges a result.
pub(super) fn outcome(result: &Value, judged: Judged<'_>) -> Outcome {
    let is_error = result.get("is_error").and_then(Value::as_bool).unwrap_or(false);
    let aborted = text(result, "terminal_reason").starts_with("aborted");
    if aborted || (is_error && judged.cancelling) {
        return Outcome::Cancelled;
    }
    let stop = text(result, "stop_reason");
    if !is_error {
        let ordinary = ["", "end_turn", "stop_sequence", "tool_use"].contains(&stop);
        return Outcome::Completed { reason: (!ordinary).then(|| stop.to_owned()) };
    }
    let words = words(result);
    if is_about_credentials(result, judged.refused, &words) {
        return credentials(judged, &words);
    }
    Outcome::failed("agent_error", format!("agent `{}`: {words}", judged.agent))
}

/// The credentials were refused, or there are none.
pub(super) fn credentials(judged: Judged<'_>, words: &str) -> Outcome {
    let Judged { agent, login, .. } = judged;
    Outcome::failed("agent_error", format!("agent `{agent}`: the credentials were refused ({words}); {login}"))
}

fn is_about_credentials(result: &Value, refused: Option<&str>, words: &str) -> bool {
    let status = result.get("api_error_status").and_then(Value::as_u64);
    matches!(status, Some(401 | 403)) || refused == Some("authentication_failed") || words.contains("Please run /login")
}

/// What it says for a person.
fn words(result: &Value) -> String {
    let said = text(result, "result");
    if !said.is_empty() {
        return said.to_owned();
    }
    let errors = result.get("errors").and_then(Value::as_array).into_iter().flatten();
    let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
    match (text(result, "subtype"), errors.is_empty()) {
        ("error_max_turns", _) => "it has reached its limit of steps".to_owned(),
        ("error_max_budget_usd", _) => "it has reached its limit of cost".to_owned(),
        (_, false) => errors.join("; "),
        (subtype, true) => format!("it ended with `{subtype}`"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const JUDGED: Judged<'_> = Judged { agent: "claude", login: "log in", cancelling: false, refused: None };

    fn failure(result: Value, judged: Judged<'_>) -> String {
        match outcome(&result, judged) {
            Outcome::Failed(error) if error.code == "agent_error" => error.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_is_one_whatever_its_subtype_says() {
        let limited = json!({"is_error": true, "subtype": "success", "result": "API Error: 429", "api_error_status": 429,
            "terminal_reason": "api_error"});
        assert_eq!(failure(limited, JUDGED), "agent `claude`: API Error: 429");
        let bare = json!({"is_error": true, "subtype": "error_during_execution", "errors": ["a", "b"]});
        assert_eq!(failure(bare, JUDGED), "agent `claude`: a; b");
        let steps = json!({"is_error": true, "subtype": "error_max_turns"});
        assert!(failure(steps, JUDGED).contains("limit of steps"));
    }

    #[test]
    fn credentials_say_what_to_do() {
        let status = json!({"is_error": true, "result": "API Error: 401", "api_error_status": 401});
        let login = json!({"is_error": true, "result": "Not logged in · Please run /login"});
        let revoked = json!({"is_error": true, "result": "no"});
        let refused = Judged { refused: Some("authentication_failed"), ..JUDGED };
        for (result, judged) in [(status, JUDGED), (login, JUDGED), (revoked, refused)] {
            let message = failure(result, judged);
            assert!(message.contains("credentials were refused") && message.ends_with("; log in"), "{message}");
        }
    }

    #[test]
    fn a_stopped_turn_is_told_from_one_that_was_just_quicker() {
        let stopping = Judged { cancelling: true, ..JUDGED };
        let aborted = json!({"is_error": true, "terminal_reason": "aborted_streaming"});
        assert_eq!(outcome(&aborted, stopping), Outcome::Cancelled);
        assert_eq!(outcome(&aborted, JUDGED), Outcome::Cancelled);
        let done = json!({"is_error": false, "stop_reason": "end_turn"});
        assert_eq!(outcome(&done, stopping), Outcome::Completed { reason: None });
        let long = json!({"is_error": false, "stop_reason": "max_tokens"});
        assert_eq!(outcome(&long, JUDGED), Outcome::Completed { reason: Some("max_tokens".into()) });
    }
}
