//! Messages: the transcript, and sending.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::ACCEPT,
    web::{self, Data},
};

use super::{
    Api, Params,
    body::{Upload, decode, too_large},
    caller::{Reader, Writer},
    follow::follow,
    idempotency::once_of_message,
    list::List,
    params::MAX_WAIT,
    path::{Key, Named, Under},
    sse,
    turns::accepted,
};
use crate::{
    error::{ApiError, Code},
    gateway::{Accepted, Filter, From, MessageRange, Principal},
    ids::{MessageId, SessionId, SessionKey},
    protocol::{Message, SendMessage},
};

/// `GET …/messages`
pub(super) async fn list(
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<web::Json<List<Message>>, ApiError> {
    let page = params.page::<MessageId>()?;
    let range = match params.cursor::<MessageId>("around")? {
        None => MessageRange::Page(page),
        Some(id) => MessageRange::Around(MessageId::named(&id)?, page.limit),
    };
    let conversation = params.get("id").map(|id| {
        let unknown = |_| ApiError::new(Code::SessionNotFound, format!("There is no conversation {id:?} here."));
        id.parse::<SessionId>().map_err(unknown)
    });
    let page = api.gateway.messages(&who, &key, conversation.transpose()?, range).await?;
    Ok(web::Json(List::of(page, |message| message.id.to_string())))
}

/// `GET …/messages/{id}`
pub(super) async fn get(
    api: Data<Api>,
    Reader(who): Reader,
    Under(key, id): Under<MessageId>,
) -> Result<web::Json<Message>, ApiError> {
    api.gateway.message(&who, &key, id).await.map(web::Json)
}

/// `POST …/messages`: 202, or the events of the turn, or its end.
pub(super) async fn send(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    params: Params,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let message: SendMessage = decode(&body, Code::InvalidJson)?;
    let limit = api.config.limits.max_body.bytes();
    if message.attachments.is_empty() && body.len() > limit {
        return Err(too_large(limit));
    }
    let wait = params.wait()?.or_else(|| preferred_wait(&request));
    let streamed = accepts(&request, "text/event-stream");
    let key_of_call = once_of_message(&request, &key, &message)?;
    drop(body);
    let outcome = api.gateway.send(&who, &key, message, "api", key_of_call).await?;
    if streamed {
        return stream_turn(&api, &who, &key, &outcome).await;
    }
    match wait {
        Some(limit) => wait_for(&api, &who, &key, outcome, limit).await,
        None => Ok(accepted(&outcome)),
    }
}

/// The events of an accepted turn from its `turn.queued` on; of a running turn that got a text, those from now on.
async fn stream_turn(
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    outcome: &Accepted,
) -> Result<HttpResponse, ApiError> {
    let from = From::After(outcome.seq.saturating_sub(1));
    let filter = Filter { turn: Some(outcome.turn.id), ..Filter::default() };
    let subscription = api.gateway.subscribe(who, key, from, filter).await?;
    Ok(sse::response(follow(subscription, key.clone()), api.config.stream.heartbeat.0, sse::Prime::No))
}

/// The end of the turn, or where it stands when time is up. It is accepted: that it cannot be followed now, because the
/// store does not answer or the server stops, does not take that back.
pub(super) async fn wait_for(
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    mut outcome: Accepted,
    limit: Duration,
) -> Result<HttpResponse, ApiError> {
    let passing = |error: &ApiError| {
        matches!(error.code, Code::StoreUnavailable | Code::ShuttingDown | Code::Overloaded | Code::TooManySessions)
    };
    match api.gateway.wait(who, key, outcome.turn.id, limit).await {
        Ok(Some(finished)) => return Ok(HttpResponse::Ok().json(finished)),
        Ok(None) => {}
        Err(error) if passing(&error) => return Ok(accepted(&outcome)),
        Err(error) => return Err(error),
    }
    match api.gateway.turn(who, key, outcome.turn.id).await {
        Ok(turn) => {
            outcome.position = turn.position.unwrap_or(0);
            outcome.turn = turn;
        }
        Err(error) if passing(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(accepted(&outcome))
}

/// True when the media type is named in `Accept`.
pub(super) fn accepts(request: &HttpRequest, kind: &str) -> bool {
    let values = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let kinds = values.flat_map(|value| value.split(',')).filter_map(|word| word.split(';').next());
    kinds.map(str::trim).any(|word| word.eq_ignore_ascii_case(kind))
}

/// `Prefer: wait=N`; more than the maximum is the maximum, and what cannot be understood is no preference.
pub(super) fn preferred_wait(request: &HttpRequest) -> Option<Duration> {
    let values = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split([',', ';'])).find_map(|word| {
        let (name, value) = word.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| value.parse::<f64>().ok()).flatten()
    })?;
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_WAIT)))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn preferences_are_clamped_and_never_an_error() {
        let wait = |value: &'static str| {
            preferred_wait(&TestRequest::default().insert_header(("prefer", value)).to_http_request())
        };
        assert_eq!(wait("respond-async, wait=2.5"), Some(Duration::from_millis(2500)));
        assert_eq!(wait("Wait=\"9999\""), Some(Duration::from_secs(600)));
        for none in ["wait=soon", "wait=-1", "wait=NaN", "respond-async"] {
            assert_eq!(wait(none), None, "{none}");
        }
    }

    #[test]
    fn accept_is_a_list() {
        let request = TestRequest::default().insert_header((ACCEPT, "application/json;q=0.5, text/event-stream"));
        let request = request.to_http_request();
        assert!(accepts(&request, "text/event-stream") && accepts(&request, "application/json"));
        assert!(!accepts(&TestRequest::default().to_http_request(), "text/event-stream"));
    }
}
