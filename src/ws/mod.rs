//! WebSockets: the one room that knows actix-web-actors.
//!
//! `mod.rs` upgrades, `socket` is the actor of one connection, `frames` reads what the client sends, `ops` is
//! what it can ask. An actor is polled as the body of its answer, so it moves only as fast as its socket takes bytes:
//! streams are pulled, never pushed, and a stalled client holds no more than one piece here. That also freezes the
//! actor's own timers: who is too slow is judged by the session, and `TCP_USER_TIMEOUT` ends the connection.
//!
//! Close codes: 1000 answers the client's close, 1001 the server stops (come back), 1002 not WebSocket, 1003 a binary
//! frame, 1007 text that is not UTF-8, 1008 policy (too many bad frames in a row), 1009 a message over
//! `limits.max_frame`, 1013 too slow or too many (come back with the cursor), 4001 wrong credentials, or revoked ones,
//! 4004 no such session.

mod frames;
mod ops;
mod socket;

use actix_web::{
    HttpRequest, HttpResponse,
    error::PayloadError,
    http::header::{HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION},
    web::{self, Data},
};
use actix_web_actors::ws::{HandshakeError, WebsocketContext, handshake_with_protocols};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

use self::{ops::Op, socket::Socket};
use crate::{
    error::{ApiError, Code},
    gateway::{Filter, From, Principal},
    http::{Api, Key, Knocking, Params, RequestId},
    ids::SessionKey,
};

/// The subprotocol that is chosen where it is offered. One that carries a token is never chosen, and so never told.
const PROTOCOL: &str = "greenroom.v1";
/// Bytes that the key of a handshake stands for.
const KEY_BYTES: usize = 16;

/// `GET /v1/ws`: many sessions.
///
/// # Errors
/// When the request is no handshake.
pub async fn socket(
    request: HttpRequest,
    api: Data<Api>,
    Knocking(who): Knocking,
    id: RequestId,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    upgrade(&request, Opening { api, who, id, first: None }, payload)
}

/// `GET /v1/sessions/{key}/ws`: one session, subscribed at once. A session that does not exist is told by close code
/// 4004 and not by status, because browsers show a page nothing of a refused handshake.
///
/// # Errors
/// When the request is no handshake, or a parameter is bad.
pub async fn session_socket(
    request: HttpRequest,
    api: Data<Api>,
    Knocking(who): Knocking,
    Key(session): Key,
    id: RequestId,
    params: Params,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let from = params.seq("after")?.map_or(From::Now, From::After);
    let filter = Filter { types: params.types(), turn: None, raw: params.flag("raw")?.unwrap_or(false) };
    let first = Some((session.clone(), Op::Subscribe { session, from, filter }));
    upgrade(&request, Opening { api, who, id, first }, payload)
}

/// What a connection begins with.
struct Opening {
    api: Data<Api>,
    /// The caller; or why the connection is closed with 4001 as soon as it is open.
    who: Result<Principal, ApiError>,
    id: RequestId,
    /// The session of the path, with the subscription to it.
    first: Option<(SessionKey, Op)>,
}

fn upgrade(request: &HttpRequest, opening: Opening, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let handshake = handshake_with_protocols(request, &[PROTOCOL]).map_err(|error| no_handshake(&error));
    let handshake = handshake.and_then(|response| check_handshake(request.headers()).map(|()| response));
    let mut response = match (&opening.who, handshake) {
        // Wrong credentials are told by a close code, because browsers show a page nothing of a refused handshake.
        (Err(error), Ok(response)) if error.code.status() == 401 => response,
        (Err(error), _) => return Err(error.clone()),
        (Ok(_), handshake) => handshake?,
    };
    // The context's own reader gets nothing: `Socket` reads the payload by `Frames`.
    let nothing = futures_util::stream::pending::<Result<Bytes, PayloadError>>();
    Ok(response.streaming(WebsocketContext::create(Socket::new(opening, payload), nothing)))
}

fn no_handshake(error: &HandshakeError) -> ApiError {
    match error {
        HandshakeError::UnsupportedVersion => wrong_version(),
        error => ApiError::new(Code::InvalidParameter, format!("This path is a WebSocket: {error}")),
    }
}

fn wrong_version() -> ApiError {
    ApiError::new(Code::UpgradeRequired, "This path is a WebSocket of version 13.")
}

/// What RFC 6455 asks of a handshake and the framework does not look at: the version of the standard and not of its
/// drafts, and a key that is one.
fn check_handshake(headers: &HeaderMap) -> Result<(), ApiError> {
    let only = |name| {
        let mut values = headers.get_all(name);
        values.next().filter(|_| values.next().is_none())
    };
    if only(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(wrong_version());
    }
    let key = only(SEC_WEBSOCKET_KEY).and_then(|key| BASE64_STANDARD.decode(key.as_bytes()).ok());
    if key.is_none_or(|key| key.len() != KEY_BYTES) {
        let message = "This path is a WebSocket: sec-websocket-key is no base64 of 16 bytes.";
        return Err(ApiError::new(Code::InvalidParameter, message).with("parameter", "sec-websocket-key"));
    }
    Ok(())
}
