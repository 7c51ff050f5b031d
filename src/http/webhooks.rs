//! `POST /webhooks/{route}`: a message from whoever can sign for it. Nothing of the body is looked at before that is checked.

use std::{sync::Arc, time::Duration};

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, web::Data};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    Api, Params,
    body::read_any,
    idempotency::once,
    messages::{preferred_wait, wait_for},
    turns::accepted,
};
use crate::{
    error::{ApiError, Code},
    gateway::{Accepted, Idempotency, Principal},
    secret::SecretHash,
    timestamp::Timestamp,
    webhooks::inbound::{Ask, Headers, Outcome, Route},
};

/// A webhook as it came, not checked yet.
pub(super) struct Delivery {
    route: Arc<Route>,
    body: Bytes,
}

impl FromRequest for Delivery {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    /// The route first: the body of a webhook for none is not read.
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let name = request.match_info().get("route").unwrap_or_default();
            let route = Api::of(&request)?.gateway.webhook_routes().get(name);
            let missing = || ApiError::new(Code::RouteNotFound, format!("There is no route {name:?} for webhooks."));
            let route = Arc::clone(route.ok_or_else(missing)?);
            match read_any(&request, payload).await {
                Ok(body) => Ok(Self { route, body }),
                Err(error) => {
                    route.stats.note(Outcome::Refused, Some(&error));
                    Err(error)
                }
            }
        })
    }
}

/// What a webhook that is no message answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IgnoredWebhook")]
pub(super) struct Ignored {
    /// Always true.
    #[schemars(extend("const" = true))]
    ignored: bool,
    /// Why: `ping`, or `when` for the route's own condition.
    #[schemars(extend("enum" = ["ping", "when"]))]
    reason: &'static str,
}

/// What becomes of a webhook that was believed.
enum Taken {
    /// Nothing but this answer.
    Answer(HttpResponse),
    /// A turn, and how long its end is waited for.
    Turn(Principal, Box<Accepted>, Option<Duration>),
}

/// `POST /webhooks/{route}`: 202 with the turn, or its end.
pub(super) async fn receive(
    request: HttpRequest,
    api: Data<Api>,
    delivery: Delivery,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    let stats = &delivery.route.stats;
    // Counted before the end of the turn is waited for: who waits may leave.
    let taken = match take(&request, &api, &delivery, &params).await {
        Ok((outcome, taken)) => {
            stats.note(outcome, None);
            taken
        }
        Err(error) => {
            stats.note(Outcome::Refused, Some(&error));
            let (route, code) = (delivery.route.name.as_str(), error.code.as_str());
            // Those that anybody can send as often as they like must not fill the log.
            let strange = matches!(error.code, Code::MissingCredentials | Code::RateLimited);
            let level = if strange { log::Level::Debug } else { log::Level::Info };
            log::log!(level, route, code; "a webhook was refused: {}", error.message);
            return Err(error);
        }
    };
    match taken {
        Taken::Answer(answer) => Ok(answer),
        Taken::Turn(_, turn, None) => Ok(accepted(&turn)),
        Taken::Turn(who, turn, Some(limit)) => {
            let key = turn.turn.session.clone();
            wait_for(&api, &who, &key, *turn, limit).await
        }
    }
}

async fn take(
    request: &HttpRequest,
    api: &Api,
    Delivery { route, body }: &Delivery,
    params: &Params,
) -> Result<(Outcome, Taken), ApiError> {
    let gateway = &api.gateway;
    let ip = request.peer_addr().map(|address| address.ip());
    let headers = Headers::new(request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let now = Timestamp::now().0.div_euclid(1_000_000);
    let verified = match route.check.verify(&headers, body, now, ip) {
        Ok(verified) => verified,
        // Whoever guesses is slowed down, whoever is right never is.
        Err(error) if error.code == Code::InvalidSignature => {
            return Err(gateway.access().guesses.wrong(ip).err().unwrap_or(error));
        }
        Err(error) => return Err(error),
    };
    let who = gateway.webhook_caller(route, ip)?;
    let wait = params.wait()?.or_else(|| preferred_wait(request));
    let answer = |answer| Ok((Outcome::Ignored, Taken::Answer(answer)));
    let message = match route.read(&headers, body, verified)? {
        Ask::Challenge(challenge) => return answer(HttpResponse::Ok().json(json!({ "challenge": challenge }))),
        Ask::Ignored(reason) => return answer(HttpResponse::Ok().json(Ignored { ignored: true, reason })),
        Ask::Message(message) => message,
    };
    let call = match &message.delivery {
        // The name alone is the message, whatever an attempt looks like: a refusal would only bring more attempts.
        Some(name) => Some(Idempotency { key: name.clone(), request_hash: SecretHash::of(name).to_hex() }),
        None => once(request, body)?,
    };
    let (accepted, again) = gateway.receive(&who, route, *message, call).await?;
    let outcome = if again { Outcome::Duplicate } else { Outcome::Accepted };
    Ok((outcome, Taken::Turn(who, Box::new(accepted), wait)))
}
