//! The description as a judge of what the server says. It is held more strictly than clients need: a field that is not
//! described is a mistake here, while clients ignore it.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::gateway::{Reply, TestGateway};

/// The description that a server serves.
pub struct Contract {
    pub document: Value,
    strict: Value,
    validators: std::sync::Mutex<BTreeMap<String, Validator>>,
}

/// One call of the description.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: String,
    pub method: String,
    pub path: String,
    pub fields: Value,
}

impl Contract {
    pub async fn of(server: &TestGateway) -> Self {
        let document = server.get("/openapi.json").await.ok(200);
        Self { strict: strict(&document), document, validators: Default::default() }
    }

    /// Every call.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, fields) in item.as_object().unwrap() {
                let id = fields["operationId"].as_str().unwrap().to_owned();
                calls.push(Call { id, method: method.to_uppercase(), path: path.clone(), fields: fields.clone() });
            }
        }
        calls
    }

    /// The call of that `operationId`.
    #[track_caller]
    pub fn call(&self, id: &str) -> Call {
        self.calls().into_iter().find(|call| call.id == id).unwrap_or_else(|| panic!("{id} is not described"))
    }

    /// The value has the form of a schema, which is given by its place in the document.
    #[track_caller]
    pub fn check(&self, at: &str, value: &Value) {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(at.to_owned()).or_insert_with(|| {
            let schema = json!({"$ref": format!("#{}", at.replace('{', "%7B").replace('}', "%7D")), "paths": self.strict["paths"], "components": self.strict["components"]});
            jsonschema::options().build(&schema).unwrap_or_else(|error| panic!("{at}: {error}"))
        });
        let faults: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{at}:\n{}\n{value:#}", faults.join("\n"));
    }

    /// The answer is one that the call may give: status, headers, media type, form.
    #[track_caller]
    pub fn check_reply(&self, call: &Call, reply: &Reply) {
        let at = format!("/paths/{}/{}/responses/{}", escaped(&call.path), call.method.to_lowercase(), reply.status);
        let name = &call.id;
        let status = reply.status;
        let described =
            self.document.pointer(&at).unwrap_or_else(|| panic!("{name}: {status} is not described: {}", reply.text));
        let (at, described) = match described["$ref"].as_str() {
            Some(to) => (to.trim_start_matches('#').to_owned(), self.document.pointer(&to[1..]).unwrap()),
            None => (at, described),
        };
        for (header, form) in described["headers"].as_object().unwrap() {
            let form = form["$ref"].as_str().map_or(form, |to| self.document.pointer(&to[1..]).unwrap());
            assert!(form["required"] != true || !reply.header(header).is_empty(), "{name} {status}: no {header}");
        }
        let Some(content) = described.get("content") else {
            return assert!(reply.text.is_empty(), "{name} {status}: a body that is not described: {}", reply.text);
        };
        let media = reply.header("content-type");
        assert!(content.get(media).is_some(), "{name} {status}: {media} is not described");
        if media == "application/json" {
            self.check(&format!("{at}/content/application~1json/schema"), &reply.json());
        }
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The document with all objects closed that say which fields they have.
fn strict(document: &Value) -> Value {
    fn close(value: &mut Value, whole: bool) {
        match value {
            Value::Object(fields) => {
                let names_its_fields =
                    fields.contains_key("properties") && fields.get("type") == Some(&json!("object"));
                if whole && names_its_fields && !fields.contains_key("additionalProperties") {
                    fields.insert("additionalProperties".into(), false.into());
                }
                for (name, value) in fields {
                    // What is only a part of a form does not know the fields of the other parts.
                    close(value, name != "allOf" && name != "anyOf");
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| close(item, whole)),
            _ => {}
        }
    }
    let mut strict = document.clone();
    close(&mut strict, true);
    strict
}
