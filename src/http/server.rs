//! The server itself: is it up, is it ready, who am I to it.

use actix_web::{HttpResponse, web};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Api, RequestId, caller::Caller, params::MAX_WAIT};
use crate::{
    access::Via,
    error::{ApiError, Code},
    gateway::{Readiness, Scope},
    ids::TokenId,
    protocol::Health,
};

/// `GET /health`: the process is up.
pub(super) async fn health(api: web::Data<Api>) -> web::Json<Health> {
    web::Json(Health { ok: true, ready: api.gateway.readiness().await.ready })
}

/// `GET /ready`: 200 when it takes work, else 503 with the same fields and an error.
pub(super) async fn ready(api: web::Data<Api>, id: RequestId) -> HttpResponse {
    let readiness = api.gateway.readiness().await;
    match not_ready(&readiness, api.gateway.is_draining(), &id) {
        None => HttpResponse::Ok().json(readiness),
        Some(body) => HttpResponse::ServiceUnavailable().json(body),
    }
}

/// The body of a 503; none when all is well.
fn not_ready(readiness: &Readiness, draining: bool, id: &RequestId) -> Option<Value> {
    if readiness.ready {
        return None;
    }
    let code = match readiness.store.as_str() {
        _ if draining => Code::ShuttingDown,
        "ok" => Code::Overloaded,
        _ => Code::StoreUnavailable,
    };
    let reason = readiness.reason.clone().unwrap_or_else(|| "The server is not ready.".into());
    let mut body = json!(readiness);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("error".into(), ApiError::new(code, reason).to_json(id.as_str()));
    }
    Some(body)
}

/// Who calls, and what this server allows.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Me {
    /// The user; `local` in open mode.
    user: String,
    /// What the credentials allow.
    scopes: Vec<Scope>,
    /// The organisations that the user is a member of.
    orgs: Vec<String>,
    /// The token of the call, or of its login; null without one.
    token_id: Option<TokenId>,
    /// `open` while no token exists, `token` afterwards.
    #[schemars(extend("enum" = ["open", "token"]))]
    mode: &'static str,
    /// The version of the server.
    version: &'static str,
    /// What is too much.
    limits: Limits,
}

/// Limits that a client should know before it runs into them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Limits {
    /// Bytes of a body.
    max_body: u64,
    /// Bytes of a body with attachments.
    max_upload: u64,
    /// Bytes of a WebSocket message from a client.
    max_frame: u64,
    /// Turns that may wait in a session.
    max_queue: usize,
    /// Seconds of `wait`.
    max_wait_seconds: f64,
    /// Seconds between two signs of life of a stream.
    heartbeat_seconds: f64,
    /// Calls of this caller in a second; null is no limit.
    requests_per_second: Option<u32>,
    /// Turns of this caller at once; null is no limit.
    max_turns: Option<u32>,
    /// Streams of this caller at once; null is no limit.
    max_streams: Option<u32>,
    /// Sessions of this caller; null is no limit.
    max_sessions: Option<u32>,
}

/// `GET /v1/me`
pub(super) async fn me(api: web::Data<Api>, Caller(who): Caller) -> web::Json<Me> {
    let (config, now) = (&api.config, api.gateway.config());
    let callers = api.gateway.access().limits.of(&who);
    let limits = Limits {
        max_body: config.limits.max_body.0,
        max_upload: config.limits.max_upload.0,
        max_frame: config.limits.max_frame.0,
        max_queue: now.session.max_queue,
        max_wait_seconds: MAX_WAIT,
        heartbeat_seconds: config.stream.heartbeat.0.as_secs_f64(),
        requests_per_second: limit(callers.requests_per_second),
        max_turns: limit(callers.max_turns),
        max_streams: limit(callers.max_streams),
        max_sessions: limit(callers.max_sessions),
    };
    let mode = if who.via == Via::Open { "open" } else { "token" };
    let token_id = who.via.token();
    web::Json(Me {
        user: who.user,
        scopes: who.scopes,
        orgs: who.orgs,
        token_id,
        mode,
        version: env!("CARGO_PKG_VERSION"),
        limits,
    })
}

/// A limit of a caller; null is none.
fn limit(count: u32) -> Option<u32> {
    Some(count).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn not_ready_is_both_the_state_and_an_error() {
        let mut readiness = Readiness {
            ready: false,
            sessions: 3,
            store: "ok".into(),
            agents: Map::new(),
            reason: Some("why".into()),
            reasons: vec!["why".into()],
        };
        let id = RequestId::from("r1");
        let code = |readiness: &Readiness, draining| {
            let body = not_ready(readiness, draining, &id).unwrap();
            assert_eq!((&body["sessions"], &body["error"]["request_id"]), (&json!(3), &json!("r1")));
            assert_eq!(body["error"]["message"], "why");
            body["error"]["code"].clone()
        };
        assert_eq!(code(&readiness, false), "overloaded");
        assert_eq!(code(&readiness, true), "shutting_down");
        readiness.store = "disk full".into();
        assert_eq!(code(&readiness, false), "store_unavailable");
        readiness.ready = true;
        assert_eq!(not_ready(&readiness, false, &id), None);
    }
}
