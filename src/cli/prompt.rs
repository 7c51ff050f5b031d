//! Asking a person in the terminal: how a choice is shown, and what a typed line means. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::terminal::{Style, clean, first_line};
use crate::protocol::{Choice, ChoiceAnswer, ChoiceKind, OptionKind, Question};

/// A choice as text, with its numbered answers. Ends with a newline.
pub fn show(choice: &Choice, style: Style) -> String {
    let mut out = format!("{}\n", style.ask(&format!("? {}", first_line(&choice.title, 200))));
    let about = [choice.tool.as_deref(), choice.input_summary.as_deref()].into_iter().flatten();
    let about = about.map(|text| first_line(text, 200)).collect::<Vec<_>>().join(": ");
    if !about.is_empty() {
        let _ = writeln!(out, "    {about}");
    }
    for (index, option) in choice.options.iter().enumerate() {
        let _ = writeln!(out, "    {} {}", index + 1, first_line(&option.label, 100));
    }
    out
}

/// How to answer from outside a terminal session.
pub fn how_to_answer(choice: &Choice, url: &str) -> String {
    let body = match choice.kind {
        ChoiceKind::Permission => r#"{"allow":true}"#.to_owned(),
        ChoiceKind::Question => {
            let ids = choice.questions.iter().flatten().map(|question| (question.id.clone(), Value::from("…")));
            serde_json::json!({ "answers": ids.collect::<Map<_, _>>() }).to_string()
        }
    };
    let (key, id) = (&choice.session, &choice.id);
    format!(
        "  answer with: greenroom attach {key}\n  or: curl {url}/v1/sessions/{key}/choices/{id} \
         -H 'content-type: application/json' -d '{body}'"
    )
}

/// What a line did.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The choice is answered.
    Answer(Box<ChoiceAnswer>),
    /// There is more to ask: the text to show next.
    More(String),
}

/// A choice that waits for somebody at this terminal.
#[derive(Debug, Clone)]
pub struct Prompt {
    choice: Choice,
    answers: Map<String, Value>,
}

impl Prompt {
    /// Asks this.
    pub fn new(choice: Choice) -> Self {
        Self { choice, answers: Map::new() }
    }

    /// What is asked.
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What to type now.
    pub fn hint(&self) -> String {
        match self.question() {
            None => "  y or n, or a number: ".into(),
            Some(question) => {
                let mut out = format!("  {}\n", clean(&question.question));
                for (index, option) in question.options.iter().enumerate() {
                    let about = option.description.as_deref().unwrap_or_default();
                    let line =
                        format!("    {} {}  {}", index + 1, first_line(&option.label, 80), first_line(about, 100));
                    let _ = writeln!(out, "{}", line.trim_end());
                }
                let many = if question.multi { "numbers with commas between" } else { "a number" };
                out + &if question.options.is_empty() {
                    "  your answer: ".into()
                } else {
                    format!("  {many}, or your own words: ")
                }
            }
        }
    }

    /// Takes a line that was typed.
    pub fn line(&mut self, line: &str) -> Step {
        let line = line.trim();
        let Some(question) = self.question() else {
            return self.permission(line);
        };
        if line.is_empty() {
            return Step::More(self.hint());
        }
        let (id, value) = (question.id.clone(), answer(question, line));
        self.answers.insert(id, value);
        if self.question().is_some() {
            return Step::More(self.hint());
        }
        let answers = Some(std::mem::take(&mut self.answers));
        Step::Answer(Box::new(ChoiceAnswer { answers, ..ChoiceAnswer::default() }))
    }

    /// The first question without an answer; none for a permission.
    fn question(&self) -> Option<&Question> {
        self.choice.questions.iter().flatten().find(|question| !self.answers.contains_key(&question.id))
    }

    fn permission(&self, line: &str) -> Step {
        let allow = |allow| Step::Answer(Box::new(ChoiceAnswer { allow: Some(allow), ..ChoiceAnswer::default() }));
        let by = |kind| self.choice.options.iter().find(move |option| option.kind == kind);
        let option = match line.to_lowercase().as_str() {
            "y" | "yes" => return allow(true),
            "n" | "no" => return allow(false),
            "a" | "always" => by(OptionKind::AllowAlways),
            number => number.parse::<usize>().ok().and_then(|n| self.choice.options.get(n.checked_sub(1)?)),
        };
        match option {
            Some(option) => {
                let option_id = Some(option.id.clone());
                Step::Answer(Box::new(ChoiceAnswer { option_id, ..ChoiceAnswer::default() }))
            }
            None => Step::More(self.hint()),
        }
    }
}

/// A typed line as an answer: numbers stand for the ready-made ones, anything else for itself.
fn answer(question: &Question, line: &str) -> Value {
    let label = |text: &str| {
        let index = text.trim().parse::<usize>().ok()?.checked_sub(1)?;
        question.options.get(index).map(|option| Value::from(option.label.as_str()))
    };
    if question.multi {
        let all: Option<Vec<Value>> = line.split(',').map(label).collect();
        return all.unwrap_or_else(|| vec![line.into()]).into();
    }
    label(line).unwrap_or_else(|| line.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ids::{ChoiceId, TurnId},
        protocol::{ChoiceOption, QuestionOption},
        timestamp::Timestamp,
    };

    fn choice(questions: Option<Vec<Question>>) -> Choice {
        let option = |id: &str, kind| ChoiceOption { id: id.into(), label: format!("label {id}"), kind };
        Choice {
            id: ChoiceId::new(),
            session: "k".parse().unwrap(),
            turn_id: TurnId::new(),
            kind: if questions.is_some() { ChoiceKind::Question } else { ChoiceKind::Permission },
            title: "Run ls?".into(),
            tool: Some("bash".into()),
            input_summary: Some("ls\x1b[2J".into()),
            options: vec![option("yes", OptionKind::AllowOnce), option("ever", OptionKind::AllowAlways)],
            questions,
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        }
    }

    fn answered(step: Step) -> ChoiceAnswer {
        match step {
            Step::Answer(answer) => *answer,
            Step::More(hint) => panic!("asked again: {hint}"),
        }
    }

    #[test]
    fn a_permission_takes_yes_no_or_a_number() {
        let mut prompt = Prompt::new(choice(None));
        assert_eq!(answered(prompt.line("y")).allow, Some(true));
        assert_eq!(answered(prompt.line(" No ")).allow, Some(false));
        assert_eq!(answered(prompt.line("2")).option_id, Some("ever".into()));
        assert_eq!(answered(prompt.line("always")).option_id, Some("ever".into()));
        for unclear in ["", "0", "3", "maybe"] {
            assert!(matches!(prompt.line(unclear), Step::More(_)), "{unclear}");
        }
        assert_eq!(
            show(prompt.choice(), Style::PLAIN),
            "? Run ls?\n    bash: ls[2J\n    1 label yes\n    2 label ever\n"
        );
    }

    #[test]
    fn questions_are_asked_one_by_one() {
        let option = |label: &str| QuestionOption { label: label.into(), description: None };
        let options = vec![option("red"), option("blue")];
        let ask = |id: &str, multi| Question {
            id: id.into(),
            question: id.into(),
            header: None,
            multi,
            options: options.clone(),
        };
        let mut prompt = Prompt::new(choice(Some(vec![ask("one", false), ask("many", true), ask("free", false)])));
        assert!(matches!(prompt.line("2"), Step::More(hint) if hint.contains("many")));
        assert!(matches!(prompt.line(""), Step::More(hint) if hint.contains("many")));
        assert!(matches!(prompt.line("1, 2"), Step::More(hint) if hint.contains("free")));
        let answers = answered(prompt.line("green")).answers.unwrap();
        assert_eq!(Value::Object(answers), json!({"one": "blue", "many": ["red", "blue"], "free": "green"}));
    }

    #[test]
    fn a_script_is_told_how_to_answer() {
        let permission = how_to_answer(&choice(None), "http://h:1");
        assert!(permission.contains("greenroom attach k") && permission.contains(r#"{"allow":true}"#), "{permission}");
    }
}
