//! `[budget]`: how many tokens and dollars a session, and a user on a day, may use up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[budget]`: bounds for everybody, with `[budget.users.NAME]` beside them. 0 is no bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Tokens of one conversation, input and output.
    pub session_tokens: u64,
    /// US dollars of one conversation.
    pub session_cost_usd: f64,
    /// Tokens of all sessions of one user on a day of UTC.
    pub user_day_tokens: u64,
    /// US dollars of all sessions of one user on a day of UTC.
    pub user_day_cost_usd: f64,
    /// The part of a bound at which a warning is told; 1 warns of nothing.
    pub warn_at: f64,
    /// What happens at a bound.
    pub on_limit: OnLimit,
    /// By which part of a bound "go on" raises it, where `on_limit` is `ask`.
    pub step: f64,
    /// Other bounds for a user, by its name.
    pub users: BTreeMap<String, UserBudget>,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            session_tokens: 0,
            session_cost_usd: 0.0,
            user_day_tokens: 0,
            user_day_cost_usd: 0.0,
            warn_at: 0.8,
            on_limit: OnLimit::Stop,
            step: 0.5,
            users: BTreeMap::new(),
        }
    }
}

/// What happens when a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// It is told, and all goes on.
    Warn,
    /// The running turn is stopped, and no other starts.
    #[default]
    Stop,
    /// Somebody is asked whether to go on.
    Ask,
}

/// The bounds of one user, as far as they are set apart from everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserBudget {
    /// Tokens of one conversation.
    pub session_tokens: Option<u64>,
    /// US dollars of one conversation.
    pub session_cost_usd: Option<f64>,
    /// Tokens of a day.
    pub user_day_tokens: Option<u64>,
    /// US dollars of a day.
    pub user_day_cost_usd: Option<f64>,
}

/// The bounds that hold for one user; none is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Tokens of one conversation.
    pub session_tokens: Option<u64>,
    /// US dollars of one conversation.
    pub session_cost_usd: Option<f64>,
    /// Tokens of a day.
    pub user_day_tokens: Option<u64>,
    /// US dollars of a day.
    pub user_day_cost_usd: Option<f64>,
}

impl BudgetConfig {
    /// What holds for a user.
    #[must_use]
    pub fn of(&self, user: &str) -> Bounds {
        let own = self.users.get(user).copied().unwrap_or_default();
        let tokens = |own: Option<u64>, all| Some(own.unwrap_or(all)).filter(|bound| *bound > 0);
        let cost = |own: Option<f64>, all| Some(own.unwrap_or(all)).filter(|bound| *bound > 0.0);
        Bounds {
            session_tokens: tokens(own.session_tokens, self.session_tokens),
            session_cost_usd: cost(own.session_cost_usd, self.session_cost_usd),
            user_day_tokens: tokens(own.user_day_tokens, self.user_day_tokens),
            user_day_cost_usd: cost(own.user_day_cost_usd, self.user_day_cost_usd),
        }
    }

    /// The first setting that makes no sense, and what it should be.
    pub(super) fn mistake(&self) -> Option<(String, &'static str)> {
        let amount = |name: &str, value: f64| {
            let wrong = !value.is_finite() || value < 0.0;
            wrong.then(|| (name.to_owned(), "must be an amount in US dollars, or 0 for no bound"))
        };
        if !(self.warn_at > 0.0 && self.warn_at <= 1.0) {
            return Some(("budget.warn_at".into(), "must be more than 0 and at most 1"));
        }
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Some(("budget.step".into(), "must be more than 0"));
        }
        let of_users = self.users.iter().flat_map(|(name, user)| {
            let key = |field| format!("budget.users.{name}.{field}");
            [
                (key("session_cost_usd"), user.session_cost_usd.unwrap_or(0.0)),
                (key("user_day_cost_usd"), user.user_day_cost_usd.unwrap_or(0.0)),
            ]
        });
        amount("budget.session_cost_usd", self.session_cost_usd)
            .or_else(|| amount("budget.user_day_cost_usd", self.user_day_cost_usd))
            .or_else(|| of_users.into_iter().find_map(|(key, value)| amount(&key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_for_a_user_wins_and_zero_is_no_bound() {
        let own = UserBudget { session_tokens: Some(0), user_day_tokens: Some(7), ..UserBudget::default() };
        let config = BudgetConfig {
            session_tokens: 5,
            user_day_tokens: 6,
            session_cost_usd: 0.5,
            users: BTreeMap::from([("ann".to_owned(), own)]),
            ..BudgetConfig::default()
        };
        let (ann, bob) = (config.of("ann"), config.of("bob"));
        assert_eq!((ann.session_tokens, ann.user_day_tokens, ann.session_cost_usd), (None, Some(7), Some(0.5)));
        assert_eq!((bob.session_tokens, bob.user_day_tokens, bob.user_day_cost_usd), (Some(5), Some(6), None));
    }

    #[test]
    fn mistakes_are_named() {
        let name = |config: BudgetConfig| config.mistake().map(|(name, _)| name);
        assert_eq!(name(BudgetConfig::default()), None);
        assert_eq!(name(BudgetConfig { warn_at: 1.5, ..BudgetConfig::default() }).unwrap(), "budget.warn_at");
        assert_eq!(name(BudgetConfig { step: 0.0, ..BudgetConfig::default() }).unwrap(), "budget.step");
        assert_eq!(
            name(BudgetConfig { user_day_cost_usd: -1.0, ..BudgetConfig::default() }).unwrap(),
            "budget.user_day_cost_usd"
        );
        let user = UserBudget { session_cost_usd: Some(f64::NAN), ..UserBudget::default() };
        let users = BTreeMap::from([("ann".to_owned(), user)]);
        assert_eq!(
            name(BudgetConfig { users, ..BudgetConfig::default() }).unwrap(),
            "budget.users.ann.session_cost_usd"
        );
    }
}
