//! A turn told as a run.
//!
//! A turn in which the agent asks is several runs: one up to the question, one from there on, and so on. All of them
//! read the turn from its beginning, so a run is the same whenever it is told; what earlier runs have told is passed over.

use serde_json::{Value, json, value::RawValue};

use super::{
    answer::interrupt,
    line::Line,
    parts::{self, Parts},
    replay,
};
use crate::{
    doors::narration::{Delta, Known, Narrator},
    ids::{ChoiceId, TurnId},
    protocol::{
        Choice, Event, EventBody, Frame, ResolvedBy, Role, ToolStatus, TurnError, TurnState, Usage,
        frame::{EndReason, decode_event},
    },
};

/// The version of the protocol that is spoken, said to clients that say theirs.
const VERSION: &str = "1.0";

/// What is told to whom.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The thread, as the client names it.
    pub thread: String,
    /// The run, likewise.
    pub run: String,
    /// The run before, likewise.
    pub parent: Option<String>,
    /// True for a client that says its protocol version: it knows outcomes that came with 1.0.
    pub declares_version: bool,
    /// The turn.
    pub turn: TurnId,
    /// The questions that this run has answered: it begins behind the last of them, or with the turn where there is
    /// none.
    pub behind: Vec<ChoiceId>,
    /// For a run that comes back to the turn under a name of its own: what is decided about already is no end of it.
    pub joined: Option<Known>,
    /// The client's messages.
    pub messages: Vec<Box<RawValue>>,
    /// How many of them there are up to the last one of the user.
    pub up_to_user: usize,
    /// What of the request has no effect: told once.
    pub unsupported: Option<Value>,
}

/// The narrator of a run.
pub struct AgUi {
    telling: Telling,
    parts: Parts,
    /// How many runs of the turn came before.
    run: u32,
    has_begun: bool,
    is_over: bool,
    /// A question that ends the run, unless a stored rule has answered it: that is the very next event.
    asked: Option<(u64, Box<Choice>)>,
    model: Option<String>,
    /// Where what is passed over is written.
    hidden: Vec<u8>,
}

impl AgUi {
    /// A narrator.
    #[must_use]
    pub fn new(telling: Telling) -> Self {
        Self {
            telling,
            parts: Parts::default(),
            run: 0,
            has_begun: false,
            is_over: false,
            asked: None,
            model: None,
            hidden: Vec::new(),
        }
    }

    fn is_behind(&self) -> bool {
        self.telling.behind.is_empty()
    }

    /// Tells something: to the client, or to nobody where an earlier run has told it, or a later one will.
    fn where_it_goes(&mut self, out: &mut Vec<u8>, tell: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        if self.is_over {
            return;
        }
        if self.is_behind() {
            self.begin(out);
            return tell(self, out);
        }
        let mut hidden = std::mem::take(&mut self.hidden);
        tell(self, &mut hidden);
        hidden.clear();
        self.hidden = hidden;
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let telling = &self.telling;
        let line = Line::new(out, "RUN_STARTED").field("threadId", &telling.thread).field("runId", &telling.run);
        let line = line.maybe("parentRunId", telling.parent.as_deref());
        let line = line.maybe("protocolVersion", telling.declares_version.then_some(VERSION));
        line.field("metadata", &json!({"turn_id": telling.turn})).end();
        if let Some(messages) =
            replay::messages(&telling.messages, telling.up_to_user, self.run, telling.joined.is_some())
        {
            Line::new(out, "MESSAGES_SNAPSHOT").field("messages", &messages).end();
        }
        if let Some(what) = &telling.unsupported {
            custom("unsupported", what, out);
        }
    }

    /// Decides whether a question ends the run, now that the next event is known, or that there is none yet.
    fn settle_question(&mut self, next: Option<&EventBody>, out: &mut Vec<u8>) {
        let Some((seq, choice)) = self.asked.take() else { return };
        if matches!(next, Some(EventBody::ChoiceResolved { choice_id, source: ResolvedBy::Rule, .. }) if *choice_id == choice.id)
        {
            return;
        }
        if self.telling.joined.as_ref().is_some_and(|joined| joined.is_answered(choice.id, seq)) {
            self.parts.close_all(out);
        } else if self.is_behind() {
            self.parts.close_all(out);
            let call = choice.tool.as_deref().and_then(|tool| self.parts.open_call(tool));
            let outcome = json!({"type": "interrupt", "interrupts": [interrupt(&choice, call)]});
            self.end_run(&outcome, None, out);
        } else {
            self.parts.close_all(&mut self.hidden);
            self.hidden.clear();
            self.telling.behind.retain(|id| *id != choice.id);
        }
        self.run = self.run.saturating_add(1);
    }

    fn tell(&mut self, event: &Event, out: &mut Vec<u8>) {
        let run = self.run;
        match &event.body {
            EventBody::TurnStarted { model, .. } => self.model.clone_from(model),
            EventBody::MessageDelta { message_id, part, kind, delta } if !delta.is_empty() => {
                self.parts.delta(run, (&message_id.to_string(), *part), *kind, delta, out);
            }
            EventBody::MessageCompleted { message } if message.role == Role::Assistant => {
                self.parts.close_message(&message.id.to_string(), out);
            }
            EventBody::ToolStarted { call_id, name, input, .. } => self.parts.call(run, call_id, name, input, out),
            EventBody::ToolDelta { call_id, input_so_far } => self.parts.input(call_id, input_so_far, out),
            EventBody::ToolUpdated { call_id, status, .. } if *status != ToolStatus::Pending => {
                self.parts.called(call_id, out);
            }
            EventBody::ToolFinished { call_id, output, is_error } => {
                self.parts.result(run, call_id, output, *is_error, out);
            }
            EventBody::ChoiceRequested { choice } => self.asked = Some((event.seq, choice.clone())),
            EventBody::ChoiceResolved { choice_id, outcome, source } => {
                custom("choice.resolved", &json!({"choice_id": choice_id, "outcome": outcome, "source": source}), out);
            }
            EventBody::TurnSteered { text, source } => {
                custom("turn.steered", &json!({"text": text, "source": source}), out);
            }
            EventBody::AgentPlan { entries } => custom("agent.plan", &json!({"entries": entries}), out),
            EventBody::Error { code, message } => custom("error", &json!({"code": code, "message": message}), out),
            EventBody::TurnFinished { state, reason, error, usage, .. } => {
                self.parts.close_all(out);
                self.end_turn(*state, reason.as_deref(), error.as_ref(), usage, out);
            }
            _ => {}
        }
    }

    fn end_turn(
        &mut self,
        state: TurnState,
        reason: Option<&str>,
        error: Option<&TurnError>,
        usage: &Usage,
        out: &mut Vec<u8>,
    ) {
        let usage = parts::usage(usage, self.model.as_deref());
        match (state, error) {
            (TurnState::Completed, _) => self.end_run(&json!({"type": "success"}), Some(&usage), out),
            // Before 1.0 there was no such outcome, and a client refuses one that it does not know.
            (TurnState::Cancelled, _) if self.telling.declares_version => {
                self.end_run(&json!({"type": "cancelled"}), Some(&usage), out);
            }
            (TurnState::Cancelled, _) => self.fail("cancelled", "The turn was cancelled.", Some(&usage), out),
            (_, Some(error)) => self.fail(&error.code, &error.message, Some(&usage), out),
            (TurnState::Interrupted, None) => {
                let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                let message = format!("The turn was interrupted{why}. Send the message again in a new run.");
                self.fail("interrupted", &message, Some(&usage), out);
            }
            (state, None) => {
                let code = reason.unwrap_or(state.as_str());
                self.fail(code, &format!("The turn is {}: {code}.", state.as_str()), Some(&usage), out);
            }
        }
    }

    fn end_run(&mut self, outcome: &Value, usage: Option<&Value>, out: &mut Vec<u8>) {
        let line = Line::new(out, "RUN_FINISHED");
        let line = line.field("threadId", &self.telling.thread).field("runId", &self.telling.run);
        line.field("outcome", outcome).maybe("usage", usage).end();
        self.is_over = true;
    }

    fn fail(&mut self, code: &str, message: &str, usage: Option<&Value>, out: &mut Vec<u8>) {
        self.begin(out);
        Line::new(out, "RUN_ERROR").field("message", message).field("code", code).maybe("usage", usage).end();
        self.is_over = true;
    }
}

/// An event of ours, for clients that know us.
fn custom(name: &str, value: &Value, out: &mut Vec<u8>) {
    Line::new(out, "CUSTOM").field("name", &format!("greenroom.{name}")).field("value", value).end();
}

impl Narrator for AgUi {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.settle_question(Some(&event.body), out);
        self.where_it_goes(out, |narrator, out| narrator.tell(event, out));
    }

    /// Deltas are most of what there is: they are passed on as they stand in the log.
    fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        // What comes behind a question is looked at, to know how that ended.
        let delta = (frame.kind == "message.delta" && self.asked.is_none()).then(|| Delta::of(&frame.json)).flatten();
        match delta {
            Some(delta) if delta.delta.get() != "\"\"" => self.where_it_goes(out, |narrator, out| {
                let at = (delta.message_id, delta.part);
                narrator.parts.delta(narrator.run, at, delta.kind, delta.delta, out);
            }),
            Some(_empty) => {}
            // What cannot be read is left out: the log holds only what was encoded here.
            None => {
                if let Ok(event) = decode_event(&frame.json) {
                    self.event(&event, out);
                }
            }
        }
    }

    fn pause(&mut self, out: &mut Vec<u8>) {
        self.settle_question(None, out);
        if self.is_behind() {
            self.begin(out);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.is_over {
            self.fail("not_found", "The events of this run are not all there any more.", None, out);
        }
    }

    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        let code = serde_json::to_value(reason);
        let code = code.as_ref().ok().and_then(Value::as_str).unwrap_or("cut");
        let advice = if reason.retry() { " Run again with the same runId: it is told from its beginning." } else { "" };
        self.fail(code, &format!("The stream was cut before the run was over: {code}.{advice}"), None, out);
    }
}
