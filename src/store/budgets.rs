//! Budgets: what a session's has beside the configuration, and what users have used on a day.

use std::collections::BTreeMap;

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    codec::{signed, text, unsigned},
    connection::{AnyConnection, each},
    fault::Fault,
    schema::user_spend,
    writer::{Reply, Write},
};

/// What a bound is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// One conversation.
    Session,
    /// All sessions of a user on a day.
    UserDay,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetUnit {
    /// Tokens, input and output.
    Tokens,
    /// US dollars.
    CostUsd,
}

/// What has happened at a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetMarkKind {
    /// It was told that it is near.
    Near,
    /// It was told that it is reached.
    Reached,
    /// Somebody was asked whether to go on, and it was not allowed.
    Declined,
}

/// Something that happened at a bound of that size, so that it does not happen again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BudgetMark {
    /// What the bound is for.
    pub scope: BudgetScope,
    /// What is counted.
    pub unit: BudgetUnit,
    /// The bound.
    pub limit: f64,
    /// The day since 1970 that it is for; 0 for a conversation.
    pub day: i64,
    /// What has happened.
    pub kind: BudgetMarkKind,
}

/// The bounds of a day as they were raised in one session.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DayRaise {
    /// The day since 1970.
    pub day: i64,
    /// Tokens.
    pub tokens: Option<u64>,
    /// US dollars.
    pub cost_usd: Option<f64>,
}

/// What a session's budget has beside the configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetRecord {
    /// A bound of its own for tokens; 0 is none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// A bound of its own for US dollars; 0 is none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// How far it may go beyond its owner's bounds of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<DayRaise>,
    /// What has happened at the present bounds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<BudgetMark>,
}

/// What a user has used more than was stored before.
#[derive(Debug, Clone, PartialEq)]
pub struct Spend {
    /// The owner of the session.
    pub user: String,
    /// The day of UTC, in days since 1970.
    pub day: i64,
    /// Tokens, input and output.
    pub tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
}

/// Adds what the appends that were made have used. Always in the order of users and days: transactions of several
/// writers on Postgres must not wait for each other in a circle.
pub(super) fn add(connection: &mut AnyConnection, writes: &[Write], replies: &[Reply]) -> Result<(), Fault> {
    let made = writes.iter().zip(replies).flat_map(|(write, reply)| match (write, reply) {
        (Write::Append(append), Reply::Appended(..)) => append.spends.as_slice(),
        (Write::Spend(spend), Reply::Done) => std::slice::from_ref(spend),
        _ => &[],
    });
    for ((user, day), (tokens, cost_usd)) in sums(made) {
        let values = (
            user_spend::user_name.eq(text(&user)),
            user_spend::day.eq(day),
            user_spend::tokens.eq(signed(tokens)),
            user_spend::cost_usd.eq(cost_usd),
        );
        each!(connection, c => diesel::insert_into(user_spend::table)
            .values(values)
            .on_conflict((user_spend::user_name, user_spend::day))
            .do_update()
            .set((
                user_spend::tokens.eq(user_spend::tokens + signed(tokens)),
                user_spend::cost_usd.eq(user_spend::cost_usd + cost_usd),
            ))
            .execute(c))?;
    }
    Ok(())
}

fn sums<'a>(spends: impl Iterator<Item = &'a Spend>) -> BTreeMap<(String, i64), (u64, f64)> {
    let mut sums: BTreeMap<(String, i64), (u64, f64)> = BTreeMap::new();
    for spend in spends {
        let (tokens, cost_usd) = sums.entry((spend.user.clone(), spend.day)).or_default();
        *tokens = tokens.saturating_add(spend.tokens);
        *cost_usd += spend.cost_usd;
    }
    sums
}

impl Store {
    /// Adds what somebody has used outside of any session.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn spend(&self, spend: Spend) -> Result<(), StoreError> {
        self.write(Write::Spend(spend)).await.map(|_| ())
    }

    /// What users have used on a day and after it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn spent_since(&self, day: i64) -> Result<Vec<Spend>, StoreError> {
        self.read(move |connection| {
            let columns = (user_spend::user_name, user_spend::day, user_spend::tokens, user_spend::cost_usd);
            let rows = user_spend::table.filter(user_spend::day.ge(day)).select(columns);
            let rows = rows.load::<(String, i64, i64, f64)>(connection)?;
            let spend = |(user, day, tokens, cost_usd)| {
                Ok(Spend { user, day, tokens: unsigned("user_spend.tokens", tokens)?, cost_usd })
            };
            rows.into_iter().map(spend).collect()
        })
        .await
    }
}
