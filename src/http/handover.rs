//! `POST …/continue` and `PUT …/feedback`.

use actix_web::{HttpRequest, HttpResponse, web, web::Data};
use serde_json::{Map, Value};

use super::{
    Api,
    body::{Body, Json, decode, decode_value},
    caller::Writer,
    idempotency::once,
    path::Key,
    turns::accepted,
};
use crate::{
    error::{ApiError, Code},
    ids::TurnId,
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
    Json(body): Json<Map<String, Value>>,
) -> Result<web::Json<Feedback>, ApiError> {
    if let Some(Value::String(id)) = body.get("turn_id")
        && let Err(error) = id.parse::<TurnId>()
    {
        return Err(ApiError::new(Code::InvalidId, format!("turn_id: {error}")).with("field", "turn_id"));
    }
    let body = decode_value(Value::Object(body), Code::InvalidJson)?;
    api.gateway.put_feedback(&who, &key, body).await.map(web::Json)
}
