//! Who may speak to this server at all: `Host` against DNS rebinding, `Origin` against pages of other sites. Runs
//! before anything else of a request, WebSocket upgrades included.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue,
            ORIGIN, VARY,
        },
    },
    middleware::Next,
};

use super::Api;
use crate::{
    config::ServerConfig,
    error::{ApiError, Code},
};

/// Headers of answers that a page of another origin may read.
const EXPOSED: &str = "allow, location, ratelimit-limit, ratelimit-policy, ratelimit-remaining, ratelimit-reset, \
                       retry-after, www-authenticate, x-request-id, x-turn-id, x-vercel-ai-ui-message-stream";

/// The rules, from `[server]` and the address that is bound.
#[derive(Debug, Clone)]
pub struct Allowed {
    hosts: Vec<String>,
    origins: Vec<String>,
    bound: IpAddr,
}

/// Where a request that may pass comes from.
#[derive(Debug, PartialEq, Eq)]
enum From {
    /// No page, or a page of this server.
    Here,
    /// A page of a configured origin: its browser needs CORS headers.
    Elsewhere(HeaderValue),
}

impl Allowed {
    /// The rules of a server that is bound to `bound`.
    #[must_use]
    pub fn new(config: &ServerConfig, bound: SocketAddr) -> Self {
        let plain = |text: &String| text.trim_end_matches('/').to_ascii_lowercase();
        Self {
            hosts: config.allowed_hosts.iter().map(|host| host_of(host).to_ascii_lowercase()).collect(),
            origins: config.allowed_origins.iter().map(plain).collect(),
            bound: bound.ip(),
        }
    }

    fn host(&self, authority: &str) -> bool {
        let host = host_of(authority).to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok();
        is_loopback_host(authority)
            || address.is_some_and(|ip| ip == self.bound && !ip.is_unspecified())
            || self.hosts.contains(&host)
    }

    fn check(&self, request: &ServiceRequest) -> Result<From, ApiError> {
        let refused = |code, what: &str| Err(ApiError::new(code, what));
        let mut hosts = request.headers().get_all(HOST);
        let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
        // A request line with a whole URL has its authority beside the header: both must be ours.
        let authority = request.uri().authority().map(|authority| authority.as_str());
        if hosts.next().is_some() || !self.host(host) || !authority.is_none_or(|authority| self.host(authority)) {
            return refused(Code::HostNotAllowed, "This Host is not served; server.allowed_hosts names more.");
        }
        let mut origins = request.headers().get_all(ORIGIN);
        let Some(origin) = origins.next() else { return Ok(From::Here) };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let own = text.strip_prefix("http://").is_some_and(|rest| same_authority(rest, host));
        match (origins.next(), own, text != "null" && self.origins.contains(&text)) {
            (None, true, _) => Ok(From::Here),
            (None, false, true) => Ok(From::Elsewhere(origin.clone())),
            _ => {
                refused(Code::OriginNotAllowed, "Pages of this Origin may not call; server.allowed_origins names more.")
            }
        }
    }
}

/// True for the names of this machine.
pub(super) fn is_loopback_host(authority: &str) -> bool {
    let host = host_of(authority).to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The host of `host[:port]`; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let port = authority.get(end..).and_then(|rest| rest.find(':')).map(|colon| end + colon);
    authority.get(..port.unwrap_or(authority.len())).unwrap_or_default()
}

/// True when the origin's page came from this host, over TLS or not: a proxy may have taken TLS off.
pub(super) fn is_origin_of(origin: &str, host: &str) -> bool {
    match origin.strip_prefix("https://") {
        Some(rest) => {
            same_authority(rest.strip_suffix(":443").unwrap_or(rest), host.strip_suffix(":443").unwrap_or(host))
        }
        None => origin.strip_prefix("http://").is_some_and(|rest| same_authority(rest, host)),
    }
}

/// True when both name the same host and port; without a port it is 80, as this server speaks plain HTTP.
fn same_authority(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.strip_suffix(":80").unwrap_or(text).to_ascii_lowercase();
    !a.is_empty() && plain(a) == plain(b)
}

/// The middleware.
///
/// # Errors
/// Never of its own: a refusal is an answer.
pub async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let from = match Api::of(request.request()).and_then(|api| api.allowed.check(&request)) {
        Ok(from) => from,
        Err(error) => return Ok(request.into_response(error.error_response())),
    };
    let From::Elsewhere(origin) = from else { return Ok(next.call(request).await?.map_into_boxed_body()) };

    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut answer = HttpResponse::NoContent();
        answer.insert_header((ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"));
        answer.insert_header((
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key, last-event-id, prefer, x-ai-sdk-version, x-request-id, \
             x-session-key",
        ));
        answer.insert_header((ACCESS_CONTROL_MAX_AGE, "600"));
        request.into_response(answer.finish())
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // No `Access-Control-Allow-Credentials`: pages of other origins call with a token of their own, never with the login
    // of this one.
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.insert(
        VARY,
        HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn check(bound: &str, headers: &[(&str, &str)]) -> Result<From, Code> {
        let config = ServerConfig {
            allowed_hosts: vec!["Green.example.org".into()],
            allowed_origins: vec!["https://chat.example.org/".into(), "null".into()],
            ..ServerConfig::default()
        };
        let allowed = Allowed::new(&config, bound.parse().unwrap());
        let request = headers.iter().fold(TestRequest::default(), |request, header| request.append_header(*header));
        allowed.check(&request.to_srv_request()).map_err(|error| error.code)
    }

    #[test]
    fn hosts_are_loopback_the_bound_address_or_configured() {
        for good in [
            "localhost",
            "LOCALHOST:4910",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]:4910",
            "green.example.org:443",
            "10.0.0.5",
        ] {
            assert_eq!(check("10.0.0.5:4910", &[("host", good)]), Ok(From::Here), "{good}");
        }
        for bad in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.6", "", "0.0.0.0", "[::2]"]
        {
            assert_eq!(check("0.0.0.0:4910", &[("host", bad)]), Err(Code::HostNotAllowed), "{bad}");
        }
        assert_eq!(check("127.0.0.1:1", &[]), Err(Code::HostNotAllowed));
        assert_eq!(check("127.0.0.1:1", &[("host", "localhost"), ("host", "localhost")]), Err(Code::HostNotAllowed));
    }

    #[test]
    fn origins_are_the_same_place_or_configured() {
        let from =
            |host: &'static str, origin: &'static str| check("127.0.0.1:1", &[("host", host), ("origin", origin)]);
        assert_eq!(from("localhost:4910", "http://localhost:4910"), Ok(From::Here));
        assert_eq!(from("localhost", "http://LOCALHOST:80"), Ok(From::Here));
        let chat = "https://chat.example.org";
        assert_eq!(from("localhost:4910", chat), Ok(From::Elsewhere(HeaderValue::from_static(chat))));
        for bad in ["http://localhost:4911", "https://localhost:4910", "http://evil.example", "null", "", "http://"] {
            assert_eq!(from("localhost:4910", bad), Err(Code::OriginNotAllowed), "{bad}");
        }
    }
}
