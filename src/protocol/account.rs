//! Who calls: scopes, tokens without their secrets, entries of the audit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ids::{AuditId, SessionKey, TokenId, UserId},
    timestamp::Timestamp,
};

/// What credentials allow. `admin` includes the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To see.
    Read,
    /// To send and change.
    Write,
    /// To see and change everything.
    Admin,
    /// To post webhooks.
    Webhook,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Admin, Self::Webhook];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Webhook => "webhook",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name: what sessions are owned by.
    pub name: String,
    /// True while its tokens are not taken.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub user: String,
    /// The token behind the login that made it, which takes it along when it is revoked; null for one that the command
    /// line made.
    pub made_with: Option<TokenId>,
    /// What it is for, in the words of who made it.
    pub label: Option<String>,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; null is never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; null is never.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked; null is not.
    pub revoked_at: Option<Timestamp>,
}

/// The body of `POST /v1/me/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateToken {
    /// What it is for: at most 200 characters.
    #[schemars(length(max = 200))]
    pub label: Option<String>,
    /// What it allows: some of the caller's own; all of them when left out.
    pub scopes: Option<Vec<Scope>>,
    /// When it ends; never when left out.
    pub expires_at: Option<Timestamp>,
}

/// The body of `POST /v1/login`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// A token.
    pub token: String,
}

/// An entry of the audit: who did what to what, from where. Never a secret, never the text of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Its id; later entries have later ids.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Which user did it; `local` in open mode, `cli` on the machine of the database, empty for a `login.refused` and for what the server did by itself.
    pub actor: String,
    /// With which token; null without one.
    pub token_id: Option<TokenId>,
    /// What was done, as `session.delete`.
    pub action: String,
    /// The session that it was done to.
    pub session: Option<SessionKey>,
    /// Whose session that was, or which user it was about.
    pub owner: String,
    /// More about it: ids, names of fields, counts.
    pub detail: Map<String, Value>,
    /// The address that the call came from.
    pub ip: Option<String>,
}

/// The longest name of a user or an organisation.
const MAX_NAME: usize = 64;

/// True for what users and organisations can be called: 1 to 64 characters of `[A-Za-z0-9._@-]`, the first one a letter
/// or a digit.
#[must_use]
pub fn is_account_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    name.len() <= MAX_NAME
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_plain() {
        for good in ["a", "alice@example.org", "ci-1", &"x".repeat(64)] {
            assert!(is_account_name(good), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b", "ä", "a:b", "a,b", &"x".repeat(65)] {
            assert!(!is_account_name(bad), "{bad}");
        }
    }

    #[test]
    fn scopes_have_names() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::parse("root"), None);
    }
}
