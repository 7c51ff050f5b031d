//! What an MCP server asks through Codex: a yes or no, also for its tools, or a form. Pure.

use serde_json::{Map, Value, json};

use super::{
    approval::{Asked, How, Request, decision},
    cards::summary,
};
use crate::protocol::{OptionKind, Question, QuestionOption};

/// The fields of a form and their types.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form(Vec<(String, Kind)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Boolean,
    List,
}

/// Reads an elicitation.
pub(super) fn read(params: &Value) -> Request {
    let text = |field: &str| params.get(field).and_then(Value::as_str);
    let server = text("serverName").unwrap_or("an MCP server");
    let message = text("message").unwrap_or_default();
    let ask = |what: String, questions, how| {
        let title = if message.is_empty() { format!("{server} asks") } else { message.to_owned() };
        let (tool, summary) = (Some(format!("mcp:{server}")), Some(summary(&what)).filter(|what| !what.is_empty()));
        Request::Ask(Box::new(Asked { title, tool, summary, questions, how }))
    };
    match text("mode") {
        Some("form") => {
            let properties = params.get("requestedSchema").and_then(|schema| schema.get("properties")?.as_object());
            match properties.filter(|properties| !properties.is_empty()) {
                Some(properties) => {
                    let questions = properties.iter().map(|(id, schema)| question(id, schema)).collect();
                    let form = Form(properties.iter().map(|(id, schema)| (id.clone(), kind(schema))).collect());
                    ask(String::new(), questions, How::Form(form))
                }
                None => ask(message.to_owned(), Vec::new(), yes_or_no(params.get("_meta"))),
            }
        }
        Some("url") => ask(text("url").unwrap_or(message).to_owned(), Vec::new(), yes_or_no(None)),
        mode => {
            let mode = mode.unwrap_or("none");
            Request::Decline(declined(), format!("{server} asks in a way that is not known here ({mode}): {message}"))
        }
    }
}

/// The reply that declines.
pub(super) fn declined() -> Value {
    json!({"action": "decline", "content": null})
}

/// For an approval of a tool, codex also offers to remember the yes.
fn yes_or_no(meta: Option<&Value>) -> How {
    let accept = |meta: Value| json!({"action": "accept", "content": {}, "_meta": meta});
    let persist = meta.and_then(|meta| meta.get("persist"));
    let offers = |how: &str| match persist {
        Some(Value::Array(list)) => list.iter().any(|offer| offer == how),
        Some(offer) => offer == how,
        None => false,
    };
    let mut decisions = vec![decision("accept", "Yes", OptionKind::AllowOnce, accept(Value::Null))];
    for (how, label) in [("session", "Yes, for this session"), ("always", "Yes, always")] {
        if offers(how) {
            decisions.push(decision(how, label, OptionKind::AllowAlways, accept(json!({ "persist": how }))));
        }
    }
    decisions.push(decision("decline", "No", OptionKind::RejectOnce, declined()));
    How::Decide(decisions, declined())
}

fn kind(schema: &Value) -> Kind {
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => Kind::Boolean,
        Some("number" | "integer") => Kind::Number,
        Some("array") => Kind::List,
        _ => Kind::Text,
    }
}

fn question(id: &str, schema: &Value) -> Question {
    let text = |field: &str| schema.get(field).and_then(Value::as_str).map(str::to_owned);
    let kind = kind(schema);
    let plain = |label: &str| QuestionOption { label: label.to_owned(), description: None };
    let options = match kind {
        Kind::Boolean => vec![plain("true"), plain("false")],
        Kind::List => options(schema.get("items").unwrap_or(&Value::Null)),
        Kind::Text | Kind::Number => options(schema),
    };
    Question {
        id: id.to_owned(),
        question: text("description").or_else(|| text("title")).unwrap_or_else(|| id.to_owned()),
        header: text("title"),
        multi: kind == Kind::List,
        options,
    }
}

/// The values that a field can have, plain or with titles.
fn options(schema: &Value) -> Vec<QuestionOption> {
    let list = ["enum", "oneOf", "anyOf"].iter().find_map(|field| schema.get(field)?.as_array());
    let option = |value: &Value| {
        let description = value.get("title").and_then(Value::as_str).map(str::to_owned);
        let label = value.as_str().or_else(|| value.get("const")?.as_str())?;
        Some(QuestionOption { label: label.to_owned(), description })
    };
    list.into_iter().flatten().filter_map(option).collect()
}

impl Form {
    /// The reply with these answers, each in the type of its field. An answer that does not fit goes as it is: the
    /// server says what is wrong with it.
    pub(super) fn accepted(&self, answers: &Map<String, Value>) -> Value {
        let typed = |kind: Kind, answer: &Value| {
            let text = answer.as_str().map(str::trim);
            let fitting = match kind {
                Kind::Text => None,
                Kind::Boolean => text.and_then(|text| match text {
                    "true" | "yes" => Some(true.into()),
                    "false" | "no" => Some(false.into()),
                    _ => None,
                }),
                Kind::Number => {
                    text.and_then(|text| serde_json::from_str::<serde_json::Number>(text).ok()).map(Value::from)
                }
                Kind::List => text.map(|text| json!([text])),
            };
            fitting.unwrap_or_else(|| answer.clone())
        };
        let content: Map<String, Value> =
            self.0.iter().filter_map(|(id, kind)| Some((id.clone(), typed(*kind, answers.get(id)?)))).collect();
        json!({"action": "accept", "content": content})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(params: Value) -> Asked {
        match read(&params) {
            Request::Ask(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_form_is_asked_field_by_field_and_answered_in_types() {
        let properties = json!({"n": {"type": "integer", "title": "How many"}, "b": {"type": "boolean"},
            "l": {"type": "array", "items": {"anyOf": [{"const": "x", "title": "The X"}]}}, "t": {"enum": ["p", "q"]}});
        let params = json!({"serverName": "s", "mode": "form", "message": "Fill in",
            "requestedSchema": {"type": "object", "properties": properties}});
        let Asked { title, questions, how, .. } = asked(params);
        assert_eq!((title.as_str(), questions.len()), ("Fill in", 4));
        let by_id = |id: &str| questions.iter().find(|question| question.id == id).unwrap();
        assert_eq!(by_id("n").question, "How many");
        assert_eq!(by_id("l").options[0].description.as_deref(), Some("The X"));
        assert!(by_id("l").multi && by_id("t").options.len() == 2 && by_id("b").options.len() == 2);
        let How::Form(form) = how else { panic!("{how:?}") };
        let answers = json!({"n": "3", "b": "yes", "l": "x", "t": "p", "other": 1}).as_object().cloned().unwrap();
        let content = json!({"n": 3, "b": true, "l": ["x"], "t": "p"});
        assert_eq!(form.accepted(&answers), json!({"action": "accept", "content": content}));
    }

    #[test]
    fn a_tool_of_a_server_is_allowed_once_or_for_longer() {
        let params = json!({"serverName": "s", "mode": "form", "message": "Allow s to run tool `t`?",
            "requestedSchema": {"type": "object", "properties": {}}, "_meta": {"persist": ["session", "always"]}});
        let Asked { summary, how, .. } = asked(params);
        assert_eq!(summary.as_deref(), Some("Allow s to run tool `t`?"));
        let How::Decide(decisions, otherwise) = how else { panic!("{how:?}") };
        let ids: Vec<&str> = decisions.iter().map(|decision| decision.option.id.as_str()).collect();
        assert_eq!(ids, ["accept", "session", "always", "decline"]);
        assert_eq!(decisions[1].reply["_meta"], json!({"persist": "session"}));
        assert_eq!(otherwise, declined());
    }

    #[test]
    fn what_cannot_be_asked_is_declined() {
        let params = json!({"serverName": "s", "mode": "openai/userVerification", "title": "Touch the key"});
        assert!(matches!(read(&params), Request::Decline(reply, _) if reply == declined()));
        let url = json!({"serverName": "s", "mode": "url", "message": "Log in", "url": "https://example.com"});
        assert_eq!(asked(url).summary.as_deref(), Some("https://example.com"));
    }
}
