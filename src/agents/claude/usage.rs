//! Tokens and cost of a turn. Pure.
//!
//! A result says what was used since the result before (`model_usage_since_last_result`: all models, sub-agents
//! included), and what the conversation has used in all (`modelUsage`, `total_cost_usd`: cumulative, also over a resume);
//! its `usage` counts the main conversation only. Older agents have only the totals. While a turn runs, the calls of the
//! main conversation are counted as they end.

use serde_json::Value;

use crate::protocol::Usage;

/// Adds up a conversation.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Of the running turn: what its results have said. What a hidden turn used between two turns counts for the next.
    told: Counts,
    cost: Option<f64>,
    /// Of the running turn: the calls since the last result.
    calls: Counts,
    /// The call that runs: what it began with.
    call: Counts,
    /// The totals of the last result. None after a resume until a result has said them: what was used before cannot be
    /// told from what the next turn uses.
    total: Option<(Counts, f64)>,
    context_used: Option<u64>,
    context_max: Option<u64>,
    /// The model of the last call of the main conversation.
    model: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    input: u64,
    output: u64,
    cached_read: u64,
    cached_write: u64,
    thought: u64,
}

impl Counts {
    /// Reads fields by their names, in the order of the fields here.
    fn read(value: &Value, names: [&str; 5]) -> Self {
        let [input, output, cached_read, cached_write, thought] =
            names.map(|name| value.get(name).and_then(Value::as_u64).unwrap_or(0));
        Self { input, output, cached_read, cached_write, thought }
    }

    /// Of a call: `usage` of the model's own messages.
    fn of_call(usage: &Value) -> Self {
        let mut counts = Self::read(
            usage,
            ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", ""],
        );
        let details = usage.get("output_tokens_details").and_then(|details| details.get("thinking_tokens"));
        counts.thought = details.and_then(Value::as_u64).unwrap_or(0);
        counts
    }

    /// Of a table by model, with its cost.
    fn of_models(models: &Value) -> Option<(Self, f64)> {
        let models = models.as_object()?;
        let names =
            ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens", "thinkingTokens"];
        let counts = models.values().fold(Self::default(), |sum, model| sum.plus(Self::read(model, names)));
        let cost = models.values().filter_map(|model| model.get("costUSD")?.as_f64()).sum();
        Some((counts, cost))
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            input: with(self.input, other.input),
            output: with(self.output, other.output),
            cached_read: with(self.cached_read, other.cached_read),
            cached_write: with(self.cached_write, other.cached_write),
            thought: with(self.thought, other.thought),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is more than before. Totals that go back began anew.
    fn since(self, before: Self) -> Self {
        let began_anew = self.input < before.input || self.output < before.output;
        if began_anew { self } else { self.each(before, u64::saturating_sub) }
    }

    /// The prompt as the model read it: the agent counts cached tokens apart.
    fn prompt(self) -> u64 {
        self.input.saturating_add(self.cached_read).saturating_add(self.cached_write)
    }
}

impl Meter {
    /// For a conversation that begins now (`fresh`), or that the agent has resumed.
    pub(super) fn new(fresh: bool) -> Self {
        Self { total: fresh.then(|| (Counts::default(), 0.0)), ..Self::default() }
    }

    /// Takes an event of the main conversation's stream. At the end of a call, the answer is the turn so far.
    pub(super) fn piece(&mut self, event: &Value) -> Option<Usage> {
        match event.get("type").and_then(Value::as_str)? {
            "message_start" => {
                let message = event.get("message")?;
                self.call = Counts::of_call(message.get("usage")?);
                if let Some(model) = message.get("model").and_then(Value::as_str) {
                    model.clone_into(&mut self.model);
                }
                None
            }
            "message_delta" => {
                let end = Counts::of_call(event.get("usage")?);
                // Some providers say the prompt only at the begin, some only at the end.
                let call = self.call.each(end, u64::max);
                self.call = Counts::default();
                self.context_used = Some(call.prompt().saturating_add(call.output));
                self.calls = self.calls.plus(call);
                Some(self.so_far())
            }
            _ => None,
        }
    }

    /// The conversation was made shorter.
    pub(super) fn compacted(&mut self, tokens: Option<u64>) {
        self.context_used = tokens.or(self.context_used);
    }

    /// Takes a result, of a turn of ours or of the agent's own.
    pub(super) fn result(&mut self, result: &Value) {
        let total = result.get("modelUsage").and_then(Counts::of_models);
        let total_cost = result.get("total_cost_usd").and_then(Value::as_f64);
        let since = result.get("model_usage_since_last_result").and_then(Counts::of_models);
        let counts = match (since, total, self.total) {
            (Some((counts, _)), _, _) => counts,
            (None, Some((now, _)), Some((before, _))) => now.since(before),
            _ => result.get("usage").map(Counts::of_call).unwrap_or_default(),
        };
        let cost = match (total_cost, self.total) {
            // A total that goes back began anew.
            (Some(now), Some((_, before))) => Some(if now < before { now } else { now - before }),
            _ => since.map(|(_, cost)| cost),
        };
        self.told = self.told.plus(counts);
        self.calls = Counts::default();
        self.cost = match (self.cost, cost) {
            (Some(sum), Some(cost)) => Some(sum + cost),
            (sum, cost) => sum.or(cost),
        };
        if let Some((now, cost)) = total {
            self.total = Some((now, total_cost.unwrap_or(cost)));
        }
        self.context_max = self.window(result).or(self.context_max);
    }

    /// The context window of the model that the main conversation runs on, else the only one that is told.
    fn window(&self, result: &Value) -> Option<u64> {
        let models = result.get("modelUsage")?.as_object()?;
        let window = |model: &Value| model.get("contextWindow")?.as_u64().filter(|size| *size > 0);
        let named = models.iter().find(|(name, model)| {
            **name == self.model || model.get("canonicalModel").and_then(Value::as_str) == Some(&self.model)
        });
        match named {
            Some((_, model)) => window(model),
            None => models.values().next().filter(|_| models.len() == 1).and_then(window),
        }
    }

    /// The turn is over: what it used. The next begins at nothing.
    pub(super) fn finish(&mut self) -> Usage {
        let usage = self.so_far();
        self.told = Counts::default();
        self.calls = Counts::default();
        self.cost = None;
        usage
    }

    fn so_far(&self) -> Usage {
        let sum = self.told.plus(self.calls);
        Usage {
            input_tokens: sum.prompt(),
            output_tokens: sum.output,
            cached_tokens: sum.cached_read,
            reasoning_tokens: sum.thought,
            cost_usd: self.cost,
            context_used: self.context_used,
            context_max: self.context_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn models(input: u64, cost: f64) -> Value {
        json!({"claude-x": {"inputTokens": input, "outputTokens": 7, "cacheReadInputTokens": 10,
            "cacheCreationInputTokens": 5, "thinkingTokens": 3, "costUSD": cost, "contextWindow": 1000}})
    }

    fn result(total: f64, since: Option<Value>) -> Value {
        let mut result = json!({"type": "result", "total_cost_usd": total, "modelUsage": models(100, total),
            "usage": {"input_tokens": 1, "output_tokens": 1}});
        if let Some(since) = since {
            result["model_usage_since_last_result"] = since;
        }
        result
    }

    fn turn(meter: &mut Meter, result: &Value) -> Usage {
        meter.result(result);
        meter.finish()
    }

    #[test]
    fn a_turn_uses_what_was_used_since_the_result_before() {
        let mut meter = Meter::new(true);
        let usage = turn(&mut meter, &result(0.5, Some(models(100, 0.5))));
        assert_eq!((usage.input_tokens, usage.output_tokens), (115, 7));
        assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (10, 3));
        assert_eq!((usage.cost_usd, usage.context_max), (Some(0.5), Some(1000)));
        let usage = turn(&mut meter, &result(0.75, Some(models(20, 0.25))));
        assert_eq!((usage.input_tokens, usage.cost_usd), (35, Some(0.25)));
        // After /clear the totals begin anew.
        let usage = turn(&mut meter, &result(0.0, Some(json!({}))));
        assert_eq!((usage.input_tokens, usage.cost_usd), (0, Some(0.0)));
    }

    #[test]
    fn a_resumed_conversation_does_not_pay_again() {
        let mut meter = Meter::new(false);
        let usage = turn(&mut meter, &result(4.0, Some(models(20, 0.25))));
        assert_eq!((usage.input_tokens, usage.cost_usd), (35, Some(0.25)));
        assert_eq!(turn(&mut meter, &result(4.5, None)).cost_usd, Some(0.5));
        // An older agent says only totals, and its own usage without them.
        let usage = turn(&mut Meter::new(false), &result(4.0, None));
        assert_eq!((usage.input_tokens, usage.cost_usd), (1, None));
    }

    #[test]
    fn totals_alone_are_subtracted() {
        let mut meter = Meter::new(true);
        assert_eq!(turn(&mut meter, &result(0.5, None)).input_tokens, 115);
        assert_eq!(turn(&mut meter, &result(0.5, None)).input_tokens, 0);
    }

    #[test]
    fn two_results_in_one_turn_add_up() {
        let mut meter = Meter::new(true);
        meter.result(&result(0.5, Some(models(100, 0.5))));
        meter.result(&result(0.75, Some(models(20, 0.25))));
        let usage = meter.finish();
        assert_eq!((usage.input_tokens, usage.cost_usd), (150, Some(0.75)));
    }

    #[test]
    fn calls_count_while_the_turn_runs_and_the_result_replaces_them() {
        let mut meter = Meter::new(true);
        let usage = |output: u64| json!({"input_tokens": 50, "cache_read_input_tokens": 10, "output_tokens": output});
        let start = json!({"type": "message_start", "message": {"model": "claude-x", "usage": usage(1)}});
        let end = json!({"type": "message_delta", "usage": usage(9)});
        assert_eq!(meter.piece(&start), None);
        let first = meter.piece(&end).unwrap();
        assert_eq!((first.input_tokens, first.output_tokens, first.context_used), (60, 9, Some(69)));
        meter.piece(&start);
        assert_eq!(meter.piece(&end).unwrap().input_tokens, 120);
        let whole = turn(&mut meter, &result(0.5, Some(models(100, 0.5))));
        assert_eq!((whole.input_tokens, whole.context_used), (115, Some(69)));
        meter.compacted(Some(12));
        assert_eq!(meter.finish().context_used, Some(12));
    }
}
