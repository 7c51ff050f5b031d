//! Budgets on the wire: how much of one is used up, and how a client changes it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::command::present;

/// How much of the budgets that hold for a session is used up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Tokens of the present conversation; null where they have no bound.
    pub tokens: Option<TokenBudget>,
    /// US dollars of the present conversation; null where they have no bound.
    pub cost_usd: Option<CostBudget>,
    /// What all sessions of the owner have used since 00:00 UTC; null where that has no bound.
    pub day: Option<DayBudget>,
    /// How it stands with all of them.
    pub state: BudgetState,
}

/// What the owner's sessions have used since 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DayBudget {
    /// Tokens; null where they have no bound.
    pub tokens: Option<TokenBudget>,
    /// US dollars; null where they have no bound.
    pub cost_usd: Option<CostBudget>,
}

/// Tokens against their bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenBudget {
    /// Input and output, with those of the running turn as far as its agent has told.
    pub used: u64,
    /// The bound.
    pub limit: u64,
}

/// US dollars against their bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CostBudget {
    /// What agents have told, with the running turn.
    pub used: f64,
    /// The bound.
    pub limit: f64,
}

/// How it stands with a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetState {
    /// There is enough.
    #[default]
    Ok,
    /// A bound is near, or is passed where that stops nothing.
    Warned,
    /// A bound is reached: nothing starts until it is raised.
    Stopped,
}

/// A whole number, also where it comes as `5.0`, which JSON Schema takes for an integer; null is present, too.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    use serde::de::Error as _;
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(Some(None)) };
    let text = number.to_string();
    let digits = text.strip_suffix(".0").unwrap_or(&text);
    digits
        .parse()
        .map(|whole| Some(Some(whole)))
        .map_err(|_other| D::Error::custom("expected a whole number of at least 0"))
}

/// A session's own bounds. What is left out stays; null is the configured one again, 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetBudget {
    /// Tokens of the present conversation.
    #[serde(deserialize_with = "whole")]
    pub tokens: Option<Option<u64>>,
    /// US dollars of the present conversation.
    #[serde(deserialize_with = "present")]
    #[schemars(range(min = 0))]
    pub cost_usd: Option<Option<f64>>,
}
