//! Keys of sessions out of what a stranger wrote. Pure.
//!
//! A value becomes a part of a key by [`part`]: letters, digits and `. _ -` stay, and so does an `@` before one of these;
//! every other byte is `@@` and two hexadecimal digits. So two values never become one part, and no value holds a `:`: what
//! a template puts between its values stays a border.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::ids::SessionKey;

/// The longest key.
const MAX_KEY: usize = 200;
/// The longest prefix: it leaves room for what comes behind it.
const MAX_PREFIX: usize = 100;
/// Hexadecimal digits that stand for what a long key loses.
const DIGEST: usize = 32;
/// What ends a part of a key.
const SEPARATORS: &[u8] = b":.@_-";

/// How the keys begin that a route may address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    /// The configured one, or that of the route's name.
    pub(super) fn new(configured: Option<&str>, route: &str) -> Result<Self, String> {
        let prefix = configured.map_or_else(|| format!("webhook:{route}:"), str::to_owned);
        if prefix.is_empty() {
            return Err("an empty one would let the route send to every session".into());
        }
        if prefix.len() > MAX_PREFIX || prefix.parse::<SessionKey>().is_err() {
            return Err(format!("has 1 to {MAX_PREFIX} characters out of A-Z, a-z, 0-9 and . _ : @ -"));
        }
        Ok(Self(prefix))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// True when the key is the prefix, or goes on behind it. A prefix that ends in a letter or a digit ends a word:
    /// `team` covers `team:a` and not `teams`.
    pub(super) fn covers(&self, key: &SessionKey) -> bool {
        let Some(rest) = key.as_str().strip_prefix(&self.0) else { return false };
        let open = |byte: Option<&u8>| byte.is_none_or(|byte| SEPARATORS.contains(byte));
        open(self.0.as_bytes().last()) || open(rest.as_bytes().first())
    }

    /// True when it could cover a key that begins so; `more` when the key goes on behind that.
    pub(super) fn may_begin(&self, begin: &str, more: bool) -> bool {
        if more {
            return self.0.starts_with(begin) || begin.starts_with(&self.0);
        }
        begin.parse().is_ok_and(|key| self.covers(&key))
    }

    /// The key of a sender that names no session.
    pub(super) fn of_sender(&self, sender: Option<&str>) -> String {
        let sender = sender.map(str::trim).filter(|sender| !sender.is_empty()).map_or("default".into(), part);
        let ends = self.0.bytes().last().is_some_and(|byte| SEPARATORS.contains(&byte));
        fitting(format!("{}{}{sender}", self.0, if ends { "" } else { ":" }))
    }
}

/// A value as a part of a key.
pub(super) fn part(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let mut part = String::with_capacity(value.len());
    let mut bytes = value.bytes().peekable();
    while let Some(byte) = bytes.next() {
        // An address stays readable: an `@` that stays is never followed by another, so it is no escape.
        if plain(byte) || (byte == b'@' && bytes.peek().is_some_and(|next| plain(*next))) {
            part.push(char::from(byte));
        } else {
            let _ = write!(part, "@@{byte:02x}");
        }
    }
    part
}

/// A key that is not too long: the end of a longer one gives way to a digest of the whole, so that it stays apart.
pub(super) fn fitting(key: String) -> String {
    if key.len() <= MAX_KEY || !key.is_ascii() {
        return key;
    }
    let digest: String = Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = key.get(..MAX_KEY - DIGEST - 1).unwrap_or_default();
    format!("{kept}@{}", digest.get(..DIGEST).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_covers_what_is_behind_it() {
        let covers = |prefix: Option<&str>, key: &str| Prefix::new(prefix, "ci").unwrap().covers(&key.parse().unwrap());
        assert!(covers(None, "webhook:ci:github") && covers(None, "webhook:ci:"));
        for key in ["webhook:ci", "webhook:cia:x", "webhook:other:x", "main", "Webhook:ci:x", "x:webhook:ci:y"] {
            assert!(!covers(None, key), "{key}");
        }
        assert!(covers(Some("team"), "team") && covers(Some("team"), "team:a") && covers(Some("team-"), "team-a"));
        assert!(!covers(Some("team"), "teams") && !covers(Some("team"), "team2:a"));
    }

    #[test]
    fn senders_have_sessions_of_their_own() {
        let key = |prefix: Option<&str>, sender| Prefix::new(prefix, "ci").unwrap().of_sender(sender);
        assert_eq!(key(None, Some("alice")), "webhook:ci:alice");
        assert_eq!(key(None, Some("bob@example.org")), "webhook:ci:bob@example.org");
        assert_eq!(key(None, Some("@2f@@40/@")), "webhook:ci:@2f@@40@40@@2f@@40");
        for nobody in [None, Some(""), Some("  ")] {
            assert_eq!(key(None, nobody), "webhook:ci:default");
        }
        assert_eq!(key(Some("team"), Some("a:b/c")), "team:a@@3ab@@2fc");
        assert_eq!(key(Some("team."), Some("é@x")), "team.@@c3@@a9@x");
    }

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        let long = |end: &str| fitting(format!("webhook:ci:{}{end}", "x".repeat(300)));
        assert_eq!(long("a").len(), MAX_KEY);
        assert_ne!(long("a"), long("b"));
        assert!(long("a").parse::<SessionKey>().is_ok() && long("a").starts_with("webhook:ci:x"));
    }

    proptest! {
        #[test]
        fn a_value_stays_in_its_place(values in any::<[String; 2]>(), others in ["[@/24f0:]{0,5}", "[@/24f0:]{0,5}"]) {
            let join = |[a, b]: &[String; 2]| format!("{}:{}", part(a), part(b));
            prop_assert_eq!(join(&values) == join(&others), values == others);
            let key = join(&values);
            prop_assert_eq!(key.matches(':').count(), 1);
            prop_assert!(key.len() > MAX_KEY || key.parse::<SessionKey>().is_ok());
        }
    }
}
