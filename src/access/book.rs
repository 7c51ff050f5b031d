//! All credentials at one moment, in memory. Pure: the time comes from outside.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{Principal, Via, principal::is_seen_by};
use crate::{
    error::{ApiError, Code},
    ids::TokenId,
    protocol::account::Scope,
    secret::SecretHash,
    store::{Accounts, Audience},
    timestamp::Timestamp,
};

/// How often the last use of a token is noted, in microseconds.
const NOTE_EVERY: i64 = 60_000_000;

/// Credentials that are taken, unless they have expired.
#[derive(Debug)]
struct Entry {
    hash: SecretHash,
    /// True for the cookie of a login.
    cookie: bool,
    token: TokenId,
    user: String,
    scopes: Vec<Scope>,
    orgs: Vec<String>,
    expires_at: Option<Timestamp>,
    used: Arc<Used>,
}

/// When a token was last used, shared by it and its logins.
#[derive(Debug, Default)]
struct Used {
    at: AtomicI64,
    written: AtomicI64,
}

impl Entry {
    fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    fn principal(&self) -> Principal {
        let via = if self.cookie { Via::Cookie(self.token, self.hash) } else { Via::Token(self.token, self.hash) };
        let (user, scopes, orgs) = (self.user.clone(), self.scopes.clone(), self.orgs.clone());
        Principal { user, scopes, orgs, via, ip: None }
    }
}

/// Who may call, at one moment.
#[derive(Debug)]
pub struct Book {
    version: i64,
    open: bool,
    /// By the first bytes of the hash; within a drawer hashes are compared in constant time.
    drawers: HashMap<u64, Vec<Entry>>,
    used: HashMap<TokenId, Arc<Used>>,
    orgs: BTreeSet<String>,
    /// Users who may act.
    users: HashSet<String>,
    people: HashMap<String, Person>,
    disabled: HashSet<String>,
}

/// What a user may see while it does not call.
#[derive(Debug, Default)]
struct Person {
    orgs: Vec<String>,
    /// Until when it has credentials of an admin.
    admin_until: Option<Timestamp>,
}

impl Book {
    /// The book of these accounts.
    #[must_use]
    pub fn new(accounts: Accounts) -> Self {
        let (disabled, users): (Vec<_>, Vec<_>) = accounts.users.into_iter().partition(|user| user.disabled);
        let disabled: HashSet<String> = disabled.into_iter().map(|user| user.name).collect();
        let mut orgs_of: HashMap<String, Vec<String>> = HashMap::new();
        for (org, user) in accounts.members {
            orgs_of.entry(user).or_default().push(org);
        }
        let mut book = Self {
            version: accounts.version,
            open: !accounts.any_token,
            drawers: HashMap::new(),
            used: HashMap::new(),
            orgs: accounts.orgs.into_iter().collect(),
            people: orgs_of
                .iter()
                .map(|(user, orgs)| (user.clone(), Person { orgs: orgs.clone(), ..Person::default() }))
                .collect(),
            disabled: HashSet::new(),
            users: users.into_iter().map(|user| user.name).collect(),
        };
        let taken = accounts.tokens.into_iter().filter(|(_, token)| !disabled.contains(&token.user));
        let tokens: HashMap<TokenId, _> = taken.map(|(hash, token)| (token.id, (hash, token))).collect();
        for (hash, token) in tokens.values() {
            let last = token.last_used_at.map_or(0, |at| at.0);
            let used = Arc::new(Used { at: last.into(), written: last.into() });
            book.used.insert(token.id, Arc::clone(&used));
            if token.scopes.contains(&Scope::Admin) {
                let person = book.people.entry(token.user.clone()).or_default();
                person.admin_until = person.admin_until.max(Some(token.expires_at.unwrap_or(Timestamp(i64::MAX))));
            }
            let entry = |hash: SecretHash, cookie, expires_at| Entry {
                hash,
                cookie,
                token: token.id,
                user: token.user.clone(),
                scopes: token.scopes.clone(),
                orgs: orgs_of.get(&token.user).cloned().unwrap_or_default(),
                expires_at,
                used: Arc::clone(&used),
            };
            book.drawers.entry(hash.drawer()).or_default().push(entry(*hash, false, token.expires_at));
            for login in accounts.logins.iter().filter(|login| login.token == token.id) {
                let end = token.expires_at.map_or(login.expires_at, |end| end.min(login.expires_at));
                book.drawers.entry(login.hash.drawer()).or_default().push(entry(login.hash, true, Some(end)));
            }
        }
        book.disabled = disabled;
        book
    }

    /// Whether a user may see a session while it does not call: as whoever it is, or with `as_admin` as an admin, while it
    /// has credentials of one. A user who is disabled sees nothing.
    #[must_use]
    pub fn follows(&self, user: &str, as_admin: bool, audience: &Audience, now: Timestamp) -> bool {
        if self.disabled.contains(user) {
            return false;
        }
        let person = self.people.get(user);
        let is_admin = match self.open {
            true => user == Principal::LOCAL,
            false => person.and_then(|person| person.admin_until).is_some_and(|end| end > now),
        };
        let orgs = person.map_or(&[][..], |person| person.orgs.as_slice());
        (as_admin && is_admin)
            || is_seen_by(user, orgs, &audience.owner, audience.visibility, audience.org_id.as_deref())
    }

    /// Raised by every change.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// True in open mode: there has never been a token.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// True when there is an organisation of that name.
    #[must_use]
    pub fn has_org(&self, name: &str) -> bool {
        self.orgs.contains(name)
    }

    /// True when something may be done for that user: it is there and not disabled, or is `local`, whom every server has.
    #[must_use]
    pub fn may_act(&self, user: &str) -> bool {
        user == Principal::LOCAL || self.users.contains(user)
    }

    fn find(&self, hash: SecretHash, cookie: bool, now: Timestamp) -> Option<&Entry> {
        let drawer = self.drawers.get(&hash.drawer())?;
        drawer.iter().find(|entry| entry.hash == hash && entry.cookie == cookie && !entry.is_over(now))
    }

    /// Whose token, or whose cookie, this is; none when it is wrong, expired, revoked, or of a disabled user.
    #[must_use]
    pub fn caller(&self, secret: &str, cookie: bool, now: Timestamp) -> Option<Principal> {
        let entry = self.find(SecretHash::of(secret), cookie, now)?;
        if now.0.saturating_sub(entry.used.at.load(Ordering::Relaxed)) >= NOTE_EVERY {
            entry.used.at.store(now.0, Ordering::Relaxed);
        }
        Some(entry.principal())
    }

    /// The caller as its credentials allow now.
    ///
    /// # Errors
    /// `missing_credentials` when it had none and needs some now, `invalid_credentials` when they have ended.
    pub fn renew(&self, who: &Principal, now: Timestamp) -> Result<Principal, ApiError> {
        let entry = match who.via {
            Via::Open if self.open => return Ok(who.clone()),
            Via::Open => return Err(missing()),
            Via::Webhook if self.may_act(&who.user) => return Ok(who.clone()),
            Via::Webhook => return Err(invalid()),
            Via::Token(_, hash) => self.find(hash, false, now),
            Via::Cookie(_, hash) => self.find(hash, true, now),
        };
        entry.map(|entry| Principal { ip: who.ip, ..entry.principal() }).ok_or_else(invalid)
    }

    /// Takes over when tokens were used, from the book before this one.
    pub(super) fn take_uses(&mut self, before: &Self) {
        for (id, used) in &self.used {
            if let Some(earlier) = before.used.get(id) {
                used.at.fetch_max(earlier.at.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// The tokens that were used since this was asked last, and when.
    pub(super) fn uses(&self) -> Vec<(TokenId, Timestamp)> {
        let fresh = self.used.iter().filter_map(|(id, used)| {
            let at = used.at.load(Ordering::Relaxed);
            (used.written.swap(at, Ordering::Relaxed) != at).then_some((*id, Timestamp(at)))
        });
        fresh.collect()
    }
}

/// Credentials are needed and none came.
#[must_use]
pub fn missing() -> ApiError {
    ApiError::new(Code::MissingCredentials, "Send a token: Authorization: Bearer gr_…")
}

/// The credentials are of no use.
#[must_use]
pub fn invalid() -> ApiError {
    ApiError::new(Code::InvalidCredentials, "The credentials are wrong, expired or revoked.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::UserId,
        protocol::{
            Visibility,
            account::{Token, User},
        },
        store::LoginRecord,
    };

    fn accounts() -> Accounts {
        let user =
            |name: &str, disabled| User { id: UserId::new(), name: name.into(), disabled, created_at: Timestamp(0) };
        let token = |user: &str, expires_at| Token {
            id: TokenId::new(),
            user: user.into(),
            made_with: None,
            label: None,
            scopes: vec![Scope::Read],
            created_at: Timestamp(0),
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let tokens = vec![
            (SecretHash::of("gr_a"), token("alice", None)),
            (SecretHash::of("gr_b"), token("bob", None)),
            (SecretHash::of("gr_c"), token("alice", Some(Timestamp(100)))),
        ];
        let login = LoginRecord {
            hash: SecretHash::of("grc_a"),
            token: tokens[0].1.id,
            created_at: Timestamp(0),
            expires_at: Timestamp(50),
        };
        Accounts {
            version: 3,
            any_token: true,
            users: vec![user("alice", false), user("bob", true)],
            tokens,
            logins: vec![login],
            orgs: vec!["acme".into()],
            members: vec![("acme".into(), "alice".into())],
        }
    }

    #[test]
    fn only_live_credentials_of_live_users_are_taken() {
        let book = Book::new(accounts());
        let at = |secret: &str, cookie, now| book.caller(secret, cookie, Timestamp(now)).map(|who| who.user);
        assert_eq!(at("gr_a", false, 1).as_deref(), Some("alice"));
        assert_eq!(at("gr_b", false, 1), None, "disabled");
        assert_eq!((at("gr_c", false, 99).is_some(), at("gr_c", false, 100)), (true, None), "expired");
        assert_eq!((at("grc_a", true, 49).is_some(), at("grc_a", true, 50)), (true, None), "logged out by time");
        assert_eq!((at("grc_a", false, 1), at("gr_a", true, 1)), (None, None), "each in its place");
        assert_eq!((at("", false, 1), at("gr_", false, 1)), (None, None));
        assert_eq!(book.caller("gr_a", false, Timestamp(1)).unwrap().orgs, ["acme"]);
    }

    #[test]
    fn a_user_sees_while_it_does_not_call_what_it_sees_otherwise() {
        let mut accounts = accounts();
        accounts.tokens[2].1.scopes = vec![Scope::Admin];
        let book = Book::new(accounts);
        let of = |owner: &str, visibility, org: Option<&str>| Audience {
            owner: owner.into(),
            visibility,
            org_id: org.map(Into::into),
        };
        let private = of("carol", Visibility::Private, None);
        let sees =
            |user: &str, as_admin, audience: &Audience, now| book.follows(user, as_admin, audience, Timestamp(now));
        assert!(sees("carol", false, &private, 1) && !sees("alice", false, &private, 1));
        assert!(sees("alice", true, &private, 99) && !sees("alice", true, &private, 100), "as long as the token lasts");
        assert!(!sees("dave", true, &private, 1), "no admin");
        assert!(sees("alice", false, &of("carol", Visibility::Org, Some("acme")), 1));
        assert!(!sees("dave", false, &of("carol", Visibility::Org, Some("acme")), 1));
        assert!(sees("dave", false, &of("carol", Visibility::Public, None), 1));
        assert!(!sees("bob", false, &of("bob", Visibility::Public, None), 1), "disabled");
        let open = Book::new(Accounts::default());
        assert!(
            open.follows("local", true, &private, Timestamp(1)) && !open.follows("alice", true, &private, Timestamp(1))
        );
    }

    #[test]
    fn callers_are_known_again_until_their_credentials_end() {
        let now = Timestamp(1);
        let open = Book::new(Accounts::default());
        let local = Principal::local();
        assert_eq!(open.renew(&local, now), Ok(local.clone()));
        let book = Book::new(accounts());
        assert_eq!(book.renew(&local, now).unwrap_err().code, Code::MissingCredentials);
        let alice = book.caller("grc_a", true, now).unwrap();
        assert_eq!(book.renew(&alice, now), Ok(alice.clone()));
        assert_eq!(book.renew(&alice, Timestamp(50)).unwrap_err().code, Code::InvalidCredentials);
        let hook = |user: &str| book.renew(&Principal::webhook(user, None), now).map_err(|error| error.code);
        assert!(hook("alice").is_ok() && hook("local").is_ok());
        assert_eq!((hook("bob"), hook("eve")), (Err(Code::InvalidCredentials), Err(Code::InvalidCredentials)));
        let gone = Book::new(Accounts { tokens: Vec::new(), ..accounts() });
        assert_eq!(gone.renew(&alice, now).unwrap_err().code, Code::InvalidCredentials);
        assert!(!gone.is_open(), "the door stays closed");
    }

    #[test]
    fn uses_are_told_once_and_survive_a_new_book() {
        let book = Book::new(accounts());
        assert_eq!(book.uses(), []);
        assert!(book.caller("gr_a", false, Timestamp(NOTE_EVERY)).is_some());
        let mut next = Book::new(Accounts { version: 4, ..accounts() });
        next.used = book.used.keys().map(|id| (*id, Arc::default())).collect();
        next.take_uses(&book);
        assert_eq!(next.uses().len(), 1);
        assert_eq!(next.uses(), []);
    }
}
