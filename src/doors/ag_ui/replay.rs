//! A run that is told again to a client that has the beginning of it.
//!
//! A client's message goes on where a message of that id is opened again, so without this the beginning would be there
//! twice. The client's own messages are sent back to it, with what this run is about to tell taken out of them.

use serde_json::{Value, value::RawValue};

use super::parts::run_of;

/// The messages as they must be when the run begins; none where they are so already. `up_to_user` of them are left as
/// they are; `and_later` when what later runs have told is told again too.
pub(super) fn messages(messages: &[Box<RawValue>], up_to_user: usize, run: u32, and_later: bool) -> Option<Vec<Value>> {
    let told: Vec<Value> =
        messages.iter().skip(up_to_user).filter_map(|message| serde_json::from_str(message.get()).ok()).collect();
    let is_again = |message: &Value| {
        let of = message.get("id").and_then(Value::as_str).and_then(run_of);
        of.is_some_and(|of| of == run || (and_later && of > run))
    };
    if !told.iter().any(is_again) {
        return None;
    }
    let before = messages.iter().take(up_to_user).filter_map(|message| serde_json::from_str(message.get()).ok());
    let after =
        told.into_iter().filter_map(|message| if is_again(&message) { emptied(message) } else { Some(message) });
    Some(before.chain(after).collect())
}

/// A message that keeps its place and nothing else; a tool's result is put into its place when it is told.
fn emptied(mut message: Value) -> Option<Value> {
    if message.get("role").and_then(Value::as_str) == Some("tool") {
        return None;
    }
    if let Some(content) = message.get_mut("content").filter(|content| content.is_string()) {
        *content = "".into();
    }
    for call in message.get_mut("toolCalls").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(arguments) = call.pointer_mut("/function/arguments") {
            *arguments = "".into();
        }
    }
    Some(message)
}
