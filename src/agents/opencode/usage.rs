//! Tokens and cost of a turn: the sum over the model calls of its messages, those of its sub-agents included. Pure.

use std::collections::HashMap;

use serde_json::Value;

use crate::protocol::Usage;

/// The figures of one turn.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// By message; a later figure of the same message replaces.
    messages: HashMap<String, Usage>,
    context_used: Option<u64>,
    pub(super) context_max: Option<u64>,
}

impl Meter {
    /// Takes an assistant message. True when that is news.
    pub(super) fn message(&mut self, id: &str, info: &Value, of_sub_agent: bool) -> bool {
        let Some(usage) = read(info) else { return false };
        if !of_sub_agent {
            self.context_used = usage.context_used.or(self.context_used);
        }
        self.messages.insert(id.to_owned(), usage) != Some(usage)
    }

    /// The turn so far.
    pub(super) fn total(&self) -> Usage {
        let sum = self.messages.values().fold(Usage::default(), |sum, usage| sum.plus(*usage));
        Usage { context_used: self.context_used, context_max: self.context_max, ..sum }
    }
}

/// None for a message that has no figures yet.
fn read(info: &Value) -> Option<Usage> {
    let tokens = info.get("tokens")?;
    let number = |holder: &Value, name: &str| holder.get(name).and_then(Value::as_f64).map_or(0, as_count);
    let cache = tokens.get("cache").unwrap_or(&Value::Null);
    let (read, written) = (number(cache, "read"), number(cache, "write"));
    let (input, output, reasoning) = (number(tokens, "input"), number(tokens, "output"), number(tokens, "reasoning"));
    let input = input.saturating_add(read).saturating_add(written);
    if input == 0 && output == 0 && reasoning == 0 {
        return None;
    }
    // Reasoning stands beside the output; where the total says that it is part of it, it must not count twice.
    let total = number(tokens, "total");
    let within = reasoning > 0 && total > 0 && total == input.saturating_add(output);
    let output = if within { output } else { output.saturating_add(reasoning) };
    // A model without a known price costs nothing here, which says nothing.
    let cost = info.get("cost").and_then(Value::as_f64).filter(|cost| *cost > 0.0);
    Some(Usage {
        input_tokens: input,
        output_tokens: output,
        cached_tokens: read,
        reasoning_tokens: reasoning,
        cost_usd: cost,
        context_used: Some(input.saturating_add(output)),
        context_max: None,
    })
}

/// The server counts in numbers that may have a fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts from floats saturate")]
fn as_count(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(input: u64, output: u64, reasoning: u64, total: u64, cost: f64) -> Value {
        json!({"cost": cost, "tokens": {"input": input, "output": output, "reasoning": reasoning, "total": total,
            "cache": {"read": 10, "write": 5}}})
    }

    #[test]
    fn messages_add_up_and_the_same_one_counts_once() {
        let mut meter = Meter { context_max: Some(1000), ..Meter::default() };
        assert!(!meter.message("a", &json!({"cost": 0, "tokens": {"input": 0, "output": 0, "reasoning": 0}}), false));
        assert!(meter.message("a", &info(85, 7, 0, 107, 0.5), false));
        assert!(!meter.message("a", &info(85, 7, 0, 107, 0.5), false));
        assert!(meter.message("sub", &info(885, 3, 0, 903, 0.25), true));
        assert!(meter.message("b", &info(185, 4, 6, 210, 0.0), false));
        let total = meter.total();
        assert_eq!((total.input_tokens, total.output_tokens), (100 + 900 + 200, 7 + 3 + 10));
        assert_eq!((total.cached_tokens, total.reasoning_tokens, total.cost_usd), (30, 6, Some(0.75)));
        assert_eq!((total.context_used, total.context_max), (Some(210), Some(1000)));
    }

    #[test]
    fn reasoning_counts_once_whether_it_stands_apart_or_not() {
        let output = |total| read(&info(85, 7, 4, total, 0.0)).unwrap().output_tokens;
        assert_eq!((output(111), output(107), output(0)), (11, 7, 11));
        assert_eq!(read(&info(85, 7, 4, 0, 0.0)).unwrap().cost_usd, None);
    }
}
