//! Sessions: list, make, look, change, delete.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::LOCATION,
    web::{self, Data},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Api, Params,
    body::{Body, Json, Nothing, decode},
    caller::{Reader, Writer},
    idempotency::once,
    list::{List, Whole},
    path::{Key, session_path},
};
use crate::{
    error::{ApiError, Code},
    gateway::StateView,
    ids::SessionId,
    protocol::{Brief, PatchSession, Snapshot},
    store::SessionFilter,
};

type SnapshotResult = Result<web::Json<Snapshot>, ApiError>;

/// The body of `PUT …/model` and `PUT …/mode`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["id"]))]
pub(super) struct Pick {
    /// The id that the agent gives it; null is the agent's default.
    #[schemars(length(max = 200))]
    #[serde(deserialize_with = "Option::deserialize")]
    id: Option<String>,
}

/// `GET /v1/sessions`
pub(super) async fn list(
    api: Data<Api>,
    Reader(who): Reader,
    params: Params,
) -> Result<web::Json<List<Snapshot>>, ApiError> {
    let filter = SessionFilter {
        archived: params.flag("archived")?.unwrap_or(false),
        agent: params.text("agent"),
        busy: params.flag("busy")?,
        owner: params.text("owner"),
        text: params.text("q"),
        seen_by: None,
    };
    let page = api.gateway.sessions(&who, filter, params.page::<SessionId>()?).await?;
    Ok(web::Json(List::of(page, |session| session.id.to_string())))
}

/// `POST /v1/sessions`
pub(super) async fn create(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let key = once(&request, &body)?;
    let snapshot = api.gateway.create_session(&who, decode(&body, Code::InvalidJson)?, key).await?;
    Ok(HttpResponse::Created().insert_header((LOCATION, session_path(&snapshot.key))).json(snapshot))
}

/// `GET /v1/sessions/{key}`
pub(super) async fn get(api: Data<Api>, Reader(who): Reader, Key(key): Key) -> SnapshotResult {
    api.gateway.snapshot(&who, &key).await.map(web::Json)
}

/// `PATCH /v1/sessions/{key}`
pub(super) async fn patch(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Json(body): Json<PatchSession>,
) -> SnapshotResult {
    api.gateway.patch_session(&who, &key, body).await.map(web::Json)
}

/// `DELETE /v1/sessions/{key}`
pub(super) async fn delete(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    api.gateway.delete_session(&who, &key, params.flag("force")?.unwrap_or(false)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET …/state`
pub(super) async fn state(
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<web::Json<StateView>, ApiError> {
    api.gateway.state(&who, &key, params.count("messages", 50, 0..=1000)?).await.map(web::Json)
}

/// `POST …/reset`
pub(super) async fn reset(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Body(body): Body,
) -> SnapshotResult {
    let Nothing {} = decode(&body, Code::InvalidJson)?;
    api.gateway.reset(&who, &key, once(&request, &body)?).await.map(web::Json)
}

/// `POST …/reload`
pub(super) async fn reload(api: Data<Api>, Writer(who): Writer, Key(key): Key) -> SnapshotResult {
    api.gateway.reload(&who, &key).await.map(web::Json)
}

/// `GET …/brief`
pub(super) async fn brief(api: Data<Api>, Reader(who): Reader, Key(key): Key) -> Result<web::Json<Brief>, ApiError> {
    api.gateway.brief(&who, &key).await.map(web::Json)
}

/// `PUT …/brief`
pub(super) async fn put_brief(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Json(brief): Json<Map<String, Value>>,
) -> Result<web::Json<Brief>, ApiError> {
    api.gateway.put_brief(&who, &key, brief).await.map(web::Json)
}

/// `PUT …/model`
pub(super) async fn put_model(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Json(pick): Json<Pick>,
) -> SnapshotResult {
    api.gateway.set_model(&who, &key, pick.id).await.map(web::Json)
}

/// `PUT …/mode`
pub(super) async fn put_mode(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    Json(pick): Json<Pick>,
) -> SnapshotResult {
    api.gateway.set_mode(&who, &key, pick.id).await.map(web::Json)
}

/// `GET …/commands`
pub(super) async fn commands(
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
) -> Result<web::Json<Whole<Value>>, ApiError> {
    api.gateway.commands(&who, &key).await.map(|data| web::Json(Whole { data }))
}
