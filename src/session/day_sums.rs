//! What users have used today, over all sessions: what the store has, in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::budget::Amount;
use crate::store::Spend;

/// The committed sums of each user's newest day.
#[derive(Debug, Default)]
pub struct DaySums(Mutex<HashMap<String, (i64, Amount)>>);

impl DaySums {
    /// What a user has used on a day.
    #[must_use]
    pub fn of(&self, user: &str, day: i64) -> Amount {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.get(user).filter(|(of, _)| *of == day).map(|(_, sum)| *sum).unwrap_or_default()
    }

    /// Takes the sums as the store has them, with what other servers have added. What this one commits at the same moment
    /// may be in them and be added again, or be missing: the next look puts it right.
    pub fn replace(&self, stored: &[Spend]) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for spend in stored {
            let amount = Amount { tokens: spend.tokens, cost_usd: spend.cost_usd };
            let known = sums.entry(spend.user.clone()).or_default();
            if spend.day >= known.0 {
                *known = (spend.day, amount);
            }
        }
    }

    /// Takes up what was committed.
    pub fn add(&self, spends: &[Spend]) {
        if spends.is_empty() {
            return;
        }
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for spend in spends {
            let amount = Amount { tokens: spend.tokens, cost_usd: spend.cost_usd };
            let (day, sum) = sums.entry(spend.user.clone()).or_insert((spend.day, Amount::default()));
            if spend.day > *day {
                (*day, *sum) = (spend.day, Amount::default());
            }
            // What was still under way at midnight belongs to a day that nobody asks for any more.
            if spend.day == *day {
                *sum = sum.plus(amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_day_begins_with_nothing() {
        let sums = DaySums::default();
        let spend = |day, tokens| Spend { user: "ann".into(), day, tokens, cost_usd: 0.25 };
        sums.add(&[spend(1, 10), spend(1, 5)]);
        assert_eq!(sums.of("ann", 1), Amount { tokens: 15, cost_usd: 0.5 });
        assert_eq!((sums.of("ann", 2), sums.of("bob", 1)), (Amount::default(), Amount::default()));
        sums.add(&[spend(2, 1), spend(1, 100)]);
        assert_eq!(sums.of("ann", 2), Amount { tokens: 1, cost_usd: 0.25 });
    }

    #[test]
    fn what_the_store_has_counts() {
        let sums = DaySums::default();
        let spend = |user: &str, day, tokens| Spend { user: user.into(), day, tokens, cost_usd: 0.0 };
        sums.add(&[spend("ann", 2, 10), spend("bob", 2, 7)]);
        sums.replace(&[spend("ann", 2, 25), spend("ann", 1, 99), spend("carol", 2, 3)]);
        let tokens = |user: &str| sums.of(user, 2).tokens;
        assert_eq!((tokens("ann"), tokens("bob"), tokens("carol")), (25, 7, 3));
    }
}
