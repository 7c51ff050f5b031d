//! Tokens of a turn out of `thread/tokenUsage/updated`. Pure.
//!
//! `total` counts the thread from its beginning, so a turn is the difference to what was told before it. `last` is the
//! latest model call, and cannot be added up: after a call that was cut off, as by steering, it is told a second time.
//! A thread that was resumed tells its total at once, before its first turn.

use serde_json::Value;

use crate::protocol::Usage;

/// Adds up a thread.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The total before the running turn. None after a resume until the agent has told.
    before: Option<Counts>,
    /// The latest total.
    now: Option<Counts>,
    context_used: Option<u64>,
    context_max: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

impl Meter {
    /// For a thread that begins now (`fresh`), or that was resumed.
    pub(super) fn new(fresh: bool) -> Self {
        Self { before: fresh.then(Counts::default), ..Self::default() }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.before = self.now.or(self.before);
    }

    /// Takes the `tokenUsage` of a notification. In a turn, the answer is what is known of the turn so far.
    pub(super) fn update(&mut self, usage: &Value, in_turn: bool) -> Option<Usage> {
        let total = Counts::read(usage.get("total")?);
        let last = usage.get("last").unwrap_or(&Value::Null);
        self.context_used = last.get("totalTokens").and_then(Value::as_u64).or(self.context_used);
        let window = usage.get("modelContextWindow").and_then(Value::as_u64);
        self.context_max = window.filter(|size| *size > 0).or(self.context_max);
        if !in_turn {
            // A known base stays, so that what is told late counts for the next turn instead of never.
            self.before.get_or_insert(total);
            return None;
        }
        let before = *self.before.get_or_insert_with(|| total.minus(Counts::read(last)));
        // A counter that goes back began anew.
        let before = if total.input < before.input { *self.before.insert(Counts::default()) } else { before };
        self.now = Some(total);
        let turn = total.minus(before);
        Some(Usage {
            input_tokens: turn.input,
            output_tokens: turn.output,
            cached_tokens: turn.cached,
            reasoning_tokens: turn.reasoning,
            cost_usd: None,
            context_used: self.context_used,
            context_max: self.context_max,
        })
    }
}

impl Counts {
    fn read(counts: &Value) -> Self {
        let number = |field: &str| counts.get(field).and_then(Value::as_u64).unwrap_or(0);
        Self {
            input: number("inputTokens"),
            cached: number("cachedInputTokens"),
            output: number("outputTokens"),
            reasoning: number("reasoningOutputTokens"),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_sub(other.input),
            cached: self.cached.saturating_sub(other.cached),
            output: self.output.saturating_sub(other.output),
            reasoning: self.reasoning.saturating_sub(other.reasoning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(calls: u64, last: u64) -> Value {
        let counts = |n: u64| {
            json!({"totalTokens": n * 110, "inputTokens": n * 100, "cachedInputTokens": n * 10,
            "outputTokens": n * 10, "reasoningOutputTokens": n * 4})
        };
        json!({"total": counts(calls), "last": counts(last), "modelContextWindow": 1000})
    }

    fn tokens(usage: Option<Usage>) -> (u64, u64, u64, u64) {
        let usage = usage.unwrap();
        (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    }

    #[test]
    fn a_turn_is_the_difference_of_totals() {
        let mut meter = Meter::new(true);
        meter.begin();
        assert_eq!(tokens(meter.update(&told(1, 1), true)), (100, 10, 10, 4));
        assert_eq!(tokens(meter.update(&told(2, 1), true)), (200, 20, 20, 8));
        // The same figures again add nothing.
        let again = meter.update(&told(2, 1), true);
        assert_eq!(tokens(again), (200, 20, 20, 8));
        assert_eq!(again.map(|usage| (usage.context_used, usage.context_max)), Some((Some(110), Some(1000))));
        meter.begin();
        assert_eq!(tokens(meter.update(&told(2, 1), true)), (0, 0, 0, 0));
        assert_eq!(tokens(meter.update(&told(3, 1), true)), (100, 10, 10, 4));
    }

    #[test]
    fn what_was_spent_before_a_resume_is_not_counted_again() {
        let mut told_at_once = Meter::new(false);
        assert_eq!(told_at_once.update(&told(7, 1), false), None);
        told_at_once.begin();
        assert_eq!(tokens(told_at_once.update(&told(8, 1), true)), (100, 10, 10, 4));
        let mut silent = Meter::new(false);
        silent.begin();
        assert_eq!(tokens(silent.update(&told(8, 1), true)), (100, 10, 10, 4));
        assert_eq!(tokens(silent.update(&told(9, 1), true)), (200, 20, 20, 8));
    }

    #[test]
    fn late_figures_count_for_the_next_turn_and_a_new_counter_from_its_beginning() {
        let mut meter = Meter::new(true);
        meter.begin();
        meter.update(&told(1, 1), true);
        assert_eq!(meter.update(&told(2, 1), false), None);
        meter.begin();
        assert_eq!(tokens(meter.update(&told(3, 1), true)), (200, 20, 20, 8));
        meter.begin();
        assert_eq!(tokens(meter.update(&told(1, 1), true)), (100, 10, 10, 4));
        assert_eq!(meter.update(&json!({}), true), None);
    }
}
