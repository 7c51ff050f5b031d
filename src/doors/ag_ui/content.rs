//! The content of a message of the user: texts, and files that come with their bytes.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::{ApiError, Code},
    protocol::Attachment,
};

/// A message of the user.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) content: Content,
}

/// A text, or parts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; `binary` is that of clients before 1.0.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    Text { text: String },
    Image(Media),
    Audio(Media),
    Video(Media),
    Document(Media),
    Binary(Binary),
}

#[derive(Debug, Deserialize)]
pub(super) struct Media {
    source: Source,
    #[serde(default)]
    metadata: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source {
    Data {
        value: String,
        #[serde(rename = "mimeType")]
        media_type: String,
    },
    Url {
        value: String,
    },
    File {},
}

#[derive(Debug, Deserialize)]
pub(super) struct Binary {
    #[serde(rename = "mimeType")]
    media_type: String,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    filename: Option<String>,
}

impl Content {
    /// The texts, one a line, and the files.
    ///
    /// # Errors
    /// `invalid_attachment` for a file whose bytes are not here: nothing is fetched from elsewhere.
    pub(super) fn read(self, field: &str) -> Result<(String, Vec<Attachment>), ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok((text, Vec::new())),
            Self::Parts(parts) => parts,
        };
        let (mut texts, mut files) = (Vec::new(), Vec::new());
        for (at, part) in parts.into_iter().enumerate() {
            let elsewhere = || {
                let message = format!(
                    "{field}.content[{at}]: a file must come with its bytes, as data or as a base64 data: URL. Nothing is fetched."
                );
                ApiError::new(Code::InvalidAttachment, message).with("field", format!("{field}.content[{at}]"))
            };
            let (bytes, name) = match part {
                Part::Text { text } => {
                    texts.push(text);
                    continue;
                }
                Part::Image(media) | Part::Audio(media) | Part::Video(media) | Part::Document(media) => {
                    let name = media.metadata.as_ref().and_then(|metadata| metadata.get("filename")?.as_str());
                    let name = name.map(str::to_owned);
                    let bytes = match media.source {
                        Source::Data { value, media_type } => Some((media_type, value)),
                        Source::Url { value } => from_data_url(&value),
                        Source::File {} => None,
                    };
                    (bytes, name)
                }
                Part::Binary(binary) => {
                    let bytes = match (binary.data, binary.url) {
                        (Some(data), _) => Some((binary.media_type, data)),
                        (None, Some(url)) => from_data_url(&url),
                        (None, None) => None,
                    };
                    (bytes, binary.filename)
                }
            };
            let (media_type, content_base64) = bytes.ok_or_else(elsewhere)?;
            let number = files.len() + 1;
            let name = name.unwrap_or_else(|| format!("file-{number}{}", extension(&media_type)));
            files.push(Attachment { name, media_type, content_base64 });
        }
        Ok((texts.join("\n"), files))
    }
}

/// Media type and base64 of a `data:` URL.
fn from_data_url(url: &str) -> Option<(String, String)> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some((media_type.to_owned(), data.to_owned()))
}

/// The end of a name for a file that came without one: the subtype, where it is a plain word.
fn extension(media_type: &str) -> String {
    let subtype = media_type.split(';').next().and_then(|kind| kind.split_once('/')).map_or("", |(_, subtype)| subtype);
    let word = match subtype {
        "plain" => "txt",
        "jpeg" => "jpg",
        "svg+xml" => "svg",
        word if word.len() <= 8 && word.bytes().all(|byte| byte.is_ascii_alphanumeric()) => word,
        _ => "",
    };
    if word.is_empty() { String::new() } else { format!(".{word}") }
}

/// Decodes a piece of the body.
///
/// # Errors
/// `invalid_json` with the field.
pub(super) fn decode<'a, T: Deserialize<'a>>(json: &'a str, field: &str) -> Result<T, ApiError> {
    serde_json::from_str(json).map_err(|error| {
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        ApiError::new(Code::InvalidJson, format!("The field {field} has the wrong form: {what}.")).with("field", field)
    })
}
