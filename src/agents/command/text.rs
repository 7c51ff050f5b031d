//! Bytes of a program that writes for a terminal, as text: UTF-8 over the borders of chunks, escape sequences and control
//! characters taken out. Pure.

/// Where in an escape sequence the last character was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Plain,
    /// After ESC.
    Escape,
    /// In `ESC [ … letter`.
    Csi,
    /// In `ESC ] …`, which ends with BEL or `ESC \`, and in the other sequences that carry a string.
    Text,
    /// In such a string, after ESC.
    TextEscape,
    /// After `ESC (` and the like: one more character belongs to it.
    OneMore,
}

/// Makes text out of bytes, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Plain {
    state: State,
    /// The begin of a character whose end has not come yet: three bytes at most.
    begun: Vec<u8>,
    /// A carriage return that may belong to a line end.
    carriage: bool,
}

impl Plain {
    /// The text in these bytes, as far as it is complete. Bytes that are not UTF-8 are replaced.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let mut rest = std::mem::take(&mut self.begun);
        rest.extend_from_slice(bytes);
        let mut text = String::with_capacity(rest.len());
        let mut rest = rest.as_slice();
        loop {
            let (valid, bad) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let (valid, after) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                    (std::str::from_utf8(valid).unwrap_or_default(), Some((after, error.error_len())))
                }
            };
            valid.chars().for_each(|c| self.take(c, &mut text));
            match bad {
                None => return text,
                Some((after, None)) => {
                    self.begun = after.to_vec();
                    return text;
                }
                Some((after, Some(length))) => {
                    self.take(char::REPLACEMENT_CHARACTER, &mut text);
                    rest = after.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> String {
        let mut text = String::new();
        if !std::mem::take(&mut self.begun).is_empty() {
            self.take(char::REPLACEMENT_CHARACTER, &mut text);
        }
        if std::mem::take(&mut self.carriage) {
            text.push('\n');
        }
        self.state = State::Plain;
        text
    }

    fn take(&mut self, c: char, text: &mut String) {
        self.state = match (self.state, c) {
            (State::TextEscape, '\\') | (State::Text, '\u{7}') | (State::OneMore, _) => State::Plain,
            (State::Text, '\u{1b}') => State::TextEscape,
            (State::Text, _) => State::Text,
            (_, '\u{1b}') => State::Escape,
            (State::Escape, '[') => State::Csi,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::Text,
            (State::Escape, '(' | ')' | '*' | '+' | '#' | '%') => State::OneMore,
            (State::Csi, c) if !('@'..='~').contains(&c) => State::Csi,
            // A string that was broken off by another escape sequence ends there.
            (State::Escape | State::Csi | State::TextEscape, _) => State::Plain,
            (State::Plain, c) => {
                self.show(c, text);
                State::Plain
            }
        };
    }

    /// A line that is written over (a progress bar, after a lone carriage return) becomes a line of its own.
    fn show(&mut self, c: char, text: &mut String) {
        let carriage = std::mem::take(&mut self.carriage);
        match c {
            '\r' => self.carriage = true,
            '\n' => text.push('\n'),
            c if c.is_control() && c != '\t' => self.carriage = carriage,
            c => {
                if carriage {
                    text.push('\n');
                }
                text.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of these bytes in pieces of that size.
    fn read(bytes: &[u8], size: usize) -> String {
        let mut plain = Plain::default();
        let mut text: String = bytes.chunks(size).map(|piece| plain.push(piece)).collect();
        text.push_str(&plain.finish());
        text
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let cases: [(&[u8], &str); 6] = [
            ("grüße 🦀\n\tend".as_bytes(), "grüße 🦀\n\tend"),
            (b"\x1b[31;1mred\x1b[0m \x1b]0;title\x07a\x1b]8;;x\x1b\\b\x1b(B\x1b7c", "red abc"),
            (b"one\r\ntwo\r\n", "one\ntwo\n"),
            (b"10%\r\x1b[K20%\r100%\n", "10%\n20%\n100%\n"),
            (b"a\xffb\xe2\x82", "a\u{fffd}b\u{fffd}"),
            (b"\x00bell\x07\x08 end\r", "bell end\n"),
        ];
        for (bytes, expected) in cases {
            for size in [1, 2, 3, 1000] {
                assert_eq!(read(bytes, size), expected, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_complete_is_not_held_back() {
        let mut plain = Plain::default();
        assert_eq!(plain.push("no line end, ü".as_bytes()), "no line end, ü");
        assert_eq!((plain.push(b"\xc3"), plain.push(b"\xbc")), (String::new(), "ü".to_owned()));
    }
}
