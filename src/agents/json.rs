//! JSON as agents write it.

use serde::de::DeserializeOwned;

/// Reads JSON. Halves of surrogate pairs, which JavaScript and Python write where a text was cut within a character, are
/// no text anywhere else: each becomes U+FFFD, so that the rest of the line is not lost with it.
///
/// # Errors
/// When it is no JSON of that form.
pub fn parse<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| match mended(text) {
        Some(mended) => serde_json::from_str(&mended),
        None => Err(error),
    })
}

/// The text without halves of surrogate pairs; none where there are none.
fn mended(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        let Some(unit) = unit_at(text, escape) else {
            // Also of an escaped backslash, which begins no other escape.
            at = escape + 2;
            continue;
        };
        at = escape + 6;
        match unit {
            0xD800..=0xDBFF if matches!(unit_at(text, at), Some(0xDC00..=0xDFFF)) => at += 6,
            0xD800..=0xDFFF => {
                out.push_str(text.get(copied..escape)?);
                out.push_str("\\ufffd");
                copied = at;
            }
            _ => {}
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// The code unit of the escape `\uXXXX` that begins there.
fn unit_at(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn halves_of_characters_are_replaced_and_all_else_is_as_it_is_written() {
        let cases = [
            (r#""a\ud83d b""#, "a\u{fffd} b"),
            (r#""\ude00 b""#, "\u{fffd} b"),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}😀\u{fffd}"),
            (r#""\\ud83d \ud83d""#, "\\ud83d \u{fffd}"),
            (r#""\\\ud83dä""#, "\\\u{fffd}ä"),
            (r#""ä\ud83d\n\u00e4\"""#, "ä\u{fffd}\nä\""),
            (r#""\ud83d\ude00""#, "😀"),
        ];
        for (written, expected) in cases {
            assert_eq!(parse::<Value>(written).unwrap(), json!(expected), "{written}");
        }
        for broken in [r#""\ud83d"#, r#"{"a":"\ud83d"#, "\\", r#""\u12"#, "no JSON"] {
            assert!(parse::<Value>(broken).is_err(), "{broken}");
        }
    }
}
