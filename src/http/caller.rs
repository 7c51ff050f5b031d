//! Who calls, and whether they may: an argument of every handler, so that forgetting it shows in the signature.
//!
//! A bearer token counts before a cookie. A cookie counts only where the browser does not say that another origin sent
//! the request: the guard has refused strange origins already, those that are configured may call with a token alone, and
//! `SameSite=Strict` keeps the cookie at home in the first place. A caller without such a header is no browser.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};

use super::{Api, cookie, guard::is_origin_of};
use crate::{
    access::{Budget, Via, invalid_credentials, missing_credentials},
    error::{ApiError, Code},
    gateway::{Principal, Scope},
    timestamp::Timestamp,
};

/// A caller who may see.
#[derive(Debug, Clone)]
pub struct Reader(pub Principal);

/// A caller who may send and change.
#[derive(Debug, Clone)]
pub struct Writer(pub Principal);

/// A caller who may see and change everything.
#[derive(Debug, Clone)]
pub struct Admin(pub Principal);

/// A caller with whatever scopes.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

/// A caller who has logged in with a browser: no token alone can do what this is for.
#[derive(Debug, Clone)]
pub struct Browser(pub Principal);

/// A caller of a WebSocket, or why it is none: a page cannot read the refusal of a handshake, so it is told afterwards.
#[derive(Debug, Clone)]
pub struct Knocking(pub Result<Principal, ApiError>);

/// What is left of a caller's rate, for the headers of the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent(pub(super) Budget);

/// How a browser says which site's page sent a request.
const SITE: &str = "sec-fetch-site";
/// The subprotocol that carries a token where a browser can set no header.
const BEARER_PROTOCOL: &str = "bearer.";

/// The caller of a request. In open mode everybody is the local user; the guard has kept strangers out.
fn caller(request: &HttpRequest) -> Result<Principal, ApiError> {
    let access = Api::of(request)?.gateway.access();
    let book = access.book();
    let ip = request.peer_addr().map(|address| address.ip());
    let who = if book.is_open() {
        Principal::local()
    } else {
        let now = Timestamp::now();
        match bearer(request)? {
            Some(token) => match book.caller(token, false, now) {
                Some(who) => who,
                None => return Err(access.guesses.wrong(ip).err().unwrap_or_else(invalid_credentials)),
            },
            None => {
                let cookie = cookie::value(request.headers()).ok_or_else(missing_credentials)?;
                from_here(request.headers())?;
                book.caller(cookie, true, now).ok_or_else(invalid_credentials)?
            }
        }
    };
    let who = Principal { ip, ..who };
    if let Some((budget, counted)) = access.limits.request(&who) {
        request.extensions_mut().insert(Spent(budget));
        counted?;
    }
    Ok(who)
}

/// The bearer token of a request: of its `Authorization`, or for a WebSocket of its subprotocols.
fn bearer(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let headers = request.headers();
    let mut values = headers.get_all(AUTHORIZATION);
    if let Some(value) = values.next() {
        let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
        let single = values.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
        return if single { Ok(Some(token.trim())) } else { Err(invalid_credentials()) };
    }
    if !headers.contains_key(UPGRADE) {
        return Ok(None);
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    let mut words = offered.flat_map(|value| value.split(',')).map(str::trim);
    Ok(words.find_map(|word| word.strip_prefix(BEARER_PROTOCOL)))
}

/// Refuses a cookie that a page of another origin made the browser send.
fn from_here(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let from_here = if headers.contains_key(SITE) {
        headers.get_all(SITE).all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"))
    } else {
        // Not every browser says it, nor of every request: then the origin has to be the one that is called.
        headers.get_all(ORIGIN).all(|origin| origin.to_str().is_ok_and(|origin| is_origin_of(origin, host)))
    };
    if from_here {
        return Ok(());
    }
    let message = "A page of another origin may not call with this browser's login, only with a token.";
    Err(ApiError::new(Code::OriginNotAllowed, message))
}

/// Checks a scope.
///
/// # Errors
/// `missing_scope`.
pub fn require(who: &Principal, scope: Scope) -> Result<(), ApiError> {
    if who.has(scope) {
        Ok(())
    } else {
        Err(ApiError::new(Code::MissingScope, "The credentials lack a scope that this needs.").with("scope", scope))
    }
}

/// Fails unless the caller is a browser that has logged in.
fn logged_in(who: &Principal) -> Result<(), ApiError> {
    match who.via {
        Via::Cookie(..) => Ok(()),
        Via::Token(..) | Via::Webhook => {
            let message = "A token cannot do this: log in with POST /v1/login and call with the cookie.";
            Err(ApiError::new(Code::MissingCredentials, message))
        }
        Via::Open => {
            let message = "There are no tokens yet; make the first one with `greenroom token create --user NAME`.";
            Err(ApiError::new(Code::MissingCredentials, message))
        }
    }
}

macro_rules! callers {
    ($($name:ident, $check:expr;)*) => {$(
        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Ready<Result<Self, ApiError>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let check: fn(&Principal) -> Result<(), ApiError> = $check;
                ready(caller(request).and_then(|who| check(&who).map(|()| Self(who))))
            }
        }
    )*};
}

callers! {
    Reader, |who| require(who, Scope::Read);
    Writer, |who| require(who, Scope::Write);
    Admin, |who| require(who, Scope::Admin);
    Caller, |_| Ok(());
    Browser, logged_in;
}

impl FromRequest for Knocking {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let who = caller(request).and_then(|who| require(&who, Scope::Read).map(|()| who));
        ready(Ok(Self(who)))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_scope_that_is_missing_is_named() {
        let who = Principal { user: "ci".into(), scopes: vec![Scope::Read], ..Principal::local() };
        assert_eq!(require(&who, Scope::Read), Ok(()));
        let error = require(&who, Scope::Write).unwrap_err();
        assert_eq!((error.code, &error.details["scope"]), (Code::MissingScope, &"write".into()));
        let admin = Principal { scopes: vec![Scope::Admin], ..who };
        assert_eq!(require(&admin, Scope::Webhook), Ok(()));
    }

    #[test]
    fn tokens_come_in_one_header_or_as_a_subprotocol() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let request = headers.iter().fold(TestRequest::default(), |request, pair| request.append_header(*pair));
            bearer(&request.to_http_request()).map(|token| token.map(str::to_owned)).map_err(|error| error.code)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("authorization", "bearer  gr_x ")]), Ok(Some("gr_x".into())));
        for bad in ["Basic Z3I=", "gr_x", "", "Bearer"] {
            assert!(matches!(of(&[("authorization", bad)]), Err(Code::InvalidCredentials)), "{bad}");
        }
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(of(&two), Err(Code::InvalidCredentials));
        let offered = ("sec-websocket-protocol", "greenroom.v1, bearer.gr_x");
        assert_eq!(of(&[offered]), Ok(None), "only where a socket is opened");
        assert_eq!(of(&[offered, ("upgrade", "websocket")]), Ok(Some("gr_x".into())));
    }

    #[test]
    fn a_cookie_counts_only_from_this_site() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let request = headers.iter().fold(TestRequest::default(), |request, pair| request.append_header(*pair));
            from_here(request.to_http_request().headers()).is_ok()
        };
        assert!(of(&[]) && of(&[("sec-fetch-site", "same-origin")]) && of(&[("sec-fetch-site", "none")]));
        assert!(!of(&[("sec-fetch-site", "cross-site")]) && !of(&[("sec-fetch-site", "same-site")]));
        let (host, own) = (("host", "a.example"), ("origin", "https://a.example"));
        assert!(of(&[host, own]) && of(&[host, ("origin", "http://a.example:80")]));
        assert!(!of(&[host, ("origin", "https://b.example")]), "a configured origin needs a token");
        assert!(
            !of(&[host, own, ("sec-fetch-site", "cross-site")]) && !of(&[host, own, ("sec-fetch-site", "same-site")])
        );
        assert!(of(&[("host", "127.0.0.1:4910"), own, ("sec-fetch-site", "same-origin")]), "behind a proxy");
        assert!(!of(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
    }
}
