//! URLs that may hold secrets, in a form that can be shown.

use reqwest::Url;
use serde::{Serialize, Serializer};

/// What stands where a secret stood.
const HIDDEN: &str = "***";

/// A database URL that can be shown: the password, in whichever place it stands, is `***`.
#[must_use]
pub fn database(url: &str) -> String {
    if url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let Ok(mut parsed) = Url::parse(url) else {
        // A URL that cannot be read might still hold a password somewhere.
        return HIDDEN.into();
    };
    if parsed.password().is_some() {
        let _ = parsed.set_password(Some(HIDDEN));
    }
    hide_query(&mut parsed, |name| name.contains("password") || name.contains("key") || name.contains("token"));
    parsed.to_string()
}

/// The address of a model server that can be shown: who calls, and all values of its query, are `***`.
#[must_use]
pub fn endpoint(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url.trim()) else { return HIDDEN.into() };
    if parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none() {
        return url.to_owned();
    }
    if !parsed.username().is_empty() {
        // Some servers take a key for the name.
        let _ = parsed.set_username(HIDDEN);
    }
    if parsed.password().is_some() {
        let _ = parsed.set_password(Some(HIDDEN));
    }
    hide_query(&mut parsed, |_| true);
    parsed.to_string()
}

fn hide_query(url: &mut Url, secret: impl Fn(&str) -> bool) {
    if url.query().is_none() {
        return;
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let shown = pairs.iter().map(|(name, value)| match (value.is_empty(), secret(name)) {
        // A lone word may be the secret itself.
        (true, true) => (HIDDEN, ""),
        (false, true) => (name.as_str(), HIDDEN),
        (_, false) => (name.as_str(), value.as_str()),
    });
    url.query_pairs_mut().clear().extend_pairs(shown);
}

/// Writes an [`endpoint`] where a configuration is shown.
pub(super) fn serialize_endpoint<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(endpoint).serialize(serializer)
}

/// The same for one that is always there.
pub(super) fn serialize_address<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    endpoint(url).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_never_shows_its_password() {
        for url in ["postgres://me:hunter2@[::1]:5432/x", "postgres://h/x?user=me&password=hunter2", "hunter2"] {
            assert!(!database(url).contains("hunter2"), "{url}");
        }
        assert_eq!(database("sqlite:/a b/c.db"), "sqlite:/a b/c.db");
    }

    #[test]
    fn an_endpoint_shows_neither_who_calls_nor_its_query() {
        for url in [
            "http://me:hunter2@h/v1",
            "http://hunter2@h/v1",
            "http://h/v1?key=hunter2",
            "https://h/v1?hunter2",
            "https://h/v1?deployment=hunter2&x",
            "hunter2",
        ] {
            assert!(!endpoint(url).contains("hunter2"), "{url}: {}", endpoint(url));
        }
        assert_eq!(endpoint("http://me:pw@h:1/v1?key=x"), "http://***:***@h:1/v1?key=***");
        assert_eq!(endpoint("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    }
}
