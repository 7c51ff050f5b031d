//! Refusals: which codes calls of a sort have in common, and what an error looks like. The codes, their types and
//! their statuses come from the table in [`crate::error`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::frames::pascal;
use crate::error::Code;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody.
    Open,
    /// Callers with the scope `read`.
    Read,
    /// Callers with the scope `write`.
    Write,
    /// Callers with the scope `admin`.
    Admin,
    /// Callers who have logged in with a browser.
    Browser,
}

/// A response with more codes than this has no name: it would be too long.
const MAX_NAMED: usize = 4;

/// What any call can answer.
const ALWAYS: &[Code] = &[Code::HostNotAllowed, Code::OriginNotAllowed, Code::Internal];

/// What any call with a caller can answer.
const CALLER: &[Code] = &[
    Code::HostNotAllowed,
    Code::OriginNotAllowed,
    Code::Internal,
    Code::MissingCredentials,
    Code::InvalidCredentials,
    Code::MissingScope,
    Code::RateLimited,
    Code::StoreUnavailable,
    Code::Overloaded,
    Code::ShuttingDown,
];

/// What any call with a body can answer.
pub(super) const BODY: &[Code] =
    &[Code::InvalidJson, Code::InvalidParameter, Code::RequestTimeout, Code::BodyTooLarge, Code::UnsupportedMediaType];

/// What any call that changes a session can answer.
pub(super) const CHANGE: &[Code] =
    &[Code::SessionNotFound, Code::NotSessionOwner, Code::SessionUnreadable, Code::AgentError, Code::TooManySessions];

impl Access {
    /// The codes that such a call can answer.
    pub(super) const fn codes(self) -> &'static [Code] {
        match self {
            Self::Open => ALWAYS,
            Self::Read | Self::Write | Self::Admin | Self::Browser => CALLER,
        }
    }

    /// `security`: nothing at all is enough in open mode.
    pub(super) fn security(self) -> Value {
        match self {
            Self::Open => json!([]),
            Self::Browser => json!([{"login": []}]),
            Self::Read | Self::Write | Self::Admin => json!([{}, {"token": []}, {"login": []}]),
        }
    }

    /// Who may, for a person.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Open => "Needs no credentials.",
            Self::Read => "Needs the scope `read`.",
            Self::Write => "Needs the scope `write`.",
            Self::Admin => "Needs the scope `admin`.",
            Self::Browser => "Needs the login of a browser; a token alone cannot.",
        }
    }
}

/// Headers of every answer.
pub(super) fn headers(retry: bool) -> Value {
    let mut headers = json!({"x-request-id": {"$ref": "#/components/headers/RequestId"}});
    if let (true, Some(headers)) = (retry, headers.as_object_mut()) {
        headers.insert("retry-after".into(), json!({"$ref": "#/components/headers/RetryAfter"}));
    }
    headers
}

/// Adds the headers that tell a caller with a rate what is left of it.
pub(super) fn tell_rate(answer: &mut Value) {
    let Some(Value::Object(headers)) = answer.get_mut("headers") else { return };
    for (name, component) in RATE {
        headers.insert((*name).to_owned(), json!({"$ref": format!("#/components/headers/{component}")}));
    }
}

/// The headers of a caller's rate, and their names in the document.
const RATE: &[(&str, &str)] = &[
    ("ratelimit-limit", "RateLimitLimit"),
    ("ratelimit-remaining", "RateLimitRemaining"),
    ("ratelimit-reset", "RateLimitReset"),
    ("ratelimit-policy", "RateLimitPolicy"),
];

/// The codes by status, in the order of the table.
fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    by_status
}

/// A refusal of one status.
pub(super) struct Refusal {
    pub(super) status: u16,
    /// A name after its codes, for those that come again and again.
    pub(super) name: Option<String>,
    pub(super) response: Value,
}

/// A response for each status of the codes.
pub(super) fn responses(codes: &[Code]) -> Vec<Refusal> {
    let refusal = |(status, codes): (u16, Vec<Code>)| {
        let names: Vec<String> = codes.iter().map(|code| pascal(code.as_str())).collect();
        let name = (names.len() <= MAX_NAMED).then(|| names.join("Or"));
        Refusal { status, name, response: response(status, &codes) }
    };
    by_status(codes).into_iter().map(refusal).collect()
}

fn response(status: u16, codes: &[Code]) -> Value {
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let mut refusal = json!({
        "description": format!("Refused: {}.", names.join(", ")),
        "headers": headers(matches!(status, 429 | 502 | 503)),
        "content": {"application/json": {"schema": envelope(codes)}},
    });
    tell_rate(&mut refusal);
    refusal
}

/// The envelope of an error that has one of these codes.
pub(super) fn envelope(codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let error = json!({
        "allOf": [{"$ref": "#/components/schemas/Error"}, {"properties": {"code": {"enum": names}}}],
    });
    json!({"type": "object", "properties": {"error": error}, "required": ["error"]})
}

/// The schemas of errors: `Error`, `ErrorCode`, `ErrorType`.
pub(super) fn schemas() -> Map<String, Value> {
    let mut kinds: Vec<&str> = Code::ALL.iter().map(|code| code.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let codes: Vec<Value> = Code::ALL
        .iter()
        .map(|code| {
            let about = format!("{} (status {}, type `{}`)", code.meaning(), code.status(), code.kind());
            json!({"type": "string", "const": code.as_str(), "description": about})
        })
        .collect();
    let schemas = json!({
        "ErrorType": {"description": "The sort of an error; goes with the status.", "type": "string", "enum": kinds},
        "ErrorCode": {"description": "What went wrong, for programs. Never renamed or reused.", "oneOf": codes},
        "Error": {
            "description": "An error. Some codes add fields to the four that are always there.",
            "type": "object",
            "properties": details(),
            "required": ["type", "code", "message", "request_id"],
        },
    });
    match schemas {
        Value::Object(schemas) => schemas,
        _ => Map::new(),
    }
}

/// The fields of an error, with those that only some codes have.
fn details() -> Value {
    json!({
        "type": {"$ref": "#/components/schemas/ErrorType"},
        "code": {"$ref": "#/components/schemas/ErrorCode"},
        "message": {"type": "string", "description": "What happened and what to do, for a person."},
        "request_id": {"type": "string", "description": "The `x-request-id` of the answer; the log has it."},
        "field": {"type": "string", "description": "The field of the body that is wrong."},
        "parameter": {"type": "string", "description": "The parameter or header that is wrong."},
        "param": {"type": ["string", "null"], "description": "In OpenAI's form: the field that is wrong, or null."},
        "line": {"type": "integer", "description": "Where the body stops being JSON."},
        "column": {"type": "integer", "description": "Where the body stops being JSON."},
        "limit": {"type": "integer", "description": "The limit that was passed."},
        "maximum": {"type": "integer", "description": "The largest number that is taken."},
        "of": {"type": "string", "description": "What there is too much of: `requests`, `turns`, `streams`, `sessions`, `tokens`, `cost_usd`."},
        "retry_after": {"type": "integer", "description": "Seconds after which to try again, where there is no header."},
        "depth": {"type": "integer", "description": "Turns that wait."},
        "key": {"type": "string", "description": "The session key that names nothing."},
        "state": {"$ref": "#/components/schemas/TurnState", "description": "Where the turn stands."},
        "scope": {"$ref": "#/components/schemas/Scope", "description": "The scope that is missing."},
        "mutable": {"type": "array", "items": {"type": "string"}, "description": "The settings that may change while the server runs."},
        "agents": {"type": "array", "items": {"type": "string"}, "description": "The agents that there are."},
        "models": {"type": "array", "items": {"type": "string"}, "description": "The models that there are."},
        "modes": {"type": "array", "items": {"type": "string"}, "description": "The modes that there are."},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_grouped_by_their_status() {
        let codes = [Code::SessionBusy, Code::InvalidJson, Code::SessionBusy, Code::SessionArchived];
        let responses = responses(&codes);
        assert_eq!(responses.iter().map(|refusal| refusal.status).collect::<Vec<_>>(), [400, 409]);
        assert_eq!(responses[1].name.as_deref(), Some("SessionBusyOrSessionArchived"));
        assert_eq!(responses[1].response["description"], "Refused: `session_busy`, `session_archived`.");
    }

    /// Whatever the sources add to an error is described. A field that is not would show here first.
    #[test]
    fn the_fields_of_errors_are_described() {
        fn walk(folder: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap();
                    let names = code.split(".with(\"").skip(1).filter_map(|rest| rest.split_once('"'));
                    found.extend(names.map(|(name, _)| name.to_owned()));
                }
            }
        }
        let mut found = Vec::new();
        walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.iter().any(|name| name == "limit"), "the sources are not read right: {found:?}");
        let known = details();
        let unknown: Vec<_> = found.iter().filter(|name| known.get(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
