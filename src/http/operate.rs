//! For operators: settings, the log, how the channels do.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::{self, Data},
};
use bytes::Bytes;
use futures_util::{Stream, stream::unfold};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Api, Params, body::Json, caller::Admin, list::Whole, messages::accepts, params::seq};
use crate::{
    access::{Lease, Shows},
    error::{ApiError, Code},
    gateway::SettingsView,
    logs::{self, Line, Tail},
    protocol::{frame::EndReason, webhook::Endpoint},
    timestamp::Timestamp,
    webhooks::inbound::{Route, RouteStatus},
};

/// `GET /v1/config`
pub(super) async fn config(api: Data<Api>, Admin(_): Admin) -> web::Json<SettingsView> {
    web::Json(api.gateway.settings())
}

/// `PATCH /v1/config`
pub(super) async fn patch_config(
    api: Data<Api>,
    Admin(who): Admin,
    Json(body): Json<Map<String, Value>>,
) -> Result<web::Json<SettingsView>, ApiError> {
    api.gateway.change_settings(&who, &body)?;
    Ok(web::Json(api.gateway.settings()))
}

/// `GET /v1/logs`: the newest lines, or as a stream those and all that follow.
pub(super) async fn logs(
    request: HttpRequest,
    api: Data<Api>,
    Admin(who): Admin,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    let limit = params.count("limit", 200, 1..=u32::try_from(logs::MAX_LINES).unwrap_or(u32::MAX))?;
    let severity = match params.get("level").unwrap_or("trace") {
        "error" => 1,
        "warn" => 2,
        "info" => 3,
        "debug" => 4,
        "trace" => 5,
        _ => {
            let what = "level must be error, warn, info, debug or trace.";
            return Err(ApiError::new(Code::InvalidParameter, what).with("parameter", "level"));
        }
    };
    let lines = logs::lines().ok_or_else(super::errors::internal)?;
    let tail = lines.tail(usize::try_from(limit).unwrap_or(logs::MAX_LINES), severity);
    if !accepts(&request, "text/event-stream") {
        return Ok(HttpResponse::Ok().json(Whole { data: tail }));
    }
    let header = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let (tail, from) = match header {
        Some(id) => (Vec::new(), seq("Last-Event-ID", id)?),
        None => {
            let newest = lines.tail(1, 5).first().map_or(0, |line| line.id);
            (tail, newest)
        }
    };
    let lease = api.gateway.access().lease(&who, Shows::All)?;
    let ready = tail.iter().map(|line| block(line)).collect();
    let following = Following { tail: Tail::new(Arc::clone(lines), from), ready, severity, lease };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(following.stream(api.config.stream.heartbeat.0)))
}

/// A log that is being followed.
struct Following {
    tail: Tail,
    ready: VecDeque<String>,
    severity: u8,
    lease: Lease,
}

impl Following {
    fn stream(self, heartbeat: Duration) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        unfold(Some(self), move |following| async move {
            let mut following = following?;
            let text = loop {
                if let Some(reason) = following.lease.revoked() {
                    return Some((Ok(end(reason)), None));
                }
                if !following.ready.is_empty() {
                    break following.ready.drain(..).collect();
                }
                tokio::select! {
                    (lost, lines) = following.tail.next() => following.take(lost, &lines),
                    reason = following.lease.ended() => return Some((Ok(end(reason)), None)),
                    () = tokio::time::sleep(heartbeat) => break ": ping\n\n".to_owned(),
                }
            };
            Some((Ok(Bytes::from(text)), Some(following)))
        })
    }

    fn take(&mut self, lost: u64, lines: &[Arc<Line>]) {
        if lost > 0 {
            let gap = json!({"type": "stream.gap", "data": {"lines": lost, "reason": "pruned"}});
            self.ready.push_back(format!("event: stream.gap\ndata: {gap}\n\n"));
        }
        let wanted = lines.iter().filter(|line| line.severity() <= self.severity);
        self.ready.extend(wanted.map(|line| block(line)));
    }
}

/// The last event.
fn end(reason: EndReason) -> Bytes {
    let end = json!({"type": "stream.end", "data": {"reason": reason, "retry": reason.retry()}});
    format!("event: stream.end\ndata: {end}\n\n").into()
}

/// A line as an event.
fn block(line: &Line) -> String {
    format!("id: {}\nevent: logs.line\ndata: {}\n\n", line.id, json!(line))
}

/// What the WebSockets of this server went through.
#[derive(Debug, Default)]
pub struct SocketStats {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<SocketError>>,
}

/// The ways in and out.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Channels {
    /// The routes for inbound webhooks.
    webhook_routes: Vec<RouteStatus>,
    /// Outbound webhooks: all endpoints, the oldest first.
    webhook_endpoints: Vec<Endpoint>,
    /// WebSocket connections.
    sockets: Sockets,
}

/// What WebSockets went through since the start.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Sockets {
    /// Those that are open now.
    open: u64,
    /// Those that were opened.
    opened_total: u64,
    /// Those that the server closed for a fault of the client, or its own.
    failed_total: u64,
    /// The last of these; null when there was none.
    last_error: Option<SocketError>,
}

/// Why a WebSocket was closed by the server.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct SocketError {
    /// When.
    at: Timestamp,
    /// The close code.
    code: u16,
    /// The reason that went with it.
    reason: String,
}

impl SocketStats {
    /// One was opened.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// One is gone.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// One was closed by the server, for a reason that is not a client's close nor the server's stop.
    pub fn failed(&self, code: u16, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let error = SocketError { at: Timestamp::now(), code, reason: why.to_owned() };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn now(&self) -> Sockets {
        let (opened, closed) = (self.opened.load(Ordering::Relaxed), self.closed.load(Ordering::Relaxed));
        Sockets {
            open: opened.saturating_sub(closed),
            opened_total: opened,
            failed_total: self.failed.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// `GET /v1/channels/status`: the ways in and out.
pub(super) async fn channels(api: Data<Api>, Admin(_): Admin) -> Result<web::Json<Channels>, ApiError> {
    let webhook_routes = api.gateway.webhook_routes().iter().map(Route::status).collect();
    let webhook_endpoints = api.gateway.all_endpoints().await?;
    Ok(web::Json(Channels { webhook_routes, webhook_endpoints, sockets: api.sockets.now() }))
}
