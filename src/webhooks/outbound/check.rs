//! The form of what an endpoint is made of: its address, the types of events, the sessions. Pure.

use reqwest::Url;

use super::{DISABLED, Refused};
use crate::{protocol::EventBody, session::passes};

/// The longest address, in characters.
const MAX_URL: usize = 2048;
/// The most types of events of one endpoint.
const MAX_TYPES: usize = 50;
/// The most sessions of one endpoint.
const MAX_SESSIONS: usize = 100;
/// The longest type of an event, in characters.
const MAX_TYPE: usize = 64;

/// The address, if it has the form of one that can be called. Numbers that stand for an IPv4 address in octal, hexadecimal
/// or as one number are read as what they mean.
///
/// # Errors
/// [`Refused::Form`].
pub fn form(url: &str) -> Result<Url, Refused> {
    let bad = |what: &str| Err(Refused::Form(what.to_owned()));
    if url.chars().count() > MAX_URL {
        return bad("it has more than 2048 characters");
    }
    // They would be dropped silently.
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return bad("it must not have spaces, tabs or line breaks in it");
    }
    let Ok(parsed) = Url::parse(url) else { return bad("it is no URL") };
    if !matches!(parsed.scheme(), "http" | "https") {
        return bad("it must begin with https:// (or http://, to addresses that the configuration allows)");
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return bad("it has no host");
    }
    if parsed.port() == Some(0) {
        return bad("nothing can be reached at port 0");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return bad("it must not hold a user or a password: receivers check the signature");
    }
    if parsed.fragment().is_some() {
        return bad("it must not have a fragment, which is never sent");
    }
    Ok(parsed)
}

/// Checks types of events and prefixes of them.
///
/// # Errors
/// One line.
pub fn types(types: &[String]) -> Result<(), String> {
    if types.is_empty() || types.len() > MAX_TYPES {
        return Err(format!("1 to {MAX_TYPES} types of events, or prefixes of types such as `turn.`"));
    }
    let plain = |one: &String| {
        (1..=MAX_TYPE).contains(&one.len()) && one.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.')
    };
    match types.iter().find(|one| !plain(one)) {
        Some(bad) => {
            Err(format!("{bad:?} is no type of an event: they have 1 to {MAX_TYPE} characters out of a-z . _"))
        }
        None => Ok(()),
    }
}

/// Checks that there are such events: what is of this shape and of no event would never be told of.
///
/// # Errors
/// One line.
pub fn known(types: &[String]) -> Result<(), String> {
    let all = || EventBody::TYPES.into_iter().chain([DISABLED]);
    let names = |one: &String| all().any(|kind| passes(std::slice::from_ref(one), kind));
    match types.iter().find(|one| !names(one)) {
        Some(unknown) => {
            Err(format!("there are no events {unknown:?}; there are: {}", all().collect::<Vec<_>>().join(" ")))
        }
        None => Ok(()),
    }
}

/// Checks keys of sessions, and beginnings of keys with a `*` behind.
///
/// # Errors
/// One line.
pub fn sessions(sessions: Option<&[String]>) -> Result<(), String> {
    let Some(sessions) = sessions else { return Ok(()) };
    if sessions.is_empty() || sessions.len() > MAX_SESSIONS {
        return Err(format!("1 to {MAX_SESSIONS} keys of sessions; leave them out for all"));
    }
    let fits = |one: &String| {
        let key = one.strip_suffix('*').unwrap_or(one);
        one == "*" || key.parse::<crate::ids::SessionKey>().is_ok()
    };
    match sessions.iter().find(|one| !fits(one)) {
        Some(bad) => Err(format!("{bad:?} is no key of a session, nor the beginning of one with a * behind")),
        None => Ok(()),
    }
}

/// True when a session is one of these.
#[must_use]
pub fn is_among(key: &str, sessions: Option<&[String]>) -> bool {
    let fits = |one: &String| match one.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == one,
    };
    sessions.is_none_or(|sessions| sessions.iter().any(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_plain_one_of_the_web() {
        assert_eq!(form("https://h.example:8443/a?b=c").unwrap().port(), Some(8443));
        for bad in [
            "",
            "h.example",
            "ftp://h/",
            "file:///etc/passwd",
            "https://me@h/",
            "https://me:pw@h/",
            "https://h/#x",
            "https://h:0/",
            "https://h\t/",
            " https://h/",
        ] {
            assert!(matches!(form(bad), Err(Refused::Form(_))), "{bad}");
        }
        assert!(form(&format!("https://h/{}", "x".repeat(MAX_URL))).is_err());
        for number in ["2130706433", "0177.0.0.1", "0x7f000001", "127.1", "0x7f.0.0.1"] {
            assert_eq!(form(&format!("http://{number}/")).unwrap().host_str(), Some("127.0.0.1"), "{number}");
        }
    }

    #[test]
    fn types_and_sessions_have_a_form() {
        let own = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(types(&own(&["turn.", "choice.requested", "error"])), Ok(()));
        for bad in [&[][..], &[""], &["Turn."], &["turn.*"], &["turn.", "a b"]] {
            assert!(types(&own(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(known(&own(&["turn.", "turn.finished", "err"])), Ok(()));
        assert!(known(&own(&["turn.", "turn.ended"])).unwrap_err().contains("turn.ended"));
        assert_eq!(sessions(Some(&own(&["web:alice", "web:*", "*"]))), Ok(()));
        for bad in [&[][..], &[""], &["a b"], &["a*b"], &["a/*"]] {
            assert!(sessions(Some(&own(bad))).is_err(), "{bad:?}");
        }
        let list = own(&["web:*", "main"]);
        let among = |key| is_among(key, Some(&list));
        assert!(among("web:alice") && among("main") && !among("main2") && !among("we"));
        assert!(is_among("x", None));
    }
}
