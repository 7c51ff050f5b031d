//! Questions to the user: the input of the tool `AskUserQuestion`, and the answers in it. Pure.
//!
//! The agent gets its answers by the text of the question; ours have short ids, which a client can send back.

use serde_json::{Map, Value};

use super::wire::text;
use crate::{
    agents::Ask,
    protocol::{ChoiceKind, Question, QuestionOption},
};

/// The questions of one call.
#[derive(Debug)]
pub(super) struct Questions(Vec<Question>);

impl Questions {
    /// Reads the input of the tool; none when there is no question in it.
    pub(super) fn read(input: &Value) -> Option<Self> {
        let asked = input.get("questions")?.as_array()?.iter();
        let questions: Vec<Question> = asked.enumerate().map(|(at, asked)| question(at + 1, asked)).collect();
        (!questions.is_empty()).then_some(Self(questions))
    }

    /// The input with the answers in it. Several answers to one question stand in one text, with commas, as the agent's
    /// own dialogue gives them.
    pub(super) fn answered(&self, mut input: Value, answers: &Map<String, Value>) -> Value {
        let answer = |question: &Question| {
            let answer = match answers.get(&question.id)? {
                Value::Array(several) => several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                one => one.as_str()?.to_owned(),
            };
            Some((question.question.clone(), Value::String(answer)))
        };
        let answers: Map<String, Value> = self.0.iter().filter_map(answer).collect();
        if let Some(fields) = input.as_object_mut() {
            fields.insert("answers".into(), Value::Object(answers));
        }
        input
    }
}

fn question(number: usize, asked: &Value) -> Question {
    let known = |value: &Value, field: &str| Some(text(value, field).to_owned()).filter(|text| !text.is_empty());
    let options = asked.get("options").and_then(Value::as_array).into_iter().flatten();
    let option = |option: &Value| QuestionOption {
        label: text(option, "label").to_owned(),
        description: known(option, "description"),
    };
    Question {
        id: format!("q{number}"),
        question: text(asked, "question").to_owned(),
        header: known(asked, "header"),
        multi: asked.get("multiSelect").and_then(Value::as_bool).unwrap_or(false),
        options: options.map(option).collect(),
    }
}

/// The questions as one choice.
pub(super) fn ask(ask_id: &str, questions: &Questions) -> Ask {
    let title = match questions.0.as_slice() {
        [one] => one.question.clone(),
        several => {
            several.iter().map(|one| one.header.as_deref().unwrap_or(&one.question)).collect::<Vec<_>>().join(", ")
        }
    };
    Ask {
        ask_id: ask_id.to_owned(),
        kind: ChoiceKind::Question,
        title,
        tool: Some("AskUserQuestion".to_owned()),
        input_summary: None,
        options: Vec::new(),
        questions: questions.0.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_go_back_by_the_text_of_their_question() {
        let input = json!({"questions": [
            {"question": "Which color?", "header": "Color", "multiSelect": false,
                "options": [{"label": "Red", "description": "warm"}, {"label": "Blue"}]},
            {"question": "Which sizes?", "multiSelect": true, "options": [{"label": "S"}, {"label": "M"}]}]});
        let questions = Questions::read(&input).unwrap();
        let asked = ask("a", &questions);
        assert_eq!((asked.kind, asked.title.as_str()), (ChoiceKind::Question, "Color, Which sizes?"));
        let [color, sizes] = &asked.questions[..] else { panic!("{asked:?}") };
        assert_eq!((color.id.as_str(), color.multi, sizes.multi), ("q1", false, true));
        assert_eq!(color.options[0].description.as_deref(), Some("warm"));
        let answers = json!({"q1": "Green, of my own", "q2": ["S", "M"]});
        let answered = questions.answered(input.clone(), answers.as_object().unwrap());
        assert_eq!(answered["answers"], json!({"Which color?": "Green, of my own", "Which sizes?": "S, M"}));
        assert_eq!(answered["questions"], input["questions"]);
        assert!(Questions::read(&json!({"questions": []})).is_none() && Questions::read(&json!({})).is_none());
    }
}
