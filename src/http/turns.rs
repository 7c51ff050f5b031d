//! Turns: what was asked, and stopping it, changing it, trying it again.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::LOCATION,
    web::{self, Data},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, Params,
    body::{Body, Json, Nothing, decode},
    caller::{Reader, Writer},
    idempotency::once,
    list::List,
    path::{Key, Named, Under, turn_path},
};
use crate::{
    error::{ApiError, Code},
    gateway::Accepted,
    ids::TurnId,
    protocol::{Turn, TurnState},
};

/// The body of `PATCH …/turns/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    text: String,
}

/// The body of `POST …/turns/{id}/move`. The field is not optional, null is the end of the line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    #[serde(deserialize_with = "Option::deserialize")]
    before: Option<String>,
}

/// What an accepted message answers, on every transport.
pub fn accepted_json(accepted: &Accepted) -> Value {
    let mut body = json!({"turn": accepted.turn, "position": accepted.position});
    if let Some(fields) = body.as_object_mut()
        && accepted.steered
    {
        fields.insert("steered".into(), true.into());
    }
    body
}

/// 202 with the turn and where it is.
pub(super) fn accepted(accepted: &Accepted) -> HttpResponse {
    let turn = &accepted.turn;
    HttpResponse::Accepted().insert_header((LOCATION, turn_path(&turn.session, turn.id))).json(accepted_json(accepted))
}

/// `GET …/turns`
pub(super) async fn list(
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<web::Json<List<Turn>>, ApiError> {
    let state = params.get("state").map(|name| {
        let what = format!("There is no turn state {name:?}.");
        TurnState::parse(name).ok_or_else(|| ApiError::new(Code::InvalidParameter, what).with("parameter", "state"))
    });
    let page = api.gateway.turns(&who, &key, state.transpose()?, params.page::<TurnId>()?).await?;
    Ok(web::Json(List::of(page, |turn| turn.id.to_string())))
}

/// `GET …/turns/{id}`
pub(super) async fn get(
    api: Data<Api>,
    Reader(who): Reader,
    Under(key, id): Under<TurnId>,
) -> Result<web::Json<Turn>, ApiError> {
    api.gateway.turn(&who, &key, id).await.map(web::Json)
}

/// `PATCH …/turns/{id}`
pub(super) async fn edit(
    api: Data<Api>,
    Writer(who): Writer,
    Under(key, id): Under<TurnId>,
    Json(body): Json<Edit>,
) -> Result<web::Json<Turn>, ApiError> {
    api.gateway.edit_turn(&who, &key, id, body.text).await.map(web::Json)
}

/// `POST …/turns/{id}/move`
pub(super) async fn reorder(
    api: Data<Api>,
    Writer(who): Writer,
    Under(key, id): Under<TurnId>,
    Json(body): Json<Move>,
) -> Result<web::Json<Turn>, ApiError> {
    let before = body.before.as_deref().map(TurnId::named).transpose()?;
    api.gateway.move_turn(&who, &key, id, before).await.map(web::Json)
}

/// `POST …/turns/{id}/cancel`: 200 when it is over, 202 while it is being stopped.
pub(super) async fn cancel(
    api: Data<Api>,
    Writer(who): Writer,
    Under(key, id): Under<TurnId>,
) -> Result<HttpResponse, ApiError> {
    let turn = api.gateway.cancel_turn(&who, &key, id).await?;
    let mut answer = if turn.state.is_terminal() { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    Ok(answer.json(json!({"turn": turn})))
}

/// `POST …/turns/{id}/retry`
pub(super) async fn retry(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Under(key, id): Under<TurnId>,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let Nothing {} = decode(&body, Code::InvalidJson)?;
    let outcome = api.gateway.retry_turn(&who, &key, id, once(&request, &body)?).await?;
    Ok(accepted(&outcome))
}

/// `POST …/abort`: stops the running turn.
pub(super) async fn abort(api: Data<Api>, Writer(who): Writer, Key(key): Key) -> Result<web::Json<Value>, ApiError> {
    api.gateway.abort(&who, &key).await.map(|turn| web::Json(abort_json(turn)))
}

/// What an abort answers, on every transport.
pub fn abort_json(turn: Option<TurnId>) -> Value {
    turn.map_or_else(|| json!({"ok": false}), |id| json!({"ok": true, "turn_id": id}))
}

/// `DELETE …/queue`: settles all queued turns as cancelled.
pub(super) async fn clear_queue(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
) -> Result<web::Json<Value>, ApiError> {
    api.gateway.clear_queue(&who, &key).await.map(|count| web::Json(json!({"cancelled": count})))
}
