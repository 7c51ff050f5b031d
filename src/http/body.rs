//! Bodies: read within a limit, required to be JSON, decoded with errors that name the field.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::LocalBoxFuture};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::Api;
use crate::{
    config::LimitsConfig,
    error::{ApiError, Code},
};

/// A body of at most `limits.max_body`, as it came; empty when there is none.
#[derive(Debug)]
pub struct Body(pub Bytes);

/// A body of at most `limits.max_upload`, as it came; empty when there is none.
#[derive(Debug)]
pub struct Upload(pub Bytes);

/// A body of at most `limits.max_body`, decoded. An empty one is `{}`.
#[derive(Debug)]
pub struct Json<T>(pub T);

macro_rules! body {
    ($name:ident, $limit:ident) => {
        impl FromRequest for $name {
            type Error = ApiError;
            type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

            fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
                let (request, payload) = (request.clone(), payload.take());
                Box::pin(async move {
                    let limits = &Api::of(&request)?.config.limits;
                    read(&request, payload, limits.$limit.bytes(), limits, check_media).await.map(Self)
                })
            }
        }
    };
}

body!(Body, max_body);
body!(Upload, max_upload);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = Body::from_request(request, payload);
        Box::pin(async move { decode(&body.await?.0, Code::InvalidJson).map(Self) })
    }
}

/// The rest of a body that nobody wants. While it is held behind the answer, the server knows that it was not read:
/// it sends the answer, says `connection: close`, throws away what still comes for a bounded time, and closes. A
/// client that writes all before it reads gets its answer that way, and an endless one is cut.
pub(super) struct Unread(Payload);

impl Unread {
    /// A body that holds the rest until it is sent.
    pub(super) fn behind(self, body: Vec<u8>) -> BoxBody {
        BoxBody::new(Held { size: body.len(), body: Some(body.into()), _rest: self.0 })
    }
}

struct Held {
    size: usize,
    body: Option<Bytes>,
    _rest: Payload,
}

impl MessageBody for Held {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.body.take().map(Ok))
    }
}

/// The refusal of a body over `limit` bytes.
pub(super) fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::BodyTooLarge, format!("The body is larger than {limit} bytes.")).with("limit", limit)
}

/// Reads a body of any kind and of at most `limits.max_body`.
///
/// # Errors
/// `body_too_large`, `request_timeout`, `invalid_json` for one that broke off.
pub(super) async fn read_any(request: &HttpRequest, payload: Payload) -> Result<Bytes, ApiError> {
    let limits = &Api::of(request)?.config.limits;
    read(request, payload, limits.max_body.bytes(), limits, |_| Ok(())).await
}

/// Reads a body of at most `limit` bytes, of a kind that `check` takes. Each piece of it must come in time, and so must the
/// whole: a byte now and then is no way to keep a connection for ever.
async fn read(
    request: &HttpRequest,
    mut payload: Payload,
    limit: usize,
    limits: &LimitsConfig,
    check: fn(&HeaderMap) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let headers = request.headers();
    let refuse = |payload, error| {
        request.extensions_mut().insert(Unread(payload));
        Err(error)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return refuse(payload, too_large(limit));
    }
    if announced.unwrap_or(0) == 0 && !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(Bytes::new());
    }
    let media = check(headers);
    let mut body = BytesMut::new();
    let end = Instant::now() + limits.body_timeout.0;
    loop {
        let pause = Instant::now() + limits.head_timeout.0;
        let piece = match tokio::time::timeout_at(pause.min(end), payload.next()).await {
            Err(_) => {
                let what = if pause < end { "stopped arriving" } else { "took too long to arrive" };
                return refuse(payload, ApiError::new(Code::RequestTimeout, format!("The body {what}.")));
            }
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(Err(error))) => {
                log::debug!("a body broke off: {error}");
                return Err(ApiError::new(Code::InvalidJson, "The body broke off or is badly framed."));
            }
            Ok(Some(Ok(piece))) => piece,
        };
        if !piece.is_empty() && media.is_err() {
            return media.and(Ok(Bytes::new())).or_else(|error| refuse(payload, error));
        }
        if body.len().saturating_add(piece.len()) > limit {
            return refuse(payload, too_large(limit));
        }
        body.extend_from_slice(&piece);
    }
}

/// `application/json`, in UTF-8 and not compressed.
fn check_media(headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |what: String| Err(ApiError::new(Code::UnsupportedMediaType, what));
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refused("A body must not be compressed.".into());
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return refused("A body must say content-type: application/json.".into());
    };
    let text = kind.to_str().unwrap_or_default();
    let mut words = text.split(';').map(str::trim);
    let json = words.next().is_some_and(|word| word.eq_ignore_ascii_case("application/json"));
    let utf8 = words.all(|word| match word.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if json && utf8 { Ok(()) } else { refused(format!("A body must be application/json in UTF-8, not {text:?}.")) }
}

/// Decodes an object. What is no JSON is `invalid_json` with its place; JSON of the wrong form is `form`, with the
/// field.
///
/// # Errors
/// As said.
pub fn decode<T: DeserializeOwned>(body: &[u8], form: Code) -> Result<T, ApiError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let syntax = |error: &serde_json::Error| {
        ApiError::new(Code::InvalidJson, format!("The body is not JSON: {error}."))
            .with("line", error.line())
            .with("column", error.column())
    };
    // A struct would also read from an array, by position; bodies are objects.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
            Ok(_) => ApiError::new(form, "The body must be a JSON object."),
            Err(error) => syntax(&error),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        match inner.classify() {
            serde_json::error::Category::Data => wrong_form(form, &path, &inner.to_string()),
            _ => syntax(inner),
        }
    })?;
    reader.end().map_err(|error| syntax(&error))?;
    Ok(value)
}

/// Decodes what was an object inside another one.
///
/// # Errors
/// `form`, with the field.
pub fn decode_value<T: for<'de> Deserialize<'de>>(value: serde_json::Value, form: Code) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| wrong_form(form, &error.path().to_string(), &error.inner().to_string()))
}

fn wrong_form(form: Code, path: &str, what: &str) -> ApiError {
    let what = plain(what.split(" at line ").next().unwrap_or(what));
    if path == "." {
        ApiError::new(form, format!("The body has the wrong form: {what}."))
    } else {
        ApiError::new(form, format!("The field {path} has the wrong form: {what}.")).with("field", path)
    }
}

/// What serde says, without the names of types, which mean nothing outside.
fn plain(what: &str) -> Cow<'_, str> {
    if what.contains("did not match any variant") {
        return "it has none of the forms that are allowed here".into();
    }
    match what.split_once("expected ") {
        Some((before, expected)) if expected.contains("struct ") || expected.contains("enum ") => {
            format!("{before}expected an object").into()
        }
        _ => what.into(),
    }
}

/// The body of calls without fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::protocol::SendMessage;

    fn refused(body: &str) -> ApiError {
        decode::<SendMessage>(body.as_bytes(), Code::InvalidJson).unwrap_err()
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        for body in ["", " \n", "{}"] {
            assert_eq!(decode::<SendMessage>(body.as_bytes(), Code::InvalidJson), Ok(SendMessage::default()));
        }
    }

    #[test]
    fn bad_json_has_a_place_and_a_bad_form_has_a_field() {
        let syntax = refused("{\n \"text\": }");
        assert_eq!((&syntax.details["line"], &syntax.details["column"]), (&2.into(), &10.into()));
        assert_eq!(refused("{} x").code, Code::InvalidJson);
        for body in ["null", "[]", "\"x\"", "1", "[\"text\"]"] {
            assert!(refused(body).message.contains("must be a JSON object"), "{body}");
        }
        assert_eq!(refused("{\"text\": 5}").details["field"], "text");
        let odd = refused("{\"attachments\":[5]}").message;
        assert_eq!(odd, "The field attachments[0] has the wrong form: invalid type: integer `5`, expected an object.");
        let variants = plain("data did not match any variant of untagged enum Content");
        assert_eq!(variants, "it has none of the forms that are allowed here");
        assert_eq!(
            refused("{\"attachments\":[{\"name\":\"a\",\"media_type\":\"b\"}]}").details["field"],
            "attachments[0]"
        );
        assert_eq!(refused("{\"txet\": \"a\"}").details["field"], "txet");
    }

    #[test]
    fn only_plain_json_is_a_body() {
        let check = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
            check_media(&headers).is_ok()
        };
        assert!(check("application/json") && check("Application/JSON; charset=UTF-8"));
        for bad in ["text/plain", "application/problem+json", "application/json; charset=latin1", "application/jsonx"] {
            assert!(!check(bad), "{bad}");
        }
        assert!(check_media(&HeaderMap::new()).is_err());
    }
}
