//! `[webhooks.ROUTE]`: how others may send messages to `POST /webhooks/ROUTE`.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::StrDeserializer},
};

use super::{Secret, shown};
use crate::protocol::Policy;

/// How a sender shows that it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Standard Webhooks 1.0.
    Standard,
    /// `X-Hub-Signature-256`.
    Github,
    /// `X-Slack-Signature`.
    Slack,
    /// The secret itself, in the header `x-webhook-secret`.
    Secret,
    /// Nothing, for senders on this machine alone.
    None,
}

impl Verify {
    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Github => "github",
            Self::Slack => "slack",
            Self::Secret => "secret",
            Self::None => "none",
        }
    }
}

/// `[webhooks.ROUTE]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Whether the route is there.
    pub enabled: bool,
    /// How a sender shows that it may send; has to be said.
    pub verify: Option<Verify>,
    /// The secret shared with the sender; several while one takes the place of another.
    #[serde(deserialize_with = "one_or_many")]
    pub secret: Vec<Secret>,
    /// Variables of the server's environment that hold secrets, beside those above.
    #[serde(deserialize_with = "one_or_many")]
    pub secret_env: Vec<String>,
    /// How the keys of the sessions begin that the route may send to; `webhook:ROUTE:` when left out.
    pub prefix: Option<String>,
    /// A template for the message; the field `text` of the body when left out.
    pub text: Option<String>,
    /// A template for the key of the session; by the fields `session_key` or `sender` of the body when left out.
    pub session_key: Option<String>,
    /// An expression that says whether a body is wanted; all are when left out.
    pub when: Option<String>,
    /// The agent of the turns; that of the session when left out.
    pub agent: Option<String>,
    /// What happens when the session is busy.
    pub policy: Policy,
    /// Whose sessions they are; `local`, whose sessions only admins see once there are users, when left out.
    pub owner: Option<String>,
    /// Where the ends of the turns are posted to, with the final text. Never written out with what may be a secret in it.
    #[serde(serialize_with = "shown::serialize_endpoint")]
    pub reply_url: Option<String>,
    /// What these are signed with: `whsec_…`.
    pub reply_secret: Option<Secret>,
    /// The variable of the server's environment that holds it.
    pub reply_secret_env: Option<String>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            verify: None,
            secret: Vec::new(),
            secret_env: Vec::new(),
            prefix: None,
            text: None,
            session_key: None,
            when: None,
            agent: None,
            policy: Policy::default(),
            owner: None,
            reply_url: None,
            reply_secret: None,
            reply_secret_env: None,
        }
    }
}

/// Reads one text, or a list of them.
fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text, or a list of texts")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_or_a_list_and_never_shown() {
        let read = |text: &str| toml::from_str::<WebhookConfig>(text);
        let one = read("secret = \"hunter2\"\nsecret_env = \"A\"\nverify = \"github\"").unwrap();
        assert_eq!((one.secret, one.secret_env), (vec![Secret::new("hunter2")], vec!["A".to_owned()]));
        let two = read("secret = [\"hunter2\", \"hunter3\"]").unwrap();
        assert_eq!(two.secret.len(), 2);
        let printed = toml::to_string(&two).unwrap();
        assert!(!printed.contains("hunter"), "{printed}");
        assert!(read(&printed).is_ok(), "{printed}");
        let wrong = read("secret = 5").unwrap_err().to_string();
        assert!(wrong.contains("a text, or a list of texts"), "{wrong}");
        assert!(read("verify = \"gitlab\"").is_err() && read("secrets = \"x\"").is_err());
    }
}
