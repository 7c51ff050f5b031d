//! Permissions: a `can_use_tool` as a question, and an answer as the reply that the agent expects. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    question::{self, Questions},
    tools,
    wire::text,
};
use crate::{
    agents::{Answer, Ask},
    protocol::{ChoiceKind, ChoiceOption, OptionKind},
};

/// What the model reads when a person says no.
const REFUSED: &str = "The user does not allow this. Do not try it in another way; ask what to do instead.";
/// What the model reads when nobody says anything.
const UNANSWERED: &str = "Nobody answered in time, so this was not done.";
/// The longest plan in a question's summary, in characters.
const PLAN: usize = 2000;

/// The requests that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By ask id.
    asks: HashMap<String, Waiting>,
    /// Numbers the questions: request ids may begin anew with every process, ask ids must not.
    asked: u64,
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    request: String,
    input: Value,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With the agent's own rules for "always".
    Tool {
        suggestions: Value,
    },
    Plan,
    Questions(Questions),
}

/// A question that was settled.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    /// The id of the request.
    pub(super) request: String,
    /// The reply to it.
    pub(super) reply: Value,
}

/// The reply that lets a call pass as it is.
pub(super) fn allow(input: &Value) -> Value {
    json!({"behavior": "allow", "updatedInput": input})
}

/// The reply that does not let a call pass, with what the model reads.
pub(super) fn deny(message: &str) -> Value {
    json!({"behavior": "deny", "message": message})
}

/// True for a call that needs a person whatever is allowed: a question, or the end of a plan.
pub(super) fn needs_a_person(request: &Value) -> bool {
    request.get("requires_user_interaction").and_then(Value::as_bool).unwrap_or(false)
        || matches!(text(request, "tool_name"), "AskUserQuestion" | "ExitPlanMode")
}

impl Pending {
    /// Makes a question out of a `can_use_tool` request.
    pub(super) fn ask(&mut self, instance: &str, id: String, request: &Value) -> Ask {
        self.asked += 1;
        let ask_id = format!("{instance}.{}", self.asked);
        let input = request.get("input").cloned().unwrap_or_else(|| json!({}));
        let name = text(request, "tool_name");
        let questions = (name == "AskUserQuestion").then(|| Questions::read(&input)).flatten();
        let (ask, kind) = match (questions, name) {
            (Some(questions), _) => (question::ask(&ask_id, &questions), Kind::Questions(questions)),
            (None, "ExitPlanMode") => (plan(&ask_id, &input), Kind::Plan),
            (None, _) => {
                let suggestions = suggestions(request);
                (tool(&ask_id, request, &input, &suggestions), Kind::Tool { suggestions })
            }
        };
        self.asks.insert(ask_id, Waiting { request: id, input, kind });
        ask
    }

    /// Takes a question out. None when nobody waits for it.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<Settled> {
        let Waiting { request, input, kind } = self.asks.remove(ask_id)?;
        let reply = match (answer, kind) {
            (Answer::Cancelled, _) => deny(UNANSWERED),
            (Answer::Answers(answers), Kind::Questions(questions)) => allow(&questions.answered(input, answers)),
            (Answer::Option { id }, Kind::Tool { suggestions }) => match id.as_str() {
                "allow" => allow(&input),
                "allow_always" => with_permissions(allow(&input), suggestions),
                _ => deny(REFUSED),
            },
            (Answer::Option { id }, Kind::Plan) => match id.as_str() {
                "allow" => allow(&input),
                "accept_edits" => with_permissions(
                    allow(&input),
                    json!([{"type": "setMode", "mode": "acceptEdits", "destination": "session"}]),
                ),
                _ => deny("The user wants to keep planning. Ask what to change."),
            },
            (Answer::Answers(_), Kind::Tool { .. } | Kind::Plan) | (Answer::Option { .. }, Kind::Questions(_)) => {
                deny(REFUSED)
            }
        };
        Some(Settled { request, reply })
    }

    /// Takes all questions out: ask ids and ids of requests.
    pub(super) fn take_all(&mut self) -> Vec<(String, String)> {
        self.asks.drain().map(|(ask_id, waiting)| (ask_id, waiting.request)).collect()
    }

    /// Takes the question out that a request of this id made.
    pub(super) fn withdraw(&mut self, request: &str) -> Option<String> {
        let ask_id = self.asks.iter().find(|(_, waiting)| waiting.request == request)?.0.clone();
        self.asks.remove(&ask_id);
        Some(ask_id)
    }
}

fn with_permissions(mut reply: Value, permissions: Value) -> Value {
    if let Some(fields) = reply.as_object_mut() {
        fields.insert("updatedPermissions".into(), permissions);
    }
    reply
}

/// The agent's own rules for "always", for this session only: as it suggests them, they would be written into a settings
/// file in the folder where it works, which is the user's, and hold for every other session there.
fn suggestions(request: &Value) -> Value {
    let suppressed = request.get("suppress_always_allow_rule").and_then(Value::as_bool).unwrap_or(false);
    let suggested = request.get("permission_suggestions").and_then(Value::as_array).filter(|_| !suppressed);
    let for_session = |suggestion: &Value| {
        let mut suggestion = suggestion.clone();
        suggestion.as_object_mut()?.insert("destination".into(), "session".into());
        Some(suggestion)
    };
    suggested.into_iter().flatten().filter_map(for_session).collect()
}

fn option(id: &str, label: impl Into<String>, kind: OptionKind) -> ChoiceOption {
    ChoiceOption { id: id.to_owned(), label: label.into(), kind }
}

fn tool(ask_id: &str, request: &Value, input: &Value, suggestions: &Value) -> Ask {
    let name = text(request, "tool_name");
    let first = |fields: &[&str]| {
        fields.iter().map(|field| text(request, field)).find(|text| !text.is_empty()).map(str::to_owned)
    };
    let card = tools::card("", name, input.clone());
    let title = first(&["title"]).or(card.title).or_else(|| first(&["display_name"]));
    let mut options = vec![option("allow", "Yes", OptionKind::AllowOnce)];
    if let Some(label) = always(suggestions) {
        options.push(option("allow_always", label, OptionKind::AllowAlways));
    }
    options.push(option("reject", "No", OptionKind::RejectOnce));
    Ask {
        ask_id: ask_id.to_owned(),
        kind: ChoiceKind::Permission,
        title: title.unwrap_or_else(|| tools::label(name)),
        tool: Some(name.to_owned()),
        input_summary: tools::summary(input).or_else(|| first(&["blocked_path", "description"])),
        options,
        questions: Vec::new(),
    }
}

/// What "always" means here, for a person; none where the agent has no rule for it.
fn always(suggestions: &Value) -> Option<String> {
    let mut parts = Vec::new();
    for suggestion in suggestions.as_array().into_iter().flatten() {
        let list = |field: &str| suggestion.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match text(suggestion, "type") {
            "addRules" if text(suggestion, "behavior") == "allow" => {
                parts.extend(list("rules").iter().map(|rule| {
                    let (tool, content) = (tools::label(text(rule, "toolName")), text(rule, "ruleContent"));
                    let rule = if content.is_empty() { tool } else { format!("{tool}({content})") };
                    format!("do not ask again for {rule}")
                }));
            }
            "setMode" if text(suggestion, "mode") == "acceptEdits" => parts.push("accept all edits".to_owned()),
            "setMode" => parts.push(format!("go into the mode {}", text(suggestion, "mode"))),
            "addDirectories" => {
                let folders = list("directories").iter().filter_map(Value::as_str);
                parts.extend(folders.map(|folder| format!("allow all of {folder}")));
            }
            _ => {}
        }
    }
    if parts.is_empty() { None } else { Some(format!("Yes, and in this session {}", parts.join(", "))) }
}

/// The end of planning. Both ways on mean "this time": a stored rule would end the next plan unseen.
fn plan(ask_id: &str, input: &Value) -> Ask {
    let plan = Some(text(input, "plan")).filter(|plan| !plan.is_empty());
    Ask {
        ask_id: ask_id.to_owned(),
        kind: ChoiceKind::Permission,
        title: "The plan is ready. Go on with it?".to_owned(),
        tool: Some("ExitPlanMode".to_owned()),
        input_summary: plan.map(|plan| plan.chars().take(PLAN).collect()),
        options: vec![
            option("allow", "Yes, and ask before each edit", OptionKind::AllowOnce),
            option("accept_edits", "Yes, and accept all edits", OptionKind::AllowOnce),
            option("reject", "No, keep planning", OptionKind::RejectOnce),
        ],
        questions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(content: &str, destination: &str) -> Value {
        json!({"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": content}], "behavior": "allow",
            "destination": destination})
    }

    fn bash() -> Value {
        json!({"subtype": "can_use_tool", "tool_name": "Bash", "display_name": "Bash", "description": "x",
            "input": {"command": "touch a"}, "permission_suggestions": [rule("touch *", "localSettings")]})
    }

    fn pick(pending: &mut Pending, ask: &Ask, id: &str) -> Value {
        pending.answer(&ask.ask_id, &Answer::Option { id: id.into() }).unwrap().reply
    }

    #[test]
    fn a_tool_is_asked_for_in_its_own_words_and_answered_in_its_own_form() {
        let mut pending = Pending::default();
        let ask = pending.ask("i", "r1".into(), &bash());
        let words: Vec<_> = ask.options.iter().map(|option| (option.id.as_str(), option.label.as_str())).collect();
        let always = "Yes, and in this session do not ask again for Bash(touch *)";
        assert_eq!(words, [("allow", "Yes"), ("allow_always", always), ("reject", "No")]);
        assert_eq!((ask.title.as_str(), ask.tool.as_deref()), ("touch a", Some("Bash")));
        assert_eq!(ask.input_summary.as_deref(), Some("touch a"));
        let input = json!({"command": "touch a"});
        let expected =
            json!({"behavior": "allow", "updatedInput": input, "updatedPermissions": [rule("touch *", "session")]});
        assert_eq!(pick(&mut pending, &ask, "allow_always"), expected);
        assert_eq!(pending.answer(&ask.ask_id, &Answer::Cancelled), None);
        for (id, expected) in [("allow", allow(&input)), ("reject", deny(REFUSED)), ("nonsense", deny(REFUSED))] {
            let ask = pending.ask("i", "r2".into(), &bash());
            assert_eq!(pick(&mut pending, &ask, id), expected, "{id}");
        }
    }

    #[test]
    fn always_is_offered_only_where_the_agent_has_a_rule_for_it() {
        let mut bare = bash();
        bare["permission_suggestions"] = json!([]);
        let mut suppressed = bash();
        suppressed["suppress_always_allow_rule"] = true.into();
        for request in [bare, suppressed] {
            let ask = Pending::default().ask("i", "r".into(), &request);
            assert!(ask.options.iter().all(|option| option.kind != OptionKind::AllowAlways), "{ask:?}");
        }
        let mode =
            json!([{"type": "setMode", "mode": "acceptEdits"}, {"type": "addDirectories", "directories": ["/x"]}]);
        let expected = "Yes, and in this session accept all edits, allow all of /x";
        assert_eq!(always(&mode).as_deref(), Some(expected));
    }

    #[test]
    fn a_plan_is_never_accepted_for_ever() {
        let request = json!({"tool_name": "ExitPlanMode", "input": {"plan": "1. all"}});
        assert!(needs_a_person(&request) && !needs_a_person(&bash()));
        let mut pending = Pending::default();
        let ask = pending.ask("i", "r".into(), &request);
        assert!(ask.options.iter().all(|option| option.kind != OptionKind::AllowAlways));
        assert_eq!(ask.input_summary.as_deref(), Some("1. all"));
        let reply = pick(&mut pending, &ask, "accept_edits");
        assert_eq!(reply["updatedPermissions"][0]["mode"], "acceptEdits");
        let ask = pending.ask("i", "r".into(), &request);
        assert_eq!(pick(&mut pending, &ask, "reject")["behavior"], "deny");
    }

    #[test]
    fn a_request_that_is_taken_back_is_found_by_its_id() {
        let mut pending = Pending::default();
        let ask = pending.ask("i", "r1".into(), &bash());
        let other = pending.ask("i", "r2".into(), &bash());
        assert_eq!(pending.withdraw("r1"), Some(ask.ask_id));
        assert_eq!(pending.withdraw("r1"), None);
        assert_eq!(pending.take_all(), [(other.ask_id, "r2".to_owned())]);
    }
}
