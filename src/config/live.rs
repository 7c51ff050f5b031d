//! Settings that may change while the server runs: which, and how a change is made. Pure.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Config, load::validate};

/// The settings that may change while the server runs. What is read once at the start, or held by something that
/// lives on, is not among them.
pub const MUTABLE: &[&str] = &[
    "agent.cancel_timeout",
    "budget.on_limit",
    "budget.session_cost_usd",
    "budget.session_tokens",
    "budget.step",
    "budget.user_day_cost_usd",
    "budget.user_day_tokens",
    "budget.warn_at",
    "choice.on_timeout",
    "choice.timeout",
    "events.keep_deltas",
    "log.level",
    "pool.idle_timeout",
    "pool.prewarm",
    "retention.interval",
    "session.call_timeout",
    "session.default_agent",
    "session.idle_timeout",
    "session.max_live",
    "session.max_queue",
    "session.sweep_interval",
    "sessions.keep",
    "shutdown.grace",
    "stream.flush_interval",
    "stream.max_lag",
    "stream.max_lag_bytes",
    "stream.max_subscribers",
];

/// Settings with other values than the configuration gives them, by key; in memory only.
pub type Changes = BTreeMap<String, Value>;

/// Why settings are not changed: none of them is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such setting.
    #[error("there is no setting {0}")]
    Unknown(String),
    /// It is read at the start only.
    #[error("{0} cannot change while the server runs; change it in the configuration and restart")]
    Fixed(String),
    /// The value is none for it.
    #[error("{0}: {1}")]
    Invalid(String, String),
}

/// The leaves of a change that has the form of the configuration: `{"session": {"max_queue": 5}}`.
///
/// # Errors
/// [`Refusal`] for a key that is unknown or fixed.
pub fn leaves(base: &Config, body: &Map<String, Value>) -> Result<Changes, Refusal> {
    let known = serde_json::to_value(base).unwrap_or_default();
    let mut found = Changes::new();
    for (topic, fields) in body {
        let Value::Object(fields) = fields else {
            let fixed = known.get(topic).is_some();
            return Err(if fixed { Refusal::Fixed(topic.clone()) } else { Refusal::Unknown(topic.clone()) });
        };
        for (name, value) in fields {
            let key = format!("{topic}.{name}");
            if !MUTABLE.contains(&key.as_str()) {
                let fixed = known.get(topic).is_some_and(|topic| topic.get(name).is_some());
                return Err(if fixed { Refusal::Fixed(key) } else { Refusal::Unknown(key) });
            }
            found.insert(key, value.clone());
        }
    }
    Ok(found)
}

/// The configuration with these settings changed.
///
/// # Errors
/// [`Refusal::Invalid`] with the setting and what is wrong with its value.
pub fn with(base: &Config, changes: &Changes) -> Result<Config, Refusal> {
    let mut config = base.clone();
    for (key, value) in changes {
        let invalid = |error: String| Refusal::Invalid(key.clone(), error);
        let Some((topic, name)) = key.split_once('.') else { return Err(Refusal::Unknown(key.clone())) };
        match topic {
            "agent" => set(&mut config.agent, name, value),
            "budget" => set(&mut config.budget, name, value),
            "choice" => set(&mut config.choice, name, value),
            "events" => set(&mut config.events, name, value),
            "log" => set(&mut config.log, name, value),
            "pool" => set(&mut config.pool, name, value),
            "retention" => set(&mut config.retention, name, value),
            "session" => set(&mut config.session, name, value),
            "sessions" => set(&mut config.sessions, name, value),
            "shutdown" => set(&mut config.shutdown, name, value),
            "stream" => set(&mut config.stream, name, value),
            _ => return Err(Refusal::Unknown(key.clone())),
        }
        .map_err(invalid)?;
        validate(&config).map_err(|error| {
            let text = error.to_string();
            invalid(text.strip_prefix("configuration: ").unwrap_or(&text).to_owned())
        })?;
    }
    Ok(config)
}

/// Sets a field of a topic that holds no secrets: those would come back as asterisks.
fn set<T: Serialize + DeserializeOwned>(topic: &mut T, name: &str, value: &Value) -> Result<(), String> {
    let mut fields = serde_json::to_value(&*topic).map_err(|error| error.to_string())?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(name.to_owned(), value.clone());
    }
    *topic = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(body: Value) -> Result<Config, Refusal> {
        let base = Config::default();
        with(&base, &leaves(&base, body.as_object().unwrap())?)
    }

    #[test]
    fn every_mutable_setting_exists_and_can_be_set_to_what_it_is() {
        let base = Config::default();
        let known = serde_json::to_value(&base).unwrap();
        for key in MUTABLE {
            let (topic, name) = key.split_once('.').unwrap();
            let value = &known[topic][name];
            assert!(known[topic].get(name).is_some(), "{key}");
            assert_eq!(with(&base, &Changes::from([((*key).to_owned(), value.clone())])).unwrap(), base, "{key}");
        }
    }

    #[test]
    fn a_change_keeps_everything_else() {
        let changed = patch(json!({"session": {"max_queue": 5}, "choice": {"timeout": "1m"}})).unwrap();
        let mut expected = Config::default();
        expected.session.max_queue = 5;
        expected.choice.timeout = super::super::Duration::mins(1);
        assert_eq!(changed, expected);
    }

    #[test]
    fn refusals_say_why() {
        assert_eq!(patch(json!({"store": {"url": "x"}})), Err(Refusal::Fixed("store.url".into())));
        assert_eq!(patch(json!({"agents": {"x": 1}})), Err(Refusal::Unknown("agents.x".into())));
        assert_eq!(patch(json!({"data_dir": "x"})), Err(Refusal::Fixed("data_dir".into())));
        assert_eq!(patch(json!({"session": {"max_que": 5}})), Err(Refusal::Unknown("session.max_que".into())));
        for (body, word) in [
            (json!({"session": {"max_queue": 0}}), "at least 1"),
            (json!({"session": {"max_queue": "many"}}), "invalid type"),
            (json!({"choice": {"timeout": "soon"}}), "30s"),
            (json!({"session": {"default_agent": "nobody"}}), "nobody"),
        ] {
            let error = patch(body).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
