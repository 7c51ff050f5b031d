//! The server itself: is it up, is it ready, who am I to it.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{Api, RequestId, caller::Reader, params::MAX_WAIT};
use crate::error::{ApiError, Code};

/// `GET /health`: the process is up.
pub(super) async fn health(api: web::Data<Api>) -> web::Json<Value> {
    web::Json(json!({"ok": true, "ready": api.gateway.readiness().await.ready}))
}

/// `GET /ready`: 200 when it takes work, else 503 with the same fields and an error.
pub(super) async fn ready(api: web::Data<Api>, id: RequestId) -> HttpResponse {
    let readiness = api.gateway.readiness().await;
    if readiness.ready {
        return HttpResponse::Ok().json(readiness);
    }
    let code = if api.gateway.is_draining() { Code::ShuttingDown } else { Code::StoreUnavailable };
    let error = ApiError::new(code, readiness.reason.clone().unwrap_or_else(|| "The server is not ready.".into()));
    let mut body = serde_json::to_value(&readiness).unwrap_or_else(|_| json!({}));
    if let Some(fields) = body.as_object_mut() {
        fields.insert("error".into(), error.to_json(id.as_str()));
    }
    HttpResponse::ServiceUnavailable().json(body)
}

/// `GET /v1/me`
pub(super) async fn me(api: web::Data<Api>, Reader(who): Reader) -> web::Json<Value> {
    let config = &api.config;
    web::Json(json!({
        "user": who.user,
        "scopes": who.scopes,
        "mode": "open",
        "version": env!("CARGO_PKG_VERSION"),
        "limits": {
            "max_body": config.limits.max_body.0,
            "max_upload": config.limits.max_upload.0,
            "max_frame": config.limits.max_frame.0,
            "max_queue": config.session.max_queue,
            "max_wait_seconds": MAX_WAIT,
            "heartbeat_seconds": config.stream.heartbeat.0.as_secs_f64(),
        },
    }))
}
