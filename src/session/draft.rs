//! A change in the making: a copy of the state, the events that say what changed, the rows to write, and what to
//! do once all of that is committed. Pure: time and ids come from outside, nothing here waits or does I/O.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    command::Once,
    env::Env,
    state::{Running, State},
};
use crate::{
    agents::{Answer, Prompt},
    error::Code,
    gateway::Finished,
    ids::{MessageId, SessionId, SessionKey, TurnId},
    protocol::{
        Event, EventBody, Frame, Message, Part, Role, Snapshot, Turn, TurnError, TurnState, Usage, account::AuditEntry,
        frame::Batch,
    },
    store::{
        Append, Audience, ChoiceWrite, IdempotencyRecord, MessageWrite, Rule, SessionRecord, SessionWrite, Spend,
        TurnRecord, TurnWrite,
    },
    timestamp::Timestamp,
};

/// What to do once the change is committed.
#[derive(Debug, Clone)]
pub enum Effect {
    /// As many turns run as may: wait until the one that is `starting` may run, too.
    AwaitAdmission,
    /// Start this agent for the turn that is `starting`.
    OpenAgent(String),
    /// Give the running turn to the agent.
    Prompt(Box<Prompt>),
    /// The agent has got its prompt already, when the commit was written and not on the disk yet.
    Prompted,
    /// Offer a text to the agent.
    Steer(u64, String),
    /// The agent has stopped for texts that were steered: give them to it, in the same turn.
    GoOn(Box<Prompt>),
    /// Ask the agent to stop the turn; kill it when it does not.
    CancelAgent,
    /// Kill the agent: it is only starting, there is nothing to be polite about.
    KillAgent,
    /// Let the agent go: nothing runs on it.
    CloseAgent,
    /// Tell the agent what was chosen.
    Answer(String, Answer),
    /// A turn is over, whether it ran or only waited: tell those that wait for it.
    Finished(Box<Finished>),
    /// Nothing runs on the agent any more, or yet: keep it warm for a while, or let it go.
    AgentRests,
    /// A new conversation has begun: tell those that wait for it.
    ResetDone,
    /// The files of a session that was there before are none of this one's, nor of one that comes after.
    ForgetWorkspace,
    /// The session is gone: tell those that wait for it, and end.
    Deleted,
    /// A message of the agent that is not stored, for subscribers that want it.
    Raw(Option<TurnId>, Value),
    /// Something has happened with a budget: count it.
    Budget(&'static str),
}

/// A change in the making.
pub struct Draft {
    /// The state as it will be; none while the session does not exist.
    pub state: Option<State>,
    key: SessionKey,
    base_seq: u64,
    /// Epoch of the log is known to the caller; the draft counts only sequence numbers.
    next_seq: u64,
    events: Vec<Frame>,
    turns: Vec<(bool, Arc<TurnRecord>)>,
    removed: Vec<TurnId>,
    /// Texts of turns that were changed.
    pub texts: Vec<(TurnId, String)>,
    /// Whole messages.
    pub messages: Vec<MessageWrite>,
    /// Choices.
    pub choices: Vec<ChoiceWrite>,
    /// Rules.
    pub new_rules: Vec<Rule>,
    /// Native ids.
    pub native_ids: Vec<(SessionId, String, Option<String>)>,
    /// Calls that must not happen twice.
    pub calls: Vec<IdempotencyRecord>,
    /// What is said of it in the audit.
    pub audit: Vec<AuditEntry>,
    /// What turns have used, for the day of their owner.
    pub spends: Vec<Spend>,
    /// What to do once it is committed.
    pub effects: Vec<Effect>,
    session: RowChange,
    /// True when the snapshot has changed in a way that subscribers should see at once.
    pub visible: bool,
}

enum RowChange {
    Keep,
    Create,
    Touch,
    Update,
    Replace(Box<SessionRecord>),
    Delete,
}

impl Draft {
    /// A draft on a session that exists, or (`None`) on a key without one, whose log ends at `last_seq`.
    #[must_use]
    pub fn new(key: SessionKey, state: Option<State>, last_seq: u64) -> Self {
        Self {
            state,
            key,
            base_seq: last_seq,
            next_seq: last_seq + 1,
            events: Vec::new(),
            turns: Vec::new(),
            removed: Vec::new(),
            texts: Vec::new(),
            messages: Vec::new(),
            choices: Vec::new(),
            new_rules: Vec::new(),
            native_ids: Vec::new(),
            calls: Vec::new(),
            audit: Vec::new(),
            spends: Vec::new(),
            effects: Vec::new(),
            session: RowChange::Keep,
            visible: false,
        }
    }

    /// The session's key.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Appends an event.
    pub fn emit(&mut self, now: Timestamp, turn_id: Option<TurnId>, body: EventBody) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let event = Event { seq, body, session: self.key.clone(), turn_id, at: now };
        self.events.push(Frame::encode(&event));
        if let Some(state) = &mut self.state {
            state.last_seq = seq;
        }
        seq
    }

    /// The agent that can begin as soon as the commit is written, before the disk has it: when nothing is due before its
    /// prompt, and the turn is new with this commit. Nobody counts on such a turn yet; of one that was accepted before,
    /// the start must be on the disk when the agent begins, or it would run twice after a power failure.
    #[must_use]
    pub fn begins_early(&self) -> Option<&str> {
        let running = &self.state.as_ref()?.running.as_ref()?.turn.turn;
        let first = matches!(self.effects.first(), Some(Effect::Prompt(_)));
        let new = self.turns.iter().any(|(new, turn)| *new && turn.turn.id == running.id);
        (first && new).then_some(&running.agent)
    }

    /// The newest event of the draft.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Makes the session.
    pub fn create(&mut self, env: &mut Env<'_>, record: SessionRecord) {
        // Of one that was there before, the log has the end.
        let oldest = self.base_seq.max(1);
        let again = self.base_seq > 0;
        let snapshot = record.snapshot.clone();
        self.state = Some(State::new(record, self.next_seq - 1, oldest));
        let changed = changed_of(
            &snapshot,
            &[
                "id",
                "title",
                "owner",
                "agent",
                "model",
                "mode",
                "permission_mode",
                "profile",
                "project_id",
                "visibility",
                "org_id",
                "metadata",
            ],
        );
        self.emit(env.now, None, EventBody::SessionCreated { changed });
        self.session = RowChange::Create;
        self.visible = true;
        if again {
            self.effects.push(Effect::ForgetWorkspace);
        }
    }

    /// Changes the session's settings; the whole row is stored with this draft.
    pub fn edit_row(&mut self, now: Timestamp, edit: impl FnOnce(&mut SessionRecord)) {
        self.touch_row(now, edit);
        if matches!(self.session, RowChange::Touch) {
            self.session = RowChange::Update;
        }
    }

    /// Changes what changes with every turn: counters, preview, status, usage, times. Only that is stored.
    pub fn touch_row(&mut self, now: Timestamp, edit: impl FnOnce(&mut SessionRecord)) {
        let Some(state) = &mut self.state else { return };
        let record = Arc::make_mut(&mut state.record);
        edit(record);
        record.snapshot.updated_at = now;
        if matches!(self.session, RowChange::Keep) {
            self.session = RowChange::Touch;
        }
        self.visible = true;
    }

    /// Puts a new conversation in the place of the present one.
    pub fn replace(&mut self, next: SessionRecord) {
        let Some(state) = &mut self.state else { return };
        let previous = Box::new(state.stored());
        state.record = Arc::new(next);
        state.rules = Arc::default();
        state.native_ids = Arc::default();
        state.commands = Value::Array(Vec::new());
        state.warmed_up = false;
        // Two resets in one draft leave the conversation between them unused, so only the first one counts.
        if matches!(self.session, RowChange::Keep | RowChange::Touch | RowChange::Update) {
            self.session = RowChange::Replace(previous);
        }
        self.visible = true;
    }

    /// Ends the session. Its rows go as a whole, so what this draft would have written to them is not written.
    pub fn delete(&mut self) {
        self.session = RowChange::Delete;
        self.state = None;
        self.turns.clear();
        self.texts.clear();
        self.removed.clear();
        self.messages.clear();
        self.choices.clear();
        self.new_rules.clear();
        self.native_ids.clear();
        self.calls.clear();
    }

    /// True once the session is deleted: what comes after it needs a draft of its own.
    #[must_use]
    pub const fn deletes(&self) -> bool {
        matches!(self.session, RowChange::Delete)
    }

    /// A turn is new or has changed: its latest version is stored with this draft.
    pub fn put_turn(&mut self, turn: &Arc<TurnRecord>, new: bool) {
        match self.turns.iter_mut().find(|(_, known)| known.turn.id == turn.turn.id) {
            Some((_, known)) => *known = Arc::clone(turn),
            None => self.turns.push((new, Arc::clone(turn))),
        }
    }

    /// A turn record is to be forgotten: a steered text that the agent took.
    pub fn remove_turn(&mut self, id: TurnId) {
        match self.turns.iter().position(|(_, known)| known.turn.id == id) {
            Some(at) if self.turns.get(at).is_some_and(|(new, _)| *new) => drop(self.turns.remove(at)),
            found => {
                found.map(|at| self.turns.remove(at));
                self.removed.push(id);
            }
        }
    }

    /// Remembers the outcome of a call that must not happen twice.
    pub fn remember(&mut self, now: Timestamp, once: &Once, outcome: String) {
        self.calls.push(IdempotencyRecord {
            scope: once.scope.clone(),
            key: once.key.clone(),
            request_hash: once.request_hash.clone(),
            outcome,
            created_at: now,
        });
    }

    /// Adds a whole message to the transcript, with its two events.
    pub fn add_message(&mut self, now: Timestamp, message: Message) {
        let (turn_id, message_id, role) = (message.turn_id, message.id, message.role);
        self.emit(now, turn_id, EventBody::MessageStarted { message_id, role });
        self.complete_message(now, message);
    }

    /// Ends a message whose start and deltas have been told.
    pub fn complete_message(&mut self, now: Timestamp, message: Message) {
        let Some(conversation) = self.state.as_ref().map(State::id) else { return };
        let preview = match message.role {
            Role::User | Role::Assistant => Some(message.text()).filter(|text| !text.is_empty()),
            Role::Tool | Role::System => None,
        };
        let mut ordinal = 0;
        self.touch_row(now, |record| {
            record.snapshot.message_count += 1;
            ordinal = record.snapshot.message_count;
            if let Some(text) = preview {
                record.snapshot.last_message_preview = Some(first_chars(&text, 120));
            }
        });
        self.messages.push(MessageWrite { conversation, ordinal, message: message.clone() });
        self.emit(now, message.turn_id, EventBody::MessageCompleted { message: Box::new(message) });
    }

    /// The running turn, to change it.
    pub fn running(&mut self) -> Option<&mut Running> {
        self.state.as_mut()?.running.as_mut()
    }

    /// True when there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.turns.is_empty()
            && self.texts.is_empty()
            && self.removed.is_empty()
            && self.native_ids.is_empty()
            && self.audit.is_empty()
            && matches!(self.session, RowChange::Keep)
    }

    /// The commit for a log that is claimed with `epoch`; `urgent` when a client waits for it. Takes the rows and events out of the draft.
    pub fn take_append(&mut self, epoch: i64, now: Timestamp, urgent: bool) -> Append {
        let session = match (std::mem::replace(&mut self.session, RowChange::Keep), &self.state) {
            (RowChange::Create, Some(state)) => SessionWrite::Create(Box::new(state.stored())),
            (RowChange::Touch, Some(state)) => SessionWrite::Touch(Box::new(state.stored())),
            (RowChange::Update, Some(state)) => SessionWrite::Update(Box::new(state.stored())),
            (RowChange::Replace(previous), Some(state)) => {
                SessionWrite::Replace { previous, next: Box::new(state.stored()) }
            }
            (RowChange::Delete, _) => SessionWrite::Delete,
            (_, _) => SessionWrite::Keep,
        };
        let mut turns: Vec<TurnWrite> = Vec::with_capacity(self.turns.len() + self.removed.len());
        for (new, turn) in self.turns.drain(..) {
            let record = Box::new((*turn).clone());
            turns.push(if new { TurnWrite::Insert(record) } else { TurnWrite::Update(record) });
        }
        turns.extend(self.texts.drain(..).map(|(id, text)| TurnWrite::Text(id, text)));
        turns.extend(self.removed.drain(..).map(TurnWrite::Remove));
        Append {
            key: self.key.clone(),
            epoch,
            expected_seq: self.base_seq,
            events: Batch::new(std::mem::take(&mut self.events)),
            at: now,
            session,
            turns,
            messages: std::mem::take(&mut self.messages),
            choices: std::mem::take(&mut self.choices),
            rules: std::mem::take(&mut self.new_rules),
            native_ids: std::mem::take(&mut self.native_ids),
            idempotency: self.calls.clone(),
            audit: std::mem::take(&mut self.audit),
            spends: self.spends.clone(),
            audience: self.state.as_ref().map(|state| Audience::of(&state.record.snapshot)),
            deliveries: Vec::new(),
            dropped: Vec::new(),
            urgent,
        }
    }
}

/// The first `limit` characters of a text.
#[must_use]
pub fn first_chars(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// The named fields of a snapshot, for a `changed` object.
#[must_use]
pub fn changed_of(snapshot: &Snapshot, names: &[&str]) -> Map<String, Value> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(snapshot) else { return Map::new() };
    names.iter().filter_map(|name| all.remove(*name).map(|value| ((*name).to_owned(), value))).collect()
}

/// A turn's user message.
#[must_use]
pub fn user_message(id: MessageId, turn: &TurnRecord, turn_id: TurnId, now: Timestamp) -> Message {
    let mut parts = Vec::new();
    if !turn.turn.text.is_empty() {
        parts.push(Part::Text { text: turn.turn.text.clone() });
    }
    parts.extend(turn.attachments.iter().zip(&turn.turn.attachments).map(|(file, info)| Part::File {
        name: file.name.clone(),
        media_type: file.media_type.clone(),
        bytes: info.bytes,
        // The content stays with the turn: events and pages of the transcript must not carry megabytes.
        content_base64: None,
    }));
    Message {
        id,
        role: Role::User,
        parts,
        turn_id: Some(turn_id),
        agent: None,
        client_id: turn.turn.client_id.clone(),
        created_at: now,
    }
}

/// The end of a turn as it is told and stored.
pub(super) struct Ending {
    /// The terminal state.
    pub state: TurnState,
    /// Why.
    pub reason: Option<String>,
    /// What failed.
    pub error: Option<TurnError>,
}

impl Ending {
    /// An end with a reason.
    pub fn because(state: TurnState, reason: &str) -> Self {
        let (code, message) = match reason {
            super::budget::REASON => {
                (Code::BudgetExceeded, "a budget is used up; the error event before says which, and how to go on")
            }
            super::progress::TOO_LARGE => (
                Code::ContentTooLarge,
                "the agent said more than a turn may have and was stopped; the error event before says how much",
            ),
            _ => (
                Code::AgentTimeout,
                "the agent said nothing for too long and was stopped; agent.stall_timeout sets the limit",
            ),
        };
        let error =
            (state == TurnState::Failed).then(|| TurnError { code: code.as_str().into(), message: message.into() });
        Self { state, reason: Some(reason.to_owned()), error }
    }
}

/// The turn as clients see it once it has ended.
pub(super) fn ended(turn: &TurnRecord, ending: &Ending, usage: Usage, summary: Option<String>, now: Timestamp) -> Turn {
    let mut view = turn.turn.clone();
    view.state = ending.state;
    view.reason.clone_from(&ending.reason);
    view.error.clone_from(&ending.error);
    view.usage = usage;
    view.summary = summary;
    view.position = None;
    view.finished_at = Some(now);
    view
}
