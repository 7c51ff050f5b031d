//! Dialogs of pi's extensions: it asks for no permission itself, its extensions may. Pure.

use serde_json::{Map, Value, json};

use crate::{
    agents::{Answer, Ask},
    protocol::{ChoiceKind, ChoiceOption, OptionKind, Question, choice::QuestionOption},
};

/// The one question of a dialog.
const QUESTION: &str = "answer";

/// Questions that an extension waits on.
#[derive(Debug, Default)]
pub(super) struct Dialogs(Vec<Dialog>);

#[derive(Debug)]
struct Dialog {
    ask_id: String,
    /// pi's own id.
    id: String,
    confirms: bool,
}

impl Dialogs {
    /// Reads a request. None where nobody is asked: pi only shows something.
    pub(super) fn ask(&mut self, instance: &str, request: &Map<String, Value>) -> Option<Ask> {
        let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
        let (method, id) = (text("method"), text("id"));
        if !is_dialog(request) {
            return None;
        }
        let confirms = method == "confirm";
        let title = match (text("title"), text("message")) {
            ("", "") => "An extension asks".to_owned(),
            (title, "") | ("", title) => title.to_owned(),
            (title, message) => format!("{title}: {message}"),
        };
        let option = |id: &str, label: &str, kind| ChoiceOption { id: id.into(), label: label.into(), kind };
        let labels = request.get("options").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let answers = labels.map(|label| QuestionOption { label: label.to_owned(), description: None });
        let question = Question {
            id: QUESTION.into(),
            question: title.clone(),
            header: None,
            multi: false,
            options: answers.collect(),
        };
        let ask_id = format!("{instance}:{id}");
        self.0.push(Dialog { ask_id: ask_id.clone(), id: id.to_owned(), confirms });
        Some(Ask {
            ask_id,
            kind: if confirms { ChoiceKind::Permission } else { ChoiceKind::Question },
            title,
            tool: None,
            input_summary: None,
            options: if confirms {
                vec![option("yes", "Yes", OptionKind::AllowOnce), option("no", "No", OptionKind::RejectOnce)]
            } else {
                Vec::new()
            },
            questions: if confirms { Vec::new() } else { vec![question] },
        })
    }

    /// The response for an answer; none when nobody waits for it any more.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) -> Option<Value> {
        let at = self.0.iter().position(|dialog| dialog.ask_id == ask_id)?;
        let dialog = self.0.remove(at);
        let mut response = cancelled(&dialog.id);
        let given = match answer {
            Answer::Option { id } if dialog.confirms => Some(("confirmed", json!(id == "yes"))),
            Answer::Answers(answers) if !dialog.confirms => {
                answers.get(QUESTION).and_then(text_of).map(|text| ("value", json!(text)))
            }
            _ => None,
        };
        if let (Some((name, value)), Some(object)) = (given, response.as_object_mut()) {
            object.remove("cancelled");
            object.insert(name.into(), value);
        }
        Some(response)
    }

    /// Takes all of them back: ask ids, and the responses.
    pub(super) fn take_all(&mut self) -> Vec<(String, Value)> {
        self.0.drain(..).map(|dialog| (dialog.ask_id, cancelled(&dialog.id))).collect()
    }
}

/// True when pi waits for an answer.
pub(super) fn is_dialog(request: &Map<String, Value>) -> bool {
    let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
    ["select", "confirm", "input", "editor"].contains(&method)
}

/// The response that dismisses a dialog.
pub(super) fn cancelled(id: &str) -> Value {
    json!({"type": "extension_ui_response", "id": id, "cancelled": true})
}

fn text_of(answer: &Value) -> Option<&str> {
    answer.as_str().or_else(|| answer.get(0)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn dialogs_are_choices_and_answers_go_back_in_pis_form() {
        let mut dialogs = Dialogs::default();
        let confirm = request(json!({"id": "1", "method": "confirm", "title": "Run?", "message": "rm x"}));
        let ask = dialogs.ask("i", &confirm).unwrap();
        assert_eq!((ask.kind, ask.title.as_str(), ask.options.len()), (ChoiceKind::Permission, "Run?: rm x", 2));
        let answer = dialogs.answer(&ask.ask_id, &Answer::Option { id: "yes".into() });
        assert_eq!(answer, Some(json!({"type": "extension_ui_response", "id": "1", "confirmed": true})));
        assert_eq!(dialogs.answer(&ask.ask_id, &Answer::Cancelled), None);

        let select = request(json!({"id": "2", "method": "select", "title": "Which?", "options": ["a", "b"]}));
        let ask = dialogs.ask("i", &select).unwrap();
        assert_eq!((ask.kind, ask.questions[0].options.len()), (ChoiceKind::Question, 2));
        let answers = Answer::Answers(request(json!({"answer": ["b"]})));
        let answer = dialogs.answer(&ask.ask_id, &answers);
        assert_eq!(answer, Some(json!({"type": "extension_ui_response", "id": "2", "value": "b"})));

        dialogs.ask("i", &request(json!({"id": "3", "method": "input", "title": "Name?"}))).unwrap();
        assert_eq!(dialogs.take_all(), [("i:3".to_owned(), cancelled("3"))]);
        assert_eq!(dialogs.ask("i", &request(json!({"id": "4", "method": "notify", "message": "x"}))), None);
    }
}
