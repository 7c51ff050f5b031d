//! `POST …/continue` and `PUT …/feedback`.

use actix_web::{HttpRequest, HttpResponse, web, web::Data};

use super::{
    Api,
    body::{Body, Json, decode},
    caller::Writer,
    idempotency::once,
    path::Key,
    turns::accepted,
};
use crate::{
    error::{ApiError, Code},
    protocol::{ContinueSession, Feedback},
};

/// `POST …/continue`: 202 with the turn.
pub(super) async fn go_on(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let asked: ContinueSession = decode(&body, Code::InvalidJson)?;
    let outcome = api.gateway.continue_session(&who, &key, asked, once(&request, &body)?).await?;
    Ok(accepted(&outcome))
}

/// `PUT …/feedback`: what is stored.
pub(super) async fn put_feedback(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Json(body): Json<Feedback>,
) -> Result<web::Json<Feedback>, ApiError> {
    api.gateway.put_feedback(&who, &key, body).await.map(web::Json)
}
