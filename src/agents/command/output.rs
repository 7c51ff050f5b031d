//! What a program writes, as it comes: lines that are events of a stream-json dialect, or text. Pure.
//!
//! A line that begins with `{` waits for its end, since it may be an event; all other text is told at once, also in the
//! middle of a line. Once an event was understood, the program is taken to speak in events, and a line that is none is
//! noise.

use serde_json::{Map, Value, json};

use super::{stream_json::StreamJson, text::Plain};
use crate::{
    agents::{AgentEvent, json, program::raw},
    protocol::event::DeltaKind,
};

/// The most text of a turn that is told, in bytes; what comes after it is dropped, and said so once.
pub(super) const MAX_TEXT: usize = 8 * 1024 * 1024;

/// What the bytes that come next belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing of the line but blanks has come.
    Begin,
    /// It begins with `{`.
    Object,
    /// It does not.
    Other,
    /// It grew beyond the limit, and its rest is dropped.
    Skipped,
}

/// The output of one turn.
#[derive(Debug)]
pub(super) struct Output {
    max_line: usize,
    line: Line,
    /// The line so far, where it is kept until its end.
    kept: Vec<u8>,
    plain: Plain,
    /// What events have told.
    pub(super) stream: StreamJson,
    /// Bytes of text that were told.
    told: usize,
    cut: bool,
}

impl Output {
    /// Lines that are kept have at most `max_line` bytes.
    pub(super) fn new(max_line: usize) -> Self {
        Self {
            max_line,
            line: Line::Begin,
            kept: Vec::new(),
            plain: Plain::default(),
            stream: StreamJson::default(),
            told: 0,
            cut: false,
        }
    }

    /// True when the program has said nothing that a person would read.
    pub(super) fn is_silent(&self) -> bool {
        self.told == 0 && !self.stream.has_tools()
    }

    /// Takes what the program has written.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.piece(piece, &mut events);
        }
        events
    }

    /// The program has ended.
    pub(super) fn finish(&mut self) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        if !self.kept.is_empty() {
            self.whole_line(&mut events);
        }
        let rest = self.plain.finish();
        self.tell(rest, &mut events);
        events
    }

    /// A piece of one line, up to its end at most.
    fn piece(&mut self, piece: &[u8], events: &mut Vec<AgentEvent>) {
        let ends = piece.last() == Some(&b'\n');
        if self.line == Line::Begin {
            self.line = match piece.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => Line::Begin,
                Some(b'{') => Line::Object,
                Some(_) => Line::Other,
            };
        }
        let keeps = self.line == Line::Object || (self.stream.is_spoken() && self.line != Line::Skipped);
        match self.line {
            Line::Skipped => {}
            _ if keeps && self.kept.len() + piece.len() > self.max_line => self.too_long(piece, events),
            _ if keeps => {
                self.kept.extend_from_slice(piece);
                if ends {
                    self.whole_line(events);
                }
            }
            _ => {
                let text = self.plain.push(piece);
                self.tell(text, events);
            }
        }
        if ends {
            self.line = Line::Begin;
        }
    }

    fn too_long(&mut self, piece: &[u8], events: &mut Vec<AgentEvent>) {
        let mut begin = std::mem::take(&mut self.kept);
        if self.stream.is_spoken() {
            let message = format!("the program wrote a line over {} bytes; it is dropped", self.max_line);
            events.push(AgentEvent::Fault { code: "line_too_long".into(), message });
            self.line = Line::Skipped;
        } else {
            begin.extend_from_slice(piece);
            let text = self.plain.push(&begin);
            self.tell(text, events);
            self.line = Line::Other;
        }
    }

    /// A line that was kept is whole: an event, or else text.
    fn whole_line(&mut self, events: &mut Vec<AgentEvent>) {
        let line = std::mem::take(&mut self.kept);
        let object = str::from_utf8(&line).ok().and_then(|line| json::parse::<Map<String, Value>>(line).ok());
        let understood = object.as_ref().and_then(|object| self.stream.read(object));
        match (understood, object) {
            (Some(told), _) => told.into_iter().for_each(|event| match event {
                AgentEvent::Delta { kind, text } => self.tell_as(kind, text, events),
                event => events.push(event),
            }),
            (None, Some(object)) if self.stream.is_spoken() => events.push(raw(&Value::Object(object))),
            (None, _) if self.stream.is_spoken() => {
                let text = String::from_utf8_lossy(&line);
                if !text.trim().is_empty() {
                    events.push(raw(&json!({ "line": crate::agents::process::readable(&text, 1000) })));
                }
            }
            (None, _) => {
                let text = self.plain.push(&line);
                self.tell(text, events);
            }
        }
    }

    fn tell(&mut self, text: String, events: &mut Vec<AgentEvent>) {
        self.tell_as(DeltaKind::Text, text, events);
    }

    fn tell_as(&mut self, kind: DeltaKind, text: String, events: &mut Vec<AgentEvent>) {
        if text.is_empty() || self.cut {
            return;
        }
        if self.told + text.len() > MAX_TEXT {
            self.cut = true;
            let message = format!("the program wrote over {MAX_TEXT} bytes of text; the rest is dropped");
            return events.push(AgentEvent::Fault { code: "output_too_long".into(), message });
        }
        // Blank lines alone are no answer, but they belong to one.
        self.told += if self.told == 0 && text.trim().is_empty() { 0 } else { text.len() };
        events.push(AgentEvent::Delta { kind, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(events: &[AgentEvent]) -> String {
        let texts = events.iter().filter_map(|event| match event {
            AgentEvent::Delta { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn all(bytes: &[u8], size: usize) -> Vec<AgentEvent> {
        let mut output = Output::new(200);
        let mut events: Vec<AgentEvent> = bytes.chunks(size).flat_map(|piece| output.push(piece)).collect();
        events.extend(output.finish());
        events
    }

    #[test]
    fn text_comes_at_once_and_whole() {
        let mut output = Output::new(200);
        assert_eq!(text(&output.push(b"half a line")), "half a line");
        assert_eq!(text(&output.push(b" and\nthe next")), " and\nthe next");
        assert!(!output.is_silent() && Output::new(9).is_silent());
        for (size, shown) in
            [(1, "a\n\n {\"x\": 1}\n{not json}\n[1]\n{\"y\""), (7, "\u{1b}[1m{\"type\":\"result\"}\u{1b}[0m")]
        {
            let plain = shown.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
            assert_eq!(text(&all(shown.as_bytes(), size)), plain);
        }
        assert_eq!(
            text(&all(b"{\"type\":\"weather\",\"sun\":true}\nok", 3)),
            "{\"type\":\"weather\",\"sun\":true}\nok"
        );
    }

    #[test]
    fn events_are_understood_wherever_they_are_cut_and_noise_among_them_is_no_text() {
        let lines = "warming up\n{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"Hi\",\"delta\":true}\nnoise\n\
                     {\"type\":\"novel\"}\n{\"type\":\"message\",\"role\":\"assistant\",\"content\":\" you\",\"delta\":true}";
        for size in [1, 5, 1000] {
            let events = all(lines.as_bytes(), size);
            assert_eq!(text(&events), "warming up\nHi you", "in pieces of {size}");
            let raws: Vec<_> = events.iter().filter(|event| matches!(event, AgentEvent::Raw(_))).collect();
            let expected = [AgentEvent::Raw(json!({"line": "noise"})), AgentEvent::Raw(json!({"type": "novel"}))];
            assert_eq!(raws, expected.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn output_is_bounded() {
        let long = format!("{{{}\nnext", "x".repeat(500));
        assert_eq!(text(&all(long.as_bytes(), 50)), long);
        let spoken = format!("{{\"type\":\"turn.started\"}}\n{long}");
        let events = all(spoken.as_bytes(), 50);
        let [AgentEvent::Fault { code, .. }, AgentEvent::Raw(_)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(code, "line_too_long");

        let mut output = Output::new(200);
        let piece = vec![b'x'; MAX_TEXT / 4];
        let events: Vec<_> = (0..6).flat_map(|_| output.push(&piece)).collect();
        assert_eq!(text(&events).len(), MAX_TEXT);
        let faults = events.iter().filter(|event| matches!(event, AgentEvent::Fault { .. })).count();
        assert_eq!((faults, events.len()), (1, 5));
    }
}
