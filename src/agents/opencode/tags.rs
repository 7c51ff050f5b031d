//! Cuts the tags of a plugin out of the answer's text, wherever the borders of its pieces are. Pure.
//!
//! Plugins that prune the context mark messages for the model (`<dcp-message-id>m0007</dcp-message-id>`), and models
//! repeat such marks in their answers. They mean nothing to a reader.

/// What the names of such tags begin with.
const OPEN: &str = "<dcp-";
/// The longest mark, in bytes; what is longer is text.
const MAX_MARK: usize = 4096;

/// Cuts marks out of one part's text. Text that may be the beginning of a mark waits for what comes next.
#[derive(Debug, Default)]
pub(super) struct Stripper {
    held: String,
}

impl Stripper {
    /// Takes a piece and returns what can be shown.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let mut shown = String::new();
        while let Some(at) = self.held.find('<') {
            shown.push_str(self.held.get(..at).unwrap_or_default());
            self.held.drain(..at);
            match mark(&self.held) {
                Mark::Whole(length) => {
                    self.held.drain(..length);
                }
                Mark::Unfinished if self.held.len() <= MAX_MARK => return shown,
                Mark::Unfinished | Mark::None => {
                    self.held.drain(..1);
                    shown.push('<');
                }
            }
        }
        shown.push_str(&std::mem::take(&mut self.held));
        shown
    }

    /// The part is over: what waited is text.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

enum Mark {
    /// So many bytes.
    Whole(usize),
    /// It may become one.
    Unfinished,
    None,
}

/// What a text that begins with `<` begins with.
fn mark(text: &str) -> Mark {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return if OPEN.starts_with(text) { Mark::Unfinished } else { Mark::None };
    };
    let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
    let close = format!("</dcp-{}>", rest.get(..name).unwrap_or_default());
    match rest.get(name..).and_then(|rest| rest.chars().next()) {
        None => Mark::Unfinished,
        Some('>' | ' ') => text.find(&close).map_or(Mark::Unfinished, |at| Mark::Whole(at + close.len())),
        Some(_) => Mark::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(pieces: &[&str]) -> String {
        let mut stripper = Stripper::default();
        let mut shown: String = pieces.iter().map(|piece| stripper.push(piece)).collect();
        shown.push_str(&stripper.finish());
        shown
    }

    #[test]
    fn marks_are_cut_out_wherever_the_borders_are() {
        let text = "a<dcp-message-id>m0007</dcp-message-id>b<ü<dcp-note x=\"1\">y</dcp-note> c <d";
        for size in 1..text.len() {
            let chars: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(strip(&pieces), "ab<ü c <d", "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_mark_passes_at_once_and_the_tail_at_the_end() {
        let mut stripper = Stripper::default();
        assert_eq!(stripper.push("if a < b && <div> <dcp"), "if a < b && <div> ");
        assert_eq!(stripper.push("?"), "<dcp?");
        assert_eq!(stripper.push("<dcp-x>never closed"), "");
        assert_eq!(stripper.finish(), "<dcp-x>never closed");
        let long = format!("<dcp-x>{}", "y".repeat(MAX_MARK));
        assert_eq!(stripper.push(&long), long);
    }
}
