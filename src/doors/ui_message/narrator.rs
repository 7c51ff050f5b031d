//! A turn as parts of a UI message: text, reasoning, calls of tools, questions, and how it ended.
//!
//! Text and reasoning are blocks that are opened before their first piece and closed before anything else is told. A step
//! is one round of the model: a new one begins with what comes after the results of all calls of the step before.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    part::{Fault, Part, Steer, TextPart, write_done},
    tools::Calls,
    version::Version,
};
use crate::{
    doors::narration::{self, Delta, Known},
    ids::{ChoiceId, TurnId},
    protocol::{
        Choice, ChoiceKind, Event, EventBody, Frame, Message, Part as Piece, Role, ToolStatus, TurnState,
        event::DeltaKind, frame::EndReason,
    },
};

/// From where on the client wants the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// From its start.
    AtStart,
    /// It has the turn up to these questions, and has answered them: the same message goes on.
    AfterChoices(Vec<ChoiceId>),
    /// From where the agent took this text, which was offered right before this `seq`: a new message.
    AfterSteering(String, u64),
}

/// Tells one turn as parts of a UI message.
#[derive(Debug)]
pub struct Narrator {
    version: Version,
    turn: TurnId,
    /// Before this is [`Begin::AtStart`] nothing is told, only remembered.
    begin: Begin,
    /// What was known when a turn was taken up again: of the questions up to this event, only these still wait.
    known: Option<Known>,
    /// The id of the message: that of the assistant's first one.
    message: Option<String>,
    started: bool,
    in_step: bool,
    /// The calls of this step have their results: what comes now belongs to the next.
    step_is_done: bool,
    block: Option<Block>,
    calls: Calls,
    /// Pending questions as they were told.
    choices: BTreeMap<ChoiceId, Value>,
    /// What the agent plans, while there is no message to put it into.
    plan: Option<Value>,
    /// Pieces of the assistant's present message were told.
    told: bool,
    ended: bool,
    over: bool,
}

/// A text or reasoning that is being told.
#[derive(Debug)]
struct Block {
    message: String,
    part: u32,
    kind: DeltaKind,
    id: String,
}

impl Narrator {
    /// A narrator of a turn.
    #[must_use]
    pub fn new(version: Version, turn: TurnId, begin: Begin) -> Self {
        Self {
            version,
            turn,
            begin,
            known: None,
            message: None,
            started: false,
            in_step: false,
            step_is_done: false,
            block: None,
            calls: Calls::default(),
            choices: BTreeMap::new(),
            plan: None,
            told: false,
            ended: false,
            over: false,
        }
    }

    /// The same for a client that takes the turn up again: a question up to `last_seq` that is not `pending` was answered,
    /// and does not end the stream.
    #[must_use]
    pub fn again(version: Version, turn: TurnId, known: Known) -> Self {
        Self { known: Some(known), ..Self::new(version, turn, Begin::AtStart) }
    }

    /// Has the client's message begun. Before the assistant has said a word it has the id of the turn.
    fn start(&mut self, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        let turn = self.turn;
        Part::Start { message_id: self.message.get_or_insert_with(|| turn.to_string()) }.write(out);
        if let Some(plan) = self.plan.take() {
            Part::DataPlan { id: "plan", data: &plan }.write(out);
        }
    }

    /// What comes next belongs to a step.
    fn step(&mut self, out: &mut Vec<u8>) {
        self.start(out);
        if self.step_is_done {
            self.end_step(out);
        }
        if !self.in_step {
            self.in_step = true;
            Part::StartStep.write(out);
        }
    }

    fn end_step(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.step_is_done = false;
        if std::mem::take(&mut self.in_step) {
            Part::FinishStep.write(out);
        }
    }

    /// Ends the text or reasoning that is being told.
    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(Block { kind, id, .. }) = self.block.take() else { return };
        match kind {
            DeltaKind::Text => Part::TextEnd { id: &id },
            DeltaKind::Reasoning => Part::ReasoningEnd { id: &id },
        }
        .write(out);
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let goes_on =
            |block: &Block| block.part == delta.part && block.kind == delta.kind && block.message == delta.message_id;
        if self.step_is_done || !self.block.as_ref().is_some_and(goes_on) {
            self.close(out);
            self.step(out);
            let id = match delta.kind {
                DeltaKind::Text => format!("text_{}", delta.part),
                DeltaKind::Reasoning => format!("reasoning_{}", delta.part),
            };
            match delta.kind {
                DeltaKind::Text => Part::TextStart { id: &id },
                DeltaKind::Reasoning => Part::ReasoningStart { id: &id },
            }
            .write(out);
            let message = delta.message_id.to_owned();
            self.block = Some(Block { message, part: delta.part, kind: delta.kind, id });
        }
        self.told = true;
        let Some(Block { id, .. }) = &self.block else { return };
        match delta.kind {
            DeltaKind::Text => Part::TextDelta { id, delta: delta.delta },
            DeltaKind::Reasoning => Part::ReasoningDelta { id, delta: delta.delta },
        }
        .write(out);
    }

    /// The files of a message that is whole, and its texts where it came as a whole.
    fn completed(&mut self, message: &Message, out: &mut Vec<u8>) {
        let id = message.id.to_string();
        for (part, piece) in (0..).zip(&message.parts) {
            match piece {
                Piece::Text { text } if !self.told => self.whole(&id, part, DeltaKind::Text, text, out),
                Piece::Reasoning { text } if !self.told => self.whole(&id, part, DeltaKind::Reasoning, text, out),
                Piece::File { media_type, content_base64: Some(content), .. } => {
                    self.close(out);
                    self.step(out);
                    Part::File { url: &format!("data:{media_type};base64,{content}"), media_type }.write(out);
                }
                _ => {}
            }
        }
        self.close(out);
        self.told = false;
    }

    fn whole(&mut self, message_id: &str, part: u32, kind: DeltaKind, text: &str, out: &mut Vec<u8>) {
        if let Ok(delta) = serde_json::value::to_raw_value(text) {
            // More parts of the same message may follow that were not told either.
            self.delta(&Delta { message_id, part, kind, delta: &delta }, out);
            self.told = false;
        }
    }

    /// News of a call: it has a place in a step, also where the client begins in the middle. False for one that nobody
    /// told of.
    fn tool(&mut self, id: &str, out: &mut Vec<u8>) -> bool {
        match self.calls.announced(id) {
            Some(false) => {
                self.close(out);
                self.step(out);
                true
            }
            known => known.is_some(),
        }
    }

    fn tool_finished(&mut self, id: &str, output: &Value, is_error: bool, out: &mut Vec<u8>) {
        if self.tool(id, out) {
            self.calls.finished(self.version, id, output, is_error, out);
            self.step_is_done = !self.calls.any_open();
        }
    }

    fn asked(&mut self, choice: &Choice, seq: u64, out: &mut Vec<u8>) {
        self.close(out);
        self.step(out);
        let id = choice.id.to_string();
        let data = json!({"choice": choice, "outcome": null, "source": null});
        Part::DataChoice { id: &id, data: &data }.write(out);
        self.choices.insert(choice.id, data);
        let approval = choice.kind == ChoiceKind::Permission && self.version.has_approvals();
        if approval && !self.known.as_ref().is_some_and(|known| known.is_answered(choice.id, seq)) {
            let input = json!({"title": choice.title, "input_summary": choice.input_summary});
            let call = self.calls.for_choice(self.version, choice.tool.as_deref(), &id, &input, out);
            Part::ToolApprovalRequest { approval_id: &id, tool_call_id: &call }.write(out);
            // The client answers with its next request, which it makes only when this one has ended.
            self.end_step(out);
            Part::Finish { finish_reason: Some("tool-calls") }.write(out);
            write_done(out);
            self.over = true;
        }
    }

    fn settled(&mut self, id: ChoiceId, outcome: &Value, source: &Value, out: &mut Vec<u8>) {
        let Some(mut data) = self.choices.remove(&id) else { return };
        if let Some(fields) = data.as_object_mut() {
            fields.insert("outcome".into(), outcome.clone());
            fields.insert("source".into(), source.clone());
        }
        let id = id.to_string();
        self.start(out);
        Part::DataChoice { id: &id, data: &data }.write(out);
        let allowed = outcome.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("allow"));
        if self.calls.choice_settled(&id, outcome, allowed, out) {
            self.step_is_done = !self.calls.any_open();
        }
    }

    fn steered(&mut self, seq: u64, text: &str, source: &str, out: &mut Vec<u8>) {
        self.close(out);
        self.start(out);
        // Results of calls that still run must not come in another step than their calls.
        if !self.calls.any_open() {
            self.end_step(out);
        }
        if self.version.has_steering() {
            let parts = [TextPart { kind: "text", text }];
            Part::SteeringMessage { id: &format!("steer_{seq}"), parts }.write(out);
        } else {
            Part::DataSteer { data: Steer { text, source } }.write(out);
        }
    }

    fn ended(&mut self, state: TurnState, reason: Option<&str>, error: Option<&str>, out: &mut Vec<u8>) {
        self.ended = true;
        if let Begin::AfterSteering(..) = self.begin {
            self.begin = Begin::AtStart;
            let error_text = "The turn ended before the agent took this message; it runs as the next turn: resume the \
                              stream to see its answer.";
            return Part::Error { error_text }.write(out);
        }
        match state {
            TurnState::Completed => {
                self.start(out);
                self.end_step(out);
                let finish_reason = self.version.has_finish_reasons().then(|| finish_reason(reason));
                Part::Finish { finish_reason }.write(out);
            }
            TurnState::Cancelled => {
                self.end_step(out);
                let reason = reason.filter(|_| self.version.has_approvals());
                Part::Abort { reason }.write(out);
            }
            _ => {
                self.end_step(out);
                let interrupted =
                    || format!("The turn was interrupted ({}). Send it again.", reason.unwrap_or("the server stopped"));
                let error_text = error.map_or_else(interrupted, str::to_owned);
                Part::Error { error_text: &error_text }.write(out);
            }
        }
    }

    /// The client has what came before this.
    fn begins_here(&mut self, event: &Event, out: &mut Vec<u8>) {
        match (&mut self.begin, &event.body) {
            (Begin::AfterChoices(open), EventBody::ChoiceRequested { choice }) => {
                open.retain(|id| *id != choice.id);
                if !open.is_empty() {
                    return;
                }
            }
            (Begin::AfterSteering(wanted, from), EventBody::TurnSteered { text, .. })
                if event.seq >= *from && text == wanted =>
            {
                self.message = None;
                self.calls.forget_announced();
                (self.begin, self.started, self.in_step, self.block) = (Begin::AtStart, false, false, None);
                return;
            }
            _ => return,
        }
        (self.begin, self.started, self.in_step, self.block) = (Begin::AtStart, false, false, None);
        self.over = false;
        self.start(out);
    }

    fn tell(&mut self, event: &Event, out: &mut Vec<u8>) {
        match &event.body {
            EventBody::MessageStarted { message_id, role: Role::Assistant } => {
                self.told = false;
                if !self.started {
                    self.message.get_or_insert_with(|| message_id.to_string());
                    self.start(out);
                }
            }
            EventBody::MessageDelta { message_id, part, kind, delta } => {
                self.told = true;
                self.whole(&message_id.to_string(), *part, *kind, delta, out);
                self.told = true;
            }
            EventBody::MessageCompleted { message } if message.role == Role::Assistant => self.completed(message, out),
            EventBody::ToolStarted { call_id, name, title, input, .. } => {
                if self.calls.announced(call_id) != Some(true) {
                    self.close(out);
                    self.step(out);
                }
                self.calls.started(self.version, call_id, name, title.as_deref(), input, out);
            }
            EventBody::ToolDelta { call_id, input_so_far } if self.tool(call_id, out) => {
                self.calls.writing(self.version, call_id, input_so_far, out);
            }
            EventBody::ToolUpdated { call_id, status, output }
                if *status != ToolStatus::Pending && self.tool(call_id, out) =>
            {
                self.calls.updated(self.version, call_id, output, out);
            }
            EventBody::ToolFinished { call_id, output, is_error } => {
                self.tool_finished(call_id, output, *is_error, out);
            }
            EventBody::ChoiceRequested { choice } => self.asked(choice, event.seq, out),
            EventBody::ChoiceResolved { choice_id, outcome, source } => {
                self.settled(*choice_id, outcome, &json!(source), out);
            }
            EventBody::TurnSteered { text, source } => self.steered(event.seq, text, source, out),
            EventBody::AgentPlan { entries } if self.started => {
                Part::DataPlan { id: "plan", data: entries }.write(out);
            }
            EventBody::AgentPlan { entries } => self.plan = Some(entries.clone()),
            EventBody::Error { code, message } => {
                Part::DataFault { data: Fault { code, message }, transient: true }.write(out);
            }
            EventBody::TurnFinished { state, reason, error, .. } => {
                let error = error.as_ref().map(|error| error.message.as_str());
                self.ended(*state, reason.as_deref(), error, out);
            }
            _ => {}
        }
    }

    /// Tells, or only remembers.
    fn heard(&mut self, out: &mut Vec<u8>, tell: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        if self.begin == Begin::AtStart {
            return tell(self, out);
        }
        let mut unheard = Vec::new();
        tell(self, &mut unheard);
        self.over = false;
        if self.ended {
            // The answered question is not in the turn any more, or the text was not taken: the end is told all the same.
            out.append(&mut unheard);
        }
    }
}

impl narration::Narrator for Narrator {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.heard(out, |this, out| this.tell(event, out));
        self.begins_here(event, out);
    }

    fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        match &*frame.kind {
            "message.delta" => {
                if let Some(delta) = Delta::of(&frame.json) {
                    self.heard(out, |this, out| this.delta(&delta, out));
                }
            }
            // Most of them hold what was told in pieces: then there is nothing to read in them. Within a text, quotes are
            // escaped, so that this looks like no field.
            "message.completed" if self.told && !frame.json.contains(r#""type":"file""#) => {
                self.heard(out, |this, out| this.close(out));
                self.told = false;
            }
            "message.started" | "message.completed" | "tool.started" | "tool.delta" | "tool.updated"
            | "tool.finished" | "choice.requested" | "choice.resolved" | "turn.steered" | "turn.finished"
            | "agent.plan" | "error" => {
                if let Ok(event) = crate::protocol::frame::decode_event(&frame.json) {
                    self.event(&event, out);
                }
            }
            _ => {}
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.ended {
            self.close(out);
            Part::Error { error_text: "The stream ended before the turn did." }.write(out);
        }
        write_done(out);
    }

    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        self.close(out);
        let error_text = match reason {
            EndReason::ShuttingDown => "The server is stopping; resume the stream in a moment.",
            EndReason::TooSlow => "The client did not keep up; resume the stream.",
            EndReason::SessionDeleted => "The session was deleted.",
            EndReason::StoreUnavailable => "The database cannot be read now; resume the stream in a moment.",
            EndReason::SessionFailed => "The session failed inside; resume the stream.",
            EndReason::CredentialsRevoked => "The credentials have ended.",
            EndReason::AccessLost => "The session may not be seen any more.",
        };
        Part::Error { error_text }.write(out);
    }
}

/// Why a turn that is complete ended, in the words of the protocol.
fn finish_reason(reason: Option<&str>) -> &'static str {
    match reason {
        None | Some("end_turn" | "stop" | "stop_sequence") => "stop",
        Some("max_tokens" | "length" | "max_output_tokens") => "length",
        Some("refusal" | "content_filter" | "content-filter") => "content-filter",
        Some(_) => "other",
    }
}
