//! A path with its methods: answers `HEAD` where it answers `GET`, and 405 with `Allow` for the rest.

use actix_web::{
    FromRequest, Handler, HttpRequest, Resource, Responder, guard,
    http::Method,
    web::{self, ServiceConfig},
};

use super::errors;

/// The paths of an app as they are added to it.
pub(super) struct Routes<'a> {
    app: &'a mut ServiceConfig,
    #[cfg(test)]
    listed: Vec<String>,
}

impl<'a> Routes<'a> {
    pub(super) fn of(app: &'a mut ServiceConfig) -> Self {
        Self {
            app,
            #[cfg(test)]
            listed: Vec::new(),
        }
    }

    /// What was added, as `GET /v1/me`. `HEAD` goes without saying where there is `GET`.
    #[cfg(test)]
    pub(super) fn listed(self) -> Vec<String> {
        self.listed
    }
}

/// A path that is being described.
pub(super) struct At {
    #[cfg(test)]
    path: String,
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
        Self {
            // A pattern, as of a part that may hold slashes, is no part of the path's name.
            #[cfg(test)]
            path: path.replace(":.+}", "}"),
            resource: web::resource(path),
            allow: Vec::new(),
        }
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
    pub(super) fn add(self, routes: &mut Routes<'_>) {
        let allow = self.allow;
        #[cfg(test)]
        routes
            .listed
            .extend(allow.iter().filter(|method| **method != "HEAD").map(|method| format!("{method} {}", self.path)));
        let refuse = move |request: HttpRequest| {
            let refused = errors::no_method(&request, &allow);
            async move { refused }
        };
        routes.app.service(self.resource.default_service(web::to(refuse)));
    }
}
