//! `GET /metrics`: what an operator can count, as text for a scraper.

use actix_web::{FromRequest as _, HttpRequest, HttpResponse, dev::Payload, web::Data};

use super::{Api, caller::Admin, errors::internal};
use crate::error::ApiError;

/// The text format of Prometheus.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`: for admins, or for everybody with `server.public_metrics`. Numbers of all users are in it.
pub(super) async fn metrics(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, ApiError> {
    if !api.config.server.public_metrics {
        Admin::from_request(&request, &mut Payload::None).await?;
    }
    let text = api.gateway.metrics().map_err(|error| {
        log::error!(error; "the metrics cannot be written");
        internal()
    })?;
    Ok(HttpResponse::Ok().content_type(FORMAT).body(text))
}
