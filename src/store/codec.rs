//! Between Rust values and columns: JSON, names, ids and numbers.

use std::str::FromStr;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::fault::Fault;

/// A value as JSON text.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Row(format!("cannot be written as JSON: {error}")))
}

/// A value from the JSON text of a column.
pub(super) fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Row(format!("{column}: {error}")))
}

/// The wire name of a variant without fields.
pub(super) fn to_name(value: &impl Serialize) -> Result<String, Fault> {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => Ok(name),
        other => Err(Fault::Row(format!("has no name: {other:?}"))),
    }
}

/// The variant of that wire name.
pub(super) fn from_name<T: DeserializeOwned>(column: &str, name: &str) -> Result<T, Fault> {
    serde_json::from_value(Value::String(name.to_owned())).map_err(|error| Fault::Row(format!("{column}: {error}")))
}

/// An id or a key from a column.
pub(super) fn parse<T: FromStr>(column: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_error| Fault::Row(format!("{column}: {text:?} is none")))
}

/// An id or a key from a column that may be null.
pub(super) fn parse_optional<T: FromStr>(column: &str, text: Option<&str>) -> Result<Option<T>, Fault> {
    text.map(|text| parse(column, text)).transpose()
}

/// A text that both databases can hold: Postgres takes no U+0000, so it becomes U+FFFD. JSON columns keep it,
/// because JSON escapes it.
pub(super) fn text(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

/// [`text`] for what may be absent.
pub(super) fn optional_text(value: Option<&String>) -> Option<String> {
    value.map(|value| text(value))
}

/// A count as a column; saturates, far beyond anything that can be counted.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count from a column. A negative one cannot come from us.
pub(super) fn unsigned(column: &str, count: i64) -> Result<u64, Fault> {
    u64::try_from(count).map_err(|_error| Fault::Row(format!("{column}: {count} is negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_becomes_a_replacement_character_and_json_keeps_it() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        let json = to_json(&"a\0b").unwrap();
        assert!(!json.contains('\0'));
        assert_eq!(from_json::<String>("x", &json).unwrap(), "a\0b");
    }
}
