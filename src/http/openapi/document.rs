//! The document as it grows: paths, tags, and the schemas of the types that they name.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{operation::Operation, refusals};
use crate::http::cookie::NAME as COOKIE;

/// What the description says about the whole.
const ABOUT: &str = "\
A gateway that hosts many long-lived sessions with AI agents.

- Bodies are JSON objects in UTF-8 with `content-type: application/json`; an empty body is `{}`. Unknown fields of a body are \
refused (not so in OpenAI's form, whose clients send many), unknown query parameters are ignored. Answers may gain fields and streams may gain event types: ignore those that \
you do not know.
- Every status from 400 on carries the same envelope, see `Error`. `code` is for programs and never changes its meaning.
- A path that does not take a method answers 405 `method_not_allowed` with `Allow`; a path that is none answers 404 \
`route_not_found`. `HEAD` works where `GET` does, but on streams.
- Every answer has `x-request-id`: the caller's, when it is a sane one.
- In open mode, when no token exists, no credentials are needed and the caller is `local`.";

/// The description so far.
pub(super) struct Document {
    paths: Map<String, Value>,
    tags: Vec<Value>,
    /// Schemas of what the server sends: all fields are there.
    sent: SchemaGenerator,
    /// Schemas of what the server takes: fields with a default may be left out.
    taken: SchemaGenerator,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

impl Document {
    pub(super) fn new() -> Self {
        Self {
            paths: Map::new(),
            tags: Vec::new(),
            sent: settings().for_serialize().into_generator(),
            taken: settings().for_deserialize().into_generator(),
            schemas: Map::new(),
            responses: Map::new(),
        }
    }

    /// The calls that follow belong to this topic.
    pub(super) fn topic(&mut self, name: &str, about: &str) {
        self.tags.push(json!({"name": name, "description": about}));
    }

    pub(super) fn get(&mut self, path: &str, id: &str, summary: &str) -> Operation<'_> {
        self.call("get", path, id, summary)
    }

    pub(super) fn post(&mut self, path: &str, id: &str, summary: &str) -> Operation<'_> {
        self.call("post", path, id, summary)
    }

    pub(super) fn put(&mut self, path: &str, id: &str, summary: &str) -> Operation<'_> {
        self.call("put", path, id, summary)
    }

    pub(super) fn patch(&mut self, path: &str, id: &str, summary: &str) -> Operation<'_> {
        self.call("patch", path, id, summary)
    }

    pub(super) fn delete(&mut self, path: &str, id: &str, summary: &str) -> Operation<'_> {
        self.call("delete", path, id, summary)
    }

    fn call(&mut self, method: &'static str, path: &str, id: &str, summary: &str) -> Operation<'_> {
        let tag = self.tags.last().and_then(|tag| tag.get("name")).cloned().unwrap_or_default();
        Operation::new(self, method, path, json!({"tags": [tag], "operationId": id, "summary": summary}))
    }

    /// The schema of something that the server sends.
    pub(super) fn sent<T: JsonSchema>(&mut self) -> Value {
        self.sent.subschema_for::<T>().to_value()
    }

    /// The schema of something that the server sends, in place and not by name.
    pub(super) fn sent_in_place<T: JsonSchema>(&mut self) -> Value {
        T::json_schema(&mut self.sent).to_value()
    }

    /// The schema of something that the server takes.
    pub(super) fn taken<T: JsonSchema>(&mut self) -> Value {
        self.taken.subschema_for::<T>().to_value()
    }

    /// The schema of something that the server takes, in place and not by name.
    pub(super) fn taken_in_place<T: JsonSchema>(&mut self) -> Value {
        T::json_schema(&mut self.taken).to_value()
    }

    /// A schema that a function makes.
    pub(super) fn taken_with(&mut self, make: fn(&mut SchemaGenerator) -> Schema) -> Value {
        make(&mut self.taken).to_value()
    }

    /// Adds a named schema that no type stands for.
    pub(super) fn schema(&mut self, name: &str, schema: Value) {
        self.schemas.insert(name.to_owned(), schema);
    }

    /// Adds a named response; gives the reference to it.
    pub(super) fn response(&mut self, name: String, response: Value) -> Value {
        let reference = json!({"$ref": format!("#/components/responses/{name}")});
        self.responses.insert(name, response);
        reference
    }

    pub(super) fn add(&mut self, path: &str, method: &str, operation: Value) {
        let item = self.paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(method.to_owned(), operation);
        }
    }

    /// The whole. A type that is both sent and taken has one schema where both are the same, else the one that is
    /// taken has a name of its own; none of the types so far needs that, and a test would show it.
    pub(super) fn finish(mut self) -> Value {
        let mut schemas = self.taken.take_definitions(true);
        schemas.extend(self.sent.take_definitions(true));
        schemas.values_mut().for_each(without_defaults);
        schemas.extend(self.schemas);
        schemas.extend(refusals::schemas());
        schemas.sort_keys();
        self.responses.sort_keys();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Greenroom",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/", "description": "This server."}],
            "tags": self.tags,
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "responses": self.responses,
                "headers": {
                    "RequestId": {
                        "description": "Names the request in the server's log: the caller's own, or a fresh one.",
                        "required": true,
                        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
                    },
                    "RetryAfter": {
                        "description": "Seconds after which to try again.",
                        "schema": {"type": "integer", "minimum": 0},
                    },
                    "RateLimitLimit": {
                        "description": "Where the caller has a rate: calls at once.",
                        "schema": {"type": "integer", "minimum": 1},
                    },
                    "RateLimitRemaining": {
                        "description": "Where the caller has a rate: calls that are left now.",
                        "schema": {"type": "integer", "minimum": 0},
                    },
                    "RateLimitReset": {
                        "description": "Where the caller has a rate: seconds until all calls are back.",
                        "schema": {"type": "integer", "minimum": 0},
                    },
                    "RateLimitPolicy": {
                        "description": "Where the caller has a rate: calls at once, and the seconds in which they come back.",
                        "schema": {"type": "string", "pattern": "^[0-9]+;w=[0-9]+$"},
                    },
                    "Location": {
                        "description": "The path of what was made.",
                        "required": true,
                        "schema": {"type": "string", "format": "uri-reference"},
                    },
                },
                "parameters": {
                    "RequestId": {
                        "name": "x-request-id", "in": "header",
                        "description": "A name for the request: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`. Another is replaced.",
                        "schema": {"type": "string"},
                    },
                },
                "securitySchemes": {
                    "login": {
                        "type": "apiKey", "in": "cookie", "name": COOKIE,
                        "description": "The cookie of a browser that has logged in by `POST /v1/login`.",
                    },
                    "token": {
                        "type": "http", "scheme": "bearer", "bearerFormat": "gr_…",
                        "description": "A token, made by `greenroom token create` or by a browser that is logged in.",
                    },
                },
            },
        })
    }
}

/// Takes away what fields are when they are left out. Comments say it where it is more than nothing; generators of
/// clients read a default as "always there" and then ask callers for the field.
fn without_defaults(schema: &mut Value) {
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        field.remove("default");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Choice, SendMessage, Snapshot};

    #[test]
    fn what_is_sent_is_whole_and_what_is_taken_may_leave_out_defaults() {
        let mut doc = Document::new();
        doc.sent::<Snapshot>();
        doc.taken::<SendMessage>();
        let schemas = &doc.finish()["components"]["schemas"];
        let required = |name: &str| schemas[name]["required"].as_array().map_or(0, Vec::len);
        assert_eq!(required("Snapshot"), schemas["Snapshot"]["properties"].as_object().unwrap().len());
        assert_eq!((required("SendMessage"), &schemas["SendMessage"]["additionalProperties"]), (0, &json!(false)));
    }

    #[test]
    fn a_type_of_both_directions_has_one_schema() {
        let mut doc = Document::new();
        doc.sent::<Choice>();
        let whole = super::super::document();
        let schemas = whole["components"]["schemas"].as_object().unwrap();
        let mut taken = settings().for_deserialize().into_generator();
        taken.subschema_for::<SendMessage>();
        for (name, mut schema) in taken.take_definitions(true) {
            without_defaults(&mut schema);
            assert_eq!(schemas.get(&name), Some(&schema), "{name} is not the same in both directions");
        }
    }
}
