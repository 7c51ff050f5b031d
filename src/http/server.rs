//! The server itself: is it up, is it ready, who am I to it.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{Api, RequestId, caller::Caller, params::MAX_WAIT};
use crate::{
    access::Via,
    error::{ApiError, Code},
    gateway::Readiness,
};

/// `GET /health`: the process is up.
pub(super) async fn health(api: web::Data<Api>) -> web::Json<Value> {
    web::Json(json!({"ok": true, "ready": api.gateway.readiness().await.ready}))
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

/// `GET /v1/me`
pub(super) async fn me(api: web::Data<Api>, Caller(who): Caller) -> web::Json<Value> {
    let config = &api.config;
    let callers = api.gateway.access().limits.of(&who);
    web::Json(json!({
        "user": who.user,
        "scopes": who.scopes,
        "orgs": who.orgs,
        "token_id": who.via.token(),
        "mode": if who.via == Via::Open { "open" } else { "token" },
        "version": env!("CARGO_PKG_VERSION"),
        "limits": {
            "max_body": config.limits.max_body.0,
            "max_upload": config.limits.max_upload.0,
            "max_frame": config.limits.max_frame.0,
            "max_queue": config.session.max_queue,
            "max_wait_seconds": MAX_WAIT,
            "heartbeat_seconds": config.stream.heartbeat.0.as_secs_f64(),
            "requests_per_second": limit(callers.requests_per_second),
            "max_turns": limit(callers.max_turns),
            "max_streams": limit(callers.max_streams),
            "max_sessions": limit(callers.max_sessions),
        },
    }))
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
        let mut readiness =
            Readiness { ready: false, sessions: 3, store: "ok".into(), agents: Map::new(), reason: Some("why".into()) };
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
