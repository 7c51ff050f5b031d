//! HTTP: every route on one screen. Handlers extract, call the gateway, and map; they decide nothing.
//!
//! Owns paths, parameters, headers and status codes. Does not own rules about sessions: those are behind
//! [`Gateway`]. Layers from outside: [`boundary`] (request id, envelope, panics), [`guard`] (host, origin), routes.

mod ag_ui;
mod agents;
mod audit;
mod body;
mod boundary;
mod caller;
mod chat;
mod choices;
mod completions;
mod cookie;
mod docs;
mod errors;
mod events;
mod follow;
mod guard;
mod handover;
mod idempotency;
mod list;
mod login;
mod messages;
mod metrics;
mod models;
mod openai;
pub mod openapi;
mod operate;
mod params;
mod path;
mod responses;
mod route;
mod server;
mod sessions;
mod sse;
mod turns;
mod webhook_endpoints;
mod webhooks;

use std::{net::SocketAddr, sync::Arc};

use actix_web::{HttpRequest, web};

pub use self::{
    body::decode_value,
    boundary::{RequestId, boundary},
    caller::{Knocking, require},
    errors::no_route,
    follow::{follow, follow_all},
    guard::{Allowed, guard},
    idempotency::message_once,
    operate::SocketStats,
    params::Params,
    path::{Key, Named, key as parse_key},
    turns::{abort_json, accepted_json},
};
use self::{
    errors::internal,
    route::{At, Routes},
};
use crate::{config::Config, error::ApiError, gateway::Gateway, ws};

/// What handlers hold.
pub struct Api {
    /// All rules.
    pub gateway: Gateway,
    /// The configuration.
    pub config: Arc<Config>,
    /// Hosts and origins.
    pub allowed: Allowed,
    /// What WebSockets went through.
    pub sockets: SocketStats,
}

impl Api {
    /// What handlers of a server bound to `bound` hold.
    #[must_use]
    pub fn new(gateway: Gateway, config: Arc<Config>, bound: SocketAddr) -> Self {
        let (allowed, sockets) = (Allowed::new(&config.server, bound), SocketStats::default());
        Self { gateway, allowed, sockets, config }
    }

    /// The one of this request.
    fn of(request: &HttpRequest) -> Result<&Self, ApiError> {
        request.app_data::<web::Data<Self>>().map(|data| data.get_ref()).ok_or_else(internal)
    }
}

/// Adds every route to an app.
pub fn configure(app: &mut web::ServiceConfig) {
    route_all(&mut Routes::of(app));
}

/// Every route, as `GET /v1/me`.
#[cfg(test)]
fn routes() -> Vec<String> {
    let mut listed = Vec::new();
    let list = |app: &mut web::ServiceConfig| {
        let mut routes = Routes::of(app);
        route_all(&mut routes);
        listed = routes.listed();
    };
    let _ = actix_web::App::new().configure(list);
    listed
}

/// Every route. Each is described in [`openapi`].
fn route_all(app: &mut Routes<'_>) {
    let session = |rest: &str| At::new(&format!("/v1/sessions/{{key}}{rest}"));

    // Paths are tried in this order, so the ones that are called most come first.
    session("/messages").get(messages::list).post(messages::send).add(app);
    session("/messages/{id}").get(messages::get).add(app);
    session("/chat").post(chat::chat_with).add(app);
    session("/chat/stream").stream(chat::resume_in).add(app);
    At::new("/v1/chat").post(chat::chat).add(app);
    At::new("/v1/chat/{key}/stream").stream(chat::resume).add(app);

    At::new("/health").get(server::health).add(app);
    At::new("/ready").get(server::ready).add(app);
    At::new("/metrics").get(metrics::metrics).add(app);
    At::new("/v1/config").get(operate::config).patch(operate::patch_config).add(app);
    At::new("/v1/logs").get(operate::logs).add(app);
    At::new("/v1/channels/status").get(operate::channels).add(app);
    At::new("/openapi.json").get(openapi::serve).add(app);
    At::new("/docs").get(docs::page).add(app);
    At::new("/docs/{file}").get(docs::file).add(app);
    At::new("/v1/me").get(server::me).add(app);
    At::new("/v1/me/tokens").get(login::list).post(login::create).add(app);
    At::new("/v1/me/tokens/{id}").get(login::get).delete(login::revoke).add(app);
    At::new("/v1/login").post(login::log_in).add(app);
    At::new("/v1/logout").post(login::log_out).add(app);
    At::new("/webhooks/{route}").post(webhooks::receive).add(app);
    At::new("/v1/audit").get(audit::list).add(app);
    At::new("/v1/agents").get(agents::list).add(app);
    At::new("/v1/agents/refresh").post(agents::refresh).add(app);

    At::new("/v1/ag-ui").post(ag_ui::run).add(app);

    At::new("/v1/sessions").get(sessions::list).post(sessions::create).add(app);
    session("").get(sessions::get).patch(sessions::patch).delete(sessions::delete).add(app);
    session("/state").get(sessions::state).add(app);
    session("/reset").post(sessions::reset).add(app);
    session("/reload").post(sessions::reload).add(app);
    session("/continue").post(handover::go_on).add(app);
    session("/feedback").put(handover::put_feedback).add(app);
    session("/brief").get(sessions::brief).put(sessions::put_brief).add(app);
    session("/model").put(sessions::put_model).add(app);
    session("/mode").put(sessions::put_mode).add(app);
    session("/commands").get(sessions::commands).add(app);

    session("/turns").get(turns::list).add(app);
    session("/turns/{id}").get(turns::get).patch(turns::edit).add(app);
    session("/turns/{id}/cancel").post(turns::cancel).add(app);
    session("/turns/{id}/move").post(turns::reorder).add(app);
    session("/turns/{id}/retry").post(turns::retry).add(app);
    session("/abort").post(turns::abort).add(app);
    session("/queue").delete(turns::clear_queue).add(app);

    At::new("/v1/choices").get(choices::all).add(app);
    session("/choices").get(choices::of_session).add(app);
    session("/choices/{id}").post(choices::answer).add(app);

    At::new("/v1/chat/completions").post(completions::create).add(app);
    At::new("/v1/responses").post(responses::create).add(app);
    At::new("/v1/responses/{id}").get(responses::get).add(app);
    At::new("/v1/responses/{id}/cancel").post(responses::cancel).add(app);
    At::new("/v1/models").get(models::list).add(app);
    At::new("/v1/models/{id:.+}").get(models::get).add(app);
    At::new("/v1/webhook-endpoints").get(webhook_endpoints::list).post(webhook_endpoints::create).add(app);
    At::new("/v1/webhook-endpoints/{id}")
        .get(webhook_endpoints::get)
        .patch(webhook_endpoints::patch)
        .delete(webhook_endpoints::delete)
        .add(app);
    At::new("/v1/webhook-endpoints/{id}/rotate").post(webhook_endpoints::rotate).add(app);
    At::new("/v1/webhook-endpoints/{id}/test").post(webhook_endpoints::test).add(app);
    At::new("/v1/webhook-endpoints/{id}/enable").post(webhook_endpoints::enable).add(app);
    At::new("/v1/webhook-endpoints/{id}/deliveries").get(webhook_endpoints::deliveries).add(app);
    At::new("/v1/webhook-endpoints/{id}/deliveries/{delivery}").get(webhook_endpoints::delivery).add(app);
    At::new("/v1/webhook-endpoints/{id}/deliveries/{delivery}/redeliver").post(webhook_endpoints::redeliver).add(app);

    At::new("/v1/events").stream(events::all).add(app);
    session("/events").stream(events::events).add(app);
    session("/ws").stream(ws::session_socket).add(app);
    At::new("/v1/ws").stream(ws::socket).add(app);
}
