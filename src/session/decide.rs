//! What clients ask of a session beside sending messages. Decisions on a [`Draft`]; pure.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    budget::ASK_ID,
    command::{Command, Done},
    draft::{Draft, Effect, Ending, changed_of},
    env::Env,
    progress::option_for,
    state::{PendingEnd, State},
    turns::no_session,
};
use crate::{
    access::Principal,
    agents::Answer,
    config::TimeoutOutcome,
    error::{ApiError, Code},
    ids::{ChoiceId, TurnId},
    protocol::{
        ChoiceAnswer, ChoiceKind, CreateSession, EventBody, OptionKind, PatchSession, ResolvedBy, Turn, TurnState,
        Usage, Visibility,
    },
    store::Rule,
};

impl Draft {
    /// Whether the session may be changed by who asks.
    ///
    /// # Errors
    /// `session_not_found` where it may not be seen, `not_session_owner` where it may.
    pub fn admits(&self, who: &Principal, command: &Command) -> Result<(), ApiError> {
        let Some(state) = &self.state else { return Ok(()) };
        let snapshot = &state.record.snapshot;
        match command {
            // These make a session, and say themselves that there is one.
            Command::Create { .. } | Command::Ensure { .. } => Ok(()),
            _ if who.may_write(snapshot) => Ok(()),
            _ if who.may_see(snapshot) => {
                Err(ApiError::new(Code::NotSessionOwner, "the session belongs to somebody else"))
            }
            _ => Err(no_session()),
        }
    }

    /// Decides one command.
    ///
    /// # Errors
    /// What the caller is told when it is refused; then the draft is as it was.
    pub fn decide(&mut self, env: &mut Env<'_>, command: &Command) -> Result<Done, ApiError> {
        match command {
            Command::Create { owner, body, once } => {
                if self.state.is_some() {
                    return Err(ApiError::new(Code::SessionExists, "the key has a session already")
                        .with("key", self.key().as_str()));
                }
                let mut record = env.new_session(self.key(), owner);
                set_up(&mut record.snapshot, body);
                self.create(env, record);
                if let Some(once) = once {
                    let id = self.state.as_ref().map(State::id).map(|id| id.to_string());
                    self.remember(env.now, once, json!({ "session": id }).to_string());
                }
                self.snapshot_done()
            }
            Command::Ensure { owner } => {
                if self.state.is_none() {
                    let record = env.new_session(self.key(), owner);
                    self.create(env, record);
                }
                self.snapshot_done()
            }
            Command::Enqueue(message) => self.enqueue(env, message).map(|accepted| Done::Accepted(Box::new(accepted))),
            Command::Cancel(id) => self.cancel(env, *id),
            Command::Abort => {
                let id = self.running().map(|running| running.turn.turn.id);
                self.request_stop(TurnState::Cancelled, "aborted");
                Ok(Done::Stopping(id))
            }
            Command::ClearQueue => {
                let waiting = self.state.as_ref().ok_or_else(no_session)?.queue.len();
                self.drop_queued(env, "queue_cleared");
                Ok(Done::Count(waiting))
            }
            Command::Edit(id, text) => self.edit(env, *id, text),
            Command::Move(id, before) => self.move_turn(env, *id, *before),
            Command::Answer(id, answer, by) => self.answer(env, *id, answer, *by),
            Command::Patch(body) => {
                self.patch(env, body)?;
                // What waited at a used-up budget may start now.
                self.pump(env);
                self.snapshot_done()
            }
            Command::Brief(fields) => self.set_brief(env, fields),
            Command::HandOver(hand_over) => self.hand_over(env, hand_over),
            Command::Feedback(name, value) => self.feedback(env, name, value),
            Command::Reset(once) => {
                // Asked for again while it waits: the caller joins it.
                let state = self.state.as_mut().ok_or_else(no_session)?;
                state.reset_call.clone_from(once);
                self.drop_queued(env, "session_reset");
                self.request_stop(TurnState::Cancelled, "session_reset");
                self.end_when_idle(env, PendingEnd::Reset)
            }
            Command::Delete { force, untouched_since } => {
                let state = self.state.as_ref().ok_or_else(no_session)?;
                let now = &state.record.snapshot;
                if untouched_since.is_some_and(|since| !now.archived || now.updated_at > since) {
                    return Err(ApiError::new(Code::SessionBusy, "the session is in use again"));
                }
                if state.record.snapshot.primary {
                    return Err(ApiError::new(Code::PrimarySession, "the primary session cannot be deleted; reset it"));
                }
                if state.busy() && !force {
                    return Err(ApiError::new(Code::SessionBusy, "a turn runs or waits; ?force=true stops it first"));
                }
                self.drop_queued(env, "session_deleted");
                self.request_stop(TurnState::Cancelled, "session_deleted");
                self.end_when_idle(env, PendingEnd::Delete)
            }
            Command::Reload => {
                let state = self.state.as_mut().ok_or_else(no_session)?;
                // A running turn keeps its agent; the next one gets a fresh one.
                state.warm = None;
                if state.running.is_none() {
                    self.effects.push(Effect::CloseAgent);
                }
                self.snapshot_done()
            }
        }
    }

    /// The session as it is now, for an answer that is told after the commit.
    fn snapshot_done(&self) -> Result<Done, ApiError> {
        let state = self.state.as_ref().ok_or_else(no_session)?;
        Ok(Done::Snapshot(Box::new(state.snapshot(0))))
    }

    fn end_when_idle(&mut self, env: &mut Env<'_>, end: PendingEnd) -> Result<Done, ApiError> {
        let state = self.state.as_mut().ok_or_else(no_session)?;
        // A delete that waits is not turned back into a reset.
        if state.pending_end != Some(PendingEnd::Delete) {
            state.pending_end = Some(end);
        }
        self.pump(env);
        Ok(Done::Later)
    }

    fn cancel(&mut self, env: &mut Env<'_>, id: TurnId) -> Result<Done, ApiError> {
        let state = self.state.as_mut().ok_or_else(no_session)?;
        if let Some(turn) = state.queue.remove(id) {
            let ending = Ending::because(TurnState::Cancelled, "cancelled");
            self.settle(env, &turn, &ending, Usage::default(), String::new());
            let view = self.effects.iter().rev().find_map(|effect| match effect {
                Effect::Finished(finished) if finished.turn.id == id => Some(finished.turn.clone()),
                _ => None,
            });
            return view.map(|turn| Done::Turn(Box::new(turn))).ok_or_else(no_turn);
        }
        let running = self.running().filter(|running| running.turn.turn.id == id).ok_or_else(no_turn)?;
        let view = running.view();
        self.request_stop(TurnState::Cancelled, "cancelled");
        Ok(Done::Turn(Box::new(view)))
    }

    fn edit(&mut self, env: &mut Env<'_>, id: TurnId, text: &str) -> Result<Done, ApiError> {
        let state = self.state.as_mut().ok_or_else(no_session)?;
        let Some(turn) = state.queue.edit(id, text.to_owned()) else { return Err(not_queued(state, id)) };
        let view = Turn { position: state.position(id), ..turn.turn.clone() };
        self.texts.push((id, text.to_owned()));
        self.emit(env.now, Some(id), EventBody::TurnUpdated { turn: Box::new(view.clone()) });
        Ok(Done::Turn(Box::new(view)))
    }

    fn move_turn(&mut self, env: &mut Env<'_>, id: TurnId, before: Option<TurnId>) -> Result<Done, ApiError> {
        let state = self.state.as_mut().ok_or_else(no_session)?;
        let Some(changed) = state.queue.move_before(id, before) else {
            let missing = before.filter(|other| state.queue.get(*other).is_none()).unwrap_or(id);
            return Err(not_queued(state, missing));
        };
        let position = state.position(id).unwrap_or(0);
        let view = state.turn(id).ok_or_else(no_turn)?;
        for turn in &changed {
            self.put_turn(turn, false);
        }
        self.emit(env.now, Some(id), EventBody::TurnMoved { turn_id: id, position });
        Ok(Done::Turn(Box::new(view)))
    }

    fn answer(
        &mut self,
        env: &mut Env<'_>,
        id: ChoiceId,
        answer: &ChoiceAnswer,
        by: ResolvedBy,
    ) -> Result<Done, ApiError> {
        let unknown = || ApiError::new(Code::ChoiceNotFound, "no such choice is pending in this session");
        let running = self.running().ok_or_else(unknown)?;
        let turn = running.turn.turn.id;
        let agent = running.turn.turn.agent.clone();
        if running.stop.is_some() && running.choices.iter().any(|pending| pending.choice.id == id) {
            // A yes that comes after the stop must not reach the agent.
            let message = "the turn is being stopped, and its questions with it";
            return Err(ApiError::new(Code::ChoiceAlreadyResolved, message));
        }
        let at = running.choices.iter().position(|pending| pending.choice.id == id).ok_or_else(unknown)?;
        let pending = running.choices.get(at).cloned().ok_or_else(unknown)?;
        let choice = Arc::clone(&pending.choice);
        let (outcome, reply) = match choice.kind {
            _ if answer.declined => without_an_answer(&choice, false),
            // Where the agent offers no refusal, it is told that nobody allows it.
            ChoiceKind::Permission if answer.refuses() && option_for(&choice.options, false).is_none() => {
                without_an_answer(&choice, false)
            }
            ChoiceKind::Permission => {
                let option = match (&answer.option_id, answer.allow, &answer.answers) {
                    (Some(id), None, None) => choice.options.iter().find(|option| option.id == *id),
                    (None, Some(allow), None) => option_for(&choice.options, allow),
                    _ => None,
                };
                let option = option.ok_or_else(|| bad_answer(&choice))?;
                if let OptionKind::AllowAlways | OptionKind::RejectAlways = option.kind {
                    self.add_rule(agent, &choice, option.kind.allows());
                }
                let outcome = json!({ "option_id": option.id, "kind": option.kind });
                (outcome, Answer::Option { id: option.id.clone() })
            }
            ChoiceKind::Question => {
                let answers = answer.answers.as_ref().filter(|_| answer.allow.is_none() && answer.option_id.is_none());
                let answers = answers.filter(|answers| fits(&choice, answers)).ok_or_else(|| bad_answer(&choice))?;
                (json!({ "answers": answers }), Answer::Answers(answers.clone()))
            }
        };
        if let Some(running) = self.running() {
            running.choices.remove(at);
        }
        let ours = pending.ask_id == ASK_ID;
        let go_on =
            matches!(&reply, Answer::Option { id } if choice.options.iter().any(|o| o.id == *id && o.kind.allows()));
        self.resolve(env, turn, pending, outcome, reply, by);
        self.touch_row(env.now, |_| {});
        if ours {
            self.budget_answered(env, go_on);
        }
        Ok(Done::Unit)
    }

    fn add_rule(&mut self, agent: String, choice: &crate::protocol::Choice, allow: bool) {
        let (Some(state), Some(tool)) = (&mut self.state, choice.tool.clone()) else { return };
        let rule = Rule { agent, tool, input_summary: choice.input_summary.clone(), allow };
        if !state.rules.contains(&rule) {
            Arc::make_mut(&mut state.rules).push(rule.clone());
            self.new_rules.push(rule);
        }
    }

    /// Decides the questions whose time is up.
    pub fn expire_choices(&mut self, env: &mut Env<'_>) {
        loop {
            let now = env.now;
            let Some(running) = self.running() else { return };
            let turn = running.turn.turn.id;
            let Some(at) = running.choices.iter().position(|pending| pending.choice.expires_at <= now) else { return };
            let pending = running.choices.remove(at);
            // Nobody has allowed to use up more.
            let ours = pending.ask_id == ASK_ID;
            let allow = env.settings.on_timeout == TimeoutOutcome::Allow && !ours;
            let (outcome, reply) = without_an_answer(&pending.choice, allow);
            self.resolve(env, turn, pending, outcome, reply, ResolvedBy::Timeout);
            self.touch_row(env.now, |_| {});
            if ours {
                self.budget_answered(env, false);
            }
        }
    }

    fn patch(&mut self, env: &mut Env<'_>, body: &PatchSession) -> Result<(), ApiError> {
        let state = self.state.as_ref().ok_or_else(no_session)?;
        if body.archived == Some(true) && state.busy() {
            return Err(ApiError::new(
                Code::SessionBusy,
                "a turn runs or waits; cancel it before you archive the session",
            ));
        }
        let before = state.record.snapshot.clone();
        let now = env.now;
        let mut after = before.clone();
        apply_patch(&mut after, body);
        crate::gateway::check_metadata(&after.metadata)?;
        if after.archived != before.archived {
            after.archived_at = after.archived.then_some(now);
        }
        if let Some(brief) = &body.brief {
            self.set_brief(env, brief)?;
        }
        if let Some(change) = &body.budget {
            self.set_budget(env, change);
            after.budget = self.state.as_ref().and_then(|state| state.record.snapshot.budget);
        }
        if after == before {
            return Ok(());
        }
        let names = ["title", "metadata", "visibility", "org_id", "agent", "model", "mode", "permission_mode"];
        let mut changed = differing(&before, &after, &names);
        if !changed.is_empty() {
            self.emit(now, None, EventBody::SessionUpdated { changed });
        }
        if after.archived != before.archived {
            changed = changed_of(&after, &["archived", "archived_at"]);
            let archived = after.archived;
            let body =
                if archived { EventBody::SessionArchived { changed } } else { EventBody::SessionUpdated { changed } };
            self.emit(now, None, body);
            if archived {
                self.effects.push(Effect::CloseAgent);
            }
        }
        self.edit_row(now, |record| record.snapshot = after);
        Ok(())
    }

    fn set_brief(&mut self, env: &mut Env<'_>, fields: &Map<String, Value>) -> Result<Done, ApiError> {
        let mut brief = self.state.as_ref().ok_or_else(no_session)?.record.brief.clone();
        for (name, value) in fields {
            if let Value::String(_) = value {
                brief.insert(name.clone(), value.clone());
            }
        }
        let changed = [("brief".to_owned(), Value::Object(brief.clone()))].into_iter().collect();
        self.emit(env.now, None, EventBody::SessionUpdated { changed });
        let stored = brief.clone();
        self.edit_row(env.now, |record| record.brief = stored);
        Ok(Done::Brief(brief))
    }
}

fn no_turn() -> ApiError {
    ApiError::new(Code::TurnNotFound, "no such turn waits or runs in this session")
}

fn not_queued(state: &State, id: TurnId) -> ApiError {
    match &state.running {
        Some(running) if running.turn.turn.id == id => {
            ApiError::new(Code::TurnNotQueued, "the turn does not wait any more: it runs")
        }
        _ => no_turn(),
    }
}

fn bad_answer(choice: &crate::protocol::Choice) -> ApiError {
    let hint = match choice.kind {
        ChoiceKind::Permission => {
            let ids: Vec<&str> = choice.options.iter().map(|option| option.id.as_str()).collect();
            format!("a permission takes {{\"allow\": true or false}} or {{\"option_id\": one of {}}}", ids.join(", "))
        }
        ChoiceKind::Question => {
            let questions = choice.questions.iter().flatten();
            let ids: Vec<&str> = questions.map(|question| question.id.as_str()).collect();
            format!("a question takes {{\"answers\": {{…}}}} with a text, or a list of texts, for: {}", ids.join(", "))
        }
    };
    ApiError::new(Code::InvalidChoicePayload, hint)
}

/// What becomes of a question that nobody answers: its yes or no where it has one.
fn without_an_answer(choice: &crate::protocol::Choice, allow: bool) -> (Value, Answer) {
    match option_for(&choice.options, allow) {
        Some(option) => {
            let id = option.id.clone();
            (json!({ "option_id": id, "kind": option.kind }), Answer::Option { id })
        }
        None => (json!({ "cancelled": true }), Answer::Cancelled),
    }
}

/// True when answers are there for every question, and for nothing else, each a text or a list of texts.
fn fits(choice: &crate::protocol::Choice, answers: &Map<String, Value>) -> bool {
    let questions = choice.questions.as_deref().unwrap_or_default();
    let text = |value: &Value| value.is_string();
    questions.len() == answers.len()
        && questions.iter().all(|question| match answers.get(&question.id) {
            Some(Value::Array(list)) => question.multi && list.iter().all(text),
            Some(value) => text(value),
            None => false,
        })
}

fn set_up(snapshot: &mut crate::protocol::Snapshot, body: &CreateSession) {
    if let Some(title) = body.title.as_deref().map(str::trim).filter(|title| !title.is_empty()) {
        snapshot.title = title.to_owned();
    }
    if let Some(agent) = &body.agent {
        snapshot.agent.clone_from(agent);
    }
    snapshot.model.clone_from(&body.model);
    snapshot.mode.clone_from(&body.mode);
    if let Some(mode) = &body.permission_mode {
        snapshot.permission_mode.clone_from(mode);
    }
    snapshot.profile.clone_from(&body.profile);
    snapshot.project_id.clone_from(&body.project_id);
    snapshot.visibility = body.visibility.unwrap_or_default();
    snapshot.org_id.clone_from(&body.org_id);
    snapshot.metadata = body.metadata.clone().unwrap_or_default();
}

fn apply_patch(snapshot: &mut crate::protocol::Snapshot, body: &PatchSession) {
    if let Some(title) = body.title.as_deref().map(str::trim) {
        snapshot.title = if title.is_empty() { "untitled".into() } else { title.to_owned() };
    }
    for (name, value) in body.metadata.iter().flatten() {
        if value.is_null() {
            snapshot.metadata.remove(name);
        } else {
            snapshot.metadata.insert(name.clone(), value.clone());
        }
    }
    if let Some(visibility) = body.visibility {
        snapshot.visibility = visibility;
        if visibility != Visibility::Org {
            snapshot.org_id = None;
        }
    }
    if let Some(org) = &body.org_id {
        snapshot.org_id.clone_from(org);
    }
    if let Some(agent) = body.agent.as_ref().filter(|agent| **agent != snapshot.agent) {
        // Model and mode are the old agent's own words.
        snapshot.agent.clone_from(agent);
        snapshot.model = None;
        snapshot.mode = None;
    }
    if let Some(model) = &body.model {
        snapshot.model.clone_from(model);
    }
    if let Some(mode) = &body.mode {
        snapshot.mode.clone_from(mode);
    }
    if let Some(mode) = &body.permission_mode {
        snapshot.permission_mode.clone_from(mode);
    }
    if let Some(archived) = body.archived {
        snapshot.archived = archived;
    }
}

fn differing(
    before: &crate::protocol::Snapshot,
    after: &crate::protocol::Snapshot,
    names: &[&str],
) -> Map<String, Value> {
    let old = changed_of(before, names);
    changed_of(after, names).into_iter().filter(|(name, value)| old.get(name) != Some(value)).collect()
}
