//! The outermost layer: request ids, the error envelope, panics, the log line of a failure. Every answer passes here,
//! so no text of the framework leaks.

use std::{panic::AssertUnwindSafe, time::Instant};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
            RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
};
use futures_util::FutureExt;
use serde_json::json;

use super::{body::Unread, caller::Spent, errors, openai};
use crate::{
    access::Budget,
    error::{ApiError, Code},
    logs,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names a request in the answer, in its error and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's id when it is 1 to 128 characters of `[A-Za-z0-9._:-]`, else a fresh one.
    fn of(headers: &HeaderMap) -> Self {
        let sane = |text: &&str| {
            (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
        };
        let theirs = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
        Self(theirs.map_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()), str::to_owned))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromRequest for RequestId {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(request.extensions().get::<Self>().cloned().ok_or_else(errors::internal))
    }
}

/// The middleware.
///
/// # Errors
/// When a handler panicked or a layer failed: the error is whole, with envelope and request id.
pub async fn boundary(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let log =
        LogLine { id: id.clone(), method: request.method().clone(), uri: request.uri().clone(), at: Instant::now() };

    let openai = openai::speaks(log.uri.path());

    let outcome =
        AssertUnwindSafe(logs::within(id.as_str(), async move { next.call(request).await })).catch_unwind().await;
    let response = match outcome {
        Ok(Ok(response)) => response.map_into_boxed_body(),
        Ok(Err(error)) => {
            let known = error.as_error::<ApiError>().cloned();
            let error = known.unwrap_or_else(|| errors::from_status(error.as_response_error().status_code()));
            log.write(error.code.status(), Some(&error));
            return Err(Failed { id, error, openai }.into());
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("");
            log::error!(request_id = id.as_str(); "a handler panicked: {text}");
            let error = errors::internal();
            log.write(error.code.status(), Some(&error));
            return Err(Failed { id, error, openai }.into());
        }
    };

    let error = error_of(&response);
    log.write(response.status().as_u16(), error.as_ref());
    log.count(response.request().match_pattern().as_deref(), response.status().as_u16());
    let unread = response.request().extensions_mut().remove::<Unread>();
    let mut response = match error {
        None => response,
        Some(error) => {
            let body = envelope(&error, &id, openai);
            let mut response = response.map_body(|_, _| match unread {
                Some(unread) => unread.behind(body),
                None => BoxBody::new(body),
            });
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            if openai {
                openai::tell_retry(&error, response.headers_mut());
            }
            response
        }
    };
    let spent = response.request().extensions().get::<Spent>().copied();
    finish(response.headers_mut(), &id);
    if let Some(Spent(budget)) = spent {
        tell_rate(response.headers_mut(), budget);
    }
    Ok(response)
}

/// The error that a response stands for: ours, or the framework's in our words.
fn error_of(response: &ServiceResponse<BoxBody>) -> Option<ApiError> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let ours = response.response().extensions().get::<ApiError>().cloned();
    let written = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
    ours.or_else(|| (!written).then(|| errors::from_status(status)))
}

/// `{"error":{…}}`
fn envelope(error: &ApiError, id: &RequestId, openai: bool) -> Vec<u8> {
    crate::metrics::refused(error.code);
    let error = if openai { openai::worded(error.clone()).to_json(id.as_str()) } else { error.to_json(id.as_str()) };
    json!({"error": error}).to_string().into_bytes()
}

/// Headers of every answer.
fn finish(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        // Nothing that an answer holds is run, wherever it is shown; a page says for itself what it needs.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// How much of its rate a caller has left.
fn tell_rate(headers: &mut HeaderMap, budget: Budget) {
    let names = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    for (name, value) in names.into_iter().zip([budget.limit, budget.remaining, budget.reset]) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    let window = budget.limit.div_ceil(budget.per_second.max(1));
    if let Ok(policy) = HeaderValue::from_str(&format!("{};w={window}", budget.limit)) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
    }
}

/// What is known of a request when its answer leaves.
struct LogLine {
    id: RequestId,
    method: actix_web::http::Method,
    uri: actix_web::http::Uri,
    at: Instant,
}

impl LogLine {
    /// Counts the answer by the template of its route: a path would be a label without a bound, and so would a method
    /// that nobody knows.
    fn count(&self, route: Option<&str>, status: u16) {
        let Some(metrics) = crate::metrics::get() else { return };
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known.into_iter().find(|known| *known == self.method.as_str()).unwrap_or("other");
        let route = route.unwrap_or("none");
        metrics.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        metrics.request_duration.with_label_values(&[method, route]).observe(self.at.elapsed().as_secs_f64());
    }

    /// Failures of ours once, as errors; everything else is for debugging, and so is a refusal because we stop.
    fn write(&self, status: u16, error: Option<&ApiError>) {
        let (id, method, path) = (self.id.as_str(), self.method.as_str(), self.uri.path());
        let duration_ms = self.at.elapsed().as_millis();
        match error {
            // How a turn has ended is told where it ends.
            Some(error) if error.details.contains_key("state") => {
                log::debug!(request_id = id, method, path, status, duration_ms; "request answered");
            }
            Some(error) if status >= 500 && error.code != Code::ShuttingDown => log::error!(
                request_id = id, method, path, status, duration_ms, code = error.code.as_str();
                "request failed: {}", error.message
            ),
            _ => log::debug!(request_id = id, method, path, status, duration_ms; "request answered"),
        }
    }
}

/// An error that has left the handler's reach: it writes its own envelope.
#[derive(Debug)]
struct Failed {
    id: RequestId,
    error: ApiError,
    /// True for the calls whose errors OpenAI's clients read.
    openai: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for Failed {
    fn status_code(&self) -> StatusCode {
        self.error.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.error.retry_after {
            response.insert_header((RETRY_AFTER, seconds));
        }
        if let Some(challenge) = errors::challenge(&self.error) {
            response.insert_header((WWW_AUTHENTICATE, challenge));
        }
        let mut response = response.content_type("application/json").body(envelope(&self.error, &self.id, self.openai));
        finish(response.headers_mut(), &self.id);
        if self.openai {
            openai::tell_retry(&self.error, response.headers_mut());
        }
        response
    }
}

#[cfg(test)]
impl From<&str> for RequestId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{App, body::to_bytes, middleware::from_fn, web};

    use super::*;
    use crate::error::Code;

    #[actix_web::test]
    async fn a_panic_is_a_500_and_the_worker_lives_on() {
        async fn panics() -> HttpResponse {
            panic!("a secret inside")
        }
        async fn fails() -> Result<HttpResponse, ApiError> {
            Err(ApiError::new(Code::QueueFull, "full"))
        }
        async fn foreign() -> Result<HttpResponse, Error> {
            Err(actix_web::error::ErrorImATeapot("the framework's own words"))
        }
        let routes = App::new()
            .route("/panics", web::get().to(panics))
            .route("/fails", web::get().to(fails))
            .route("/foreign", web::get().to(foreign));
        let app = actix_web::test::init_service(routes.wrap(from_fn(boundary))).await;
        for (path, status, code, retry) in [
            ("/panics", 500, "internal", None),
            ("/fails", 429, "queue_full", Some("1")),
            ("/foreign", 418, "invalid_parameter", None),
            ("/panics", 500, "internal", None),
        ] {
            let request =
                actix_web::test::TestRequest::get().uri(path).insert_header(("x-request-id", "r1")).to_request();
            let response = match actix_web::test::try_call_service(&app, request).await {
                Ok(response) => response.into_parts().1,
                Err(error) => error.error_response(),
            };
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(response.headers().get(REQUEST_ID).unwrap(), "r1");
            assert_eq!(response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap()), retry);
            let body = to_bytes(response.into_body()).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["error"]["code"], &body["error"]["request_id"]), (&json!(code), &json!("r1")));
            assert!(!body.to_string().contains("secret") && !body.to_string().contains("own words"));
        }
    }

    fn of(value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
        RequestId::of(&headers).0
    }

    #[test]
    fn a_sane_request_id_is_kept_and_another_replaced() {
        assert_eq!(of("job-7:step.2_x"), "job-7:step.2_x");
        assert_eq!(of(&"a".repeat(128)).len(), 128);
        for bad in ["", "a b", "a\"b", &"a".repeat(129)] {
            let made = of(bad);
            assert!(made.starts_with("req_") && made.len() == 36, "{bad:?} → {made}");
        }
    }
}
