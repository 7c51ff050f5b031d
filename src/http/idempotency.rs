//! `Idempotency-Key`: the key of a call, with a hash of the whole call.

use actix_web::HttpRequest;
use sha2::{Digest, Sha256};

use super::errors::internal;
use crate::{
    error::{ApiError, Code},
    gateway::Idempotency,
    ids::SessionKey,
    protocol::SendMessage,
};

/// The longest key, in characters.
const MAX_KEY: usize = 256;

/// Reads the header; the hash covers the route and the body as it came.
///
/// # Errors
/// `idempotency_key_too_long` for an empty or too long key, `invalid_parameter` for one that is no text.
pub(super) fn once(request: &HttpRequest, body: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    let Some(key) = key(request)? else { return Ok(None) };
    keyed(key, &[request.method().as_str().as_bytes(), request.path().as_bytes(), body]).map(Some)
}

/// Reads the header of a message; see [`message_once`].
///
/// # Errors
/// As [`once`].
pub(super) fn once_of_message(
    request: &HttpRequest,
    session: &SessionKey,
    message: &SendMessage,
) -> Result<Option<Idempotency>, ApiError> {
    key(request)?.map(|key| message_once(key, session, message)).transpose()
}

/// The key of a run of AG-UI: the header where there is one, and else the client's id of the run. Either stands for the
/// message, as in [`message_once`].
///
/// # Errors
/// As [`once`].
pub(super) fn once_of_run(
    request: &HttpRequest,
    run: &str,
    session: &SessionKey,
    message: &SendMessage,
) -> Result<Idempotency, ApiError> {
    match key(request)? {
        Some(key) => message_once(key, session, message),
        None => message_once(&format!("ag-ui run {run}"), session, message),
    }
}

fn key(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some)
        .map_err(|error| ApiError::new(Code::InvalidParameter, format!("Idempotency-Key is not UTF-8: {error}.")))
}

/// The key of a message: the hash covers what it says, so that a client that lost its WebSocket can ask again over HTTP.
///
/// # Errors
/// `idempotency_key_too_long`.
pub fn message_once(key: &str, session: &SessionKey, message: &SendMessage) -> Result<Idempotency, ApiError> {
    let call = serde_json::to_vec(message).map_err(|_never| internal())?;
    keyed(key, &[b"send", session.as_str().as_bytes(), &call])
}

/// A key with the hash of what makes the call what it is.
fn keyed(key: &str, call: &[&[u8]]) -> Result<Idempotency, ApiError> {
    if key.is_empty() || key.chars().count() > MAX_KEY {
        let what = format!("An Idempotency-Key has 1 to {MAX_KEY} characters.");
        return Err(ApiError::new(Code::IdempotencyKeyTooLong, what));
    }
    let mut hash = Sha256::new();
    for part in call {
        // The length keeps two calls apart whose parts only join to the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let request_hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Idempotency { key: key.to_owned(), request_hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_the_whole_call() {
        let hash = |call: &[&[u8]]| keyed("k", call).unwrap().request_hash;
        assert_eq!(hash(&[b"POST", b"/a", b"{}"]).len(), 64);
        assert_eq!(hash(&[b"POST", b"/a", b"{}"]), hash(&[b"POST", b"/a", b"{}"]));
        assert_ne!(hash(&[b"POST", b"/a", b"{}"]), hash(&[b"POST", b"/a{", b"}"]));
    }

    #[test]
    fn keys_have_a_length() {
        assert!(keyed(&"ä".repeat(256), &[]).is_ok());
        for bad in ["", &"a".repeat(257)] {
            assert_eq!(keyed(bad, &[]).unwrap_err().code, Code::IdempotencyKeyTooLong);
        }
    }
}
