//! One call that is being described.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::{
    document::Document,
    refusals::{self, Access},
};
use crate::{error::Code, ids::SessionKey};

/// A call. [`Operation::done`] puts it into the document.
#[must_use = "a description counts once it is done()"]
pub(super) struct Operation<'a> {
    doc: &'a mut Document,
    method: &'static str,
    path: String,
    fields: Value,
    access: Access,
    parameters: Vec<Value>,
    responses: Map<String, Value>,
    codes: Vec<Code>,
}

impl<'a> Operation<'a> {
    pub(super) fn new(doc: &'a mut Document, method: &'static str, path: &str, fields: Value) -> Self {
        let operation = Self {
            doc,
            method,
            path: path.to_owned(),
            fields,
            access: Access::Open,
            parameters: vec![json!({"$ref": "#/components/parameters/RequestId"})],
            responses: Map::new(),
            codes: Vec::new(),
        };
        if path.contains("{key}") { operation.of_session() } else { operation }
    }

    fn set(mut self, name: &str, value: Value) -> Self {
        if let Some(fields) = self.fields.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
        self
    }

    /// What a reader must know beside the summary.
    pub(super) fn about(self, text: &str) -> Self {
        self.set("description", text.into())
    }

    /// Anybody may call it, without credentials.
    pub(super) fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    /// Needs the scope `read`.
    pub(super) fn reads(mut self) -> Self {
        self.access = Access::Read;
        self
    }

    /// Needs the scope `write`.
    pub(super) fn writes(mut self) -> Self {
        self.access = Access::Write;
        self
    }

    /// Needs the scope `admin`.
    pub(super) fn admin(mut self) -> Self {
        self.access = Access::Admin;
        self
    }

    /// Needs the cookie of a login: no token alone can do it.
    pub(super) fn browser(mut self) -> Self {
        self.access = Access::Browser;
        self
    }

    fn of_session(mut self) -> Self {
        let schema = self.doc.taken::<SessionKey>();
        let about = "The key of the session; `:` and `@` may be percent-encoded.";
        self.parameters
            .push(json!({"name": "key", "in": "path", "required": true, "description": about, "schema": schema}));
        self.refuses(&[Code::InvalidId])
    }

    /// What `{id}` of the path is, and the code for one that names nothing.
    pub(super) fn id<T: JsonSchema>(mut self, about: &str, missing: Code) -> Self {
        let schema = self.doc.taken::<T>();
        self.parameters
            .push(json!({"name": "id", "in": "path", "required": true, "description": about, "schema": schema}));
        self.refuses(&[missing])
    }

    /// Another part of the path.
    pub(super) fn path(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters
            .push(json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema}));
        self
    }

    /// A query parameter.
    pub(super) fn query(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "query", "description": about, "schema": schema}));
        self.refuses(&[Code::InvalidParameter])
    }

    /// Prefixes of event types.
    pub(super) fn types(mut self) -> Self {
        self.parameters.push(json!({
            "name": "types", "in": "query", "style": "form", "explode": true,
            "description": "Prefixes of event types, such as `turn.`, in several parameters or separated by commas; none is all.",
            "schema": {"type": "array", "items": {"type": "string"}},
        }));
        self.refuses(&[Code::InvalidParameter])
    }

    /// A header that the caller may send.
    pub(super) fn header(mut self, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
        self
    }

    /// `limit`, `after`, `before` and `order` of a list whose cursors are ids of type `T`.
    pub(super) fn page<T: JsonSchema>(self) -> Self {
        let id = self.doc.taken::<T>();
        self.query("limit", "Entries at most.", json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 20}))
            .query("after", "Go on behind this entry. Not together with `before`.", id.clone())
            .query("before", "The entries right in front of this one.", id)
            .query(
                "order",
                "Newest first, or oldest first.",
                json!({"type": "string", "enum": ["desc", "asc"], "default": "desc"}),
            )
            .refuses(&[Code::InvalidLimit, Code::InvalidCursor])
    }

    /// `Idempotency-Key`.
    pub(super) fn once(self) -> Self {
        let about = "Within 24 hours the same key with the same request happens once, and answers what the first made.";
        self.header("idempotency-key", about, json!({"type": "string", "minLength": 1, "maxLength": 256})).refuses(&[
            Code::InvalidParameter,
            Code::IdempotencyKeyTooLong,
            Code::IdempotencyKeyReused,
        ])
    }

    /// The body, with examples by name. The tests post each of them.
    pub(super) fn takes<T: JsonSchema>(self, examples: &[(&str, Value)]) -> Self {
        let schema = self.doc.taken::<T>();
        self.takes_form(schema, examples)
    }

    /// A body that may as well be left out.
    pub(super) fn takes_optional<T: JsonSchema>(self) -> Self {
        self.takes::<T>(&[("nothing", json!({}))]).may_be_empty()
    }

    /// The body that was described may as well be left out.
    pub(super) fn may_be_empty(mut self) -> Self {
        if let Some(Value::Object(body)) = self.fields.get_mut("requestBody") {
            body.insert("required".into(), false.into());
        }
        self
    }

    /// The body, by its schema.
    pub(super) fn takes_form(self, schema: Value, examples: &[(&str, Value)]) -> Self {
        let examples: Map<String, Value> =
            examples.iter().map(|(name, value)| ((*name).to_owned(), json!({"value": value}))).collect();
        let content = json!({"application/json": {"schema": schema, "examples": examples}});
        self.set("requestBody", json!({"required": true, "content": content})).refuses(refusals::BODY)
    }

    /// An answer in JSON.
    pub(super) fn answers<T: JsonSchema>(self, status: u16, about: &str) -> Self {
        let schema = self.doc.sent::<T>();
        self.answers_as(status, about, "application/json", json!({"schema": schema}))
    }

    /// Another form of a JSON answer that was described.
    pub(super) fn or_answers<T: JsonSchema>(mut self, status: u16) -> Self {
        let other = self.doc.sent::<T>();
        let answer = self.responses.get_mut(&status.to_string());
        if let Some(schema) = answer.and_then(|answer| answer.pointer_mut("/content/application~1json/schema")) {
            *schema = json!({"anyOf": [schema.take(), other]});
        }
        self
    }

    /// An answer with `Location`.
    pub(super) fn answers_with_location<T: JsonSchema>(self, status: u16, about: &str) -> Self {
        let mut operation = self.answers::<T>(status, about);
        let headers = operation.responses.get_mut(&status.to_string()).and_then(|answer| answer.get_mut("headers"));
        if let Some(Value::Object(headers)) = headers {
            headers.insert("location".into(), json!({"$ref": "#/components/headers/Location"}));
        }
        operation
    }

    /// The answer sets or takes back the cookie of a login.
    pub(super) fn sets_cookie(mut self, status: u16) -> Self {
        let headers = self.responses.get_mut(&status.to_string()).and_then(|answer| answer.get_mut("headers"));
        if let Some(Value::Object(headers)) = headers {
            let about = "The cookie of the login, or an empty one that takes it back.";
            headers.insert("set-cookie".into(), json!({"description": about, "schema": {"type": "string"}}));
        }
        self
    }

    /// An answer without a body.
    pub(super) fn answers_nothing(mut self, status: u16, about: &str) -> Self {
        self.responses.insert(status.to_string(), json!({"description": about, "headers": refusals::headers(false)}));
        self
    }

    /// An answer of any media type; more of them for one status are alternatives.
    pub(super) fn answers_as(mut self, status: u16, about: &str, media: &str, form: Value) -> Self {
        let empty = || json!({"description": about, "headers": refusals::headers(false), "content": {}});
        let answer = self.responses.entry(status.to_string()).or_insert_with(empty);
        if let Some(Value::Object(content)) = answer.get_mut("content") {
            content.insert(media.to_owned(), form);
        }
        self
    }

    /// An answer that [`refusals`] would describe otherwise.
    pub(super) fn answers_whole(mut self, status: u16, answer: Value) -> Self {
        self.responses.insert(status.to_string(), answer);
        self
    }

    /// What can be called next with what an answer tells: operation and, for its parameters, where they are. The
    /// session key of the path goes along.
    pub(super) fn leads_to(mut self, status: u16, calls: &[&str], parameters: &[(&str, &str)]) -> Self {
        let mut parameters: Map<String, Value> =
            parameters.iter().map(|(name, at)| ((*name).to_owned(), (*at).into())).collect();
        if self.path.contains("{key}") && !parameters.contains_key("key") {
            parameters.insert("key".into(), "$request.path.key".into());
        }
        if let Some(Value::Object(answer)) = self.responses.get_mut(&status.to_string()) {
            let links = answer.entry("links").or_insert_with(|| json!({}));
            for call in calls {
                if let Some(links) = links.as_object_mut() {
                    links.insert((*call).to_owned(), json!({"operationId": call, "parameters": parameters}));
                }
            }
        }
        self
    }

    /// Codes that it can answer beside those that all calls of its sort can.
    pub(super) fn refuses(mut self, codes: &[Code]) -> Self {
        self.codes.extend_from_slice(codes);
        self
    }

    /// An extension.
    pub(super) fn extension(self, name: &str, value: Value) -> Self {
        self.set(name, value)
    }

    /// Puts it into the document.
    pub(super) fn done(mut self) {
        self.codes.extend_from_slice(self.access.codes());
        for refusal in refusals::responses(&self.codes) {
            let status = refusal.status.to_string();
            if !self.responses.contains_key(&status) {
                let response = match refusal.name {
                    Some(name) => self.doc.response(name, refusal.response),
                    None => refusal.response,
                };
                self.responses.insert(status, response);
            }
        }
        if self.access != Access::Open {
            self.responses.values_mut().for_each(refusals::tell_rate);
        }
        self.responses.sort_keys();
        let (security, who) = (self.access.security(), self.access.about());
        let about = self.fields.get("description").and_then(Value::as_str);
        let about = about.map_or_else(|| who.to_owned(), |about| format!("{about}\n\n{who}"));
        let mut operation = self.set("description", about.into()).set("security", security);
        let parameters = std::mem::take(&mut operation.parameters);
        let responses = std::mem::take(&mut operation.responses);
        let Operation { doc, method, path, fields, .. } =
            operation.set("parameters", parameters.into()).set("responses", responses.into());
        doc.add(&path, method, fields);
    }
}
