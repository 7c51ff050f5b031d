//! Tokens and cost: every agent tells them in its own way, here they become one figure per turn. Pure.
//!
//! Where the figures of a turn come from, the first that is there:
//! 1. `usage` of the prompt's result (claude-agent-acp: of this prompt; opencode: of its last model call only, which is
//!    all that it tells);
//! 2. `_meta.quota.token_count` of the prompt's result (gemini);
//! 3. the sum of `_meta.usage` on message chunks (qwen: one per model call).
//!
//! They are never added to each other. The context and the cost come from `usage_update`; its cost is cumulative
//! over the conversation, so a turn's cost is the difference.

use serde_json::Value;

use crate::protocol::Usage;

/// Adds up a conversation.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The cumulative cost before the running turn. None after a native resume until the agent has told: what was
    /// spent before cannot be told from what the next turn spends.
    cost_before: Option<f64>,
    cost_now: Option<f64>,
    chunks: Option<Counts>,
    context_used: Option<u64>,
    context_max: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    input: u64,
    output: u64,
    cached_read: u64,
    cached_write: u64,
    thought: u64,
    total: Option<u64>,
}

impl Meter {
    /// For a conversation that begins now (`fresh`), or that the agent has loaded.
    pub(super) fn new(fresh: bool) -> Self {
        Self { cost_before: fresh.then_some(0.0), ..Self::default() }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.chunks = None;
        self.cost_now = None;
    }

    /// Takes the figures on a message chunk; false when it has none.
    pub(super) fn chunk(&mut self, update: &Value) -> bool {
        let meta = |holder: &Value| holder.get("_meta")?.get("usage").and_then(Counts::read);
        let Some(counts) = meta(update).or_else(|| update.get("content").and_then(meta)) else { return false };
        self.chunks = Some(self.chunks.map_or(counts, |sum| sum.plus(counts)));
        true
    }

    /// Takes a `usage_update`. In a turn, the answer is what is known of the turn so far.
    pub(super) fn update(&mut self, update: &Value, in_turn: bool) -> Option<Usage> {
        let number = |field: &str| update.get(field).and_then(Value::as_u64);
        self.context_used = number("used").or(self.context_used);
        self.context_max = number("size").filter(|size| *size > 0).or(self.context_max);
        let cost = update.get("cost").filter(|cost| {
            cost.get("currency").and_then(Value::as_str).is_none_or(|currency| currency.eq_ignore_ascii_case("usd"))
        });
        let cost = cost.and_then(|cost| cost.get("amount")?.as_f64());
        if in_turn {
            self.cost_now = cost.or(self.cost_now);
            return Some(self.usage(None));
        }
        // Between turns a known base stays, so that what is told late counts for the next turn instead of never.
        self.cost_before = self.cost_before.or(cost);
        None
    }

    /// A turn ends with this result. None when the agent told nothing at all.
    pub(super) fn finish(&mut self, result: &Value) -> Option<Usage> {
        let usage = result.get("usage").and_then(Counts::read);
        let quota = || result.get("_meta")?.get("quota")?.get("token_count").and_then(Counts::read);
        let counts = usage.or_else(quota).or(self.chunks);
        let known = counts.is_some() || self.cost_now.is_some() || self.context_used.is_some();
        let usage = known.then(|| self.usage(counts));
        self.cost_before = self.cost_now.or(self.cost_before);
        self.begin();
        usage
    }

    fn usage(&self, counts: Option<Counts>) -> Usage {
        let tokens = counts.or(self.chunks).unwrap_or_default().normalised();
        let cost_usd = match (self.cost_before, self.cost_now) {
            // A counter that goes back began anew.
            (Some(before), Some(now)) if now < before => Some(now),
            (Some(before), Some(now)) => Some(now - before),
            _ => None,
        };
        Usage { cost_usd, context_used: self.context_used, context_max: self.context_max, ..tokens }
    }
}

impl Counts {
    fn read(value: &Value) -> Option<Self> {
        let number = |names: [&str; 2]| names.iter().find_map(|name| value.get(name)?.as_u64());
        let input = number(["inputTokens", "input_tokens"]);
        let output = number(["outputTokens", "output_tokens"]);
        if input.is_none() && output.is_none() {
            return None;
        }
        Some(Self {
            input: input.unwrap_or(0),
            output: output.unwrap_or(0),
            cached_read: number(["cachedReadTokens", "cached_read_tokens"]).unwrap_or(0),
            cached_write: number(["cachedWriteTokens", "cached_write_tokens"]).unwrap_or(0),
            thought: number(["thoughtTokens", "thought_tokens"]).unwrap_or(0),
            total: number(["totalTokens", "total_tokens"]),
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cached_read: self.cached_read.saturating_add(other.cached_read),
            cached_write: self.cached_write.saturating_add(other.cached_write),
            thought: self.thought.saturating_add(other.thought),
            total: self.total.zip(other.total).map(|(a, b)| a.saturating_add(b)),
        }
    }

    /// Cached tokens are part of the input and thought tokens part of the output here. Agents differ: whether they
    /// stand apart shows in the total, which is the sum of what stands apart.
    fn normalised(self) -> Usage {
        let cached = self.cached_read.saturating_add(self.cached_write);
        let rest = self.total.and_then(|total| total.checked_sub(self.input.saturating_add(self.output)));
        let both = cached.saturating_add(self.thought);
        let (cached_apart, thought_apart) = match rest {
            Some(rest) if rest == both => (true, true),
            Some(rest) if rest == cached => (true, false),
            Some(rest) => (false, rest == self.thought),
            None => (false, false),
        };
        Usage {
            input_tokens: self.input.saturating_add(if cached_apart { cached } else { 0 }),
            output_tokens: self.output.saturating_add(if thought_apart { self.thought } else { 0 }),
            cached_tokens: self.cached_read,
            reasoning_tokens: self.thought,
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens(usage: Usage) -> (u64, u64, u64, u64) {
        (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    }

    #[test]
    fn cached_and_thought_tokens_are_counted_once_whether_they_stand_apart_or_not() {
        let count = |total: Option<u64>| {
            let counts = Counts { input: 100, output: 20, cached_read: 10, cached_write: 5, thought: 7, total };
            tokens(counts.normalised())
        };
        assert_eq!(count(Some(142)), (115, 27, 10, 7));
        assert_eq!(count(Some(135)), (115, 20, 10, 7));
        assert_eq!(count(Some(127)), (100, 27, 10, 7));
        assert_eq!(count(Some(120)), (100, 20, 10, 7));
        assert_eq!(count(None), (100, 20, 10, 7));
    }

    #[test]
    fn the_result_goes_before_the_quota_and_that_before_the_chunks() {
        let chunk = json!({"content": {"text": ""}, "_meta": {"usage": {"inputTokens": 5, "outputTokens": 1}}});
        let quota = json!({"quota": {"token_count": {"input_tokens": 30, "output_tokens": 3}}});
        let mut meter = Meter::new(true);
        meter.begin();
        assert!(meter.chunk(&chunk) && meter.chunk(&chunk) && !meter.chunk(&json!({"content": {"text": "a"}})));
        assert_eq!(tokens(meter.finish(&json!({})).unwrap()), (10, 2, 0, 0));
        meter.begin();
        meter.chunk(&chunk);
        assert_eq!(tokens(meter.finish(&json!({"_meta": quota})).unwrap()), (30, 3, 0, 0));
        let usage = json!({"inputTokens": 100, "outputTokens": 2});
        assert_eq!(tokens(meter.finish(&json!({"usage": usage, "_meta": quota})).unwrap()), (100, 2, 0, 0));
        assert_eq!(meter.finish(&json!({"stopReason": "end_turn"})), None);
    }

    fn spend(meter: &mut Meter, amount: f64) -> Option<f64> {
        meter.begin();
        let update = json!({"used": 10, "size": 100, "cost": {"amount": amount, "currency": "USD"}});
        meter.update(&update, true).unwrap();
        meter.finish(&json!({})).unwrap().cost_usd
    }

    #[test]
    fn a_turn_costs_what_the_conversation_costs_more_than_before() {
        let mut meter = Meter::new(true);
        assert_eq!([1.0, 1.5, 1.5, 0.25].map(|amount| spend(&mut meter, amount)), [1.0, 0.5, 0.0, 0.25].map(Some));
        let mut resumed = Meter::new(false);
        assert_eq!([4.0, 4.5].map(|amount| spend(&mut resumed, amount)), [None, Some(0.5)]);
        let mut told = Meter::new(false);
        told.update(&json!({"cost": {"amount": 4.0, "currency": "USD"}}), false);
        assert_eq!(spend(&mut told, 4.5), Some(0.5));
    }
}
