//! HTTP: every route on one screen. Handlers extract, call the gateway, and map; they decide nothing.
//!
//! Owns paths, parameters, headers and status codes. Does not own rules about sessions: those are behind
//! [`Gateway`]. Layers from outside: [`boundary`] (request id, envelope, panics), [`guard`] (host, origin), routes.

mod agents;
mod body;
mod boundary;
mod caller;
mod choices;
mod errors;
mod events;
mod follow;
mod guard;
mod handover;
mod idempotency;
mod list;
mod messages;
mod params;
mod path;
mod route;
mod server;
mod sessions;
mod sse;
mod turns;

use std::{net::SocketAddr, sync::Arc};

use actix_web::{HttpRequest, web};
use tokio_util::sync::CancellationToken;

pub use self::{
    body::decode_value,
    boundary::{RequestId, boundary},
    caller::{Reader, require},
    errors::no_route,
    follow::follow,
    guard::{Allowed, guard},
    idempotency::message_once,
    params::Params,
    path::{Key, Named, key as parse_key},
    turns::{abort_json, accepted_json},
};
use self::{errors::internal, route::At};
use crate::{config::Config, error::ApiError, gateway::Gateway, ws};

/// What handlers hold.
pub struct Api {
    /// All rules.
    pub gateway: Gateway,
    /// The configuration.
    pub config: Arc<Config>,
    /// Hosts and origins.
    pub allowed: Allowed,
    /// Fires when the server stops and the gateway has ended its streams: sockets close.
    pub stopping: CancellationToken,
}

impl Api {
    /// What handlers of a server bound to `bound` hold.
    #[must_use]
    pub fn new(gateway: Gateway, config: Arc<Config>, bound: SocketAddr, stopping: CancellationToken) -> Self {
        Self { gateway, allowed: Allowed::new(&config.server, bound), config, stopping }
    }

    /// The one of this request.
    fn of(request: &HttpRequest) -> Result<&Self, ApiError> {
        request.app_data::<web::Data<Self>>().map(|data| data.get_ref()).ok_or_else(internal)
    }
}

/// Every route.
pub fn configure(app: &mut web::ServiceConfig) {
    let session = |rest: &str| At::new(&format!("/v1/sessions/{{key}}{rest}"));

    // Paths are tried in this order, so the ones that are called most come first.
    session("/messages").get(messages::list).post(messages::send).add(app);
    session("/messages/{id}").get(messages::get).add(app);

    At::new("/health").get(server::health).add(app);
    At::new("/ready").get(server::ready).add(app);
    At::new("/v1/me").get(server::me).add(app);
    At::new("/v1/agents").get(agents::list).add(app);
    At::new("/v1/agents/refresh").post(agents::refresh).add(app);

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

    session("/events").stream(events::events).add(app);
    session("/ws").stream(ws::session_socket).add(app);
    At::new("/v1/ws").stream(ws::socket).add(app);
}
