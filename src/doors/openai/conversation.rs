//! A list of messages as a conversation: what was said before, and the new input of the user. Pure.

use super::{content::Content, refused::invalid};
use crate::{
    error::ApiError,
    ids::MessageId,
    protocol::{Attachment, Message, Part, Role},
    timestamp::Timestamp,
};

/// What a request tells.
#[derive(Debug, PartialEq)]
pub struct Conversation {
    /// What was said before, oldest first. Where the request belongs to a session that has begun, the session has it.
    pub before: Vec<Message>,
    /// The new input: the texts of the user after the last answer.
    pub text: String,
    /// The files of the new input.
    pub files: Vec<Attachment>,
}

impl Conversation {
    /// The texts of the system before the first word of anybody else, joined; none when there is none.
    #[must_use]
    pub fn system(&self) -> Option<String> {
        system_of(&self.before)
    }
}

/// The texts of the system at the beginning of a transcript, joined.
#[must_use]
pub fn system_of(transcript: &[Message]) -> Option<String> {
    let first = transcript.iter().take_while(|message| message.role == Role::System);
    let texts: Vec<String> = first.map(Message::text).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

/// Someone says something.
#[derive(Debug)]
pub struct Said {
    /// Who.
    pub role: Role,
    /// What.
    pub content: Content,
}

/// Tells the new input from what was said before. `at` is the field of the list.
///
/// # Errors
/// `invalid_json` where the last word is not the user's.
pub fn conversation(said: Vec<Said>, at: &str) -> Result<Conversation, ApiError> {
    let answered = said.iter().rposition(|one| matches!(one.role, Role::Assistant | Role::Tool));
    let begin = answered.map_or(0, |last| last + 1);
    let (mut before, mut texts, mut files, mut new) = (Vec::new(), Vec::new(), Vec::new(), false);
    for (place, one) in said.into_iter().enumerate() {
        if place >= begin && one.role == Role::User {
            new = true;
            texts.push(one.content.text);
            files.extend(one.content.files);
        } else {
            before.push(message(one));
        }
    }
    if !new {
        return Err(invalid(at, "the last message must be the user's: there is nothing to answer"));
    }
    Ok(Conversation { before, text: texts.join("\n\n"), files })
}

fn message(said: Said) -> Message {
    let text = Some(said.content.text).filter(|text| !text.is_empty());
    let text = text.map(|text| Part::Text { text });
    let files = said.content.files.into_iter().map(|file| Part::File {
        bytes: u64::try_from(file.content_base64.trim_end_matches('=').len().saturating_mul(3) / 4).unwrap_or(0),
        name: file.name,
        media_type: file.media_type,
        content_base64: Some(file.content_base64),
    });
    Message {
        id: MessageId::new(),
        role: said.role,
        parts: text.into_iter().chain(files).collect(),
        turn_id: None,
        agent: None,
        client_id: None,
        created_at: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(list: &[(Role, &str)]) -> Vec<Said> {
        let one = |(role, text): &(Role, &str)| Said {
            role: *role,
            content: Content { text: (*text).into(), files: Vec::new() },
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn the_new_input_is_what_the_user_said_after_the_last_answer() {
        use Role::{Assistant, System, Tool, User};
        let list = [(System, "s"), (User, "1"), (Assistant, "2"), (Tool, "3"), (User, "4"), (System, "t"), (User, "5")];
        let read = conversation(said(&list), "messages").unwrap();
        assert_eq!(read.text, "4\n\n5");
        let before: Vec<_> = read.before.iter().map(|message| (message.role, message.text())).collect();
        let expected = [(System, "s"), (User, "1"), (Assistant, "2"), (Tool, "3"), (System, "t")];
        assert_eq!(before, expected.map(|(role, text)| (role, text.to_owned())));
        assert_eq!(read.system().as_deref(), Some("s"));
    }

    #[test]
    fn without_a_new_word_of_the_user_there_is_nothing_to_do() {
        for list in [vec![], vec![(Role::System, "s")], vec![(Role::User, "1"), (Role::Assistant, "2")]] {
            let error = conversation(said(&list), "messages").unwrap_err();
            assert_eq!(error.details["param"], "messages");
        }
    }
}
