//! A session as text for `attach`. Pure: events in, text out; it remembers only what the screen shows.

use std::collections::HashSet;

use super::{
    answer::Shown,
    prompt,
    terminal::{Style, clean, first_line},
};
use crate::protocol::{Event, EventBody, Message, Part, Role, ToolStatus, TurnState, Usage, event::DeltaKind};

/// What the last line on the screen is a piece of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Reasoning,
}

/// Turns events into text.
#[derive(Debug)]
pub struct Renderer {
    style: Style,
    shown: Shown,
    own: HashSet<String>,
    open: Option<Open>,
    working: bool,
    /// How much of the prompt the model has read, in percent.
    progress: Option<u8>,
}

impl Renderer {
    /// An empty screen.
    pub fn new(style: Style) -> Self {
        Self { style, shown: Shown::default(), own: HashSet::new(), open: None, working: false, progress: None }
    }

    /// True while the agent works and nothing is being written in the last line.
    pub const fn is_waiting(&self) -> bool {
        self.working && self.open.is_none()
    }

    /// What the agent does while it is waited for.
    pub fn activity(&self) -> String {
        self.progress.map_or_else(|| "working".into(), |percent| format!("reads the prompt, {percent} %"))
    }

    /// A turn runs already.
    pub const fn set_working(&mut self) {
        self.working = true;
    }

    /// A message that is about to be sent from here: what was typed need not be shown again.
    pub fn sending(&mut self, client_id: &str) {
        self.own.insert(client_id.to_owned());
    }

    /// A message of the past; `whole` is false for one that is still being written.
    pub fn message(&mut self, message: &Message, whole: bool) -> String {
        let mut out = String::new();
        if !whole {
            self.shown.started(message.id, message.role);
            self.shown.delta(message.id, &message.text());
        }
        for part in &message.parts {
            match part {
                Part::Text { text } if message.role == Role::User => out += &self.user(text),
                Part::Text { text } => out += &self.piece(Open::Text, text),
                Part::Reasoning { text } => out += &self.piece(Open::Reasoning, text),
                Part::ToolCall { name, title, input, output, is_error, status, .. } => {
                    out += &self.tool(name, Some(title.as_ref().unwrap_or(&input.to_string())));
                    if matches!(status, ToolStatus::Completed | ToolStatus::Failed) {
                        out += &self.result(output, *is_error);
                    }
                }
                Part::File { name, bytes, .. } => out += &self.aside(&format!("  file {name}, {bytes} bytes")),
            }
        }
        if whole { out + &self.close() } else { out }
    }

    /// An event.
    pub fn event(&mut self, event: &Event) -> String {
        match &event.body {
            EventBody::TurnQueued { position, .. } if *position > 0 => {
                self.aside(&format!("  a message waits in line, {position} before it"))
            }
            EventBody::TurnStarted { .. } => {
                self.working = true;
                self.close()
            }
            EventBody::TurnSteered { text, .. } => self.user(text),
            EventBody::TurnFinished { state, reason, error, usage, .. } => {
                self.working = false;
                self.progress = None;
                let why = error.as_ref().map(|error| error.message.as_str()).or(reason.as_deref());
                self.finished(*state, why, usage)
            }
            EventBody::MessageStarted { message_id, role } => {
                self.shown.started(*message_id, *role);
                String::new()
            }
            EventBody::MessageDelta { kind: DeltaKind::Reasoning, delta, .. } => self.piece(Open::Reasoning, delta),
            EventBody::MessageDelta { message_id, delta, .. } => {
                if self.shown.delta(*message_id, delta) {
                    self.piece(Open::Text, delta)
                } else {
                    String::new()
                }
            }
            EventBody::MessageCompleted { message } => self.completed(message),
            EventBody::ToolStarted { name, title, input_summary, .. } => {
                self.tool(name, input_summary.as_deref().or(title.as_deref()))
            }
            EventBody::ToolFinished { output, is_error, .. } => self.result(output, *is_error),
            EventBody::ChoiceRequested { choice } => self.close() + &prompt::show(choice, self.style),
            EventBody::ChoiceResolved { outcome, source, .. } => {
                let by = serde_json::to_value(source).ok().and_then(|by| by.as_str().map(str::to_owned));
                let outcome = first_line(&outcome.to_string(), 200);
                self.aside(&format!("  answered ({}): {outcome}", by.unwrap_or_default()))
            }
            EventBody::AgentStatus { reason: Some(reason), .. } => self.aside(&format!("  {reason}")),
            EventBody::AgentProgress { percent, .. } => {
                self.progress = Some(*percent);
                String::new()
            }
            EventBody::Error { message, .. } => self.close() + &self.style.bad(&clean(message)) + "\n",
            EventBody::SessionReset { .. } => self.aside("— a new conversation begins —"),
            EventBody::SessionArchived { .. } => self.aside("— archived: takes no more messages —"),
            EventBody::SessionDeleted { .. } => self.aside("— deleted —"),
            _ => String::new(),
        }
    }

    /// A line about something, dimmed.
    pub fn aside(&mut self, line: &str) -> String {
        self.close() + &self.style.dim(&clean(line)) + "\n"
    }

    /// Ends the line that is being written.
    pub fn close(&mut self) -> String {
        if self.open.take().is_some() { "\n".into() } else { String::new() }
    }

    fn completed(&mut self, message: &Message) -> String {
        if message.role == Role::User && message.client_id.as_ref().is_some_and(|id| self.own.remove(id)) {
            return String::new();
        }
        let rest = self.shown.rest(message);
        match message.role {
            Role::Assistant if rest.is_empty() => self.close(),
            Role::Assistant => self.piece(Open::Text, &rest) + &self.close(),
            Role::User => self.user(&rest),
            Role::Tool | Role::System => self.aside(&rest),
        }
    }

    fn user(&mut self, text: &str) -> String {
        self.close() + &self.style.user(&format!("› {}", clean(text.trim_end()))) + "\n"
    }

    fn piece(&mut self, open: Open, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let close = if self.open == Some(open) { String::new() } else { self.close() };
        self.open = Some(open);
        self.progress = None;
        let text = clean(text);
        close + &if open == Open::Reasoning { self.style.dim(&text) } else { text }
    }

    fn tool(&mut self, name: &str, about: Option<&str>) -> String {
        let line = format!("● {} {}", first_line(name, 60), first_line(about.unwrap_or_default(), 120));
        self.close() + &self.style.tool(line.trim_end()) + "\n"
    }

    fn result(&mut self, output: &serde_json::Value, is_error: bool) -> String {
        let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
        let line = format!("  {} {}", if is_error { "✗" } else { "✓" }, first_line(&text, 120));
        self.close() + &if is_error { self.style.bad(&line) } else { self.style.dim(&line) } + "\n"
    }

    fn finished(&mut self, state: TurnState, why: Option<&str>, usage: &Usage) -> String {
        let mut line = format!("— {}", state.as_str());
        if let Some(why) = why {
            line += &format!(": {}", clean(why));
        }
        if usage.input_tokens + usage.output_tokens > 0 {
            line += &format!(" · {} tokens in, {} out", usage.input_tokens, usage.output_tokens);
        }
        if let Some(cost) = usage.cost_usd {
            line += &format!(" · ${cost:.4}");
        }
        let close = self.close();
        close + &if state == TurnState::Completed { self.style.dim(&line) } else { self.style.bad(&line) } + "\n"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ids::{MessageId, TurnId},
        protocol::TurnError,
        timestamp::Timestamp,
    };

    fn event(body: EventBody) -> Event {
        Event { seq: 1, body, session: "k".parse().unwrap(), turn_id: Some(TurnId::new()), at: Timestamp(0) }
    }

    fn message(id: MessageId, role: Role, text: &str, client_id: Option<&str>) -> Message {
        let parts = vec![Part::Text { text: text.into() }];
        let client_id = client_id.map(str::to_owned);
        Message { id, role, parts, turn_id: None, agent: None, client_id, created_at: Timestamp(0) }
    }

    fn delta(id: MessageId, kind: DeltaKind, delta: &str) -> EventBody {
        EventBody::MessageDelta { message_id: id, part: 0, kind, delta: delta.into() }
    }

    #[test]
    fn a_turn_reads_like_a_conversation() {
        let mut screen = Renderer::new(Style::PLAIN);
        let id = MessageId::new();
        let started = EventBody::TurnStarted { agent: "echo".into(), model: None, cold_start: true, resumed: None };
        let user = message(MessageId::new(), Role::User, "Hi\x1b[2J", None);
        let tool = EventBody::ToolStarted {
            call_id: "1".into(),
            name: "bash".into(),
            title: None,
            kind: None,
            input: json!({}),
            input_summary: Some("ls\n-l".into()),
        };
        let result = EventBody::ToolFinished { call_id: "1".into(), output: json!("a b"), is_error: false };
        let usage = Usage { input_tokens: 3, output_tokens: 5, cost_usd: Some(0.01), ..Usage::default() };
        let done =
            EventBody::TurnFinished { state: TurnState::Completed, reason: None, error: None, usage, summary: None };
        let bodies = [
            EventBody::MessageCompleted { message: Box::new(user) },
            started,
            EventBody::MessageStarted { message_id: id, role: Role::Assistant },
            delta(id, DeltaKind::Reasoning, "hm"),
            delta(id, DeltaKind::Text, "Let me "),
            delta(id, DeltaKind::Text, "look."),
            tool,
            result,
            delta(id, DeltaKind::Text, "Done."),
            EventBody::MessageCompleted { message: Box::new(message(id, Role::Assistant, "Let me look.Done.", None)) },
            done,
        ];
        let text: String = bodies.into_iter().map(|body| screen.event(&event(body))).collect();
        let expected = "› Hi[2J\nhm\nLet me look.\n● bash ls…\n  ✓ a b\nDone.\n\
                        — completed · 3 tokens in, 5 out · $0.0100\n";
        assert_eq!(text, expected);
        assert!(!screen.is_waiting());
    }

    #[test]
    fn a_failure_says_why_and_own_messages_are_not_repeated() {
        let mut screen = Renderer::new(Style::PLAIN);
        screen.sending("c1");
        let own = message(MessageId::new(), Role::User, "typed", Some("c1"));
        assert_eq!(screen.event(&event(EventBody::MessageCompleted { message: Box::new(own) })), "");
        let error = Some(TurnError { code: "agent_error".into(), message: "no model".into() });
        let usage = Usage::default();
        let failed = EventBody::TurnFinished { state: TurnState::Failed, reason: None, error, usage, summary: None };
        assert_eq!(screen.event(&event(failed)), "— failed: no model\n");
    }

    #[test]
    fn a_message_that_is_being_written_goes_on_where_it_was() {
        let mut screen = Renderer::new(Style::PLAIN);
        let id = MessageId::new();
        assert_eq!(screen.message(&message(id, Role::Assistant, "Hel", None), false), "Hel");
        assert_eq!(screen.event(&event(delta(id, DeltaKind::Text, "lo"))), "lo");
        let whole = message(id, Role::Assistant, "Hello", None);
        assert_eq!(screen.event(&event(EventBody::MessageCompleted { message: Box::new(whole) })), "\n");
    }
}
