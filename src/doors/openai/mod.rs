//! OpenAI's chat completions and responses, as their official clients speak them. Pure: requests read, turns told.
//!
//! A request becomes a [`Conversation`](conversation::Conversation): what was said before, and the new input. An agent
//! runs its own tools, so its calls are not shown as `tool_calls`: a client would try to run them.

pub mod chat_request;
pub mod chat_told;
pub mod content;
pub mod conversation;
pub mod ending;
pub mod input;
pub mod refused;
pub mod response_object;
pub mod response_request;
pub mod response_told;

use crate::ids::TurnId;

/// How ids of responses begin; the rest is that of their turn.
const RESPONSE: &str = "resp_";
const TURN: &str = "turn_";

/// The id of the response that a turn is.
#[must_use]
pub fn response_id(turn: TurnId) -> String {
    format!("{RESPONSE}{}", suffix(turn))
}

/// The turn that a response is; none for what is no id of a response.
#[must_use]
pub fn turn_of(response: &str) -> Option<TurnId> {
    format!("{TURN}{}", response.strip_prefix(RESPONSE)?).parse().ok()
}

/// The part of a turn's id behind its prefix, for the ids of what the turn is shown as.
fn suffix(turn: TurnId) -> String {
    let id = turn.to_string();
    id.strip_prefix(TURN).unwrap_or(&id).to_owned()
}

/// Writes a text as JSON.
fn json_text(text: &str, out: &mut Vec<u8>) {
    // A text always has a JSON form, and a vector takes everything.
    let _infallible = serde_json::to_writer(out, text);
}

/// The form of a message's content.
fn content_form() -> serde_json::Value {
    use serde_json::json;
    let url = json!({"type": "string", "pattern": "^data:[a-z]+/[a-z0-9.+-]+;base64,([A-Za-z0-9+/]{4})+$"});
    let part = |kinds: &[&str], fields: serde_json::Value| {
        let mut properties = json!({"type": {"enum": kinds}});
        let mut required = vec!["type".to_owned()];
        if let (Some(all), Some(fields)) = (properties.as_object_mut(), fields.as_object()) {
            required.extend(fields.keys().cloned());
            all.extend(fields.clone());
        }
        json!({"type": "object", "required": required, "properties": properties})
    };
    let image = json!({"type": "object", "required": ["url"], "properties": {"url": url}});
    let file = json!({"type": "object", "required": ["file_data"], "properties": {"file_data": url}});
    let parts = json!([
        part(&["text", "input_text", "output_text"], json!({"text": {"type": "string"}})),
        part(&["refusal"], json!({"refusal": {"type": "string"}})),
        part(&["image_url"], json!({"image_url": image})),
        part(&["input_image"], json!({"image_url": url})),
        part(&["file"], json!({"file": file})),
        part(&["input_file"], json!({"file_data": url})),
    ]);
    let about = "A text; or parts of text, images and files, which come as `data:` URLs in base64.";
    json!({"description": about, "anyOf": [
        {"type": "string"}, {"type": "null"}, {"type": "array", "items": {"anyOf": parts}},
    ]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_and_turns_have_each_others_names() {
        let turn = TurnId::new();
        assert_eq!(turn_of(&response_id(turn)), Some(turn));
        for none in ["", "resp_", "resp_x", &turn.to_string()] {
            assert_eq!(turn_of(none), None, "{none}");
        }
    }
}
