//! Postgres URLs: limits for a connection that hangs, and texts that never show a password.

use super::StoreError;
use crate::config::Secret;

/// Parameters of libpq that keep a dead server or network from holding a thread for ever.
const LIMITS: [(&str, &str); 6] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "10000"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "3"),
    ("fallback_application_name", "greenroom"),
];

/// The URL with time limits, where it does not set them itself.
pub(super) fn with_limits(url: &str) -> Result<String, StoreError> {
    if is_ambiguous(url) {
        let text = "store.url: write special characters of user and password as %XX, for example @ as %40";
        return Err(StoreError::Setup(text.into()));
    }
    let mut out = url.to_owned();
    for (name, value) in LIMITS {
        if !url.contains(&format!("{name}=")) {
            out.push(if out.contains('?') { '&' } else { '?' });
            out.push_str(&format!("{name}={value}"));
        }
    }
    Ok(out)
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// True when it is not clear where the password ends: then a part of it could be taken for a host and be shown.
fn is_ambiguous(url: &str) -> bool {
    let (authority, rest) = split(url);
    let path = rest.split('?').next().unwrap_or_default();
    authority.matches('@').count() > 1 || path.contains('@') || rest.contains('#')
}

/// `text` without the password of `url`.
pub(super) fn redact(url: &Secret, text: &str) -> String {
    let (authority, rest) = split(url.expose());
    let user = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, password)| password);
    let query = rest.split(['?', '&']).find_map(|part| part.strip_prefix("password="));
    let mut out = text.trim().replace('\n', " ");
    for password in [user, query].into_iter().flatten().filter(|password| !password.is_empty()) {
        out = out.replace(password, "***");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_added_and_kept() {
        let url = with_limits("postgres://u:p@h/d?connect_timeout=9").unwrap();
        assert!(url.starts_with("postgres://u:p@h/d?connect_timeout=9&tcp_user_timeout="), "{url}");
        assert_eq!(url.matches("connect_timeout").count(), 1);
        assert!(with_limits("postgres:///d?host=/tmp").unwrap().starts_with("postgres:///d?host=/tmp&"));
    }

    #[test]
    fn a_password_is_never_part_of_a_message() {
        for url in ["postgres://u:s3@cret@h/d", "postgres://u:s3/cret@h/d", "postgres://u:s3#cret@h/d"] {
            let error = with_limits(url).unwrap_err().to_string();
            assert!(!error.contains("cret"), "{error}");
        }
        for url in ["postgres://u:cret@h/d", "postgres://h/d?user=u&password=cret"] {
            assert_eq!(redact(&Secret::new(url), "a cret\nb"), "a *** b");
        }
    }
}
