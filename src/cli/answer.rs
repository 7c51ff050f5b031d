//! The answer to one message, out of the events of its turn: what to print, and how it ended. Pure.

use std::collections::HashMap;

use super::terminal::first_line;
use crate::{
    ids::{MessageId, TurnId},
    protocol::{Choice, Event, EventBody, Message, Role, Turn, TurnState, event::DeltaKind},
};

/// Which text of which message was shown already.
#[derive(Debug, Default)]
pub struct Shown {
    roles: HashMap<MessageId, Role>,
    bytes: HashMap<MessageId, usize>,
}

impl Shown {
    /// A message begins.
    pub fn started(&mut self, id: MessageId, role: Role) {
        self.roles.insert(id, role);
    }

    /// Counts a piece of text that is shown now. False when it is not the agent's.
    pub fn delta(&mut self, id: MessageId, text: &str) -> bool {
        *self.bytes.entry(id).or_default() += text.len();
        self.roles.get(&id).is_none_or(|role| *role == Role::Assistant)
    }

    /// The text of a whole message that was not shown before: all of it when its deltas were pruned.
    pub fn rest(&mut self, message: &Message) -> String {
        self.roles.remove(&message.id);
        let shown = self.bytes.remove(&message.id).unwrap_or(0);
        message.text().get(shown..).unwrap_or_default().to_owned()
    }
}

/// Something to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// A piece of the answer.
    Text(String),
    /// A line about it.
    Note(String),
    /// The agent waits for this.
    Ask(Box<Choice>),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Its terminal state.
    pub state: TurnState,
    /// Why, where the state alone does not say.
    pub why: Option<String>,
}

/// One answer as it comes in.
#[derive(Debug, Default)]
pub struct Answer {
    turn: Option<TurnId>,
    shown: Shown,
    last: Option<MessageId>,
    ending: Option<Ending>,
}

impl Answer {
    /// The turn, once known.
    pub const fn turn(&self) -> Option<TurnId> {
        self.turn
    }

    /// How it ended, once it has.
    pub const fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The turn as it was looked up, after events were lost.
    pub fn looked_up(&mut self, turn: &Turn) {
        if turn.state.is_terminal() {
            let error = turn.error.as_ref().map(|error| error.message.clone());
            self.ending = Some(Ending { state: turn.state, why: error.or_else(|| turn.reason.clone()) });
        }
    }

    /// Takes the next event. Events of other turns are none of its business.
    pub fn take(&mut self, event: &Event) -> Vec<Out> {
        if self.turn.is_none() {
            self.turn = event.turn_id;
        }
        if event.turn_id.is_none() || event.turn_id != self.turn {
            return Vec::new();
        }
        match &event.body {
            EventBody::TurnQueued { position, .. } if *position > 0 => {
                vec![Out::Note(format!("waits in line, {position} before it"))]
            }
            EventBody::MessageStarted { message_id, role } => {
                self.shown.started(*message_id, *role);
                Vec::new()
            }
            EventBody::MessageDelta { message_id, kind: DeltaKind::Text, delta, .. } => {
                if self.shown.delta(*message_id, delta) { self.text(*message_id, delta.clone()) } else { Vec::new() }
            }
            EventBody::MessageCompleted { message } if message.role == Role::Assistant => {
                let rest = self.shown.rest(message);
                if rest.is_empty() { Vec::new() } else { self.text(message.id, rest) }
            }
            EventBody::ToolStarted { name, title, input_summary, .. } => {
                let what = input_summary.as_ref().or(title.as_ref()).map(String::as_str).unwrap_or_default();
                vec![Out::Note(format!("tool {name} {}", first_line(what, 100)).trim_end().to_owned())]
            }
            EventBody::ChoiceRequested { choice } => vec![Out::Ask(choice.clone())],
            EventBody::AgentStatus { reason: Some(reason), .. } => vec![Out::Note(first_line(reason, 200))],
            EventBody::Error { message, .. } => vec![Out::Note(first_line(message, 500))],
            EventBody::TurnFinished { state, reason, error, .. } => {
                let why = error.as_ref().map(|error| error.message.clone()).or_else(|| reason.clone());
                self.ending = Some(Ending { state: *state, why });
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// A piece of a message; messages of one answer are kept apart by a blank line.
    fn text(&mut self, id: MessageId, text: String) -> Vec<Out> {
        let other = self.last.replace(id).is_some_and(|last| last != id);
        let apart = other.then(|| Out::Text("\n\n".into()));
        apart.into_iter().chain([Out::Text(text)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Part, TurnError, Usage},
        timestamp::Timestamp,
    };

    fn event(turn: TurnId, body: EventBody) -> Event {
        Event { seq: 1, body, session: "k".parse().unwrap(), turn_id: Some(turn), at: Timestamp(0) }
    }

    fn delta(id: MessageId, kind: DeltaKind, delta: &str) -> EventBody {
        EventBody::MessageDelta { message_id: id, part: 0, kind, delta: delta.into() }
    }

    fn message(id: MessageId, role: Role, text: &str) -> EventBody {
        let parts = vec![Part::Text { text: text.into() }];
        let message =
            Message { id, role, parts, turn_id: None, agent: None, client_id: None, created_at: Timestamp(0) };
        EventBody::MessageCompleted { message: Box::new(message) }
    }

    fn text(outs: &[Out]) -> String {
        let texts = outs.iter().map(|out| match out {
            Out::Text(text) => text.as_str(),
            other => panic!("{other:?}"),
        });
        texts.collect()
    }

    #[test]
    fn the_answer_is_the_agents_text_and_nothing_twice() {
        let (turn, user, one, two) = (TurnId::new(), MessageId::new(), MessageId::new(), MessageId::new());
        let mut answer = Answer::default();
        let bodies = [
            message(user, Role::User, "question"),
            EventBody::MessageStarted { message_id: one, role: Role::Assistant },
            delta(one, DeltaKind::Reasoning, "hm"),
            delta(one, DeltaKind::Text, "Hel"),
            delta(one, DeltaKind::Text, "lo"),
            message(one, Role::Assistant, "Hello"),
            // Its deltas were pruned.
            message(two, Role::Assistant, "again"),
        ];
        let outs: Vec<Out> = bodies.into_iter().flat_map(|body| answer.take(&event(turn, body))).collect();
        assert_eq!(text(&outs), "Hello\n\nagain");
        assert!(answer.take(&event(TurnId::new(), delta(one, DeltaKind::Text, "other"))).is_empty());
        assert_eq!(answer.ending(), None);
    }

    #[test]
    fn the_end_has_its_reason() {
        let turn = TurnId::new();
        let mut answer = Answer::default();
        let error = Some(TurnError { code: "agent_error".into(), message: "no model".into() });
        let usage = Usage::default();
        let finished = EventBody::TurnFinished { state: TurnState::Failed, reason: None, error, usage, summary: None };
        answer.take(&event(turn, finished));
        assert_eq!(answer.ending(), Some(&Ending { state: TurnState::Failed, why: Some("no model".into()) }));
    }
}
