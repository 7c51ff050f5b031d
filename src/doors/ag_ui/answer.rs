//! Questions as interrupts: what a client is told of a choice, and how its answer is read.

use serde_json::{Map, Value, json};

use super::input::{Resume, Status};
use crate::{
    error::{ApiError, Code},
    protocol::{Choice, ChoiceAnswer, ChoiceKind},
};

/// The interrupt of a choice. `call` is the tool call that it is about, where that is known.
pub(super) fn interrupt(choice: &Choice, call: Option<&str>) -> Value {
    let reason = match (choice.kind, call) {
        (ChoiceKind::Question, _) => "input_required",
        (ChoiceKind::Permission, Some(_)) => "tool_call",
        (ChoiceKind::Permission, None) => "confirmation",
    };
    let mut interrupt = json!({
        "id": choice.id,
        "reason": reason,
        "message": message(choice),
        "responseSchema": response_schema(choice),
        "expiresAt": choice.expires_at.to_rfc3339(),
        "metadata": {"choice": choice},
    });
    if let (Some(fields), Some(call)) = (interrupt.as_object_mut(), call) {
        fields.insert("toolCallId".into(), call.into());
    }
    interrupt
}

/// All that a person must read to answer, a line each.
fn message(choice: &Choice) -> String {
    let questions = choice.questions.iter().flatten().map(|question| question.question.as_str());
    let mut lines = vec![choice.title.as_str()];
    for line in choice.input_summary.as_deref().into_iter().chain(questions) {
        if !lines.iter().any(|known| known.contains(line)) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// What the payload of the answer may be.
fn response_schema(choice: &Choice) -> Value {
    match choice.kind {
        ChoiceKind::Permission => {
            let options = choice.options.iter().map(|option| json!({"const": option.id, "title": option.label}));
            let options: Vec<Value> = options.collect();
            json!({
                "type": "object",
                "properties": {
                    "allow": {"type": "boolean", "description": "Yes or no, this time."},
                    "option_id": {"type": "string", "oneOf": options, "description": "Or one of the agent's own answers."},
                },
                "oneOf": [{"required": ["allow"]}, {"required": ["option_id"]}],
            })
        }
        ChoiceKind::Question => {
            let mut answers = Map::new();
            for question in choice.questions.iter().flatten() {
                let ready: Vec<&str> = question.options.iter().map(|option| option.label.as_str()).collect();
                let text = json!({"type": "string", "examples": ready});
                let schema = if question.multi {
                    json!({"anyOf": [{"type": "array", "items": text}, {"type": "string"}], "description": question.question})
                } else {
                    json!({"type": "string", "examples": ready, "description": question.question})
                };
                answers.insert(question.id.clone(), schema);
            }
            let required: Vec<&String> = answers.keys().collect();
            json!({
                "type": "object",
                "required": ["answers"],
                "properties": {"answers": {"type": "object", "required": required, "properties": answers}},
            })
        }
    }
}

impl Resume {
    /// The answer to a choice. Beside the form of the `responseSchema`, a permission takes a bare yes or no and
    /// `{"approved": …}`, as clients send that show every interrupt alike; a single question takes a bare text.
    ///
    /// # Errors
    /// `invalid_choice_payload`.
    pub fn answer(&self, choice: &Choice) -> Result<ChoiceAnswer, ApiError> {
        if self.status == Status::Cancelled {
            return Ok(ChoiceAnswer { declined: true, ..ChoiceAnswer::default() });
        }
        let allowed = |allow| ChoiceAnswer { allow: Some(allow), ..ChoiceAnswer::default() };
        let questions = choice.questions.as_deref().unwrap_or_default();
        match (&self.payload, choice.kind, questions) {
            (Some(Value::Bool(allow)), ChoiceKind::Permission, _) => Ok(allowed(*allow)),
            (Some(Value::Object(fields)), ChoiceKind::Permission, _) if fields.contains_key("approved") => fields
                .get("approved")
                .and_then(Value::as_bool)
                .map(allowed)
                .ok_or_else(|| self.refused("approved is true or false")),
            (Some(Value::String(text)), ChoiceKind::Question, [only]) => {
                let answers = Map::from_iter([(only.id.clone(), Value::from(text.as_str()))]);
                Ok(ChoiceAnswer { answers: Some(answers), ..ChoiceAnswer::default() })
            }
            (Some(payload @ Value::Object(_)), _, _) => {
                serde_json::from_value(payload.clone()).map_err(|error| self.refused(&error.to_string()))
            }
            _ => Err(self.refused("it has the form of the interrupt's responseSchema")),
        }
    }

    fn refused(&self, what: &str) -> ApiError {
        let message = format!("The payload for interrupt {}: {what}.", self.interrupt_id);
        ApiError::new(Code::InvalidChoicePayload, message).with("field", "resume")
    }
}
