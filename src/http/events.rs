//! `GET …/events`: the log of a session as a stream (SSE), or in pages (JSON).

use actix_web::{HttpRequest, HttpResponse, http::header::ContentType, web::Data};

use super::{
    Api, Params,
    caller::Reader,
    follow::follow,
    messages::accepts,
    params::seq,
    path::Key,
    sse::{self, Prime},
};
use crate::{
    error::{ApiError, Code},
    gateway::{EventRange, Events, Filter, From, Principal},
    ids::SessionKey,
};

/// The most events of a page.
const MAX_PAGE: u32 = 1000;

/// `GET …/events`
pub(super) async fn events(
    request: HttpRequest,
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    if accepts(&request, "application/json") && !accepts(&request, "text/event-stream") {
        return page(&api, &who, &key, &params).await;
    }
    let from = start(&request, &params)?;
    let filter = Filter { types: params.types(), turn: None, raw: params.flag("raw")?.unwrap_or(false) };
    let subscription = api.gateway.subscribe(&who, &key, from, filter).await?;
    let prime = if from == From::Now { Prime::FromHello } else { Prime::No };
    Ok(sse::response(follow(subscription, key), api.config.stream.heartbeat.0, prime))
}

/// `Last-Event-ID` wins over `after`: a browser comes back to the same URL with the newer of the two.
fn start(request: &HttpRequest, params: &Params) -> Result<From, ApiError> {
    let header = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let cursor = match header.filter(|text| !text.is_empty()) {
        Some(text) => Some(seq("Last-Event-ID", text)?),
        None => params.seq("after")?,
    };
    Ok(cursor.map_or(From::Now, From::After))
}

async fn page(api: &Api, who: &Principal, key: &SessionKey, params: &Params) -> Result<HttpResponse, ApiError> {
    let limit = params.count("limit", 100, 1..=MAX_PAGE)? as usize;
    let range = match (params.seq("after")?, params.seq("before")?) {
        (None, Some(before)) => EventRange::Before(before),
        (after, None) => EventRange::After(after.unwrap_or(0)),
        (Some(_), Some(_)) => {
            return Err(ApiError::new(Code::InvalidParameter, "after and before exclude each other."));
        }
    };
    let events = api.gateway.events(who, key, range, limit, &params.types()).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(page_json(&events)))
}

/// The events go in as they are stored, byte for byte.
fn page_json(events: &Events) -> String {
    let id = |seq: Option<u64>| seq.map_or_else(|| "null".to_owned(), |seq| seq.to_string());
    format!(
        r#"{{"data":[{}],"first_id":{},"last_id":{},"has_more":{}}}"#,
        events.events.join(","),
        id(events.first_seq),
        id(events.last_seq),
        events.has_more
    )
}

#[cfg(test)]
mod tests {
    use actix_web::{FromRequest, dev::Payload, test::TestRequest};

    use super::*;

    #[test]
    fn a_page_holds_the_stored_bytes() {
        let stored = [r#"{"seq":7,  "type":"x"}"#, r#"{"seq":8}"#].map(str::to_owned).to_vec();
        let events = Events { events: stored, first_seq: Some(7), last_seq: Some(8), has_more: true };
        let json = page_json(&events);
        assert_eq!(json, r#"{"data":[{"seq":7,  "type":"x"},{"seq":8}],"first_id":7,"last_id":8,"has_more":true}"#);
        let none = Events { events: vec![], first_seq: None, last_seq: None, has_more: false };
        assert_eq!(page_json(&none), r#"{"data":[],"first_id":null,"last_id":null,"has_more":false}"#);
    }

    #[actix_web::test]
    async fn the_header_wins_over_the_parameter() {
        async fn at(uri: &str, header: Option<&'static str>) -> Result<From, Code> {
            let request = TestRequest::with_uri(uri);
            let request = match header {
                Some(value) => request.insert_header(("last-event-id", value)),
                None => request,
            };
            let request = request.to_http_request();
            let params = Params::from_request(&request, &mut Payload::None).await.unwrap();
            start(&request, &params).map_err(|error| error.code)
        }
        assert_eq!(at("/", None).await, Ok(From::Now));
        assert_eq!(at("/?after=0", None).await, Ok(From::After(0)));
        assert_eq!(at("/?after=3", Some("9")).await, Ok(From::After(9)));
        assert_eq!(at("/?after=3", Some("")).await, Ok(From::After(3)));
        assert_eq!(at("/?after=x", None).await, Err(Code::InvalidCursor));
        assert_eq!(at("/", Some("x")).await, Err(Code::InvalidCursor));
    }
}
