//! The conversation so far as text, for an agent that cannot load it. Pure.

use crate::{
    agents::input_summary,
    protocol::{Message, Part, Role},
};

/// The most of a conversation that is replayed, in bytes; the newest is kept.
pub const REPLAY_LIMIT: usize = 100_000;

/// The conversation so far as a text of at most `limit` bytes and a few lines around it; none when there is nothing
/// to tell.
#[must_use]
pub fn replay(transcript: &[Message], limit: usize) -> Option<String> {
    let told: Vec<String> = transcript.iter().map(told).filter(|text| !text.is_empty()).collect();
    let mut left = limit;
    let mut kept = Vec::new();
    for text in told.iter().rev() {
        if text.len() > left {
            // The newest message is told in any case, with its end.
            if kept.is_empty() {
                let from = (text.len() - left..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
                kept.push(format!("[…]{}", text.get(from..).unwrap_or_default()));
            }
            break;
        }
        left -= text.len();
        kept.push(text.clone());
    }
    if kept.is_empty() {
        return None;
    }
    kept.reverse();
    let omitted = told.len() - kept.len();
    let omitted = if omitted == 0 { String::new() } else { format!("[{omitted} earlier messages are left out]\n\n") };
    Some(format!(
        "This is the conversation so far, from a process that has ended. Go on from there; do not answer it \
         again.\n\n<conversation>\n{omitted}{}\n</conversation>\n\nThe new message:\n",
        kept.join("\n\n")
    ))
}

/// A message as text. Reasoning is left out: it was never part of the conversation.
fn told(message: &Message) -> String {
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Part::Reasoning { .. } => None,
        Part::ToolCall { name, title, input, is_error, .. } => {
            let what = input_summary(input).or_else(|| title.clone()).unwrap_or_default();
            let failed = if *is_error { ", failed" } else { "" };
            Some(format!("[used tool {name}: {what}{failed}]"))
        }
        Part::File { name, media_type, .. } => Some(format!("[file {name}, {media_type}]")),
    });
    let text = parts.collect::<Vec<_>>().join("\n");
    let who = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
        Role::System => "Note",
    };
    if text.is_empty() { text } else { format!("{who}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::MessageId, timestamp::Timestamp};

    fn message(role: Role, text: &str) -> Message {
        Message {
            id: MessageId::new(),
            role,
            parts: vec![Part::Reasoning { text: "secret thought".into() }, Part::Text { text: text.into() }],
            turn_id: None,
            agent: None,
            client_id: None,
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_replay_keeps_the_newest_and_says_what_it_leaves_out() {
        let transcript =
            [message(Role::User, "first"), message(Role::Assistant, "second"), message(Role::User, "third")];
        let all = replay(&transcript, 1000).unwrap();
        assert!(
            all.contains("<conversation>\nUser: first\n\nAssistant: second\n\nUser: third\n</conversation>"),
            "{all}"
        );
        assert!(!all.contains("secret thought") && !all.contains("left out"));
        let some = replay(&transcript, 30).unwrap();
        assert!(some.contains("[1 earlier messages are left out]\n\nAssistant: second\n\nUser: third"), "{some}");
        let cut = replay(&[message(Role::User, &"ä".repeat(100))], 21).unwrap();
        assert!(cut.contains(&format!("\n[…]{}\n", "ä".repeat(10))), "{cut}");
        assert_eq!(replay(&[], 1000), None);
    }
}
