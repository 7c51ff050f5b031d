//! Webhook endpoints: who is told of events, and what was delivered to them.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::LOCATION,
    web::{self, Data},
};

use super::{
    Api, Params,
    body::{Body, Json, Nothing, decode},
    caller::{Reader, Writer},
    idempotency::once,
    list::List,
    path::{DeliveryTo, Id},
};
use crate::{
    error::{ApiError, Code},
    ids::{DeliveryId, EndpointId},
    protocol::webhook::{CreateEndpoint, Delivery, DeliveryState, Endpoint, NewEndpoint, PatchEndpoint},
};

/// `GET /v1/webhook-endpoints`
pub(super) async fn list(
    api: Data<Api>,
    Reader(who): Reader,
    params: Params,
) -> Result<web::Json<List<Endpoint>>, ApiError> {
    let page = api.gateway.endpoints(&who, params.page::<EndpointId>()?).await?;
    Ok(web::Json(List::of(page, |endpoint| endpoint.id.to_string())))
}

/// `POST /v1/webhook-endpoints`: the only answer that has the secret.
pub(super) async fn create(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let key = once(&request, &body)?;
    let asked: CreateEndpoint = decode(&body, Code::InvalidJson)?;
    let made = api.gateway.create_endpoint(&who, asked, key).await?;
    let location = format!("/v1/webhook-endpoints/{}", made.endpoint.id);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(made))
}

/// `GET /v1/webhook-endpoints/{id}`
pub(super) async fn get(
    api: Data<Api>,
    Reader(who): Reader,
    Id(id): Id<EndpointId>,
) -> Result<web::Json<Endpoint>, ApiError> {
    api.gateway.endpoint(&who, id).await.map(web::Json)
}

/// `PATCH /v1/webhook-endpoints/{id}`
pub(super) async fn patch(
    api: Data<Api>,
    Writer(who): Writer,
    Id(id): Id<EndpointId>,
    Json(body): Json<PatchEndpoint>,
) -> Result<web::Json<Endpoint>, ApiError> {
    api.gateway.change_endpoint(&who, id, body).await.map(web::Json)
}

/// `DELETE /v1/webhook-endpoints/{id}`
pub(super) async fn delete(
    api: Data<Api>,
    Writer(who): Writer,
    Id(id): Id<EndpointId>,
) -> Result<HttpResponse, ApiError> {
    api.gateway.delete_endpoint(&who, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/rotate`: the endpoint with its new secret.
pub(super) async fn rotate(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Id(id): Id<EndpointId>,
    Body(body): Body,
) -> Result<web::Json<NewEndpoint>, ApiError> {
    let key = once(&request, &body)?;
    let Nothing {} = decode(&body, Code::InvalidJson)?;
    api.gateway.rotate_endpoint(&who, id, key).await.map(web::Json)
}

/// `POST …/test`: the delivery that was made.
pub(super) async fn test(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Id(id): Id<EndpointId>,
    Body(body): Body,
) -> Result<HttpResponse, ApiError> {
    let key = once(&request, &body)?;
    let Nothing {} = decode(&body, Code::InvalidJson)?;
    let delivery = api.gateway.test_endpoint(&who, id, key).await?;
    let location = format!("/v1/webhook-endpoints/{id}/deliveries/{}", delivery.id);
    Ok(HttpResponse::Accepted().insert_header((LOCATION, location)).json(delivery))
}

/// `POST …/enable`
pub(super) async fn enable(
    api: Data<Api>,
    Writer(who): Writer,
    Id(id): Id<EndpointId>,
    Json(Nothing {}): Json<Nothing>,
) -> Result<web::Json<Endpoint>, ApiError> {
    api.gateway.enable_endpoint(&who, id).await.map(web::Json)
}

/// `GET …/deliveries`
pub(super) async fn deliveries(
    api: Data<Api>,
    Reader(who): Reader,
    Id(id): Id<EndpointId>,
    params: Params,
) -> Result<web::Json<List<Delivery>>, ApiError> {
    let state = match params.get("state") {
        None => None,
        Some("pending") => Some(DeliveryState::Pending),
        Some("delivered") => Some(DeliveryState::Delivered),
        Some("failed") => Some(DeliveryState::Failed),
        Some(_) => {
            let what = "state must be pending, delivered or failed.";
            return Err(ApiError::new(Code::InvalidParameter, what).with("parameter", "state"));
        }
    };
    let page = api.gateway.deliveries(&who, id, state, params.page::<DeliveryId>()?).await?;
    Ok(web::Json(List::of(page, |delivery| delivery.id.to_string())))
}

/// `GET …/deliveries/{delivery}`
pub(super) async fn delivery(
    api: Data<Api>,
    Reader(who): Reader,
    DeliveryTo(endpoint, id): DeliveryTo,
) -> Result<web::Json<Delivery>, ApiError> {
    api.gateway.delivery(&who, endpoint, id).await.map(web::Json)
}

/// `POST …/deliveries/{delivery}/redeliver`
pub(super) async fn redeliver(
    api: Data<Api>,
    Writer(who): Writer,
    DeliveryTo(endpoint, id): DeliveryTo,
    Json(Nothing {}): Json<Nothing>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Accepted().json(api.gateway.redeliver(&who, endpoint, id).await?))
}
