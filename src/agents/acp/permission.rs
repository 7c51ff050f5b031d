//! Permissions, and the questions that wait beside them: an agent's request as a choice, and an answer as the agent's
//! reply. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    question::{self, Form},
    tools::Tools,
};
use crate::{
    agents::{Answer, Ask, input_summary, whole_input},
    protocol::{ChoiceKind, ChoiceOption, OptionKind, Question},
};

/// The requests that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By ask id: the id of the request, exactly as it came, and what it asks.
    asks: HashMap<String, (Value, Asked)>,
    /// Numbers the questions: request ids begin anew with every process, ask ids must not.
    asked: u64,
}

#[derive(Debug)]
enum Asked {
    /// The options, and the call that waits for it.
    Permission(Vec<ChoiceOption>, String),
    Question(Form),
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub(super) struct Answered {
    /// The id of the request.
    pub(super) request: Value,
    pub(super) reply: Value,
    pub(super) allows: bool,
    /// The call that waited for it; none where it was a question.
    pub(super) call_id: Option<String>,
}

impl Asked {
    /// The reply that takes it back.
    fn cancelled(&self) -> Value {
        match self {
            Self::Permission(..) => cancelled(),
            Self::Question(form) => form.cancelled(),
        }
    }
}

impl Pending {
    /// Makes a question out of a `session/request_permission`, whose tool call `tools` knows already. Gives the id back when it
    /// has no option that means anything.
    pub(super) fn ask(&mut self, instance: &str, id: Value, params: &Value, tools: &Tools) -> Result<Ask, Value> {
        let options: Vec<ChoiceOption> =
            params.get("options").and_then(Value::as_array).into_iter().flatten().filter_map(option).collect();
        if options.is_empty() {
            return Err(id);
        }
        let call = params.get("toolCall");
        let call_id = call.and_then(|call| call.get("toolCallId")?.as_str()).unwrap_or_default();
        let card = tools.card(call_id);
        let title = card.and_then(|card| card.title.clone());
        let summary = card.and_then(|card| input_summary(&card.input));
        let summary = summary.or_else(|| tools.path(call_id).map(str::to_owned));
        let summary = summary.or_else(|| whole_input(&card?.input)).or_else(|| title.clone());
        let title = title.unwrap_or_else(|| "The agent asks for permission".to_owned());
        let tool = card.map(|card| card.name.clone());
        let submit = options.iter().find(|option| option.kind.allows());
        if let Some((questions, form)) =
            call.zip(submit).and_then(|(call, submit)| question::in_permission(call, &submit.id))
        {
            return Ok(Ask { tool, ..self.question(instance, id, title, questions, form) });
        }
        Ok(Ask {
            ask_id: self.wait(instance, id, Asked::Permission(options.clone(), call_id.to_owned())),
            kind: ChoiceKind::Permission,
            title,
            tool,
            input_summary: summary,
            options,
            questions: Vec::new(),
        })
    }

    /// Makes a choice out of an `elicitation/create`. Gives the id back when it is nothing that can be answered.
    pub(super) fn elicit(&mut self, instance: &str, id: Value, params: &Value) -> Result<Ask, Value> {
        match question::elicitation(params) {
            Some((title, questions, form)) => Ok(self.question(instance, id, title, questions, form)),
            None => Err(id),
        }
    }

    fn question(&mut self, instance: &str, id: Value, title: String, questions: Vec<Question>, form: Form) -> Ask {
        Ask {
            ask_id: self.wait(instance, id, Asked::Question(form)),
            kind: ChoiceKind::Question,
            title,
            tool: None,
            input_summary: None,
            options: Vec::new(),
            questions,
        }
    }

    fn wait(&mut self, instance: &str, id: Value, asked: Asked) -> String {
        self.asked += 1;
        let ask_id = format!("{instance}.{}.{id}", self.asked);
        self.asks.insert(ask_id.clone(), (id, asked));
        ask_id
    }

    /// Takes a choice out. None when nobody waits for it.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<Answered> {
        let (request, asked) = self.asks.remove(ask_id)?;
        let chosen = match (answer, &asked) {
            (Answer::Option { id }, Asked::Permission(options, _)) => {
                options.iter().find(|option| option.id == *id).map(|option| {
                    (json!({"outcome": {"outcome": "selected", "optionId": option.id}}), option.kind.allows())
                })
            }
            (Answer::Answers(answers), Asked::Question(form)) => Some((form.reply(answers), true)),
            _ => None,
        };
        let (reply, allows) = chosen.unwrap_or_else(|| (asked.cancelled(), false));
        let call_id = match asked {
            Asked::Permission(_, call_id) => Some(call_id),
            Asked::Question(_) => None,
        };
        Some(Answered { request, reply, allows, call_id })
    }

    /// Takes all choices out: ask ids, ids of requests, and the replies that take them back.
    pub(super) fn take_all(&mut self) -> Vec<(String, Value, Value)> {
        self.asks.drain().map(|(ask_id, (id, asked))| (ask_id, id, asked.cancelled())).collect()
    }

    /// The question that a request of this id made.
    pub(super) fn by_request(&self, id: &Value) -> Option<String> {
        self.asks.iter().find(|(_, (request, _))| request == id).map(|(ask_id, _)| ask_id.clone())
    }
}

/// The reply that takes a question back.
pub(super) fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

fn option(option: &Value) -> Option<ChoiceOption> {
    let id = option.get("optionId")?.as_str()?.to_owned();
    // By kind, never by position or id: those differ between agents.
    let kind = match option.get("kind")?.as_str()? {
        "allow_once" => OptionKind::AllowOnce,
        "allow_always" => OptionKind::AllowAlways,
        "reject_once" => OptionKind::RejectOnce,
        "reject_always" => OptionKind::RejectAlways,
        _ => return None,
    };
    let label = option.get("name").and_then(Value::as_str).unwrap_or(&id).to_owned();
    Some(ChoiceOption { id, label, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_take_their_words_from_the_call_and_replies_echo_the_id() {
        let mut tools = Tools::default();
        let call = json!({"toolCallId": "c", "title": "Write a", "kind": "edit",
            "content": [{"type": "diff", "path": "/w/a", "newText": "x"}]});
        tools.announce(&call);
        let params = json!({"toolCall": call, "options": [{"optionId": "a", "name": "Always", "kind": "allow_always"},
            {"optionId": "z", "name": "?", "kind": "maybe"}, {"optionId": "n", "name": "No", "kind": "reject_once"}]});
        let mut pending = Pending::default();
        let ask = pending.ask("i", json!("7-a"), &params, &tools).unwrap();
        assert_eq!((ask.title.as_str(), ask.tool.as_deref()), ("Write a", Some("edit")));
        assert_eq!((ask.input_summary.as_deref(), ask.options.len()), (Some("/w/a"), 2));
        let again = pending.ask("i", json!("7-a"), &params, &tools).unwrap();
        assert_ne!(ask.ask_id, again.ask_id);
        let no = Answer::Option { id: "n".into() };
        let answered = |reply| Answered { request: json!("7-a"), reply, allows: false, call_id: Some("c".into()) };
        let reply = json!({"outcome": {"outcome": "selected", "optionId": "n"}});
        assert_eq!(pending.answer(&ask.ask_id, &no), Some(answered(reply)));
        assert_eq!(pending.answer(&ask.ask_id, &no), None);
        let unknown = Answer::Option { id: "zzz".into() };
        assert_eq!(pending.answer(&again.ask_id, &unknown), Some(answered(cancelled())));
        let yes = Answer::Option { id: "a".into() };
        let third = pending.ask("i", json!(8), &params, &tools).unwrap();
        assert!(pending.answer(&third.ask_id, &yes).unwrap().allows);
        assert_eq!(pending.ask("i", json!(1), &json!({"options": []}), &tools), Err(json!(1)));
    }
}
