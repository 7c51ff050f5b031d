//! `GET …/events`: the log of a session as a stream (SSE), or in pages (JSON).

use actix_web::{HttpRequest, HttpResponse, http::header::ContentType, web::Data};

use super::{
    Api, Params,
    caller::Reader,
    follow::{follow, follow_all},
    messages::accepts,
    params::seq,
    path::Key,
    sse::{self, Prime},
};
use crate::{
    error::{ApiError, Code},
    gateway::{Cursor, EventRange, Events, FeedRange, FeedStart, Filter, From, Principal},
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
    // All parameters are checked in both forms, so that a mistake shows whatever the client accepts.
    let raw = params.flag("raw")?.unwrap_or(false);
    let (range, limit) = (range(&params)?, params.count("limit", 100, 1..=MAX_PAGE)? as usize);
    let from = start(&request, &params)?;
    let types = params.types();
    if accepts(&request, "application/json") && !accepts(&request, "text/event-stream") {
        let events = api.gateway.events(&who, &key, range, limit, &types).await?;
        return Ok(HttpResponse::Ok().content_type(ContentType::json()).body(page_json(&events, u64::to_string)));
    }
    let filter = Filter { types, turn: None, raw };
    let subscription = api.gateway.subscribe(&who, &key, from, filter).await?;
    let prime = if from == From::Now { Prime::FromHello } else { Prime::No };
    Ok(sse::response(follow(subscription, key), api.config.stream.heartbeat.0, prime))
}

/// `Last-Event-ID` wins over `after`: a browser comes back to the same URL with the newer of the two.
fn start(request: &HttpRequest, params: &Params) -> Result<From, ApiError> {
    let cursor = match last_event_id(request) {
        Some(text) => Some(seq("Last-Event-ID", text)?),
        None => params.seq("after")?,
    };
    Ok(cursor.map_or(From::Now, From::After))
}

/// `GET /v1/events`: the same over all sessions that the caller may see.
pub(super) async fn all(
    request: HttpRequest,
    api: Data<Api>,
    Reader(who): Reader,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    if accepts(&request, "application/json") && !accepts(&request, "text/event-stream") {
        return page_of_all(&api, &who, &params).await;
    }
    let header = last_event_id(&request).map(|text| cursor("Last-Event-ID", text)).transpose()?;
    let start = match header {
        Some(cursor) => Some(cursor),
        None => params.get("after").map(|text| cursor("after", text)).transpose()?,
    };
    let start = start.map_or(FeedStart::Now, FeedStart::After);
    let subscription = api.gateway.follow_all(&who, start, params.types())?;
    Ok(sse::response(follow_all(subscription), api.config.stream.heartbeat.0, Prime::No))
}

/// Reads a cursor of the feed; 0 is the beginning, as everywhere.
fn cursor(name: &str, text: &str) -> Result<Cursor, ApiError> {
    if text == "0" {
        return Ok(Cursor::default());
    }
    text.parse().map_err(|error| {
        ApiError::new(Code::InvalidCursor, format!("{name}: {error}; take one as it came, or 0."))
            .with("parameter", name)
    })
}

async fn page_of_all(api: &Api, who: &Principal, params: &Params) -> Result<HttpResponse, ApiError> {
    let limit = params.count("limit", 100, 1..=MAX_PAGE)? as usize;
    let range = match (params.get("after"), params.get("before")) {
        (None, Some(before)) => FeedRange::Before(cursor("before", before)?),
        (after, None) => FeedRange::After(after.map_or_else(|| Ok(Cursor::default()), |text| cursor("after", text))?),
        (Some(_), Some(_)) => return Err(both()),
    };
    let events = api.gateway.all_events(who, range, limit, &params.types()).await?;
    let quoted = |cursor: &String| format!("\"{cursor}\"");
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(page_json(&events, quoted)))
}

fn both() -> ApiError {
    ApiError::new(Code::InvalidParameter, "after and before exclude each other.")
}

/// The cursor of a browser that comes back.
fn last_event_id(request: &HttpRequest) -> Option<&str> {
    let header = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    header.filter(|text| !text.is_empty())
}

/// Which events a page has.
fn range(params: &Params) -> Result<EventRange, ApiError> {
    match (params.seq("after")?, params.seq("before")?) {
        (None, Some(before)) => Ok(EventRange::Before(before)),
        (after, None) => Ok(EventRange::After(after.unwrap_or(0))),
        (Some(_), Some(_)) => Err(both()),
    }
}

/// The events go in as they are stored, byte for byte.
fn page_json<C>(events: &Events<C>, shown: impl Fn(&C) -> String) -> String {
    let id = |cursor: &Option<C>| cursor.as_ref().map_or_else(|| "null".to_owned(), &shown);
    let gap = |(from, to): &(u64, u64)| format!(r#"{{"from":{from},"to":{to},"reason":"pruned"}}"#);
    let gaps = events.gaps.iter().map(gap).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"data":[{}],"first_id":{},"last_id":{},"has_more":{}{}}}"#,
        events.events.join(","),
        id(&events.first),
        id(&events.last),
        events.has_more,
        if gaps.is_empty() { String::new() } else { format!(r#","gaps":[{gaps}]"#) }
    )
}

#[cfg(test)]
mod tests {
    use actix_web::{FromRequest, dev::Payload, test::TestRequest};

    use super::*;

    #[test]
    fn a_page_holds_the_stored_bytes() {
        let stored = [r#"{"seq":7,  "type":"x"}"#, r#"{"seq":8}"#].map(str::to_owned).to_vec();
        let events = Events { events: stored, first: Some(7), last: Some(8), has_more: true, gaps: vec![] };
        let json = page_json(&events, u64::to_string);
        assert_eq!(json, r#"{"data":[{"seq":7,  "type":"x"},{"seq":8}],"first_id":7,"last_id":8,"has_more":true}"#);
        let gapped = page_json(&Events { gaps: vec![(2, 6)], ..events }, u64::to_string);
        assert!(gapped.ends_with(r#","has_more":true,"gaps":[{"from":2,"to":6,"reason":"pruned"}]}"#), "{gapped}");
        let none = Events { events: vec![], first: None, last: None, has_more: false, gaps: vec![] };
        assert_eq!(page_json(&none, u64::to_string), r#"{"data":[],"first_id":null,"last_id":null,"has_more":false}"#);
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
