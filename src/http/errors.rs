//! How errors leave: an [`ApiError`] becomes a status and headers here; the envelope is written at the boundary,
//! which knows the request id.

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{ALLOW, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE},
    },
};

use crate::error::{ApiError, Code};

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Without a body: the boundary finds the error in the extensions and writes the envelope.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::new(self.status_code());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = challenge(self) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if self.code == Code::UpgradeRequired {
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response.extensions_mut().insert(self.clone());
        response
    }
}

/// What credentials are wanted, as RFC 6750 tells it.
pub(super) fn challenge(error: &ApiError) -> Option<HeaderValue> {
    match error.code {
        // No token would help where a header with a signature is missing.
        Code::MissingCredentials if error.details.contains_key("parameter") => {
            Some(HeaderValue::from_static("Webhook realm=\"greenroom\""))
        }
        Code::InvalidSignature => {
            Some(HeaderValue::from_static("Webhook realm=\"greenroom\", error=\"invalid_signature\""))
        }
        Code::MissingCredentials => Some(HeaderValue::from_static("Bearer realm=\"greenroom\"")),
        Code::InvalidCredentials => {
            Some(HeaderValue::from_static("Bearer realm=\"greenroom\", error=\"invalid_token\""))
        }
        Code::MissingScope => {
            let scope = error.details.get("scope").and_then(|scope| scope.as_str()).unwrap_or_default();
            let text = format!("Bearer realm=\"greenroom\", error=\"insufficient_scope\", scope=\"{scope}\"");
            HeaderValue::from_str(&text).ok()
        }
        _ => None,
    }
}

/// What an error of the framework is in our words. Its own text never leaves.
pub(super) fn from_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::new(Code::RouteNotFound, "There is no such path."),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(Code::MethodNotAllowed, "This path does not take this method."),
        StatusCode::REQUEST_TIMEOUT => ApiError::new(Code::RequestTimeout, "The request did not arrive in time."),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::BodyTooLarge, "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ApiError::new(Code::UnsupportedMediaType, "A body must be application/json.")
        }
        status if status.is_client_error() => {
            ApiError::new(Code::InvalidParameter, "The request cannot be understood.")
        }
        _ => internal(),
    }
}

/// A fault of ours, in the only words that a client gets.
pub(super) fn internal() -> ApiError {
    ApiError::new(Code::Internal, "Something failed in the server; its log has it under the request id.")
}

/// Answers what no route matches.
pub async fn no_route(request: HttpRequest) -> HttpResponse {
    ApiError::new(Code::RouteNotFound, format!("There is no path {}.", request.path())).error_response()
}

/// Answers a method that a path does not take.
pub(super) fn no_method(request: &HttpRequest, allow: &[&'static str]) -> HttpResponse {
    let allow = allow.join(", ");
    let message = format!("{} does not take {}; it takes {allow}.", request.path(), request.method());
    let mut response = ApiError::new(Code::MethodNotAllowed, message).error_response();
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}
