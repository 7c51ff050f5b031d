//! Attached files that are text. Pure.

use crate::protocol::Attachment;

/// The content of a file that is text by its media type and by its bytes.
#[must_use]
pub fn text_of(file: &Attachment) -> Option<String> {
    use base64::Engine as _;
    let kind = file.media_type.split(';').next().unwrap_or_default().trim();
    let textual = kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || ["application/json", "application/xml", "application/yaml", "application/toml", "application/javascript"]
            .contains(&kind);
    if !textual {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(&file.content_base64).ok()?;
    String::from_utf8(bytes).ok()
}
