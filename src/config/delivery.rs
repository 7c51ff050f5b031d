//! `[delivery]` and `[webhook_endpoints.NAME]`: outbound webhooks.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Duration, Secret, Size, shown};
use crate::webhooks::{outbound::check, signature};

/// `[delivery]`: how outbound webhooks are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// How long each attempt waits: the first after the event, the others after the one before. As many attempts as
    /// there are waits; then the delivery is given up.
    pub schedule: Vec<Duration>,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
    /// How long a receiver can ask for with `Retry-After`.
    pub max_retry_after: Duration,
    /// Deliveries that may wait for one endpoint. What happens while so many do, it is not told of.
    pub max_backlog: u64,
    /// The largest event that is sent whole; of a larger one `data` of the event is null.
    pub max_event: Size,
    /// How long a delivery that is over can be looked at and sent again.
    pub keep: Duration,
    /// Deliveries in a row that are given up before their endpoint is disabled.
    pub disable_after: u64,
    /// How long the old secret signs too after a rotation.
    pub rotation: Duration,
    /// Endpoints that one user may have.
    pub max_endpoints: usize,
    /// Addresses that are reached although they are not public, and over plain `http`.
    pub allow_addresses: Vec<IpNet>,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        let hours = |n: u64| Duration::mins(n * 60);
        Self {
            schedule: vec![
                Duration::secs(0),
                Duration::secs(5),
                Duration::mins(5),
                Duration::mins(30),
                hours(2),
                hours(5),
                hours(10),
                hours(14),
                hours(20),
                hours(24),
            ],
            timeout: Duration::secs(15),
            max_retry_after: hours(24),
            max_backlog: 10_000,
            max_event: Size::kib(256),
            keep: hours(7 * 24),
            disable_after: 2,
            rotation: hours(24),
            max_endpoints: 100,
            allow_addresses: Vec::new(),
        }
    }
}

impl DeliveryConfig {
    /// A key with a value that it cannot have.
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if self.schedule.is_empty() {
            return Some(("delivery.schedule", "needs one wait for each attempt, so at least one"));
        }
        if self.timeout.0.is_zero() {
            return Some(("delivery.timeout", "must be more than 0"));
        }
        if self.max_backlog == 0 {
            return Some(("delivery.max_backlog", "must be at least 1"));
        }
        (self.disable_after == 0).then_some(("delivery.disable_after", "must be at least 1"))
    }
}

/// `[webhook_endpoints.NAME]`: somebody who is told of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpointConfig {
    /// Where deliveries are posted to. It is never written out with what may be a secret in its query.
    #[serde(serialize_with = "shown::serialize_address")]
    pub url: String,
    /// Types of events, or prefixes of types.
    pub types: Vec<String>,
    /// Keys of sessions, or beginnings of keys with a `*` behind; all that the owner may see when left out.
    #[serde(default)]
    pub sessions: Option<Vec<String>>,
    /// The secret, `whsec_…`.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// The variable of the server's environment that holds it.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// The user whose eyes count; the operator's, who sees everything, when left out.
    #[serde(default)]
    pub owner: Option<String>,
}

impl WebhookEndpointConfig {
    /// Checks all but whether the address is one that may be called, which can change.
    pub(super) fn validate(&self, name: &str) -> Result<(), String> {
        if !crate::protocol::account::is_account_name(name) {
            return Err("the name has 1 to 64 characters out of A-Z a-z 0-9 . _ @ -".into());
        }
        check::form(&self.url).map_err(|error| format!("url: {error}"))?;
        check::types(&self.types)
            .and_then(|()| check::known(&self.types))
            .map_err(|error| format!("types: {error}"))?;
        check::sessions(self.sessions.as_deref()).map_err(|error| format!("sessions: {error}"))?;
        if let Some(owner) = self.owner.as_deref().filter(|owner| !crate::protocol::account::is_account_name(owner)) {
            return Err(format!("owner: {owner:?} cannot be the name of a user"));
        }
        if self.secret.is_some() && self.secret_env.is_some() {
            return Err("secret and secret_env: only one of them".into());
        }
        self.signing_secret().map(drop)
    }

    /// The secret that deliveries are signed with.
    ///
    /// # Errors
    /// What is wrong with it, without it.
    pub fn signing_secret(&self) -> Result<signature::Secret, String> {
        let text = match (&self.secret, &self.secret_env) {
            (Some(secret), _) => secret.expose().to_owned(),
            (None, Some(name)) => {
                std::env::var(name).map_err(|_unset| format!("secret_env: the variable {name} is not set"))?
            }
            (None, None) => return Err("needs secret or secret_env".into()),
        };
        signature::Secret::parse(text.trim()).map_err(|error| format!("secret: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_an_address_types_and_a_secret() {
        let good = "url = \"https://h.example/x?key=hunter2\"\ntypes = [\"turn.\"]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
        let read = |text: &str| toml::from_str::<WebhookEndpointConfig>(text).unwrap().validate("ci");
        assert_eq!(read(good), Ok(()));
        for (from, to, what) in [
            ("https://h", "ftp://h", "url"),
            ("https://h", "https://me@h", "url"),
            ("turn.", "Turn!", "types"),
            ("whsec_", "gr_", "secret"),
            ("secret =", "secret_env =", "secret_env"),
        ] {
            let error = read(&good.replace(from, to)).unwrap_err();
            assert!(error.starts_with(what), "{error}");
        }
        let shown = serde_json::to_string(&toml::from_str::<WebhookEndpointConfig>(good).unwrap()).unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("whsec_"), "{shown}");
    }
}
