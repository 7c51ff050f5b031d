//! Who calls, and whether they may: an argument of every handler, so that forgetting it shows in the signature.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};

use crate::{
    error::{ApiError, Code},
    gateway::{Principal, Scope},
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

/// The caller of a request. In open mode everybody is the local user; the guard has kept strangers out.
fn caller(_request: &HttpRequest) -> Result<Principal, ApiError> {
    Ok(Principal::local())
}

/// Checks a scope.
///
/// # Errors
/// `missing_scope`.
pub fn require(who: &Principal, scope: Scope) -> Result<(), ApiError> {
    if who.scopes.contains(&scope) {
        Ok(())
    } else {
        Err(ApiError::new(Code::MissingScope, "The credentials lack a scope that this needs.").with("scope", scope))
    }
}

macro_rules! scoped {
    ($($name:ident, $scope:ident;)*) => {$(
        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Ready<Result<Self, ApiError>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                ready(caller(request).and_then(|who| require(&who, Scope::$scope).map(|()| Self(who))))
            }
        }
    )*};
}

scoped! {
    Reader, Read;
    Writer, Write;
    Admin, Admin;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_is_missing_is_named() {
        let who = Principal { user: "ci".into(), scopes: vec![Scope::Read] };
        assert_eq!(require(&who, Scope::Read), Ok(()));
        let error = require(&who, Scope::Write).unwrap_err();
        assert_eq!((error.code, &error.details["scope"]), (Code::MissingScope, &"write".into()));
    }
}
