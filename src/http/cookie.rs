//! The cookie of a login: its name, and how it is set, read and taken back.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::header::{COOKIE, HOST, HeaderMap, ORIGIN},
};

use super::guard::is_loopback_host;

/// Its name.
const NAME: &str = "greenroom";

/// The value that a browser sends; none when there is none, or more than one: another page of this host may have added
/// its own, and which one is ours cannot be told.
pub(super) fn value(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim() == NAME).map(|(_, value)| value.trim());
    values.next().filter(|_| values.next().is_none())
}

/// The `Set-Cookie` with a value: for this host and no page's script, and never over a network without TLS.
pub(super) fn set(request: &HttpRequest, value: &str, lifetime: Duration) -> String {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let loopback = header(HOST).is_some_and(is_loopback_host);
    let https = header(ORIGIN).is_some_and(|origin| origin.starts_with("https://"));
    let secure = if https || !loopback { "; Secure" } else { "" };
    format!("{NAME}={value}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={}", lifetime.as_secs())
}

/// The `Set-Cookie` that takes it back.
pub(super) fn clear(request: &HttpRequest) -> String {
    set(request, "", Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn of_two_cookies_none_counts() {
        let of = |lines: &[&'static str]| {
            let request =
                lines.iter().fold(TestRequest::default(), |request, line| request.append_header((COOKIE, *line)));
            value(request.to_http_request().headers()).map(str::to_owned)
        };
        assert_eq!(of(&["a=b; greenroom=x; c=d"]).as_deref(), Some("x"));
        assert_eq!(of(&["greenroom=x; greenroom=y"]), None);
        assert_eq!(of(&["greenroom=x", "greenroom=y"]), None);
        assert_eq!((of(&[]), of(&["greenrooms=x"])), (None, None));
    }

    #[test]
    fn it_is_secure_but_on_this_machine() {
        let of = |host: &'static str, origin: Option<&'static str>| {
            let request = TestRequest::default().insert_header(("host", host));
            let request = origin.into_iter().fold(request, |request, origin| request.insert_header((ORIGIN, origin)));
            set(&request.to_http_request(), "v", Duration::from_secs(60))
        };
        let plain = "greenroom=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=60";
        assert_eq!(of("localhost:4910", None), plain);
        for secure in [of("green.example.org", None), of("localhost", Some("https://chat.example.org"))] {
            assert_eq!(secure, plain.replace("SameSite=Strict;", "SameSite=Strict; Secure;"));
        }
    }
}
