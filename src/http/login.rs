//! Logging in and out with a browser, and the tokens of whoever has logged in.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{LOCATION, SET_COOKIE},
    web::Data,
};
use serde_json::{Value, json};

use super::{Api, Params, body::Json, caller::Browser, cookie, list::List, path::Id};
use crate::{
    error::ApiError,
    ids::TokenId,
    protocol::account::{CreateToken, Login, Token},
    timestamp::Timestamp,
};

/// `POST /v1/login`
pub(super) async fn log_in(
    request: HttpRequest,
    api: Data<Api>,
    Json(body): Json<Login>,
) -> Result<HttpResponse, ApiError> {
    let ip = request.peer_addr().map(|address| address.ip());
    let login = api.gateway.log_in(&body.token, ip).await?;
    let cookie = cookie::set(&request, &login.cookie, login.expires_at.since(Timestamp::now()));
    let answer = json!({
        "user": login.who.user, "scopes": login.who.scopes, "orgs": login.who.orgs, "expires_at": login.expires_at,
    });
    Ok(HttpResponse::Ok().insert_header((SET_COOKIE, cookie)).json(answer))
}

/// `POST /v1/logout`: the login of the cookie is over; without one there is nothing to end.
pub(super) async fn log_out(
    request: HttpRequest,
    api: Data<Api>,
    browser: Result<Browser, ApiError>,
) -> Result<HttpResponse, ApiError> {
    match browser {
        Ok(Browser(who)) => api.gateway.log_out(&who).await?,
        Err(error) if error.code.status() == 401 => {}
        Err(error) => return Err(error),
    }
    Ok(HttpResponse::NoContent().insert_header((SET_COOKIE, cookie::clear(&request))).finish())
}

/// `GET /v1/me/tokens`
pub(super) async fn list(
    api: Data<Api>,
    Browser(who): Browser,
    params: Params,
) -> Result<actix_web::web::Json<List<Token>>, ApiError> {
    let page = api.gateway.tokens(&who, params.page::<TokenId>()?).await?;
    Ok(actix_web::web::Json(List::of(page, |token| token.id.to_string())))
}

/// `POST /v1/me/tokens`: the only answer that has the secret.
pub(super) async fn create(
    api: Data<Api>,
    Browser(who): Browser,
    Json(body): Json<CreateToken>,
) -> Result<HttpResponse, ApiError> {
    let (secret, token) = api.gateway.create_token(&who, body).await?;
    let location = format!("/v1/me/tokens/{}", token.id);
    let mut answer = json!(token);
    answer["token"] = Value::String(secret);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(answer))
}

/// `GET /v1/me/tokens/{id}`
pub(super) async fn get(
    api: Data<Api>,
    Browser(who): Browser,
    Id(id): Id<TokenId>,
) -> Result<actix_web::web::Json<Token>, ApiError> {
    api.gateway.token(&who, id).await.map(actix_web::web::Json)
}

/// `DELETE /v1/me/tokens/{id}`
pub(super) async fn revoke(
    api: Data<Api>,
    Browser(who): Browser,
    Id(id): Id<TokenId>,
) -> Result<HttpResponse, ApiError> {
    api.gateway.revoke_token(&who, id).await?;
    Ok(HttpResponse::NoContent().finish())
}
