//! The request's messages: system text, the conversation so far, the new message with its files. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    agents::Prompt,
    protocol::{Message, Part, Role},
};

/// The messages of a request, and what had to be left out.
#[derive(Debug, PartialEq)]
pub struct Conversation {
    /// In the form of the API.
    pub messages: Vec<Value>,
    /// For each file of the new message that cannot be given to the model: its name and why.
    pub left_out: Vec<String>,
    /// True when nothing of the new message is left.
    pub is_empty: bool,
}

/// A piece of a message.
enum Piece {
    Text(String),
    /// A data URL.
    Image(String),
}

/// Neighbours of one role are joined, because the templates of many models demand that user and assistant alternate;
/// after a failed turn, two messages of the user stand side by side.
#[derive(Default)]
struct Joined(Vec<(&'static str, Vec<Piece>)>);

impl Joined {
    fn push(&mut self, role: &'static str, pieces: Vec<Piece>) {
        match self.0.last_mut() {
            _ if pieces.is_empty() => {}
            Some((last, so_far)) if *last == role => so_far.extend(pieces),
            _ => self.0.push((role, pieces)),
        }
    }
}

/// Builds the messages. Of the conversation so far, the texts go in and the files that it still holds; tool calls
/// and reasoning do not. What the system said before all else is a system message; a later note goes in as text of the
/// user, because many templates take a system message only at the beginning. So does the result of a tool that somebody
/// else has called: Greenroom's own transcripts have none.
pub fn conversation(system: Option<&str>, history: &[Message], prompt: &Prompt) -> Conversation {
    let mut joined = Joined::default();
    let first = history.iter().take_while(|message| message.role == Role::System).count();
    let (first, history) = history.split_at(first);
    let told: Vec<String> = system.map(str::to_owned).into_iter().chain(first.iter().map(Message::text)).collect();
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|text| !text.trim().is_empty()).collect();
    let system = told.join("\n\n");
    for message in history {
        match message.role {
            Role::User => joined.push("user", user_pieces(message)),
            Role::Assistant => joined.push("assistant", text_piece(&message.text())),
            Role::System => {
                let note = message.text();
                let note = if note.is_empty() { note } else { format!("[Note from the system: {note}]") };
                joined.push("user", text_piece(&note));
            }
            Role::Tool => {
                let result = message.text();
                joined.push("user", text_piece(&format!("[Result of the tool: {result}]")));
            }
        }
    }
    let mut pieces = text_piece(&prompt.text);
    let mut left_out = Vec::new();
    for file in prompt.attachments.iter() {
        match file_piece(&file.name, &file.media_type, &file.content_base64) {
            Ok(piece) => pieces.push(piece),
            Err(why) => left_out.push(format!("{} was left out: {why}", file.name)),
        }
    }
    let is_empty = pieces.is_empty();
    joined.push("user", pieces);
    let system = Some(system).filter(|text| !text.is_empty());
    let system = system.map(|text| json!({"role": "system", "content": text}));
    let messages = system.into_iter().chain(joined.0.iter().map(|(role, pieces)| to_json(role, pieces))).collect();
    Conversation { messages, left_out, is_empty }
}

fn text_piece(text: &str) -> Vec<Piece> {
    if text.trim().is_empty() { Vec::new() } else { vec![Piece::Text(text.to_owned())] }
}

fn user_pieces(message: &Message) -> Vec<Piece> {
    let mut pieces = text_piece(&message.text());
    for part in &message.parts {
        let Part::File { name, media_type, content_base64, .. } = part else { continue };
        let piece = content_base64.as_deref().and_then(|content| file_piece(name, media_type, content).ok());
        pieces.push(piece.unwrap_or_else(|| Piece::Text(format!("[The file {name} came with this message.]"))));
    }
    pieces
}

/// A file as the model can take it, or why it cannot.
fn file_piece(name: &str, media_type: &str, content_base64: &str) -> Result<Piece, String> {
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type.starts_with("image/") && media_type != "image/svg+xml" {
        return Ok(Piece::Image(format!("data:{media_type};base64,{content_base64}")));
    }
    if !is_text(&media_type) {
        return Err(format!("this agent takes images and text, not {media_type}"));
    }
    let bytes = STANDARD.decode(content_base64).map_err(|error| format!("its content is no base64: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_invalid| "it is not UTF-8 text".to_owned())?;
    let name = name.replace(['"', '\n', '\r'], " ");
    Ok(Piece::Text(format!("<file name=\"{name}\">\n{}\n</file>", text.trim_end_matches('\n'))))
}

/// Media types that hold text. A file of no known type may do so too: its content decides.
fn is_text(media_type: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "",
        "application/octet-stream",
        "application/json",
        "application/xml",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/javascript",
        "application/x-sh",
        "application/sql",
        "application/x-ndjson",
        "application/typescript",
    ];
    media_type.starts_with("text/")
        || media_type.ends_with("+json")
        || media_type.ends_with("+xml")
        || OTHERS.contains(&media_type)
}

/// A message of texts only is written as one text, which every server takes.
fn to_json(role: &str, pieces: &[Piece]) -> Value {
    let texts: Option<Vec<&str>> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Image(_) => None,
        })
        .collect();
    if let Some(texts) = texts {
        return json!({"role": role, "content": texts.join("\n\n")});
    }
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::Image(url) => json!({"type": "image_url", "image_url": {"url": url}}),
    };
    json!({"role": role, "content": pieces.iter().map(part).collect::<Vec<_>>()})
}
