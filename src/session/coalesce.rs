//! Gathers the deltas of a message part, so that a fast model does not make one event a token. Pure.
//!
//! The first delta of a part goes out at once; later ones of the same part wait for at most the flush interval,
//! and never across another event: the order is kept over all kinds.

use std::time::{Duration, Instant};

use crate::{agents::AgentEvent, protocol::event::DeltaKind};

/// A gathered delta goes out when it is so long, whatever the time. Bounds what one session holds back.
const MAX_GATHERED: usize = 32 * 1024;

/// Gathers deltas; see the module's text.
#[derive(Debug, Default)]
pub struct Coalescer {
    interval: Duration,
    gathered: Option<(DeltaKind, String, Instant)>,
    /// The part that the last delta belonged to; none after anything that begins a new part.
    part: Option<DeltaKind>,
}

impl Coalescer {
    /// A coalescer that holds a delta back for at most `interval`; zero holds nothing back.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, ..Self::default() }
    }

    /// Takes an event; what is to go out now, in order, is added to `out`.
    pub fn push(&mut self, event: AgentEvent, now: Instant, out: &mut impl Extend<AgentEvent>) {
        match event {
            AgentEvent::Delta { kind, text } => {
                if self.part == Some(kind) && !self.interval.is_zero() {
                    let (_, gathered, _) = self.gathered.get_or_insert_with(|| (kind, String::new(), now));
                    gathered.push_str(&text);
                    if gathered.len() >= MAX_GATHERED {
                        self.flush(out);
                    }
                } else {
                    self.flush(out);
                    self.part = Some(kind);
                    out.extend([AgentEvent::Delta { kind, text }]);
                }
            }
            // Figures, not an event of the log: they end no part.
            AgentEvent::Usage(_) => out.extend([event]),
            other => {
                self.flush(out);
                if begins_part(&other) {
                    self.part = None;
                }
                out.extend([other]);
            }
        }
    }

    /// Sends what was held back.
    pub fn flush(&mut self, out: &mut impl Extend<AgentEvent>) {
        if let Some((kind, text, _)) = self.gathered.take() {
            out.extend([AgentEvent::Delta { kind, text }]);
        }
    }

    /// When what is held back must go out.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.gathered.as_ref().map(|(_, _, since)| *since + self.interval)
    }
}

const fn begins_part(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::ToolStarted(_) | AgentEvent::Steered { .. } | AgentEvent::Ended(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AgentEvent {
        AgentEvent::Delta { kind: DeltaKind::Text, text: text.into() }
    }

    fn run(interval: u64, events: Vec<AgentEvent>) -> (Vec<AgentEvent>, Coalescer) {
        let (mut coalescer, mut out) = (Coalescer::new(Duration::from_millis(interval)), Vec::new());
        let now = Instant::now();
        events.into_iter().for_each(|event| coalescer.push(event, now, &mut out));
        (out, coalescer)
    }

    #[test]
    fn the_first_delta_goes_at_once_and_the_rest_is_gathered() {
        let (out, coalescer) = run(25, vec![text("a"), text("b"), text("c")]);
        assert_eq!(out, [text("a")]);
        assert!(coalescer.due().is_some());
    }

    #[test]
    fn nothing_is_gathered_across_another_event() {
        let plan = || AgentEvent::Plan(serde_json::Value::Null);
        let (out, coalescer) = run(25, vec![text("a"), text("b"), text("c"), plan(), text("d"), plan()]);
        assert_eq!(out, [text("a"), text("bc"), plan(), text("d"), plan()]);
        assert_eq!(coalescer.due(), None);
    }

    #[test]
    fn a_new_part_begins_at_once() {
        let reasoning = || AgentEvent::Delta { kind: DeltaKind::Reasoning, text: "r".into() };
        let (out, _) = run(25, vec![reasoning(), reasoning(), text("a"), text("b"), reasoning()]);
        assert_eq!(out, [reasoning(), reasoning(), text("a"), text("b"), reasoning()]);
    }

    #[test]
    fn zero_gathers_nothing() {
        let (out, coalescer) = run(0, vec![text("a"), text("b")]);
        assert_eq!(out, [text("a"), text("b")]);
        assert_eq!(coalescer.due(), None);
    }
}
