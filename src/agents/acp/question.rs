//! Questions to the user: a form of the protocol (`elicitation/create`), or what qwen puts into a permission. As
//! questions, and the answers as the agent wants them. Pure.

use serde_json::{Map, Value, json};

use crate::protocol::{Question, QuestionOption};

/// The form field beside a field with options that takes a text of the user's own has this at the end of its name.
const OWN_WORDS: &str = "_custom";

/// How the answers go back.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// By the fields of a form.
    Fields(Map<String, Value>),
    /// By number, beside the option of a permission that submits them.
    Numbered(String),
}

/// Reads the parameters of `elicitation/create`. None when it is no form that can be answered.
pub(super) fn elicitation(params: &Value) -> Option<(String, Vec<Question>, Form)> {
    let fields = params.get("requestedSchema")?.get("properties")?.as_object()?;
    let message = params.get("message").and_then(Value::as_str).unwrap_or("The agent asks").to_owned();
    let asked: Vec<(&String, &Value)> = fields.iter().filter(|(name, _)| !is_own_words(name, fields)).collect();
    let single = asked.len() == 1;
    let questions: Vec<Question> = asked
        .into_iter()
        .map(|(name, field)| {
            let text = |key: &str| field.get(key).and_then(Value::as_str).map(str::to_owned);
            let title = text("title");
            let question = if single { Some(message.clone()) } else { text("description").or_else(|| title.clone()) };
            Question {
                id: name.clone(),
                question: question.unwrap_or_else(|| name.clone()),
                header: title,
                multi: field.get("type").and_then(Value::as_str) == Some("array"),
                options: field_options(field),
            }
        })
        .collect();
    (!questions.is_empty()).then(|| (message, questions, Form::Fields(fields.clone())))
}

/// Reads the questions that qwen puts into the tool call of a permission, whose option `submit` sends the answers.
pub(super) fn in_permission(call: &Value, submit: &str) -> Option<(Vec<Question>, Form)> {
    let list = call.get("_meta")?.get("qwenQuestions")?.as_array()?;
    let read = |(number, question): (usize, &Value)| {
        let text = |key: &str| question.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Question {
            id: number.to_string(),
            question: text("question")?,
            header: text("header"),
            multi: question.get("multiSelect").and_then(Value::as_bool).unwrap_or(false),
            options: options(question.get("options"), "label"),
        })
    };
    let questions: Vec<Question> = list.iter().enumerate().filter_map(read).collect();
    (!questions.is_empty()).then(|| (questions, Form::Numbered(submit.to_owned())))
}

impl Form {
    /// The reply that carries the answers.
    pub(super) fn reply(&self, answers: &Map<String, Value>) -> Value {
        match self {
            Self::Fields(fields) => {
                let mut content = Map::new();
                for (name, answer) in answers {
                    let field = fields.get(name).unwrap_or(&Value::Null);
                    let own = format!("{name}{OWN_WORDS}");
                    let (known, words) = split(field, answer);
                    match (fields.contains_key(&own), known) {
                        // Words that are none of the options have a field of their own.
                        (true, known) if !words.is_empty() => {
                            content.insert(own, words.join(", ").into());
                            if let Some(known) = known {
                                content.insert(name.clone(), known);
                            }
                        }
                        (_, _) => drop(content.insert(name.clone(), typed(field, answer))),
                    }
                }
                json!({"action": "accept", "content": content})
            }
            Self::Numbered(submit) => {
                let answers: Map<String, Value> =
                    answers.iter().map(|(number, answer)| (number.clone(), texts(answer).join(", ").into())).collect();
                json!({"outcome": {"outcome": "selected", "optionId": submit}, "answers": answers})
            }
        }
    }

    /// The reply that takes the question back.
    pub(super) fn cancelled(&self) -> Value {
        match self {
            Self::Fields(_) => json!({"action": "cancel"}),
            Self::Numbered(_) => super::permission::cancelled(),
        }
    }
}

fn is_own_words(name: &str, fields: &Map<String, Value>) -> bool {
    name.strip_suffix(OWN_WORDS).is_some_and(|of| fields.contains_key(of))
}

/// The options of a field, in whichever of JSON Schema's ways they are given.
fn field_options(field: &Value) -> Vec<QuestionOption> {
    if field.get("type").and_then(Value::as_str) == Some("boolean") {
        let option = |label: &str| QuestionOption { label: label.into(), description: None };
        return vec![option("true"), option("false")];
    }
    let holder = field.get("items").unwrap_or(field);
    let list = ["oneOf", "anyOf", "enum"].iter().find_map(|way| holder.get(way));
    options(list, "const")
}

/// Options that are texts, or objects whose label has this name.
fn options(list: Option<&Value>, label: &str) -> Vec<QuestionOption> {
    let read = |option: &Value| {
        let text = |key: &str| option.get(key).and_then(Value::as_str).map(str::to_owned);
        let label = option.as_str().map(str::to_owned).or_else(|| text(label))?;
        let title = text("title").filter(|title| *title != label);
        Some(QuestionOption { description: text("description").or(title), label })
    };
    list.and_then(Value::as_array).into_iter().flatten().filter_map(read).collect()
}

/// An answer as texts.
fn texts(answer: &Value) -> Vec<String> {
    match answer {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// What of an answer is among the options, and what is in the user's own words.
fn split(field: &Value, answer: &Value) -> (Option<Value>, Vec<String>) {
    let offered = field_options(field);
    let (known, own): (Vec<String>, Vec<String>) =
        texts(answer).into_iter().partition(|text| offered.iter().any(|option| option.label == *text));
    let known = match (known.is_empty(), field.get("type").and_then(Value::as_str)) {
        (true, _) => None,
        (false, Some("array")) => Some(json!(known)),
        (false, _) => known.into_iter().next().map(Value::from),
    };
    (known, own)
}

/// An answer of the field's type: users answer with texts.
fn typed(field: &Value, answer: &Value) -> Value {
    let text = answer.as_str();
    let parsed = match field.get("type").and_then(Value::as_str) {
        Some("boolean") => text.and_then(|text| text.parse::<bool>().ok()).map(Value::from),
        Some("integer") => text.and_then(|text| text.trim().parse::<i64>().ok()).map(Value::from),
        Some("number") => text.and_then(|text| text.trim().parse::<f64>().ok()).map(Value::from),
        Some("array") => Some(json!(texts(answer))),
        _ => texts(answer).into_iter().reduce(|all, text| format!("{all}, {text}")).map(Value::from),
    };
    parsed.unwrap_or_else(|| answer.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(list: &[(&str, Value)]) -> Map<String, Value> {
        list.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone())).collect()
    }

    #[test]
    fn a_form_becomes_questions_and_answers_go_into_its_fields() {
        let params = json!({"mode": "form", "message": "Please answer", "requestedSchema": {"type": "object", "properties": {
            "a": {"type": "string", "title": "Colour", "description": "Which colour?",
                "oneOf": [{"const": "Red", "title": "Red", "description": "warm"}, {"const": "Blue", "title": "Bleu"}]},
            "a_custom": {"type": "string", "title": "Other"},
            "b": {"type": "array", "title": "Sizes", "items": {"enum": ["S", "L"]}},
            "c": {"type": "integer"}, "d": {"type": "boolean"}}}});
        let (title, questions, form) = elicitation(&params).unwrap();
        let asked: Vec<_> = questions.iter().map(|q| (q.id.as_str(), q.question.as_str(), q.multi)).collect();
        let expected = [("a", "Which colour?", false), ("b", "Sizes", true), ("c", "c", false), ("d", "d", false)];
        assert_eq!((title.as_str(), asked.as_slice()), ("Please answer", &expected[..]));
        let labels = |question: &Question| question.options.iter().map(|o| o.label.clone()).collect::<Vec<_>>();
        assert_eq!(
            (labels(&questions[0]), labels(&questions[1])),
            (vec!["Red".into(), "Blue".into()], vec!["S".into(), "L".into()])
        );
        assert_eq!(questions[0].options[1].description.as_deref(), Some("Bleu"));
        let given = answers(&[("a", json!("Blue")), ("b", json!(["S", "L"])), ("c", json!("7")), ("d", json!("true"))]);
        let content = json!({"a": "Blue", "b": ["S", "L"], "c": 7, "d": true});
        assert_eq!(form.reply(&given), json!({"action": "accept", "content": content}));
        let own = form.reply(&answers(&[("a", json!("mauve"))]));
        assert_eq!(own, json!({"action": "accept", "content": {"a_custom": "mauve"}}));
        assert_eq!(form.cancelled(), json!({"action": "cancel"}));
    }

    #[test]
    fn the_one_question_of_a_form_is_its_message() {
        let field = json!({"type": "string", "title": "Name"});
        let params = json!({"message": "Who are you?", "requestedSchema": {"properties": {"n": field}}});
        let (_, questions, _) = elicitation(&params).unwrap();
        assert_eq!((questions[0].question.as_str(), questions[0].header.as_deref()), ("Who are you?", Some("Name")));
        assert_eq!(elicitation(&json!({"mode": "url", "url": "http://x"})), None);
        assert_eq!(elicitation(&json!({"requestedSchema": {"properties": {}}})), None);
    }

    #[test]
    fn questions_in_a_permission_are_answered_by_number() {
        let question = json!({"question": "Which?", "header": "H", "multiSelect": true, "options": [{"label": "A", "description": "a"}]});
        let call = json!({"_meta": {"qwenQuestions": [question]}});
        let (questions, form) = in_permission(&call, "ok").unwrap();
        assert_eq!((questions[0].id.as_str(), questions[0].multi, questions[0].options.len()), ("0", true, 1));
        let reply = form.reply(&answers(&[("0", json!(["A", "B"]))]));
        assert_eq!(reply, json!({"outcome": {"outcome": "selected", "optionId": "ok"}, "answers": {"0": "A, B"}}));
        assert_eq!(in_permission(&json!({"title": "ls"}), "ok"), None);
    }
}
