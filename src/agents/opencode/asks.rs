//! Permissions and questions: what the agent asks, as a choice, and the answer in the agent's form. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    agents::{Answer, Ask, ToolCall, input_summary},
    protocol::{ChoiceKind, ChoiceOption, OptionKind, Question, QuestionOption},
};

/// What is asked and not answered. The agent's ids are never used again, also not by another process.
#[derive(Debug, Default)]
pub(super) struct Asks(BTreeMap<String, Pending>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pending {
    Permission,
    /// The ids of its questions, in order.
    Question(Vec<String>),
}

/// A call that answers.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) path: String,
    pub(super) body: Value,
    /// False when it says no.
    pub(super) allows: bool,
}

impl Asks {
    /// Takes a `permission.asked`, or an entry of the list of permissions. None when it waits already, or has no id. `call` is the
    /// tool call that needs it, where that is known.
    pub(super) fn permission(&mut self, asked: &Value, call: Option<&ToolCall>) -> Option<Ask> {
        let id = text(asked, "id").filter(|id| !self.0.contains_key(*id))?;
        let permission = text(asked, "permission").unwrap_or("permission");
        let list = |name: &str| {
            let list = asked.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            list.collect::<Vec<_>>().join(", ")
        };
        let metadata = asked.get("metadata").unwrap_or(&Value::Null);
        let path = || text(metadata, "filepath").map(str::to_owned);
        let from_call = || call.and_then(|call| input_summary(&call.input));
        let patterns = Some(list("patterns")).filter(|patterns| !patterns.is_empty());
        let summary = input_summary(metadata).or_else(path).or_else(from_call).or(patterns);
        let title = match &summary {
            Some(summary) => format!("{permission}: {summary}"),
            None => permission.to_owned(),
        };
        let option = |id: &str, label: &str, kind| ChoiceOption { id: id.into(), label: label.into(), kind };
        self.0.insert(id.to_owned(), Pending::Permission);
        Some(Ask {
            ask_id: id.to_owned(),
            kind: ChoiceKind::Permission,
            title,
            tool: Some(call.map_or(permission, |call| call.name.as_str()).to_owned()),
            input_summary: summary,
            options: vec![
                option("once", "Allow once", OptionKind::AllowOnce),
                option("always", "Allow always in this conversation", OptionKind::AllowAlways),
                option("reject", "Reject", OptionKind::RejectOnce),
            ],
            questions: Vec::new(),
        })
    }

    /// Takes a `question.asked`, or an entry of the list of questions.
    pub(super) fn question(&mut self, asked: &Value) -> Option<Ask> {
        let id = text(asked, "id").filter(|id| !self.0.contains_key(*id))?;
        let list = asked.get("questions").and_then(Value::as_array)?;
        let questions: Vec<Question> = list.iter().enumerate().map(|(at, info)| question(at, info)).collect();
        let title = questions.first()?.question.clone();
        self.0.insert(id.to_owned(), Pending::Question(questions.iter().map(|question| question.id.clone()).collect()));
        Some(Ask {
            ask_id: id.to_owned(),
            kind: ChoiceKind::Question,
            title,
            tool: Some("question".into()),
            input_summary: None,
            options: Vec::new(),
            questions,
        })
    }

    /// Takes a question out and says how it is answered. None when nobody waits for it any more.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<Reply> {
        let pending = self.0.remove(ask_id)?;
        Some(reply(ask_id, pending, answer))
    }

    /// How all that wait are refused.
    pub(super) fn refusals(&self) -> Vec<Reply> {
        self.0.iter().map(|(id, pending)| reply(id, pending.clone(), &Answer::Cancelled)).collect()
    }

    /// The agent waits no longer for this one; true when we did not know.
    pub(super) fn settled(&mut self, ask_id: &str) -> bool {
        self.0.remove(ask_id).is_some()
    }

    /// All that wait.
    pub(super) fn ids(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn reply(ask_id: &str, pending: Pending, answer: &Answer) -> Reply {
    let (path, body, allows) = match pending {
        Pending::Permission => {
            // Its own "always" holds for everybody who works in the folder, and goes on when the conversation is over: its
            // server is shared. Ours is the session's rule, so that it hears of this time only.
            let allows = matches!(answer, Answer::Option { id } if ["once", "always"].contains(&id.as_str()));
            let reply = if allows { "once" } else { "reject" };
            (format!("/permission/{ask_id}/reply"), json!({"reply": reply}), allows)
        }
        Pending::Question(ids) => match answer {
            Answer::Answers(answers) => {
                let labels = ids.iter().map(|id| labels(answers.get(id))).collect::<Vec<_>>();
                (format!("/question/{ask_id}/reply"), json!({"answers": labels}), true)
            }
            _ => (format!("/question/{ask_id}/reject"), json!({}), false),
        },
    };
    Reply { path, body, allows }
}

fn question(at: usize, info: &Value) -> Question {
    let options = info.get("options").and_then(Value::as_array).into_iter().flatten().filter_map(|option| {
        let label = text(option, "label")?.to_owned();
        Some(QuestionOption { label, description: text(option, "description").map(str::to_owned) })
    });
    Question {
        id: format!("q{}", at + 1),
        question: text(info, "question").unwrap_or_default().to_owned(),
        header: text(info, "header").map(str::to_owned),
        multi: info.get("multiple").and_then(Value::as_bool).unwrap_or(false),
        options: options.collect(),
    }
}

/// An answer as labels: a text, or a list of texts.
fn labels(answer: Option<&Value>) -> Vec<String> {
    match answer {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Null) | None => Vec::new(),
        Some(other) => vec![other.to_string()],
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_asked_once_and_answered_in_the_agents_words() {
        let mut asks = Asks::default();
        let asked = json!({"id": "per_1", "permission": "bash", "patterns": ["ls", "rm x"], "always": ["ls *", "rm *"],
            "metadata": {"command": "ls && rm x"}});
        let ask = asks.permission(&asked, None).unwrap();
        assert_eq!((ask.title.as_str(), ask.tool.as_deref()), ("bash: ls && rm x", Some("bash")));
        assert_eq!(asks.permission(&asked, None), None);
        let reply = asks.answer("per_1", &Answer::Option { id: "always".into() }).unwrap();
        let expected = Reply { path: "/permission/per_1/reply".into(), body: json!({"reply": "once"}), allows: true };
        assert_eq!(reply, expected);
        assert_eq!(asks.answer("per_1", &Answer::Cancelled), None);
        let edit = json!({"id": "per_2", "permission": "edit", "metadata": {"filepath": "/w/a", "diff": "…"}});
        let call = ToolCall { name: "write".into(), ..ToolCall::default() };
        let ask = asks.permission(&edit, Some(&call)).unwrap();
        assert_eq!((ask.input_summary.as_deref(), ask.tool.as_deref()), (Some("/w/a"), Some("write")));
        let reply = asks.answer("per_2", &Answer::Option { id: "what".into() }).unwrap();
        assert_eq!((reply.body, reply.allows), (json!({"reply": "reject"}), false));
    }

    #[test]
    fn questions_are_answered_in_their_order() {
        let mut asks = Asks::default();
        let asked = json!({"id": "que_1", "questions": [
            {"question": "Which?", "header": "W", "options": [{"label": "A", "description": "a"}]},
            {"question": "More?", "multiple": true, "options": []}, {"question": "Last?"}]});
        let ask = asks.question(&asked).unwrap();
        let ids: Vec<&str> = ask.questions.iter().map(|question| question.id.as_str()).collect();
        assert_eq!((ask.title.as_str(), ids), ("Which?", vec!["q1", "q2", "q3"]));
        let answers = json!({"q2": ["x", "y"], "q1": "A"});
        let Value::Object(answers) = answers else { panic!("an object") };
        let reply = asks.answer("que_1", &Answer::Answers(answers)).unwrap();
        assert_eq!(reply.body, json!({"answers": [["A"], ["x", "y"], []]}));
        asks.question(&asked).unwrap();
        let reply = asks.answer("que_1", &Answer::Cancelled).unwrap();
        assert_eq!((reply.path.as_str(), reply.allows), ("/question/que_1/reject", false));
    }
}
