//! What Codex asks: approvals as permissions with its own decisions, `requestUserInput` as questions; and the answers as
//! its replies. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    cards::paths,
    elicitation::{self, Form},
    shell::unwrapped,
    tools::Tools,
};
use crate::{
    agents::{Answer, Ask, shortened},
    protocol::{ChoiceKind, ChoiceOption, OptionKind, Question, QuestionOption},
};

/// A decision that can be made, and what is replied for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    pub(super) option: ChoiceOption,
    pub(super) reply: Value,
    /// True when it also ends the turn.
    pub(super) ends_turn: bool,
}

/// How an answer becomes a reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    /// By one of these, or else by this reply.
    Decide(Vec<Decision>, Value),
    /// By the answers of `requestUserInput`.
    Input,
    /// By the fields of a form.
    Form(Form),
}

/// What a request is about.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) title: String,
    pub(super) tool: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) questions: Vec<Question>,
    pub(super) how: How,
}

/// A reply to a request.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// The id of the request, as it came.
    pub(super) request: Value,
    pub(super) result: Value,
    /// True when the turn will end over it.
    pub(super) ends_turn: bool,
}

/// What to do about a request.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// Somebody has to answer.
    Ask(Box<Asked>),
    /// Nobody can answer that here: this is replied, and why, for a person.
    Decline(Value, String),
    /// It is not known.
    Unknown,
}

/// Reads a request.
pub(super) fn read(method: &str, params: &Value, tools: &Tools) -> Request {
    match method {
        "item/commandExecution/requestApproval" => Request::Ask(Box::new(command(params, tools))),
        "item/fileChange/requestApproval" => Request::Ask(Box::new(file_change(params, tools))),
        "item/permissions/requestApproval" => Request::Ask(Box::new(permissions(params))),
        "item/tool/requestUserInput" => user_input(params),
        "mcpServer/elicitation/request" => elicitation::read(params),
        _ => Request::Unknown,
    }
}

/// Makes a decision.
pub(super) fn decision(id: &str, label: impl Into<String>, kind: OptionKind, reply: Value) -> Decision {
    let option = ChoiceOption { id: id.to_owned(), label: label.into(), kind };
    Decision { option, reply, ends_turn: false }
}

fn command(params: &Value, tools: &Tools) -> Asked {
    let text = |field: &str| params.get(field).and_then(Value::as_str);
    let card = text("itemId").and_then(|id| tools.card(id));
    let command = text("command").map(unwrapped);
    let host = params.get("networkApprovalContext").and_then(|context| context.get("host")?.as_str());
    let asked = match host {
        Some(host) => format!("May it reach {host} over the network?"),
        None => "May it run this command?".to_owned(),
    };
    let own = command.or_else(|| card.and_then(|card| card.input.get("command")?.as_str().map(str::to_owned)));
    let what = host.map(|host| format!("network: {host}")).or(own);
    // A rule for one of them must not be a rule for another.
    let tool = match (host, text("kind")) {
        (Some(_), _) => "network",
        (None, Some("writeStdin")) => "write_stdin",
        _ => "shell",
    };
    Asked {
        title: text("reason").map_or(asked, str::to_owned),
        tool: Some(tool.to_owned()),
        summary: what.as_deref().map(shortened),
        questions: Vec::new(),
        how: How::Decide(decisions(), json!({"decision": "decline"})),
    }
}

fn file_change(params: &Value, tools: &Tools) -> Asked {
    let text = |field: &str| params.get(field).and_then(Value::as_str);
    let card = text("itemId").and_then(|id| tools.card(id));
    let files = card.and_then(|card| card.input.get("changes")).map(|changes| paths(changes).join(", "));
    let root = text("grantRoot").map(|root| format!("everything below {root}"));
    Asked {
        title: text("reason").unwrap_or("May it make these changes?").to_owned(),
        tool: Some(card.map_or_else(|| "apply_patch".to_owned(), |card| card.name.clone())),
        summary: root.or(files).as_deref().map(shortened),
        questions: Vec::new(),
        how: How::Decide(decisions(), json!({"decision": "decline"})),
    }
}

/// More freedom for the turn, or for the session: what is granted is what was asked for.
fn permissions(params: &Value) -> Asked {
    let wanted = params.get("permissions").cloned().unwrap_or_default();
    let nothing = json!({"permissions": {}});
    let grant = |scope: &str| json!({"permissions": wanted, "scope": scope});
    let all = vec![
        decision("accept", "Yes, for this turn", OptionKind::AllowOnce, grant("turn")),
        decision("acceptForSession", "Yes, for this session", OptionKind::AllowAlways, grant("session")),
        decision("decline", "No, go on without them", OptionKind::RejectOnce, nothing.clone()),
    ];
    Asked {
        title: params.get("reason").and_then(Value::as_str).unwrap_or("May it have these permissions?").to_owned(),
        tool: Some("request_permissions".to_owned()),
        summary: Some(shortened(&wanted.to_string())),
        questions: Vec::new(),
        how: How::Decide(all, nothing),
    }
}

/// The decisions that codex takes. Those that it would keep in the rules of its home folder (`…Amendment`) are not among them:
/// they hold for ever and for everybody whose sessions use that folder.
fn decisions() -> Vec<Decision> {
    use OptionKind::{AllowAlways, AllowOnce, RejectOnce};
    let plain = |id: &str, label: &str, kind| decision(id, label, kind, json!({"decision": id}));
    vec![
        plain("accept", "Yes, proceed", AllowOnce),
        plain("acceptForSession", "Yes, and don't ask again for this in this session", AllowAlways),
        plain("decline", "No, go on without it", RejectOnce),
        Decision { ends_turn: true, ..plain("cancel", "No, and stop the turn", RejectOnce) },
    ]
}

fn user_input(params: &Value) -> Request {
    let list = params.get("questions").and_then(Value::as_array).into_iter().flatten();
    let question = |question: &Value| {
        let text = |field: &str| question.get(field).and_then(Value::as_str).map(str::to_owned);
        let options = question.get("options").and_then(Value::as_array).into_iter().flatten();
        let option = |option: &Value| {
            let text = |field: &str| option.get(field).and_then(Value::as_str).map(str::to_owned);
            Some(QuestionOption { label: text("label")?, description: text("description") })
        };
        Some(Question {
            id: text("id")?,
            question: text("question").unwrap_or_default(),
            header: text("header").filter(|header| !header.is_empty()),
            multi: false,
            options: options.filter_map(option).collect(),
        })
    };
    let questions: Vec<Question> = list.filter_map(question).collect();
    let Some(first) = questions.first() else {
        return Request::Decline(json!({"answers": {}}), "the agent asked nothing".to_owned());
    };
    let title = first.header.clone().unwrap_or_else(|| first.question.clone());
    let tool = Some("request_user_input".to_owned());
    Request::Ask(Box::new(Asked { title, tool, summary: None, questions, how: How::Input }))
}

/// The requests that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By ask id: the id of the request, exactly as it came, and how it is answered.
    asks: HashMap<String, (Value, How)>,
    /// Numbers the questions: request ids begin anew with every process, ask ids must not.
    asked: u64,
}

impl Pending {
    /// Notes a request, and makes a question out of it.
    pub(super) fn ask(&mut self, instance: &str, id: Value, asked: Asked) -> Ask {
        self.asked += 1;
        let ask_id = format!("{instance}.{}.{id}", self.asked);
        let options = match &asked.how {
            How::Decide(decisions, _) => decisions.iter().map(|decision| decision.option.clone()).collect(),
            How::Input | How::Form(_) => Vec::new(),
        };
        let kind = if options.is_empty() { ChoiceKind::Question } else { ChoiceKind::Permission };
        self.asks.insert(ask_id.clone(), (id, asked.how));
        let Asked { title, tool, summary, questions, .. } = asked;
        Ask { ask_id, kind, title, tool, input_summary: summary, options, questions }
    }

    /// Takes a question out and gives the reply. None when nobody waits for it.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<Reply> {
        let (request, how) = self.asks.remove(ask_id)?;
        let (result, ends_turn) = match (how, answer) {
            (How::Decide(decisions, otherwise), answer) => {
                let chosen = decisions.into_iter().find(|decision| match answer {
                    Answer::Option { id } => decision.option.id == *id,
                    Answer::Answers(_) | Answer::Cancelled => false,
                });
                chosen.map_or((otherwise, false), |decision| (decision.reply, decision.ends_turn))
            }
            (How::Input, Answer::Answers(answers)) => (input(answers), false),
            (How::Input, _) => (input(&Map::new()), false),
            (How::Form(form), Answer::Answers(answers)) => (form.accepted(answers), false),
            (How::Form(_), _) => (elicitation::declined(), false),
        };
        Some(Reply { request, result, ends_turn })
    }

    /// Takes all questions out.
    pub(super) fn take_all(&mut self) -> Vec<String> {
        self.asks.drain().map(|(ask_id, _)| ask_id).collect()
    }

    /// Takes out the question that a request of this id made.
    pub(super) fn resolved(&mut self, id: &Value) -> Option<String> {
        let ask_id = self.asks.iter().find(|(_, (request, _))| request == id).map(|(ask_id, _)| ask_id.clone())?;
        self.asks.remove(&ask_id);
        Some(ask_id)
    }
}

fn input(answers: &Map<String, Value>) -> Value {
    let list = |answer: &Value| match answer {
        Value::Array(list) => list.clone(),
        other => vec![other.clone()],
    };
    let answers: Map<String, Value> =
        answers.iter().map(|(id, answer)| (id.clone(), json!({"answers": list(answer)}))).collect();
    json!({ "answers": answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pending: &mut Pending, method: &str, params: Value) -> Ask {
        let mut tools = Tools::default();
        tools.started(&json!({"type": "fileChange", "id": "f", "changes": [{"path": "/w/a"}, {"path": "/w/b"}]}));
        match read(method, &params, &tools) {
            Request::Ask(asked) => pending.ask("i", json!(0), *asked),
            other => panic!("{other:?}"),
        }
    }

    fn decide(method: &str, params: &Value, option: &str) -> (Value, bool) {
        let mut pending = Pending::default();
        let asked = ask(&mut pending, method, params.clone());
        let reply = pending.answer(&asked.ask_id, &Answer::Option { id: option.into() }).unwrap();
        assert_eq!(reply.request, json!(0));
        (reply.result, reply.ends_turn)
    }

    const COMMAND: &str = "item/commandExecution/requestApproval";

    #[test]
    fn a_command_is_decided_for_now_or_for_the_session_and_never_for_everybody() {
        let amendment = json!({"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["touch", "a"]}});
        let params = json!({"itemId": "c", "command": "/bin/bash -lc 'touch a'", "reason": null,
            "availableDecisions": ["accept", amendment, "cancel"]});
        let asked = ask(&mut Pending::default(), COMMAND, params.clone());
        assert_eq!((asked.input_summary.as_deref(), asked.tool.as_deref()), (Some("touch a"), Some("shell")));
        let ids: Vec<&str> = asked.options.iter().map(|option| option.id.as_str()).collect();
        assert_eq!(ids, ["accept", "acceptForSession", "decline", "cancel"]);
        assert_eq!(decide(COMMAND, &params, "accept"), (json!({"decision": "accept"}), false));
        assert_eq!(decide(COMMAND, &params, "cancel"), (json!({"decision": "cancel"}), true));
        for id in ["nonsense", "acceptWithExecpolicyAmendment"] {
            assert_eq!(decide(COMMAND, &params, id), (json!({"decision": "decline"}), false));
        }
        let reject = asked.options.iter().find(|option| option.kind == OptionKind::RejectOnce);
        assert_eq!(reject.map(|option| option.id.as_str()), Some("decline"));
    }

    #[test]
    fn the_network_is_asked_for_by_its_host() {
        let rule = json!({"applyNetworkPolicyAmendment":
            {"network_policy_amendment": {"action": "allow", "host": "example.com"}}});
        let params = json!({"networkApprovalContext": {"host": "example.com", "protocol": "https"},
            "availableDecisions": ["accept", rule]});
        let asked = ask(&mut Pending::default(), COMMAND, params);
        assert!(asked.title.contains("example.com") && asked.tool.as_deref() == Some("network"));
        assert_eq!((asked.input_summary.as_deref(), asked.options.len()), (Some("network: example.com"), 4));
    }

    #[test]
    fn changes_and_permissions_are_described_by_what_they_touch() {
        let asked = ask(&mut Pending::default(), "item/fileChange/requestApproval", json!({"itemId": "f"}));
        assert_eq!((asked.input_summary.as_deref(), asked.options.len()), (Some("/w/a, /w/b"), 4));
        let wanted = json!({"network": {"enabled": true}});
        let params = json!({"permissions": wanted, "reason": "to look it up"});
        let method = "item/permissions/requestApproval";
        assert_eq!(ask(&mut Pending::default(), method, params.clone()).title, "to look it up");
        let granted = decide(method, &params, "acceptForSession").0;
        assert_eq!(granted, json!({"permissions": wanted, "scope": "session"}));
        assert_eq!(decide(method, &params, "decline").0, json!({"permissions": {}}));
    }

    #[test]
    fn questions_get_their_answers_and_withdrawn_ones_none() {
        let params = json!({"questions": [{"id": "q", "header": "Colour", "question": "Which?",
            "options": [{"label": "Red", "description": "warm"}]}]});
        let mut pending = Pending::default();
        let asked = ask(&mut pending, "item/tool/requestUserInput", params.clone());
        assert_eq!((asked.kind, asked.title.as_str()), (ChoiceKind::Question, "Colour"));
        assert_eq!(asked.questions[0].options[0].label, "Red");
        let answers = json!({"q": "Red", "r": ["a", "b"]}).as_object().cloned().unwrap();
        let reply = pending.answer(&asked.ask_id, &Answer::Answers(answers)).unwrap();
        assert_eq!(reply.result, json!({"answers": {"q": {"answers": ["Red"]}, "r": {"answers": ["a", "b"]}}}));
        let again = ask(&mut pending, "item/tool/requestUserInput", params);
        assert_ne!(again.ask_id, asked.ask_id);
        assert_eq!(pending.resolved(&json!(0)), Some(again.ask_id.clone()));
        assert_eq!(pending.resolved(&json!(0)), None);
        assert_eq!(pending.answer(&again.ask_id, &Answer::Cancelled), None);
        let nothing = read("item/tool/requestUserInput", &json!({"questions": []}), &Tools::default());
        assert!(matches!(nothing, Request::Decline(..)));
        assert_eq!(read("item/tool/call", &json!({}), &Tools::default()), Request::Unknown);
    }
}
