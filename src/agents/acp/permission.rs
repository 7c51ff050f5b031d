//! Permissions: an agent's request as a question, and an answer as the agent's reply. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::tools::Tools;
use crate::{
    agents::{Answer, Ask, input_summary},
    protocol::{ChoiceKind, ChoiceOption, OptionKind},
};

/// The requests that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By ask id: the id of the request, exactly as it came, and its options.
    asks: HashMap<String, (Value, Vec<ChoiceOption>)>,
    /// Numbers the questions: request ids begin anew with every process, ask ids must not.
    asked: u64,
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
        self.asked += 1;
        let ask_id = format!("{instance}.{}.{id}", self.asked);
        let call = params.get("toolCall");
        let call_id = call.and_then(|call| call.get("toolCallId")?.as_str()).unwrap_or_default();
        let card = tools.card(call_id);
        let title = card.and_then(|card| card.title.clone());
        let summary = card.and_then(|card| input_summary(&card.input));
        let summary = summary.or_else(|| tools.path(call_id).map(str::to_owned)).or_else(|| title.clone());
        self.asks.insert(ask_id.clone(), (id, options.clone()));
        Ok(Ask {
            ask_id,
            kind: ChoiceKind::Permission,
            title: title.unwrap_or_else(|| "The agent asks for permission".to_owned()),
            tool: card.map(|card| card.name.clone()),
            input_summary: summary,
            options,
            questions: Vec::new(),
        })
    }

    /// Takes a question out: the id of its request, the reply, and whether that allows. None when nobody waits for it.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<(Value, Value, bool)> {
        let (id, options) = self.asks.remove(ask_id)?;
        let chosen = match answer {
            Answer::Option { id } => options.iter().find(|option| option.id == *id),
            Answer::Answers(_) | Answer::Cancelled => None,
        };
        Some(match chosen {
            Some(option) => {
                let outcome = json!({"outcome": {"outcome": "selected", "optionId": option.id}});
                (id, outcome, option.kind.allows())
            }
            None => (id, cancelled(), false),
        })
    }

    /// Takes all questions out: ask ids and ids of requests.
    pub(super) fn take_all(&mut self) -> Vec<(String, Value)> {
        self.asks.drain().map(|(ask_id, (id, _))| (ask_id, id)).collect()
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
        let reply = json!({"outcome": {"outcome": "selected", "optionId": "n"}});
        assert_eq!(pending.answer(&ask.ask_id, &no), Some((json!("7-a"), reply, false)));
        assert_eq!(pending.answer(&ask.ask_id, &no), None);
        let unknown = Answer::Option { id: "zzz".into() };
        assert_eq!(pending.answer(&again.ask_id, &unknown), Some((json!("7-a"), cancelled(), false)));
        assert_eq!(pending.ask("i", json!(1), &json!({"options": []}), &tools), Err(json!(1)));
    }
}
