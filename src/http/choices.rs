//! Choices: what agents wait on.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};

use super::{
    Api,
    body::{Body, decode},
    caller::{Reader, Writer},
    list::Whole,
    path::{Key, Under},
};
use crate::{
    error::{ApiError, Code},
    ids::ChoiceId,
    protocol::{Acknowledged, Choice, ResolvedBy},
};

type Choices = Result<Json<Whole<Vec<Choice>>>, ApiError>;

/// `GET /v1/choices`
pub(super) async fn all(api: Data<Api>, Reader(who): Reader) -> Choices {
    api.gateway.choices(&who, None).await.map(|data| Json(Whole { data }))
}

/// `GET …/choices`
pub(super) async fn of_session(api: Data<Api>, Reader(who): Reader, Key(key): Key) -> Choices {
    api.gateway.choices(&who, Some(&key)).await.map(|data| Json(Whole { data }))
}

/// `POST …/choices/{id}`
pub(super) async fn answer(
    api: Data<Api>,
    Writer(who): Writer,
    Under(key, id): Under<ChoiceId>,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let answer = decode(&body, Code::InvalidChoicePayload)?;
    api.gateway.answer(&who, &key, id, answer, ResolvedBy::Api).await?;
    Ok(HttpResponse::Accepted().json(Acknowledged { ok: true }))
}
