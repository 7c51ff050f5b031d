//! A path with its methods: answers `HEAD` where it answers `GET`, and 405 with `Allow` for the rest.

use actix_web::{
    FromRequest, Handler, HttpRequest, Resource, Responder, guard,
    http::Method,
    web::{self, ServiceConfig},
};

use super::errors;

/// A path that is being described.
pub(super) struct At {
    resource: Resource,
    allow: Vec<&'static str>,
}

macro_rules! method {
    ($(#[$doc:meta])* $name:ident, $method:ident) => {
        $(#[$doc])*
        pub(super) fn $name<F, Args>(self, handler: F) -> Self
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            self.on(Method::$method, stringify!($method), handler)
        }
    };
}

impl At {
    pub(super) fn new(path: &str) -> Self {
        Self { resource: web::resource(path), allow: Vec::new() }
    }

    /// `GET`, and `HEAD` with the same headers and no body.
    pub(super) fn get<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.extend(["GET", "HEAD"]);
        let either = guard::Any(guard::Get()).or(guard::Head());
        self.resource = self.resource.route(web::route().guard(either).to(handler));
        self
    }

    method!(
        /// `GET` alone: the answer has no end that a `HEAD` could wait for.
        stream, GET
    );
    method!(post, POST);
    method!(put, PUT);
    method!(patch, PATCH);
    method!(delete, DELETE);

    fn on<F, Args>(mut self, method: Method, name: &'static str, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push(name);
        self.resource = self.resource.route(web::method(method).to(handler));
        self
    }

    /// Adds the path to the app.
    pub(super) fn add(self, app: &mut ServiceConfig) {
        let allow = self.allow;
        let refuse = move |request: HttpRequest| {
            let refused = errors::no_method(&request, &allow);
            async move { refused }
        };
        app.service(self.resource.default_service(web::to(refuse)));
    }
}
