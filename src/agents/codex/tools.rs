//! The tool calls of a turn: announced, their output as it comes, their end. Pure: the time comes from outside.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::cards;
use crate::{
    agents::{AgentEvent, ToolCall},
    protocol::ToolStatus,
};

/// While a call runs, its output is told at most so often,
const PACE: Duration = Duration::from_millis(250);
/// and of it only the end; the whole comes with the end of the call.
const TAIL: usize = 16 * 1024;

/// The calls of the running turn.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Call>);

#[derive(Debug)]
struct Call {
    card: ToolCall,
    is_command: bool,
    output: String,
    /// True once the beginning of the output was dropped.
    cut: bool,
    /// When output that is not told yet has to be.
    due: Option<Instant>,
    told: Option<Instant>,
    finished: bool,
}

impl Tools {
    /// Forgets all calls: a turn begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is known of a call.
    pub(super) fn card(&self, call_id: &str) -> Option<&ToolCall> {
        self.0.get(call_id).map(|call| &call.card)
    }

    /// A call begins, or more is known of it. None when the item is no call.
    pub(super) fn started(&mut self, item: &Value) -> Option<Vec<AgentEvent>> {
        let card = cards::card(item)?;
        let is_command = item.get("type").and_then(Value::as_str) == Some("commandExecution");
        Some(self.announce(card, is_command).into_iter().collect())
    }

    fn announce(&mut self, card: ToolCall, is_command: bool) -> Option<AgentEvent> {
        if let Some(known) = self.0.get_mut(&card.call_id) {
            if known.finished || known.card == card {
                return None;
            }
            known.card = card.clone();
            return Some(AgentEvent::ToolStarted(card));
        }
        let call = Call {
            card: card.clone(),
            is_command,
            output: String::new(),
            cut: false,
            due: None,
            told: None,
            finished: false,
        };
        self.0.insert(card.call_id.clone(), call);
        Some(AgentEvent::ToolStarted(card))
    }

    /// A call is over; some are told only then. None when the item is no call.
    pub(super) fn completed(&mut self, item: &Value) -> Option<Vec<AgentEvent>> {
        let mut events = self.started(item)?;
        let call = item.get("id").and_then(Value::as_str).and_then(|id| self.0.get_mut(id));
        let Some(call) = call.filter(|call| !call.finished) else { return Some(events) };
        call.finished = true;
        call.due = None;
        call.output = String::new();
        let (output, is_error) = cards::result(item);
        events.push(AgentEvent::ToolFinished { call_id: call.card.call_id.clone(), output, is_error });
        Some(events)
    }

    /// The files of a change, as far as they are known by now.
    pub(super) fn changes(&mut self, call_id: &str, changes: &Value) -> Option<AgentEvent> {
        let item = serde_json::json!({"type": "fileChange", "id": call_id, "changes": changes});
        self.announce(cards::card(&item)?, false)
    }

    /// A piece of a call's output. Pieces that follow each other closely are told together.
    pub(super) fn output(&mut self, call_id: &str, delta: &str, now: Instant) -> Option<AgentEvent> {
        let call = self.0.get_mut(call_id).filter(|call| !call.finished && !delta.is_empty())?;
        call.output.push_str(delta);
        // Twice the length is kept, so that the beginning is not moved for every piece.
        if call.output.len() > 2 * TAIL {
            let from = call.output.len() - TAIL;
            let from = (from..call.output.len()).find(|at| call.output.is_char_boundary(*at))?;
            call.output.drain(..from);
            call.cut = true;
        }
        match call.told {
            Some(told) if now < told + PACE => {
                call.due = Some(told + PACE);
                None
            }
            _ => Some(call.tell(now)),
        }
    }

    /// A line about how far a call is, in place of its output.
    pub(super) fn progress(&mut self, call_id: &str, message: &str) -> Option<AgentEvent> {
        let call = self.0.get(call_id).filter(|call| !call.finished)?;
        let call_id = call.card.call_id.clone();
        Some(AgentEvent::ToolUpdated { call_id, status: ToolStatus::Running, output: message.into() })
    }

    /// When [`Tools::flush`] has something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|call| call.due).min()
    }

    /// Output that has waited long enough.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<AgentEvent> {
        let due = self.0.values_mut().filter(|call| call.due.is_some_and(|due| due <= now));
        due.map(|call| call.tell(now)).collect()
    }

    /// The commands that are not over.
    pub(super) fn running_commands(&self) -> Vec<String> {
        let running = self.0.values().filter(|call| call.is_command && !call.finished);
        running.map(|call| call.card.call_id.clone()).collect()
    }
}

impl Call {
    fn tell(&mut self, now: Instant) -> AgentEvent {
        self.told = Some(now);
        self.due = None;
        let output = if self.cut { format!("[…]{}", self.output) } else { self.output.clone() };
        AgentEvent::ToolUpdated {
            call_id: self.card.call_id.clone(),
            status: ToolStatus::Running,
            output: output.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(status: &str) -> Value {
        json!({"type": "commandExecution", "id": "c", "command": "make", "status": status, "aggregatedOutput": "all",
            "exitCode": 0})
    }

    fn updated(event: Option<AgentEvent>) -> Option<String> {
        match event? {
            AgentEvent::ToolUpdated { output, .. } => output.as_str().map(str::to_owned),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_is_told_at_a_pace_and_whole_at_the_end() {
        let (mut tools, now) = (Tools::default(), Instant::now());
        assert_eq!(tools.started(&command("inProgress")).map(|events| events.len()), Some(1));
        assert_eq!(tools.started(&command("inProgress")).map(|events| events.len()), Some(0));
        assert_eq!(updated(tools.output("c", "1 ", now)).as_deref(), Some("1 "));
        assert_eq!((updated(tools.output("c", "2 ", now)), tools.due()), (None, Some(now + PACE)));
        assert_eq!(tools.flush(now), []);
        let told = tools.flush(now + PACE).pop();
        assert_eq!((updated(told).as_deref(), tools.due()), (Some("1 2 "), None));
        assert_eq!(tools.running_commands(), ["c"]);
        assert_eq!(updated(tools.output("c", "3", now + PACE)), None);
        let ended = tools.completed(&command("completed")).unwrap();
        assert_eq!(ended, [AgentEvent::ToolFinished { call_id: "c".into(), output: json!("all"), is_error: false }]);
        assert_eq!((tools.due(), tools.running_commands().len()), (None, 0));
        assert_eq!(tools.completed(&command("completed")), Some(vec![]));
        assert_eq!(updated(tools.output("c", "late", now + PACE * 9)), None);
    }

    #[test]
    fn long_output_keeps_its_end() {
        let (mut tools, now) = (Tools::default(), Instant::now());
        tools.started(&command("inProgress"));
        tools.output("c", &"ä".repeat(TAIL), now);
        tools.output("c", "the end", now);
        let text = updated(tools.flush(now + PACE).pop()).unwrap();
        assert!(text.starts_with("[…]ä") && text.ends_with("the end") && text.len() <= TAIL + 8, "{}", text.len());
    }

    #[test]
    fn what_was_never_announced_is_announced_at_its_end() {
        let mut tools = Tools::default();
        let events = tools.completed(&command("completed")).unwrap();
        assert!(matches!(&events[..], [AgentEvent::ToolStarted(_), AgentEvent::ToolFinished { .. }]), "{events:?}");
        assert_eq!(tools.completed(&json!({"type": "agentMessage", "id": "a"})), None);
        assert_eq!(tools.output("unknown", "x", Instant::now()), None);
    }
}
