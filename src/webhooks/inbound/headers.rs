//! The headers of a webhook: those that came once, as texts. Of two with one name nobody could say which was meant.

use std::collections::BTreeMap;

/// Headers by their names in small letters; without a text where it came twice or is not visible ASCII.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Option<String>>);

impl Headers {
    /// Headers as they came.
    #[must_use]
    pub fn new<'a>(all: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut seen: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (name, value) in all {
            let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).map(str::to_owned);
            seen.entry(name.to_ascii_lowercase()).and_modify(|known| *known = None).or_insert(text);
        }
        Self(seen)
    }

    /// The header of that name, in small letters.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    /// The names of all that came, also of those that nothing can be read from.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Sets a header; the name in small letters.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), Some(value.into()));
    }

    /// All that can be read.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    /// Those that a template may see: none that let somebody in.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        let hidden = |name: &str| {
            ["authorization", "secret", "signature", "cookie", "token", "key"].iter().any(|word| name.contains(word))
        };
        self.iter().filter(move |(name, _)| !hidden(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_twice_is_not_there() {
        let all: [(&str, &[u8]); 5] =
            [("X-A", b"1"), ("x-b", b"2"), ("X-B", b"2"), ("x-c", b"\xff"), ("x-webhook-secret", b"s")];
        let headers = Headers::new(all);
        assert_eq!(headers.get("x-a"), Some("1"));
        assert_eq!((headers.get("x-b"), headers.get("x-c")), (None, None));
        assert_eq!(headers.shown().collect::<Vec<_>>(), [("x-a", "1")]);
        assert!(headers.names().eq(["x-a", "x-b", "x-c", "x-webhook-secret"]), "but it came");
    }
}
