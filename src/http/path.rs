//! Ids in paths, parsed at the edge: a malformed session key is a mistake of the caller, a malformed id of anything
//! else names nothing that exists.

use std::{
    future::{Ready, ready},
    str::FromStr,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};

use crate::{
    error::{ApiError, Code},
    ids::{ChoiceId, DeliveryId, EndpointId, MessageId, SessionKey, TokenId, TurnId},
};

/// The session key of a path.
#[derive(Debug, Clone)]
pub struct Key(pub SessionKey);

/// The session key and the id under it.
#[derive(Debug, Clone)]
pub struct Under<T>(pub SessionKey, pub T);

/// The id of something that belongs to no session.
#[derive(Debug, Clone)]
pub struct Id<T>(pub T);

/// A webhook endpoint and the delivery to it.
#[derive(Debug, Clone)]
pub struct DeliveryTo(pub EndpointId, pub DeliveryId);

/// Something that has an id.
pub trait Named: FromStr {
    /// The error for an id that names nothing.
    const NOT_FOUND: Code;
    /// What it is, for a person.
    const WHAT: &'static str;

    /// Parses an id.
    ///
    /// # Errors
    /// [`Self::NOT_FOUND`].
    fn named(text: &str) -> Result<Self, ApiError> {
        let missing = || ApiError::new(Self::NOT_FOUND, format!("There is no {} {text:?}.", Self::WHAT));
        text.parse().ok().ok_or_else(missing)
    }
}

macro_rules! named {
    ($($id:ty, $code:ident, $what:literal;)*) => {$(
        impl Named for $id {
            const NOT_FOUND: Code = Code::$code;
            const WHAT: &'static str = $what;
        }
    )*};
}

named! {
    TurnId, TurnNotFound, "turn";
    MessageId, MessageNotFound, "message";
    ChoiceId, ChoiceNotFound, "choice";
    TokenId, TokenNotFound, "token";
    EndpointId, EndpointNotFound, "webhook endpoint";
    DeliveryId, DeliveryNotFound, "delivery";
}

/// Parses a session key.
///
/// # Errors
/// `invalid_id`.
pub fn key(text: &str) -> Result<SessionKey, ApiError> {
    text.parse().map_err(|error| ApiError::new(Code::InvalidId, format!("{text:?} is no session key: {error}.")))
}

/// The path as the router decoded it: `%3A` is `:` here, and `%2F` is still `%2F`, which no key may hold.
fn segment<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().get(name).unwrap_or_default()
}

impl FromRequest for Key {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(key(segment(request, "key")).map(Self))
    }
}

impl<T: Named + 'static> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(T::named(segment(request, "id")).map(Self))
    }
}

impl FromRequest for DeliveryTo {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = EndpointId::named(segment(request, "id"))
            .and_then(|endpoint| Ok(Self(endpoint, DeliveryId::named(segment(request, "delivery"))?)));
        ready(parsed)
    }
}

impl<T: Named + 'static> FromRequest for Under<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = key(segment(request, "key")).and_then(|key| Ok(Self(key, T::named(segment(request, "id"))?)));
        ready(parsed)
    }
}

/// The path of a turn, for `Location`.
pub(super) fn turn_path(key: &SessionKey, id: TurnId) -> String {
    format!("{}/turns/{id}", session_path(key))
}

/// The path of a session, for `Location`. Of what a key may hold, only `:` and `@` are not plain in a path.
pub(super) fn session_path(key: &SessionKey) -> String {
    format!("/v1/sessions/{}", key.as_str().replace(':', "%3A").replace('@', "%40"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_cannot_exist_are_not_found() {
        assert_eq!(TurnId::named("turn_xyz").unwrap_err().code, Code::TurnNotFound);
        assert_eq!(ChoiceId::named("").unwrap_err().code, Code::ChoiceNotFound);
        let id = TurnId::new();
        assert_eq!(TurnId::named(&id.to_string()), Ok(id));
    }

    #[test]
    fn locations_are_encoded() {
        assert_eq!(session_path(&"web:a@b.c".parse().unwrap()), "/v1/sessions/web%3Aa%40b.c");
    }
}
