//! The content of a message: a text, or parts of text, images and files. Files come as `data:` URLs; an address
//! elsewhere is refused, because a server that fetches what its callers name can be sent anywhere.

use serde_json::{Map, Value};

use super::refused::{invalid, unsupported};
use crate::{error::ApiError, protocol::Attachment};

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Its texts, joined.
    pub text: String,
    /// Its images and files.
    pub files: Vec<Attachment>,
}

/// Reads the `content` at the place `at` of the body.
///
/// # Errors
/// `invalid_json` for what is no content, `unsupported_parameter` for what no agent takes; with the place as `param`.
pub fn content(value: Value, at: &str) -> Result<Content, ApiError> {
    let parts = match value {
        Value::Null => return Ok(Content::default()),
        Value::String(text) => return Ok(Content { text, files: Vec::new() }),
        Value::Array(parts) => parts,
        _ => return Err(invalid(at, "a text or a list of parts")),
    };
    let mut content = Content::default();
    let mut texts = Vec::new();
    for (number, part) in parts.into_iter().enumerate() {
        let at = format!("{at}[{number}]");
        let Value::Object(mut part) = part else { return Err(invalid(&at, "a part is an object")) };
        let kind = text_of(&mut part, "type").ok_or_else(|| invalid(&format!("{at}.type"), "a text"))?;
        match kind.as_str() {
            "text" | "input_text" | "output_text" | "summary_text" => {
                texts.push(text_of(&mut part, "text").ok_or_else(|| invalid(&format!("{at}.text"), "a text"))?);
            }
            "refusal" => {
                texts.push(text_of(&mut part, "refusal").ok_or_else(|| invalid(&format!("{at}.refusal"), "a text"))?);
            }
            "image_url" | "input_image" => content.files.push(image(&mut part, &at, number)?),
            "file" | "input_file" => content.files.push(file(&mut part, &at, number)?),
            other => {
                return Err(unsupported(&format!("{at}.type"), format!("{other:?} cannot be given to an agent")));
            }
        }
    }
    content.text = texts.join("\n");
    Ok(content)
}

fn text_of(part: &mut Map<String, Value>, name: &str) -> Option<String> {
    match part.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// `{"image_url": {"url"}}` of completions, `{"image_url": "…"}` of responses.
fn image(part: &mut Map<String, Value>, at: &str, number: usize) -> Result<Attachment, ApiError> {
    let at = format!("{at}.image_url");
    let url = match part.remove("image_url") {
        Some(Value::String(url)) => url,
        Some(Value::Object(mut image)) => {
            text_of(&mut image, "url").ok_or_else(|| invalid(&format!("{at}.url"), "a text"))?
        }
        _ => return Err(unsupported(&at, "an image comes as a data: URL; there are no stored files here")),
    };
    let (media_type, content_base64) = data_url(&url, &at)?;
    let kind = media_type.rsplit('/').next().unwrap_or_default();
    let kind: String = kind.chars().take_while(char::is_ascii_alphanumeric).collect();
    Ok(Attachment { name: format!("image-{}.{kind}", number + 1), media_type, content_base64 })
}

/// `{"file": {"filename", "file_data"}}` of completions, `{"filename", "file_data"}` of responses.
fn file(part: &mut Map<String, Value>, at: &str, number: usize) -> Result<Attachment, ApiError> {
    let mut inner = match part.remove("file") {
        Some(Value::Object(inner)) => inner,
        _ => std::mem::take(part),
    };
    let name = text_of(&mut inner, "filename").unwrap_or_else(|| format!("file-{}", number + 1));
    let at = format!("{at}.file_data");
    let Some(url) = text_of(&mut inner, "file_data") else {
        return Err(unsupported(&at, "a file comes with its content; there are no stored files here"));
    };
    let (media_type, content_base64) = data_url(&url, &at)?;
    Ok(Attachment { name, media_type, content_base64 })
}

/// The media type and the base64 of a `data:` URL.
fn data_url(url: &str, at: &str) -> Result<(String, String), ApiError> {
    let Some(rest) = url.strip_prefix("data:") else {
        return Err(unsupported(at, "send the content itself, as a data: URL; this server fetches nothing"));
    };
    let (head, content) = rest.split_once(',').ok_or_else(|| invalid(at, "a data: URL has a comma"))?;
    let media_type = head.strip_suffix(";base64").ok_or_else(|| invalid(at, "a data: URL in base64"))?;
    let media_type = if media_type.is_empty() { "application/octet-stream" } else { media_type };
    Ok((media_type.to_owned(), content.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Code;

    #[test]
    fn texts_images_and_files_are_read_in_both_forms() {
        let parts = json!([
            {"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "input_image", "image_url": "data:image/svg+xml;base64,BBBB"}, {"type": "input_text", "text": "this"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,CCCC"}},
            {"type": "input_file", "file_data": "data:;base64,DDDD"},
        ]);
        let read = content(parts, "messages[0].content").unwrap();
        assert_eq!(read.text, "see\nthis");
        let files: Vec<_> = read.files.iter().map(|f| (&*f.name, &*f.media_type, &*f.content_base64)).collect();
        let expected = [
            ("image-2.png", "image/png", "AAAA"),
            ("image-3.svg", "image/svg+xml", "BBBB"),
            ("a.pdf", "application/pdf", "CCCC"),
            ("file-6", "application/octet-stream", "DDDD"),
        ];
        assert_eq!(files, expected);
        assert_eq!(content(Value::Null, "x").unwrap(), Content::default());
        assert_eq!(content("plain".into(), "x").unwrap().text, "plain");
    }

    #[test]
    fn what_would_have_to_be_fetched_is_refused_with_its_place() {
        let refused = |part: Value| {
            let error = content(json!([part]), "input[1].content").unwrap_err();
            (error.code, error.details["param"].as_str().unwrap().to_owned())
        };
        for url in ["http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", ""] {
            let part = json!({"type": "image_url", "image_url": {"url": url}});
            assert_eq!(refused(part), (Code::UnsupportedParameter, "input[1].content[0].image_url".into()), "{url}");
        }
        let stored = json!({"type": "input_image", "file_id": "file-1"});
        assert_eq!(refused(stored), (Code::UnsupportedParameter, "input[1].content[0].image_url".into()));
        let audio = json!({"type": "input_audio", "input_audio": {}});
        assert_eq!(refused(audio), (Code::UnsupportedParameter, "input[1].content[0].type".into()));
        assert_eq!(refused(json!({"type": "text"})), (Code::InvalidJson, "input[1].content[0].text".into()));
    }
}
