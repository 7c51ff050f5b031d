//! What a webhook asks for, once it is believed. Pure.

use actix_web::web::Query;
use serde_json::{Map, Value};

use super::{Check, Headers, Route, Verified, key, template::Context};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::SendMessage,
};

/// What a webhook asks for.
#[derive(Debug)]
pub enum Ask {
    /// Slack wants to hear this text back, to know that the address is ours.
    Challenge(String),
    /// Nothing that the route wants; why.
    Ignored(&'static str),
    /// A message.
    Message(Box<Message>),
}

/// A message that came as a webhook.
#[derive(Debug)]
pub struct Message {
    /// The session that it is for; one that the route may send to.
    pub key: SessionKey,
    /// What it says.
    pub send: SendMessage,
    /// What the sender calls it, the same over all attempts.
    pub delivery: Option<String>,
}

impl Route {
    /// Reads the body of a webhook that has passed [`Check::verify`].
    ///
    /// # Errors
    /// `unsupported_media_type`; `invalid_json` for what is no JSON, and for what the templates do not fit; `invalid_id` for
    /// a key that is none; `session_not_allowed` for one outside the prefix.
    pub fn read(&self, headers: &Headers, body: &[u8], verified: Verified) -> Result<Ask, ApiError> {
        let payload = payload(&self.check, headers, body)?;
        let mut delivery = verified.delivery;
        match self.check {
            Check::Github(_) if headers.get("x-github-event") == Some("ping") => return Ok(Ask::Ignored("ping")),
            Check::Slack(_) => {
                let field = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
                if field("type").as_deref() == Some("url_verification") {
                    return Ok(Ask::Challenge(field("challenge").unwrap_or_default()));
                }
                delivery = field("event_id");
            }
            _ => {}
        }
        let context = Context::new(&payload, headers, &self.name);
        if let Some(when) = &self.when
            && !when.holds(&context).map_err(|what| misfit("when", &what))?
        {
            return Ok(Ask::Ignored("when"));
        }
        let (text, metadata) = match &self.text {
            Some(template) => (Some(template.fill(&context).map_err(|what| misfit("text", &what))?), Map::new()),
            None => (text(&payload, "text")?, object(&payload, "metadata")?),
        };
        let send = SendMessage {
            text,
            metadata,
            agent: self.agent.clone(),
            policy: self.policy,
            source: Some(super::source(&self.name)),
            ..SendMessage::default()
        };
        let key = self.key(&payload, &context)?;
        Ok(Ask::Message(Box::new(Message { key, send, delivery })))
    }

    /// The session that a body is for.
    fn key(&self, payload: &Value, context: &Context) -> Result<SessionKey, ApiError> {
        let named = match &self.session_key {
            Some(template) => {
                let filled = template.fill(context).map_err(|what| misfit("session_key", &what))?;
                Some(key::fitting(filled.trim().to_owned()))
            }
            // With a template for the text the body is of any form, and a field of this name may be about anything.
            None if self.text.is_some() => None,
            None => text(payload, "session_key")?,
        };
        let named = match named {
            Some(named) => named,
            None => {
                // GitHub and others have an object of this name.
                let sender = payload.get("sender").and_then(Value::as_str);
                self.prefix.of_sender(sender)
            }
        };
        let key: SessionKey = named.parse().map_err(|error| {
            ApiError::new(Code::InvalidId, format!("{named:?} is no session key: {error}")).with("field", "session_key")
        })?;
        if self.prefix.covers(&key) {
            return Ok(key);
        }
        let what = format!("this route sends to sessions that begin with {} alone", self.prefix.as_str());
        Err(ApiError::new(Code::SessionNotAllowed, what).with("field", "session_key"))
    }
}

/// A template does not fit a body.
fn misfit(name: &str, what: &str) -> ApiError {
    ApiError::new(Code::InvalidJson, format!("the body does not fit the route's {name}: {what}")).with("field", name)
}

/// A field that is a text, where it is there.
fn text(payload: &Value, name: &str) -> Result<Option<String>, ApiError> {
    match payload.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => {
            Err(ApiError::new(Code::InvalidJson, format!("The field {name} must be a text.")).with("field", name))
        }
    }
}

/// A field that is an object, where it is there.
fn object(payload: &Value, name: &str) -> Result<Map<String, Value>, ApiError> {
    match payload.get(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(fields)) => Ok(fields.clone()),
        Some(_) => {
            Err(ApiError::new(Code::InvalidJson, format!("The field {name} must be an object.")).with("field", name))
        }
    }
}

/// The JSON of a body; an empty one is `{}`.
fn payload(check: &Check, headers: &Headers, body: &[u8]) -> Result<Value, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let refused = |what: &str| ApiError::new(Code::UnsupportedMediaType, what);
    if headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(refused("A webhook must not be compressed."));
    }
    let media = headers.get("content-type").unwrap_or_default();
    let mut words = media.split(';').map(str::trim);
    let kind = words.next().unwrap_or_default().to_ascii_lowercase();
    let utf8 = words.filter_map(|word| word.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    let json: std::borrow::Cow<'_, [u8]> = match (kind.as_str(), check) {
        ("application/json", _) if utf8 => body.into(),
        ("application/x-www-form-urlencoded", Check::Github(_)) if utf8 => form(body)?.into(),
        (_, Check::Github(_)) => {
            return Err(refused("A webhook must be application/json, or a form with the field payload, in UTF-8."));
        }
        _ => return Err(refused("A webhook must be application/json in UTF-8.")),
    };
    let payload: Value = serde_json::from_slice(&json).map_err(|error| {
        ApiError::new(Code::InvalidJson, format!("The body is not JSON: {error}."))
            .with("line", error.line())
            .with("column", error.column())
    })?;
    match payload {
        Value::Object(_) | Value::Array(_) => Ok(payload),
        _ => Err(ApiError::new(Code::InvalidJson, "The body must be a JSON object or array.")),
    }
}

/// The field `payload` of a form.
fn form(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let missing = || ApiError::new(Code::InvalidJson, "The form has no field payload.").with("field", "payload");
    let text = std::str::from_utf8(body).ok().ok_or_else(missing)?;
    let fields = Query::<Vec<(String, String)>>::from_query(text).ok().ok_or_else(missing)?;
    let payload = fields.into_inner().into_iter().find(|(name, _)| name == "payload");
    payload.map(|(_, json)| json.into_bytes()).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Config, webhooks::inbound::Routes};

    fn ask_as(route: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Ask, ApiError> {
        let config: Config = toml::from_str(&format!("[webhooks.ci]\n{route}")).unwrap();
        let routes = Routes::new(&config, &|_| None).unwrap();
        let headers = Headers::new(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        routes.get("ci").unwrap().read(&headers, body, Verified { delivery: None })
    }

    fn ask(route: &str, body: &Value) -> Result<Ask, ApiError> {
        ask_as(route, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    #[track_caller]
    fn message(route: &str, body: Value) -> (String, String) {
        match ask(route, &body).unwrap() {
            Ask::Message(message) => (message.key.to_string(), message.send.text.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    fn code(route: &str, body: Value) -> Code {
        ask(route, &body).unwrap_err().code
    }

    #[test]
    fn a_plain_body_names_text_sender_and_session() {
        let plain = "verify = 'none'";
        let said = |key: &str| (key.to_owned(), "hi".to_owned());
        assert_eq!(message(plain, json!({"text": "hi"})), said("webhook:ci:default"));
        assert_eq!(message(plain, json!({"text": "hi", "sender": "bob", "more": 1})), said("webhook:ci:bob"));
        assert_eq!(message(plain, json!({"text": "hi", "sender": {"login": "bob"}})), said("webhook:ci:default"));
        assert_eq!(message(plain, json!({"text": "hi", "session_key": "webhook:ci:x"})), said("webhook:ci:x"));
        assert_eq!(code(plain, json!({"text": "hi", "session_key": "main"})), Code::SessionNotAllowed);
        assert_eq!(code(plain, json!({"text": "hi", "session_key": "webhook:cix:a"})), Code::SessionNotAllowed);
        assert_eq!(code(plain, json!({"text": "hi", "session_key": "a b"})), Code::InvalidId);
        for wrong in [json!({"text": 5}), json!({"text": "x", "metadata": []}), json!({"text": "x", "session_key": 1})]
        {
            assert_eq!(code(plain, wrong), Code::InvalidJson);
        }
    }

    #[test]
    fn templates_make_text_and_key_of_any_body() {
        let route = "verify = 'none'\ntext = '{{ a.b }}'\nsession_key = 'webhook:ci:{{ a.c }}'\nwhen = 'a'";
        assert_eq!(message(route, json!({"a": {"b": "x", "c": "y:z"}})), ("webhook:ci:y@@3az".into(), "x".into()));
        assert!(matches!(ask(route, &json!({"b": 1})), Ok(Ask::Ignored("when"))));
        let misfit = ask(route, &json!({"a": {"b": "x"}})).unwrap_err();
        assert_eq!((misfit.code, &misfit.details["field"]), (Code::InvalidJson, &"session_key".into()));
        let only_text = "verify = 'none'\ntext = '{{ payload | length }}'";
        assert_eq!(message(only_text, json!([1, 2])), ("webhook:ci:default".into(), "2".into()));
        assert_eq!(message(only_text, json!({"session_key": "main"})).0, "webhook:ci:default");
        let outside = "verify = 'none'\ntext = 'x'\nsession_key = '{{ key }}'";
        assert_eq!(code(outside, json!({"key": "webhook:ci:x"})), Code::SessionNotAllowed);
    }

    #[test]
    fn bodies_are_json_or_for_github_a_form() {
        let kinds = |route: &str, kind: &str, body: &str| {
            ask_as(route, &[("content-type", kind)], body.as_bytes()).map(drop).map_err(|error| error.code)
        };
        let (plain, github) = ("verify = 'none'", "verify = 'github'\nsecret = 'x'");
        let (json, form) = (r#"{"text":"x"}"#, "a=b&payload=%7B%22text%22%3A%22a+b%22%7D");
        let urlencoded = "application/x-www-form-urlencoded";
        assert_eq!(kinds(plain, "application/json; charset=UTF-8", json), Ok(()));
        assert_eq!(kinds(github, urlencoded, form), Ok(()));
        assert_eq!(kinds(plain, urlencoded, form), Err(Code::UnsupportedMediaType));
        for kind in ["text/plain", "", "application/json; charset=latin1"] {
            assert_eq!(kinds(github, kind, json), Err(Code::UnsupportedMediaType), "{kind}");
        }
        for (kind, body) in
            [("application/json", "{"), ("application/json", "5"), (urlencoded, "a=b"), (urlencoded, "payload=x")]
        {
            assert_eq!(kinds(github, kind, body), Err(Code::InvalidJson), "{body}");
        }
        let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(ask_as(plain, &packed, json.as_bytes()).unwrap_err().code, Code::UnsupportedMediaType);
        assert_eq!(ask_as(plain, &[], b" ").map(|_| ()), Ok(()), "an empty body is an empty object");
    }

    #[test]
    fn what_senders_ask_beside_messages_is_answered() {
        let slack = "verify = 'slack'\nsecret = 'x'";
        let body = json!({"type": "url_verification", "challenge": "abc"});
        assert!(matches!(ask(slack, &body), Ok(Ask::Challenge(text)) if text == "abc"));
        let body = json!({"type": "event_callback", "event_id": "Ev1", "text": "x"});
        assert!(matches!(ask(slack, &body), Ok(Ask::Message(message)) if message.delivery.as_deref() == Some("Ev1")));
        let ping = [("content-type", "application/json"), ("x-github-event", "ping")];
        assert!(matches!(ask_as("verify = 'github'\nsecret = 'x'", &ping, b"{}"), Ok(Ask::Ignored("ping"))));
    }
}
