//! Budgets: which bounds hold for a session, how far they are used up, and what is to be done about it. Pure.

use crate::{
    config::{BudgetConfig, OnLimit},
    error::{ApiError, Code},
    protocol::{
        Usage,
        budget::{Budget, BudgetState, CostBudget, DayBudget, TokenBudget},
    },
    store::{BudgetMark, BudgetMarkKind, BudgetRecord, BudgetScope, BudgetUnit, DayRaise},
    timestamp::Timestamp,
};

/// Why a turn was stopped.
pub(super) const REASON: &str = "budget";
/// The code of a warning.
pub(super) const WARNING: &str = "budget_warning";
/// The id of the server's own question, where agents have ids of theirs.
pub(super) const ASK_ID: &str = "greenroom/budget";

/// Seconds after which to try again where a person has to raise the bound first.
const RETRY_AFTER: u32 = 60;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Tokens and dollars.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Amount {
    /// Input and output.
    pub tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
}

impl Amount {
    /// What a usage comes to.
    #[must_use]
    pub fn of(usage: &Usage) -> Self {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        Self { tokens, cost_usd: usage.cost_usd.unwrap_or(0.0) }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let tokens = self.tokens.saturating_add(other.tokens);
        Self { tokens, cost_usd: self.cost_usd + other.cost_usd }
    }

    /// What has come since `earlier`; an agent that takes something back has used nothing.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let tokens = self.tokens.saturating_sub(earlier.tokens);
        Self { tokens, cost_usd: (self.cost_usd - earlier.cost_usd).max(0.0) }
    }

    /// True when it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// The day of UTC, in days since 1970.
#[must_use]
pub fn day_of(now: Timestamp) -> i64 {
    now.0.div_euclid(DAY_MICROS)
}

/// Seconds until the next day begins, at least 1.
fn until_tomorrow(now: Timestamp) -> u32 {
    let left = DAY_MICROS - now.0.rem_euclid(DAY_MICROS);
    u32::try_from(left.div_euclid(1_000_000)).unwrap_or(u32::MAX).max(1)
}

/// What is used, at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    /// Of the present conversation.
    pub session: Amount,
    /// Of all sessions of the owner today.
    pub day: Amount,
    /// The day that it is.
    pub today: i64,
}

/// A bound that holds, and what is used of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// What it is for.
    pub scope: BudgetScope,
    /// What is counted.
    pub unit: BudgetUnit,
    /// How much is used.
    pub used: f64,
    /// How much may be used.
    pub limit: f64,
    /// The day that it is for; 0 for a conversation.
    pub day: i64,
}

/// The bounds that hold for a session of `owner`.
#[must_use]
pub fn bounds(config: &BudgetConfig, owner: &str, record: &BudgetRecord, used: &Used) -> Vec<Bound> {
    let all = config.of(owner);
    let own_tokens = record.tokens.map_or(all.session_tokens, Some).filter(|bound| *bound > 0);
    let own_cost = record.cost_usd.map_or(all.session_cost_usd, Some).filter(|bound| *bound > 0.0);
    let raise = record.day.filter(|raise| raise.day == used.today).unwrap_or_default();
    let day_tokens = all.user_day_tokens.map(|bound| bound.max(raise.tokens.unwrap_or(0)));
    let day_cost = all.user_day_cost_usd.map(|bound| bound.max(raise.cost_usd.unwrap_or(0.0)));
    let session = |unit, used, limit| Bound { scope: BudgetScope::Session, unit, used, limit, day: 0 };
    let day = |unit, amount, limit| Bound { scope: BudgetScope::UserDay, unit, used: amount, limit, day: used.today };
    let tokens = BudgetUnit::Tokens;
    let cost = BudgetUnit::CostUsd;
    [
        own_tokens.map(|limit| session(tokens, used.session.tokens as f64, limit as f64)),
        own_cost.map(|limit| session(cost, used.session.cost_usd, limit)),
        day_tokens.map(|limit| day(tokens, used.day.tokens as f64, limit as f64)),
        day_cost.map(|limit| day(cost, used.day.cost_usd, limit)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Bound {
    /// True when nothing is left.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.used >= self.limit
    }

    fn is_near(&self, warn_at: f64) -> bool {
        warn_at < 1.0 && self.used >= self.limit * warn_at
    }

    fn mark(&self, kind: BudgetMarkKind) -> BudgetMark {
        BudgetMark { scope: self.scope, unit: self.unit, limit: self.limit, day: self.day, kind }
    }

    /// True where a mark is of this very bound: of its size, and of its day.
    fn has(&self, mark: &BudgetMark) -> bool {
        // A number may come back from JSON with another last digit.
        let same = (mark.limit - self.limit).abs() <= self.limit * 1e-9;
        (mark.scope, mark.unit, mark.day) == (self.scope, self.unit, self.day) && same
    }

    /// What is used of what, for a person.
    fn told(&self) -> String {
        let whose = match self.scope {
            BudgetScope::Session => "the session has used",
            BudgetScope::UserDay => "the sessions of its owner have used today",
        };
        match self.unit {
            BudgetUnit::Tokens => format!("{whose} {} of {} tokens", self.used, self.limit),
            BudgetUnit::CostUsd => format!("{whose} {:.4} of {:.4} US dollars", self.used, self.limit),
        }
    }

    fn field(&self) -> &'static str {
        match self.unit {
            BudgetUnit::Tokens => "tokens",
            BudgetUnit::CostUsd => "cost_usd",
        }
    }

    /// What to do to go on, for a person.
    fn cure(&self) -> String {
        match self.scope {
            BudgetScope::Session => {
                format!("raise it with PATCH of the session: {{\"budget\": {{\"{}\": N}}}}", self.field())
            }
            BudgetScope::UserDay => {
                format!("it begins anew at 00:00 UTC, or an admin raises budget.user_day_{}", self.field())
            }
        }
    }

    /// The bound as "go on" leaves it: higher by the step, counted from what is used already.
    #[must_use]
    pub fn raised(&self, step: f64) -> f64 {
        self.used.max(self.limit) + self.limit * step
    }

    /// A message for the error event, and for the error of a turn.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}; {}", self.told(), self.cure())
    }

    /// The question whether to go on.
    #[must_use]
    pub fn question(&self, step: f64) -> String {
        let to = self.raised(step);
        let to = if self.unit == BudgetUnit::Tokens { format!("{}", to.ceil()) } else { format!("{to:.4}") };
        format!("Budget: {}. Go on, up to {to}?", self.told())
    }

    /// The refusal of a message.
    #[must_use]
    pub fn refusal(&self, now: Timestamp) -> ApiError {
        let mut error = ApiError::new(Code::BudgetExceeded, self.message()).with("of", self.field());
        error.retry_after = Some(match self.scope {
            BudgetScope::Session => RETRY_AFTER,
            BudgetScope::UserDay => until_tomorrow(now),
        });
        error
    }
}

/// What is to be done about the bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Nothing: work may go on.
    GoOn,
    /// Somebody has to be asked.
    Ask(Bound),
    /// Work stops.
    Stop(Bound),
}

/// What is to be done. `asked` while the question is open: then the work may use as much as "go on" would allow, since
/// an agent cannot be halted in between.
#[must_use]
pub fn judge(config: &BudgetConfig, record: &BudgetRecord, bounds: &[Bound], asked: bool) -> Verdict {
    let mut verdict = Verdict::GoOn;
    for bound in bounds.iter().filter(|bound| bound.is_reached()) {
        let declined = || record.marks.iter().any(|mark| mark.kind == BudgetMarkKind::Declined && bound.has(mark));
        match config.on_limit {
            OnLimit::Warn => {}
            OnLimit::Stop => return Verdict::Stop(*bound),
            OnLimit::Ask if declined() => return Verdict::Stop(*bound),
            OnLimit::Ask if asked && bound.used >= bound.limit * (1.0 + config.step) => return Verdict::Stop(*bound),
            OnLimit::Ask if verdict == Verdict::GoOn => verdict = Verdict::Ask(*bound),
            OnLimit::Ask => {}
        }
    }
    verdict
}

/// What is to be told now and was not told before, with the marks that remember it.
#[must_use]
pub fn news(config: &BudgetConfig, record: &BudgetRecord, bounds: &[Bound]) -> Vec<(Bound, BudgetMark)> {
    let known = |bound: &Bound, kind| record.marks.iter().any(|mark| mark.kind == kind && bound.has(mark));
    let of = |bound: &Bound| {
        let reached = bound.is_reached();
        let kind = if reached { BudgetMarkKind::Reached } else { BudgetMarkKind::Near };
        let due = reached || bound.is_near(config.warn_at);
        (due && !known(bound, kind)).then(|| (*bound, bound.mark(kind)))
    };
    bounds.iter().filter_map(of).collect()
}

/// Remembers something, and forgets what is of no bound that holds.
pub fn remember(record: &mut BudgetRecord, bounds: &[Bound], mark: BudgetMark) {
    record.marks.retain(|known| bounds.iter().any(|bound| bound.has(known)));
    record.marks.push(mark);
}

/// Remembers for every bound that is reached that nobody allowed to go on.
pub fn decline(record: &mut BudgetRecord, bounds: &[Bound]) {
    for bound in bounds.iter().filter(|bound| bound.is_reached()) {
        remember(record, bounds, bound.mark(BudgetMarkKind::Declined));
    }
}

/// Raises every bound that is reached by the step; those of a day for this session only.
pub fn raise(config: &BudgetConfig, record: &mut BudgetRecord, bounds: &[Bound]) {
    for bound in bounds.iter().filter(|bound| bound.is_reached()) {
        let limit = bound.raised(config.step);
        let tokens = Some(limit.ceil() as u64);
        let day = record.day.filter(|raise| raise.day == bound.day);
        let day = day.unwrap_or(DayRaise { day: bound.day, ..DayRaise::default() });
        match (bound.scope, bound.unit) {
            (BudgetScope::Session, BudgetUnit::Tokens) => record.tokens = tokens,
            (BudgetScope::Session, BudgetUnit::CostUsd) => record.cost_usd = Some(limit),
            (BudgetScope::UserDay, BudgetUnit::Tokens) => record.day = Some(DayRaise { tokens, ..day }),
            (BudgetScope::UserDay, BudgetUnit::CostUsd) => record.day = Some(DayRaise { cost_usd: Some(limit), ..day }),
        }
    }
}

/// The budget as clients see it; none where there is no bound.
#[must_use]
pub fn view(config: &BudgetConfig, record: &BudgetRecord, bounds: &[Bound]) -> Option<Budget> {
    if bounds.is_empty() {
        return None;
    }
    let find = |scope, unit| bounds.iter().find(|bound| (bound.scope, bound.unit) == (scope, unit));
    let tokens = |scope| {
        let of = |bound: &Bound| TokenBudget { used: bound.used as u64, limit: bound.limit as u64 };
        find(scope, BudgetUnit::Tokens).map(of)
    };
    let cost =
        |scope| find(scope, BudgetUnit::CostUsd).map(|bound| CostBudget { used: bound.used, limit: bound.limit });
    let day = DayBudget { tokens: tokens(BudgetScope::UserDay), cost_usd: cost(BudgetScope::UserDay) };
    let warned = bounds.iter().any(|bound| bound.is_reached() || bound.is_near(config.warn_at));
    let state = match judge(config, record, bounds, false) {
        Verdict::Stop(_) => BudgetState::Stopped,
        _ if warned => BudgetState::Warned,
        _ => BudgetState::Ok,
    };
    Some(Budget {
        tokens: tokens(BudgetScope::Session),
        cost_usd: cost(BudgetScope::Session),
        day: Some(day).filter(|day| day.tokens.is_some() || day.cost_usd.is_some()),
        state,
    })
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
