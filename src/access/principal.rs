//! A caller: who it is, what its credentials allow, which sessions it sees.

use std::net::IpAddr;

use crate::{
    ids::TokenId,
    protocol::{Snapshot, Visibility, account::Scope},
    secret::SecretHash,
    store::Audience,
};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user; `local` in open mode.
    pub user: String,
    /// What the credentials allow.
    pub scopes: Vec<Scope>,
    /// The organisations that the user is a member of.
    pub orgs: Vec<String>,
    /// What it called with.
    pub via: Via,
    /// The address that it called from.
    pub ip: Option<IpAddr>,
}

/// What a caller called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Nothing: open mode.
    Open,
    /// The signature of a webhook, whose route acts for a user.
    Webhook,
    /// A token.
    Token(TokenId, SecretHash),
    /// The cookie of a login, which stands for a token.
    Cookie(TokenId, SecretHash),
}

impl Via {
    /// The token that it was, or stands for.
    #[must_use]
    pub const fn token(self) -> Option<TokenId> {
        match self {
            Self::Open | Self::Webhook => None,
            Self::Token(id, _) | Self::Cookie(id, _) => Some(id),
        }
    }
}

impl Principal {
    /// The user of open mode, who owns what is made in it.
    pub const LOCAL: &'static str = "local";

    /// The one caller of open mode.
    #[must_use]
    pub fn local() -> Self {
        Self {
            user: Self::LOCAL.into(),
            scopes: vec![Scope::Read, Scope::Write, Scope::Admin],
            orgs: Vec::new(),
            via: Via::Open,
            ip: None,
        }
    }

    /// A route for webhooks that acts for a user: with its sessions, and never with more than those.
    #[must_use]
    pub fn webhook(user: &str, ip: Option<IpAddr>) -> Self {
        Self { user: user.into(), scopes: vec![Scope::Read, Scope::Write], orgs: Vec::new(), via: Via::Webhook, ip }
    }

    /// The server itself, where it does by itself what the audit should tell.
    #[must_use]
    pub fn server() -> Self {
        Self { user: "greenroom".into(), ..Self::local() }
    }

    /// True with scope `admin`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(&Scope::Admin)
    }

    /// True when the credentials allow this; `admin` allows all.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.is_admin()
    }

    /// True for its own sessions, and for an admin.
    #[must_use]
    pub fn may_write(&self, session: &Snapshot) -> bool {
        self.is_admin() || session.owner == self.user
    }

    /// True for what it may see. The store's lists have the same rule in SQL.
    #[must_use]
    pub fn may_see(&self, session: &Snapshot) -> bool {
        self.sees(&session.owner, session.visibility, session.org_id.as_deref())
    }

    /// The same by what a row or a batch of the feed says of its session.
    #[must_use]
    pub fn may_follow(&self, audience: &Audience) -> bool {
        self.sees(&audience.owner, audience.visibility, audience.org_id.as_deref())
    }

    fn sees(&self, owner: &str, visibility: Visibility, org_id: Option<&str>) -> bool {
        self.is_admin() || is_seen_by(&self.user, &self.orgs, owner, visibility, org_id)
    }
}

/// True when a user of these organisations, who is no admin, sees a session.
pub(super) fn is_seen_by(
    user: &str,
    orgs: &[String],
    owner: &str,
    visibility: Visibility,
    org_id: Option<&str>,
) -> bool {
    owner == user
        || match visibility {
            Visibility::Private => false,
            Visibility::Org => org_id.is_some_and(|org| orgs.iter().any(|own| own == org)),
            Visibility::Public => true,
        }
}
