//! What the terminal can do, and how text gets there safely.

use std::io::{IsTerminal as _, Write as _};

use super::client::ClientError;

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No escape sequences at all.
    pub const PLAIN: Self = Self { colour: false };

    /// Colours when stdout is a terminal that can show them and `NO_COLOR` is not set.
    pub fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// True when lines may be drawn over and coloured.
    pub const fn is_live(self) -> bool {
        self.colour
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What a user said.
    pub fn user(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// What a tool does.
    pub fn tool(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What waits for an answer.
    pub fn ask(self, text: &str) -> String {
        self.paint("1;35", text)
    }

    /// What went wrong.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// Text of agents and other people without control characters: it must not move the cursor, retitle the window or
/// hide what it says. Newlines and tabs stay.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// The first line of a text, cut to `width` characters.
pub fn first_line(text: &str, width: usize) -> String {
    let mut lines = text.trim().lines();
    let line = lines.next().unwrap_or_default().trim_end();
    let mut short: String = line.chars().take(width).collect();
    if short.len() < line.len() || lines.next().is_some() {
        short.push('…');
    }
    clean(&short)
}

/// Writes to stdout at once.
///
/// # Errors
/// `OutputClosed` when nobody reads it any more.
pub fn print(text: &str) -> Result<(), ClientError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_gone| ClientError::OutputClosed)
}

/// One line on stderr. A closed stderr is nobody's loss.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b]0;title\x07b\u{9b}2J\r\n\tc"), "a]0;titleb2J\n\tc");
    }

    #[test]
    fn lines_are_cut() {
        assert_eq!(first_line("  one\ntwo", 10), "one…");
        assert_eq!(first_line("äöü", 2), "äö…");
        assert_eq!(first_line("äöü", 3), "äöü");
    }
}
