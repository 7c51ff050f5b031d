//! Identifiers, parsed at the edge so that the inside never handles a raw string.
//!
//! Ids are TypeIDs: a prefix, `_`, and 26 characters of base32 UUIDv7, so they sort by creation time.
//! Session keys are chosen by clients and stay what the client chose.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use type_safe_id::{StaticType, TypeSafeId};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $marker:ident, $prefix:literal) => {
        /// The type prefix of the id of the same name.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $marker;
        impl StaticType for $marker {
            const TYPE: &'static str = $prefix;
        }
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(TypeSafeId<$marker>);

        impl $name {
            /// A fresh id, greater than those that were made before it.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "no id is a default")]
            pub fn new() -> Self {
                Self(TypeSafeId::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = <TypeSafeId<$marker> as FromStr>::Err;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(uuid: uuid::Uuid) -> Self {
                Self(uuid.into())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!("`", $prefix, "_` and 26 characters, which sort by the time it was made."),
                    "type": "string",
                    "pattern": concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$"),
                    "examples": [concat!($prefix, "_01kaknfh2vf9jbnz6qpv0g3x8c")],
                })
            }
        }
    };
}

id!(
    /// One conversation under a session key; a reset gives the key a new one.
    SessionId, SessionPrefix, "ses"
);
id!(
    /// One accepted message and all the work the agent does for it.
    TurnId, TurnPrefix, "turn"
);
id!(
    /// One entry of a transcript.
    MessageId, MessagePrefix, "msg"
);
id!(
    /// One question that an agent waits on.
    ChoiceId, ChoicePrefix, "choice"
);

id!(
    /// One user.
    UserId, UserPrefix, "usr"
);
id!(
    /// One token of a user.
    TokenId, TokenPrefix, "tok"
);
id!(
    /// One entry of the audit.
    AuditId, AuditPrefix, "aud"
);

id!(
    /// One address that is told of events.
    EndpointId, EndpointPrefix, "whe"
);
id!(
    /// One delivery to such an address: the `webhook-id` of all its attempts.
    DeliveryId, DeliveryPrefix, "msg"
);

/// The longest session key, in characters.
pub const MAX_KEY_LENGTH: usize = 200;

/// The name of a session, chosen by its client: 1 to 200 characters of `[A-Za-z0-9._:@-]`.
///
/// Cheap to clone. Never use it as a file name: `.` and `..` are valid keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Arc<str>);

/// Why a text is no session key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session key has 1 to 200 characters out of A-Z, a-z, 0-9 and . _ : @ -")]
pub struct InvalidKey;

impl SessionKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A fresh, unique key for a client that did not choose one.
    #[must_use]
    pub fn generate() -> Self {
        Self(SessionId::new().to_string().into())
    }
}

impl FromStr for SessionKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
        if (1..=MAX_KEY_LENGTH).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidKey)
        }
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SessionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for SessionKey {
    fn schema_name() -> Cow<'static, str> {
        "SessionKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a session, chosen by its client.",
            "type": "string",
            "pattern": "^[A-Za-z0-9._:@-]{1,200}$",
            "minLength": 1,
            "maxLength": MAX_KEY_LENGTH,
            "examples": ["web:alice"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_at_the_edge() {
        for good in ["a", "web:alice", "webhook:ci:git-hub", "..", "a@b.c_d", &"x".repeat(200)] {
            assert!(good.parse::<SessionKey>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", "%41", &"x".repeat(201)] {
            assert_eq!(bad.parse::<SessionKey>(), Err(InvalidKey), "{bad}");
        }
    }

    #[test]
    fn ids_carry_their_prefix_and_refuse_another() {
        let id = TurnId::new();
        let text = id.to_string();
        assert!(text.starts_with("turn_") && text.len() == 31);
        assert_eq!(text.parse::<TurnId>().unwrap(), id);
        assert!(text.parse::<MessageId>().is_err());
    }
}
