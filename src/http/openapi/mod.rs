//! The OpenAPI 3.1 description of everything that this server answers, made from the types of the wire, the table of
//! error codes and one description per call.
//!
//! **To describe a new route:** add a line to the topic it belongs to (`server.rs`, `sessions.rs`, …; a new topic is a
//! new file with a `describe` that [`document`] calls). A call is
//!
//! ```text
//! doc.get("/v1/things/{id}", "getThing", "One thing")   // method and path, operationId, summary
//!     .about("What a reader must know.")                 // optional
//!     .reads()                                           // who may: open(), reads(), writes(), admin()
//!     .id::<ThingId>("The thing.", Code::ThingNotFound)  // what the path has
//!     .query("deep", "With all its parts.", json!({"type": "boolean"}))
//!     .takes::<ThingChange>(&[("rename", json!({"name": "x"}))])  // body, with examples that the tests post
//!     .answers::<Thing>(200, "The thing.")
//!     .refuses(&[Code::ThingExists])                     // what it can answer beside what all such calls can
//!     .done();
//! ```
//!
//! Types of bodies and answers derive `JsonSchema`: field comments become descriptions, `#[schemars(…)]` adds limits.
//! Codes that every call of a sort can answer are in `refusals.rs`. A test compares the routes with the descriptions
//! in both directions; after a change `cargo run -- openapi > docs/openapi.json` renews the copy that is kept.

mod accounts;
mod chat;
mod choices;
mod document;
mod doors;
mod events;
mod frames;
mod messages;
mod openai;
mod operate;
mod operation;
mod refusals;
mod server;
mod sessions;
mod turns;
mod webhook_endpoints;
mod webhooks;

use std::sync::OnceLock;

use actix_web::{HttpResponse, http::header::ContentType};
use serde_json::Value;

use document::Document;

/// The description.
#[must_use]
pub fn document() -> Value {
    let mut doc = Document::new();
    server::describe(&mut doc);
    accounts::describe(&mut doc);
    sessions::describe(&mut doc);
    messages::describe(&mut doc);
    turns::describe(&mut doc);
    choices::describe(&mut doc);
    chat::describe(&mut doc);
    events::describe(&mut doc);
    doors::describe(&mut doc);
    openai::describe(&mut doc);
    webhook_endpoints::describe(&mut doc);
    webhooks::describe(&mut doc);
    operate::describe(&mut doc);
    doc.finish()
}

/// The description as the text that is served and kept: indented, with a line break at its end.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{:#}\n", document()))
}

/// `GET /openapi.json`
pub(super) async fn serve() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(text())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `GET /v1/me` and the like, as described.
    fn described(document: &Value) -> BTreeSet<String> {
        let paths = document["paths"].as_object().unwrap();
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.filter(|name| *name != "parameters").map(move |name| format!("{} {path}", name.to_uppercase()))
        });
        calls.collect()
    }

    #[test]
    fn every_route_is_described_and_every_description_has_its_route() {
        let routes: BTreeSet<String> = crate::http::routes().into_iter().collect();
        let described = described(&document());
        let missing: Vec<_> = routes.difference(&described).collect();
        let invented: Vec<_> = described.difference(&routes).collect();
        assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:?}; no such route: {invented:?}");
        assert!(routes.len() > 30, "the routes are not listed right: {routes:?}");
    }

    #[test]
    fn references_and_links_lead_somewhere_and_ids_are_unique() {
        let document = document();
        let mut stack = vec![&document];
        let (mut ids, mut linked) = (BTreeSet::new(), BTreeSet::new());
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
                    }
                    match fields.get("operationId") {
                        Some(Value::String(id)) if fields.contains_key("responses") => {
                            assert!(ids.insert(id), "{id} is there twice");
                        }
                        Some(Value::String(id)) => drop(linked.insert(id)),
                        _ => {}
                    }
                    stack.extend(fields.values());
                }
                Value::Array(items) => stack.extend(items),
                _ => {}
            }
        }
        assert!(linked.len() > 5 && linked.is_subset(&ids), "links to no call: {:?}", linked.difference(&ids));
    }
}
