//! Agents: what can run turns here.

use actix_web::web::{Data, Json};
use serde_json::Value;

use super::{
    Api,
    caller::{Admin, Reader},
    list::Whole,
};
use crate::error::ApiError;

/// `GET /v1/agents`
pub(super) async fn list(api: Data<Api>, Reader(who): Reader) -> Result<Json<Whole<Vec<Value>>>, ApiError> {
    api.gateway.agents(&who).await.map(|data| Json(Whole { data }))
}

/// `POST /v1/agents/refresh`: looks again.
pub(super) async fn refresh(api: Data<Api>, Admin(who): Admin) -> Result<Json<Whole<Vec<Value>>>, ApiError> {
    api.gateway.refresh_agents(&who).await.map(|data| Json(Whole { data }))
}
