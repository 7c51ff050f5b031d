//! A client's view: what somebody who reads nothing but the event log would believe. Written apart from the
//! server's own code on purpose.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::{
    ids::{ChoiceId, TurnId},
    protocol::{Event, EventBody, Role, TurnState, event::DeltaKind},
};

/// What the log says.
#[derive(Debug, Default)]
pub struct Client {
    pub last_seq: u64,
    pub queue: Vec<TurnId>,
    pub running: Option<TurnId>,
    pub finished: BTreeMap<TurnId, TurnState>,
    pub started: BTreeSet<TurnId>,
    pub choices: Vec<ChoiceId>,
    pub open_tools: BTreeSet<String>,
    /// Text of the assistant message that is being written.
    pub partial: Option<String>,
    pub steered: Vec<String>,
    pub texts: BTreeMap<TurnId, String>,
    pub attempts: BTreeMap<TurnId, u32>,
    /// Assistant messages by their `message.completed`, checked against their deltas.
    pub completed: usize,
}

impl Client {
    pub fn read(&mut self, event: &Event) {
        assert_eq!(event.seq, self.last_seq + 1, "the log has a gap");
        self.last_seq = event.seq;
        if let Some(turn) = event.turn_id {
            let over = self.finished.contains_key(&turn);
            assert!(!over, "{:?} after the end of its turn", event.body);
        }
        match &event.body {
            EventBody::TurnQueued { turn, position } => {
                assert_eq!(turn.state, TurnState::Queued);
                assert!(!self.started.contains(&turn.id) && !self.queue.contains(&turn.id));
                self.texts.insert(turn.id, turn.text.clone());
                self.attempts.insert(turn.id, turn.attempt);
                self.queue.insert((*position as usize).min(self.queue.len()), turn.id);
            }
            EventBody::TurnUpdated { turn } => {
                assert!(self.queue.contains(&turn.id));
                self.texts.insert(turn.id, turn.text.clone());
            }
            EventBody::TurnMoved { turn_id, position } => {
                self.queue.retain(|id| id != turn_id);
                self.queue.insert(*position as usize, *turn_id);
            }
            EventBody::TurnStarted { .. } => {
                let turn = event.turn_id.unwrap();
                assert_eq!(self.running, None, "two turns run at once");
                assert!(self.started.insert(turn), "a turn ran twice");
                assert_eq!(self.queue.first(), Some(&turn), "a turn ran before its time");
                self.queue.remove(0);
                self.running = Some(turn);
            }
            EventBody::TurnSteered { text, .. } => {
                assert_eq!(event.turn_id, self.running);
                self.steered.push(text.clone());
            }
            EventBody::TurnFinished { state, .. } => {
                let turn = event.turn_id.unwrap();
                assert!(state.is_terminal());
                assert!(self.finished.insert(turn, *state).is_none(), "a turn ended twice");
                if self.running == Some(turn) {
                    self.running = None;
                    assert!(self.choices.is_empty(), "a question outlived its turn");
                    assert!(self.open_tools.is_empty(), "a tool call outlived its turn");
                    assert_eq!(self.partial, None, "a message outlived its turn");
                } else {
                    assert!(self.queue.contains(&turn), "an unknown turn ended");
                    self.queue.retain(|id| *id != turn);
                }
            }
            EventBody::MessageStarted { role: Role::Assistant, .. } => {
                assert!(self.partial.replace(String::new()).is_none(), "two messages at once");
            }
            EventBody::MessageDelta { kind, delta, .. } => {
                let partial = self.partial.as_mut().expect("a delta without a message");
                if *kind == DeltaKind::Text {
                    partial.push_str(delta);
                }
            }
            EventBody::MessageCompleted { message } if message.role == Role::Assistant => {
                assert_eq!(self.partial.take(), Some(message.text()), "deltas and message differ");
                self.completed += 1;
            }
            EventBody::ToolStarted { call_id, .. } => drop(self.open_tools.insert(call_id.clone())),
            EventBody::ToolFinished { call_id, .. } => drop(self.open_tools.remove(call_id)),
            EventBody::ChoiceRequested { choice } => {
                assert_eq!(Some(choice.turn_id), self.running);
                self.choices.push(choice.id);
            }
            EventBody::ChoiceResolved { choice_id, .. } => {
                let before = self.choices.len();
                self.choices.retain(|id| id != choice_id);
                assert_eq!(self.choices.len() + 1, before, "a question was settled that was not asked");
            }
            EventBody::Unknown => panic!("the log has an event that this version does not know"),
            _ => {}
        }
    }
}
