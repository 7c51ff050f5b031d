//! What the calls in OpenAI's form have in common: the turn behind them, in a session or in none, and their errors.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    Api,
    body::too_large,
    follow::{follow, while_leased},
    idempotency::once,
    path::key as parse_key,
};
use crate::{
    doors::{
        narration::{Narrator, frames_of, narrate},
        openai::{
            conversation::{Conversation, system_of},
            ending::Ending,
        },
    },
    error::{ApiError, Code},
    gateway::{After, Asked, Behind, Filter, From, Idempotency, Item, Principal},
    ids::{SessionKey, TurnId},
    protocol::{Event, SendMessage, frame::decode_event},
    timestamp::Timestamp,
};

/// Names the session of a call.
const SESSION: HeaderName = HeaderName::from_static("x-session-key");
/// Tells the official clients whether to try again by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// True for the paths whose errors official clients read.
pub(super) fn speaks(path: &str) -> bool {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/v1/chat/completions", "/v1/responses", "/v1/models"].into_iter().any(under)
}

/// An error with all the fields that clients look for.
pub(super) fn worded(error: ApiError) -> ApiError {
    if error.details.contains_key("param") {
        return error;
    }
    let field = error.details.get("field").cloned().unwrap_or_default();
    error.with("param", field)
}

/// Official clients try again after 409, 429 and all of 5xx. What would only fail again, or run a turn twice, says so.
pub(super) fn tell_retry(error: &ApiError, headers: &mut HeaderMap) {
    let passes = matches!(
        error.code,
        Code::RequestTimeout
            | Code::RateLimited
            | Code::QueueFull
            | Code::TooManySubscribers
            | Code::TooManySessions
            | Code::StoreUnavailable
            | Code::Overloaded
            | Code::ShuttingDown
    );
    if !passes || error.details.contains_key("state") {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}

/// What a call asks for.
pub(super) struct Ask {
    /// The model as it was asked for.
    pub(super) model: String,
    /// The conversation.
    pub(super) conversation: Conversation,
    /// The session; none is a call that leaves nothing.
    pub(super) session: Option<SessionKey>,
    /// The turn that it must follow.
    pub(super) after: Option<After>,
    /// The client's own data.
    pub(super) metadata: Map<String, Value>,
    /// The call that must not happen twice.
    pub(super) once: Option<Idempotency>,
    /// The field that holds the input.
    pub(super) input: &'static str,
}

/// A turn that has been accepted.
pub(super) struct Running {
    /// Its id.
    pub(super) turn: TurnId,
    /// When it was accepted.
    pub(super) at: Timestamp,
    /// Its session, where it has one.
    pub(super) session: Option<SessionKey>,
    /// Its events.
    pub(super) items: LocalBoxStream<'static, Item>,
}

/// Refuses a body that is larger than one without files may be.
pub(super) fn check_size(api: &Api, size: usize, conversation: &Conversation) -> Result<(), ApiError> {
    use crate::protocol::Part;
    let limit = api.config.limits.max_body.bytes();
    let parts = conversation.before.iter().flat_map(|message| &message.parts);
    let files = !conversation.files.is_empty() || parts.into_iter().any(|part| matches!(part, Part::File { .. }));
    if size > limit && !files { Err(too_large(limit)) } else { Ok(()) }
}

/// The session that a call names, by `X-Session-Key` or by one of its fields, in that order.
pub(super) fn session_of(
    request: &HttpRequest,
    fields: &[(&'static str, Option<&str>)],
) -> Result<Option<SessionKey>, ApiError> {
    let header = request.headers().get(&SESSION).map(|value| value.to_str().unwrap_or("?"));
    // An empty field names none, as SDKs send it; an empty header is a variable that somebody forgot to set.
    let filled = fields.iter().copied().filter(|(_, value)| value.is_some_and(|value| !value.is_empty()));
    let mut named = std::iter::once(("X-Session-Key", header)).chain(filled);
    let named = named.find_map(|(name, value)| Some((name, value?)));
    let key = |(name, value): (&'static str, &str)| match parse_key(value) {
        // To OpenAI it is any text, and whoever uses a program often cannot change it.
        Err(_) if name == "user" => parse_key(&key_of_user(value)),
        key => key.map_err(|error| error.with("param", name)),
    };
    named.map(key).transpose()
}

/// The session of a `user` whose name is no key: always the same one, and never that of another name.
fn key_of_user(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("user:{hex}")
}

/// The call that must not happen twice, by its header and its body.
pub(super) fn once_of(request: &HttpRequest, body: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    once(request, body)
}

/// Names the field that an error is about, where nothing nearer is named.
pub(super) fn about(param: &'static str) -> impl Fn(ApiError) -> ApiError {
    move |error| if error.details.contains_key("param") { error } else { error.with("param", param) }
}

/// Has it run: as a turn of its session, or without one.
pub(super) async fn begin(api: &Api, who: &Principal, ask: Ask) -> Result<Running, ApiError> {
    let agent = api.gateway.named_model(&ask.model).map_err(about("model"))?;
    let Conversation { before, text, files } = ask.conversation;
    let message =
        SendMessage { text: Some(text), attachments: files, metadata: ask.metadata, ..SendMessage::default() };
    let at_input = |error: ApiError| match error.code {
        Code::MissingText | Code::ContentTooLarge | Code::InvalidAttachment => about(ask.input)(error),
        Code::MetadataTooLarge => about("metadata")(error),
        _ => error,
    };
    let Some(key) = ask.session else {
        let calling = api.gateway.call(who, Asked { agent, before, message }).await.map_err(at_input)?;
        let items = while_leased(calling.items, calling.lease, None).boxed_local();
        return Ok(Running { turn: calling.turn, at: calling.at, session: None, items });
    };
    let (agent, model) = agent;
    let mut message = SendMessage { agent: Some(agent), model, ..message };
    // The session has its beginning already; what the system says now and has not said then goes with the turn.
    if let Some(begin) = api.gateway.began_with(who, &key).await? {
        let told = system_of(&before).filter(|told| system_of(&begin).as_ref() != Some(told));
        if let (Some(told), Some(text)) = (told, &mut message.text) {
            *text = format!("[Note from the system: {told}]\n\n{text}");
        }
    }
    let behind = Behind { before, after: ask.after };
    let sent = api.gateway.send_behind(who, &key, message, "openai", ask.once, behind).await.map_err(at_input)?;
    let filter = Filter { turn: Some(sent.turn.id), ..Filter::default() };
    let subscription = api.gateway.subscribe(who, &key, From::After(sent.seq.saturating_sub(1)), filter).await?;
    let items = follow(subscription, key.clone()).boxed_local();
    Ok(Running { turn: sent.turn.id, at: sent.turn.created_at, session: Some(key), items })
}

/// The turn as it is told.
pub(super) fn stream(api: &Api, running: Running, narrator: impl Narrator) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"));
    if let Some(key) = &running.session {
        response.insert_header((SESSION, key.as_str()));
    }
    response.streaming(narrate(running.items, narrator, api.config.stream.heartbeat.0))
}

/// Takes a turn to its end.
///
/// # Errors
/// Why its end cannot be told.
pub(super) async fn collect(
    mut items: LocalBoxStream<'static, Item>,
    mut take: impl FnMut(&Event),
) -> Result<(), ApiError> {
    while let Some(item) = items.next().await {
        if let Item::End(reason, _) = item {
            return Err(Ending::cut(reason));
        }
        frames_of(&item).filter_map(|frame| decode_event(&frame.json).ok()).for_each(|event| take(&event));
    }
    Ok(())
}

/// A whole answer.
pub(super) fn answer(session: Option<&SessionKey>, body: &Value) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(key) = session {
        response.insert_header((SESSION, key.as_str()));
    }
    response.json(body)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_calls_in_openais_form_have_its_errors() {
        assert!(speaks("/v1/chat/completions") && speaks("/v1/responses/resp_1/cancel") && speaks("/v1/models/a/b"));
        assert!(!speaks("/v1/chat") && !speaks("/v1/modelsx") && !speaks("/v1/sessions"));
        let error = worded(ApiError::new(Code::Internal, "x"));
        assert_eq!(error.details["param"], Value::Null);
        assert_eq!(worded(error.with("param", "n")).details["param"], "n");
        assert_eq!(worded(ApiError::new(Code::InvalidJson, "x").with("field", "n")).details["param"], "n");
    }

    #[test]
    fn clients_try_again_only_where_it_can_help_and_nothing_runs_twice() {
        let told = |error: ApiError| {
            let mut headers = HeaderMap::new();
            tell_retry(&error, &mut headers);
            !headers.contains_key(SHOULD_RETRY)
        };
        assert!(told(ApiError::new(Code::ShuttingDown, "x")) && told(ApiError::new(Code::QueueFull, "x")));
        assert!(!told(ApiError::new(Code::ShuttingDown, "x").with("state", "interrupted")));
        assert!(!told(ApiError::new(Code::AgentError, "x")) && !told(ApiError::new(Code::SessionBusy, "x")));
    }

    #[test]
    fn the_header_names_the_session_before_the_body_does() {
        let request = |key: &str| TestRequest::default().insert_header(("x-session-key", key)).to_http_request();
        let of =
            |request: &HttpRequest, user| session_of(request, &[("user", user)]).map(|key| key.map(|k| k.to_string()));
        assert_eq!(of(&request("web:a"), Some("b")), Ok(Some("web:a".into())));
        let none = TestRequest::default().to_http_request();
        assert_eq!(of(&none, Some("b")), Ok(Some("b".into())));
        assert_eq!(of(&none, None), Ok(None));
        assert_eq!(of(&none, Some("")), Ok(None));
        // A user may have any name: always the same session, and each its own.
        let odd = |name: &'static str| of(&none, Some(name)).unwrap().unwrap();
        assert!(odd("auth0|1").starts_with("user:") && odd("auth0|1") == odd("auth0|1"));
        assert_ne!(odd("auth0|1"), odd("auth0|2"));
        let error = session_of(&none, &[("conversation", Some("not a key"))]).unwrap_err();
        assert_eq!((error.code, &error.details["param"]), (Code::InvalidId, &"conversation".into()));
        for wrong in ["a/b", ""] {
            assert_eq!(of(&request(wrong), None).unwrap_err().details["param"], "X-Session-Key");
        }
    }
}
