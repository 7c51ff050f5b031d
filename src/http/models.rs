//! The agents and their models, as OpenAI's clients list them.

use std::sync::OnceLock;

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, caller::Reader};
use crate::{error::ApiError, timestamp::Timestamp};

/// An agent, or one of its models.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Model {
    /// What a request calls it: `agent`, or `agent/model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Seconds since 1970: when this server first listed its models. No agent tells its own.
    created: i64,
    /// Always `greenroom`.
    owned_by: &'static str,
}

/// All of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Models {
    /// Always `list`.
    object: &'static str,
    /// The models.
    data: Vec<Model>,
}

fn model(id: String) -> Model {
    static SINCE: OnceLock<i64> = OnceLock::new();
    let created = *SINCE.get_or_init(|| Timestamp::now().0.div_euclid(1_000_000));
    Model { id, object: "model", created, owned_by: "greenroom" }
}

/// `GET /v1/models`
pub(super) async fn list(api: Data<Api>, Reader(_): Reader) -> Json<Models> {
    Json(Models { object: "list", data: api.gateway.named_models().into_iter().map(model).collect() })
}

/// `GET /v1/models/{id}`: the id may hold slashes, written as they are or encoded.
pub(super) async fn get(request: HttpRequest, api: Data<Api>, Reader(_): Reader) -> Result<Json<Model>, ApiError> {
    let id = request.match_info().get("id").unwrap_or_default().replace("%2F", "/").replace("%2f", "/");
    api.gateway.named_model(&id).map_err(super::openai::about("model"))?;
    Ok(Json(model(id)))
}
