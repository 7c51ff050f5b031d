//! What a session does about its budgets: counts, tells, asks, stops, goes on. Decisions on a [`Draft`]; pure.
//!
//! What the running turn has used is in its record as far as it was counted for the day, so a restart counts on from
//! there. A turn that waits at a used-up budget stays in the queue until the bound is raised, or the day is over.

use std::sync::Arc;

use serde_json::json;

use super::{
    budget::{self, ASK_ID, Amount, Bound, REASON, Used, Verdict, WARNING},
    day_sums::DaySums,
    draft::{Draft, Effect, Ending},
    env::Env,
    state::{PendingChoice, State},
    steering::prompt,
};
use crate::{
    config::BudgetConfig,
    error::{ApiError, Code},
    ids::TurnId,
    protocol::{
        Choice, ChoiceKind, ChoiceOption, EventBody, OptionKind, ResolvedBy, TurnState, Usage,
        budget::{Budget, SetBudget},
    },
    store::{BudgetMarkKind, BudgetRecord, ChoiceWrite, SessionRecord, Spend},
    timestamp::Timestamp,
};

/// What a session has used, with what its running turn has used beyond what is stored.
#[must_use]
pub fn used(state: &State, day: Amount, now: Timestamp) -> Used {
    let running = state.running.as_ref();
    let (turn, counted) = running
        .map_or_else(Default::default, |running| (Amount::of(&running.usage), Amount::of(&running.turn.turn.usage)));
    Used {
        session: Amount::of(&state.record.snapshot.usage).plus(turn),
        day: day.plus(turn.since(counted)),
        today: budget::day_of(now),
    }
}

/// Fails where a user has used up the day, for what belongs to no session.
///
/// # Errors
/// `budget_exceeded`.
pub fn check_day(config: &BudgetConfig, user: &str, sums: &DaySums, now: Timestamp) -> Result<(), ApiError> {
    let today = budget::day_of(now);
    let used = Used { session: Amount::default(), day: sums.of(user, today), today };
    let none = BudgetRecord::default();
    let bounds = budget::bounds(config, user, &none, &used);
    match budget::judge(config, &none, &bounds, false) {
        Verdict::Stop(bound) => Err(bound.refusal(now)),
        Verdict::GoOn | Verdict::Ask(_) => Ok(()),
    }
}

impl Draft {
    /// The bounds that hold now; none without budgets.
    fn bounds(&self, env: &Env<'_>) -> Vec<Bound> {
        let Some(state) = &self.state else { return Vec::new() };
        let owner = &state.record.snapshot.owner;
        let day = self.spent_today(env, owner);
        budget::bounds(&env.settings.budget, owner, &state.record.budget, &used(state, day, env.now))
    }

    /// What a user has used today, with what this draft adds.
    fn spent_today(&self, env: &Env<'_>, user: &str) -> Amount {
        let today = budget::day_of(env.now);
        let mine = self.spends.iter().filter(|spend| spend.user == user && spend.day == today);
        let mine = mine.map(|spend| Amount { tokens: spend.tokens, cost_usd: spend.cost_usd });
        mine.fold((env.spent)(user, today), Amount::plus)
    }

    fn asked(&self) -> bool {
        let running = self.state.as_ref().and_then(|state| state.running.as_ref());
        running.is_some_and(|running| running.choices.iter().any(|pending| pending.ask_id == ASK_ID))
    }

    fn judge(&self, env: &Env<'_>, bounds: &[Bound]) -> Verdict {
        let Some(state) = &self.state else { return Verdict::GoOn };
        budget::judge(&env.settings.budget, &state.record.budget, bounds, self.asked())
    }

    /// The bound that keeps turns from starting.
    pub(super) fn out_of_budget(&self, env: &Env<'_>) -> Option<Bound> {
        match self.judge(env, &self.bounds(env)) {
            Verdict::Stop(bound) => Some(bound),
            Verdict::GoOn | Verdict::Ask(_) => None,
        }
    }

    /// Refuses a message that would wait at a used-up budget.
    ///
    /// # Errors
    /// `budget_exceeded`.
    pub(super) fn check_budget(&self, env: &Env<'_>, sender: &str) -> Result<(), ApiError> {
        let bound = match &self.state {
            Some(_) => self.out_of_budget(env),
            // The session is made with the message, and will be the sender's.
            None => {
                let day = self.spent_today(env, sender);
                let used = Used { session: Amount::default(), day, today: budget::day_of(env.now) };
                let none = BudgetRecord::default();
                let bounds = budget::bounds(&env.settings.budget, sender, &none, &used);
                match budget::judge(&env.settings.budget, &none, &bounds, false) {
                    Verdict::Stop(bound) => Some(bound),
                    Verdict::GoOn | Verdict::Ask(_) => None,
                }
            }
        };
        bound.map_or(Ok(()), |bound| Err(bound.refusal(env.now)))
    }

    /// Counts what the running turn has used since it was last counted: with its record, and for the day.
    pub(super) fn count_usage(&mut self, env: &Env<'_>) {
        if self.bounds(env).is_empty() {
            return;
        }
        let Some(state) = &mut self.state else { return };
        let owner = state.record.snapshot.owner.clone();
        let Some(running) = &mut state.running else { return };
        let more = Amount::of(&running.usage).since(Amount::of(&running.turn.turn.usage));
        if more.is_zero() {
            return;
        }
        Arc::make_mut(&mut running.turn).turn.usage = running.usage;
        let turn = Arc::clone(&running.turn);
        self.put_turn(&turn, false);
        let all = env.settings.budget.of(&owner);
        if all.user_day_tokens.is_some() || all.user_day_cost_usd.is_some() {
            let day = budget::day_of(env.now);
            self.spends.push(Spend { user: owner, day, tokens: more.tokens, cost_usd: more.cost_usd });
        }
    }

    /// The agent has told what the running turn has used so far.
    pub(super) fn used_more(&mut self, env: &mut Env<'_>, turn: TurnId, usage: Usage) {
        let Some(running) = self.running() else { return };
        running.usage = running.spent.plus(usage);
        self.count_usage(env);
        match self.look_at_budget(env, turn) {
            Verdict::GoOn => {}
            Verdict::Ask(bound) => self.ask_to_go_on(env, turn, &bound),
            Verdict::Stop(_) => self.stop_for_budget(env),
        }
    }

    /// Before the agent gets a turn: true when it may have it now.
    pub(super) fn may_prompt(&mut self, env: &mut Env<'_>, turn: TurnId) -> bool {
        match self.look_at_budget(env, turn) {
            Verdict::GoOn => true,
            Verdict::Ask(bound) => {
                if let Some(running) = self.running() {
                    running.held = true;
                }
                self.ask_to_go_on(env, turn, &bound);
                false
            }
            Verdict::Stop(_) => {
                self.effects.push(Effect::Budget("stopped"));
                self.finish(env, &Ending::because(TurnState::Failed, REASON));
                false
            }
        }
    }

    /// Tells what is new, and says what is to be done.
    fn look_at_budget(&mut self, env: &Env<'_>, turn: TurnId) -> Verdict {
        let bounds = self.bounds(env);
        let Some(state) = self.state.as_ref().filter(|_| !bounds.is_empty()) else { return Verdict::GoOn };
        for (bound, mark) in budget::news(&env.settings.budget, &state.record.budget, &bounds) {
            let reached = mark.kind == BudgetMarkKind::Reached;
            let code = if reached { Code::BudgetExceeded.as_str() } else { WARNING };
            let body = EventBody::Error { code: code.to_owned(), message: bound.message() };
            self.emit(env.now, Some(turn), body);
            self.edit_row(env.now, |record| budget::remember(&mut record.budget, &bounds, mark));
            self.effects.push(Effect::Budget(if reached { "exceeded" } else { "warned" }));
        }
        self.judge(env, &bounds)
    }

    fn ask_to_go_on(&mut self, env: &mut Env<'_>, turn: TurnId, bound: &Bound) {
        let stopping = self.running().is_none_or(|running| running.stop.is_some());
        if stopping || self.asked() {
            return;
        }
        let option = |id: &str, label: &str, kind| ChoiceOption { id: id.into(), label: label.into(), kind };
        let choice = Choice {
            id: env.choice_id(),
            session: self.key().clone(),
            turn_id: turn,
            kind: ChoiceKind::Permission,
            title: bound.question(env.settings.budget.step),
            tool: None,
            input_summary: None,
            options: vec![
                option("go_on", "Go on", OptionKind::AllowOnce),
                option("stop", "Stop", OptionKind::RejectOnce),
            ],
            questions: None,
            created_at: env.now,
            expires_at: env.now.plus(env.settings.choice_timeout),
        };
        self.choices.push(ChoiceWrite::Insert { choice: Box::new(choice.clone()), ask_id: ASK_ID.into() });
        self.emit(env.now, Some(turn), EventBody::ChoiceRequested { choice: Box::new(choice.clone()) });
        self.effects.push(Effect::Budget("asked"));
        self.touch_row(env.now, |_| {});
        if let Some(running) = self.running() {
            running.choices.push(PendingChoice { choice: Arc::new(choice), ask_id: ASK_ID.into() });
        }
    }

    /// The question was answered, or nobody did.
    pub(super) fn budget_answered(&mut self, env: &mut Env<'_>, go_on: bool) {
        let bounds = self.bounds(env);
        if !go_on {
            self.edit_row(env.now, |record| budget::decline(&mut record.budget, &bounds));
            return self.stop_for_budget(env);
        }
        let config = &env.settings.budget;
        self.edit_row(env.now, |record| budget::raise(config, &mut record.budget, &bounds));
        self.tell_budget(env);
        self.give_held_prompt(env);
    }

    /// Stops the running turn. One whose agent has not got it yet is over at once.
    fn stop_for_budget(&mut self, env: &mut Env<'_>) {
        let Some(running) = self.running().filter(|running| running.stop.is_none()) else { return };
        let held = running.held;
        self.effects.push(Effect::Budget("stopped"));
        if held {
            return self.finish(env, &Ending::because(TurnState::Failed, REASON));
        }
        self.request_stop(TurnState::Failed, REASON);
    }

    /// The agent gets a prompt that waited for the answer.
    fn give_held_prompt(&mut self, env: &Env<'_>) {
        let Some(running) = self.running().filter(|running| running.held && running.stop.is_none()) else { return };
        running.held = false;
        if let Some(prompt) = self.state.as_ref().and_then(prompt) {
            self.effects.push(Effect::Prompt(Box::new(prompt)));
        }
        self.offer_again(env);
    }

    /// Sets the session's own bounds. The caller goes on with the queue.
    pub(super) fn set_budget(&mut self, env: &mut Env<'_>, change: &SetBudget) {
        let Some(state) = &self.state else { return };
        let mut own = state.record.budget.clone();
        own.tokens = change.tokens.unwrap_or(own.tokens);
        own.cost_usd = change.cost_usd.unwrap_or(own.cost_usd);
        if own == state.record.budget {
            return;
        }
        self.edit_row(env.now, |record| record.budget = own);
        self.tell_budget(env);
        if self.asked() && !self.bounds(env).iter().any(Bound::is_reached) {
            self.withdraw_question(env);
            self.give_held_prompt(env);
        }
    }

    /// The question has an answer: somebody has raised the bound.
    fn withdraw_question(&mut self, env: &Env<'_>) {
        let Some(running) = self.running() else { return };
        let turn = running.turn.turn.id;
        let Some(at) = running.choices.iter().position(|pending| pending.ask_id == ASK_ID) else { return };
        let pending = running.choices.remove(at);
        let outcome = json!({ "option_id": "go_on", "kind": OptionKind::AllowOnce });
        self.resolve(env, turn, pending, outcome, crate::agents::Answer::Cancelled, ResolvedBy::Api);
    }

    /// Tells of bounds that have changed.
    fn tell_budget(&mut self, env: &Env<'_>) {
        self.show_budget(env);
        let Some(state) = &self.state else { return };
        let changed = super::draft::changed_of(&state.record.snapshot, &["budget"]);
        self.emit(env.now, None, EventBody::SessionUpdated { changed });
        self.effects.push(Effect::Budget("changed"));
    }

    /// Brings what snapshots show up to date.
    pub fn show_budget(&mut self, env: &Env<'_>) {
        let bounds = self.bounds(env);
        let Some(state) = &mut self.state else { return };
        put(state, budget::view(&env.settings.budget, &state.record.budget, &bounds));
    }
}

/// Brings what snapshots of a session show up to date.
pub(super) fn show(state: &mut State, config: &BudgetConfig, sums: &DaySums, now: Timestamp) {
    let owner = &state.record.snapshot.owner;
    let used = used(state, sums.of(owner, budget::day_of(now)), now);
    let bounds = budget::bounds(config, owner, &state.record.budget, &used);
    put(state, budget::view(config, &state.record.budget, &bounds));
}

/// The budget of a session that is not in memory.
#[must_use]
pub fn of_stored(record: &SessionRecord, config: &BudgetConfig, sums: &DaySums, now: Timestamp) -> Option<Budget> {
    let today = budget::day_of(now);
    let owner = &record.snapshot.owner;
    let used = Used { session: Amount::of(&record.snapshot.usage), day: sums.of(owner, today), today };
    budget::view(config, &record.budget, &budget::bounds(config, owner, &record.budget, &used))
}

fn put(state: &mut State, view: Option<Budget>) {
    if state.record.snapshot.budget != view {
        Arc::make_mut(&mut state.record).snapshot.budget = view;
    }
}
