//! The answer's text and reasoning out of items and their deltas, nothing twice. Pure.
//!
//! An item is told in pieces and then once more as a whole; the whole counts only where there were no pieces.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::{agents::AgentEvent, protocol::event::DeltaKind};

/// Where reasoning comes from: models of others give it raw, OpenAI's as a summary, some both. The first that an item
/// gives is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Summary,
    Raw,
}

/// What of the running turn was told.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Texts that came in pieces.
    begun: HashSet<String>,
    /// Reasoning that came in pieces, its source, and the paragraph that it is in.
    reasoning: HashMap<String, (Source, u64)>,
    /// The item that the last piece belonged to, while nothing has come between.
    last: Option<(DeltaKind, String)>,
}

impl Texts {
    /// Forgets everything: a turn begins.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Something else came between, which begins a new part.
    pub(super) fn interrupted(&mut self) {
        self.last = None;
    }

    /// A piece of a message or of a proposed plan.
    pub(super) fn delta(&mut self, item: &str, delta: &str) -> Option<AgentEvent> {
        if delta.is_empty() {
            return None;
        }
        if !self.begun.contains(item) {
            self.begun.insert(item.to_owned());
        }
        Some(self.told(DeltaKind::Text, item, delta))
    }

    /// A message or a proposed plan as a whole.
    pub(super) fn whole(&mut self, item: &str, text: &str) -> Option<AgentEvent> {
        if text.is_empty() || self.begun.contains(item) {
            return None;
        }
        self.delta(item, text)
    }

    /// A piece of reasoning in its paragraph.
    pub(super) fn thought(&mut self, item: &str, source: Source, paragraph: u64, delta: &str) -> Option<AgentEvent> {
        if delta.is_empty() {
            return None;
        }
        let (known, before) = *self.reasoning.entry(item.to_owned()).or_insert((source, paragraph));
        if known != source {
            return None;
        }
        self.reasoning.insert(item.to_owned(), (source, paragraph));
        let delta = if paragraph == before { delta.to_owned() } else { format!("\n\n{delta}") };
        Some(self.told(DeltaKind::Reasoning, item, &delta))
    }

    /// Reasoning as a whole: `summary` or else `content`, a list of paragraphs each.
    pub(super) fn whole_thought(&mut self, item: &str, whole: &Value) -> Option<AgentEvent> {
        if self.reasoning.contains_key(item) {
            return None;
        }
        let paragraphs = |field: &str| {
            let list = whole.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            Some(list.collect::<Vec<_>>().join("\n\n")).filter(|text| !text.is_empty())
        };
        let text = paragraphs("summary").or_else(|| paragraphs("content"))?;
        self.thought(item, Source::Summary, 0, &text)
    }

    /// Two messages without anything between are two paragraphs.
    fn told(&mut self, kind: DeltaKind, item: &str, delta: &str) -> AgentEvent {
        let text = match &mut self.last {
            Some((last, of)) if *last == kind && of == item => delta.to_owned(),
            Some((last, of)) if *last == kind => {
                item.clone_into(of);
                format!("\n\n{delta}")
            }
            last => {
                *last = Some((kind, item.to_owned()));
                delta.to_owned()
            }
        };
        AgentEvent::Delta { kind, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(event: Option<AgentEvent>) -> String {
        match event {
            Some(AgentEvent::Delta { text, .. }) => text,
            _ => String::new(),
        }
    }

    #[test]
    fn a_whole_adds_nothing_to_its_pieces() {
        let mut texts = Texts::default();
        assert_eq!(text(texts.delta("a", "Hel")) + &text(texts.delta("a", "lo")), "Hello");
        assert_eq!(texts.whole("a", "Hello"), None);
        assert_eq!(text(texts.whole("b", "World")), "\n\nWorld");
        texts.interrupted();
        assert_eq!(text(texts.whole("c", "again")), "again");
        assert_eq!((texts.whole("d", ""), texts.delta("d", "")), (None, None));
    }

    #[test]
    fn reasoning_is_told_from_one_source_in_paragraphs() {
        let mut texts = Texts::default();
        assert_eq!(text(texts.thought("r", Source::Summary, 0, "one")), "one");
        assert_eq!(texts.thought("r", Source::Raw, 0, "o n e"), None);
        assert_eq!(text(texts.thought("r", Source::Summary, 1, "two")), "\n\ntwo");
        assert_eq!(texts.whole_thought("r", &json!({"summary": ["one", "two"]})), None);
        texts.delta("a", "between");
        assert_eq!(text(texts.whole_thought("s", &json!({"summary": [], "content": ["x", "y"]}))), "x\n\ny");
    }
}
