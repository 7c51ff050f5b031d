//! Turns: what was asked, and stopping it, changing it, trying it again.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::LOCATION,
    web::{self, Data},
};
use schemars::JsonSchema;
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
    protocol::{Aborted, AcceptedTurn, Cleared, StoppedTurn, Turn, TurnState, command::NOT_BLANK},
};

/// The body of `PATCH …/turns/{id}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EditTurn")]
pub(super) struct Edit {
    /// The new text: 1 to 1 048 576 characters after trimming.
    #[schemars(length(max = 1_048_576), regex(pattern = NOT_BLANK))]
    text: String,
}

/// The body of `POST …/turns/{id}/move`. The field is not optional, null is the end of the line.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MoveTurn", extend("required" = ["before"]))]
pub(super) struct Move {
    /// The queued turn that it goes in front of; null is the end of the line.
    #[schemars(with = "Option<TurnId>")]
    #[serde(deserialize_with = "Option::deserialize")]
    before: Option<String>,
}

/// What an accepted message answers, on every transport.
const fn answer(accepted: &Accepted) -> AcceptedTurn<'_> {
    AcceptedTurn { turn: &accepted.turn, position: accepted.position, steered: accepted.steered }
}

/// The same, for a transport that puts it into something else.
pub fn accepted_json(accepted: &Accepted) -> Value {
    json!(answer(accepted))
}

/// 202 with the turn and where it is.
pub(super) fn accepted(accepted: &Accepted) -> HttpResponse {
    let turn = &accepted.turn;
    HttpResponse::Accepted().insert_header((LOCATION, turn_path(&turn.session, turn.id))).json(answer(accepted))
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
    Ok(answer.json(StoppedTurn { turn: &turn }))
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
    json!(Aborted { ok: turn.is_some(), turn_id: turn })
}

/// `DELETE …/queue`: settles all queued turns as cancelled.
pub(super) async fn clear_queue(
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
) -> Result<web::Json<Cleared>, ApiError> {
    api.gateway.clear_queue(&who, &key).await.map(|cancelled| web::Json(Cleared { cancelled }))
}
