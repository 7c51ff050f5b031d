//! One chunk of a chat completion, read into facts. Pure: it decides nothing.

use serde_json::Value;

use crate::{
    agents::AgentEvent,
    protocol::{Usage, event::DeltaKind},
};

/// What a chunk says.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Something to tell the session as it is.
    Event(AgentEvent),
    /// A piece of a call of a tool.
    ToolCall,
    /// The model refuses to answer; its words come as text.
    Refusal,
    /// The answer is over, with the server's reason.
    Finish(String),
    /// The server gives up.
    Error(Value),
    /// The server is llama.cpp.
    Llama,
}

/// Reads a chunk, or a whole completion from a server that does not stream. Nothing is returned for a chunk that says
/// nothing, as the first often does, and none for a value that is no chunk.
pub fn read(chunk: &Value) -> Option<Vec<Fact>> {
    let mut facts = Vec::new();
    if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
        return Some(vec![Fact::Error(error.clone())]);
    }
    let mut known = false;
    if let Some(progress) = chunk.get("prompt_progress") {
        known = true;
        facts.extend(progress_of(progress).map(Fact::Event));
    }
    if let Some(choices) = chunk.get("choices").and_then(Value::as_array) {
        known = true;
        // Only one choice is asked for; a server that sends more has them side by side.
        let first = choices.iter().find(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0);
        if let Some(choice) = first {
            read_choice(choice, &mut facts);
        }
    }
    if chunk.get("timings").is_some() {
        facts.push(Fact::Llama);
    }
    if let Some(usage) = usage_of(chunk) {
        known = true;
        facts.push(Fact::Event(AgentEvent::Usage(usage)));
    }
    known.then_some(facts)
}

fn read_choice(choice: &Value, facts: &mut Vec<Fact>) {
    if let Some(said) = choice.get("delta").or_else(|| choice.get("message")) {
        for name in ["reasoning_content", "reasoning"] {
            if let Some(text) = said.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                push(facts, DeltaKind::Reasoning, text);
                break;
            }
        }
        if let Some(content) = said.get("content") {
            read_content(content, DeltaKind::Text, facts);
        }
        if let Some(text) = said.get("refusal").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            push(facts, DeltaKind::Text, text);
            facts.push(Fact::Refusal);
        }
        let called = said.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
        if called || said.get("function_call").is_some_and(Value::is_object) {
            facts.push(Fact::ToolCall);
        }
    }
    if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        facts.push(Fact::Finish(reason.to_owned()));
    }
}

/// Content is a text, or a list of parts of which some are thoughts.
fn read_content(content: &Value, kind: DeltaKind, facts: &mut Vec<Fact>) {
    match content {
        Value::String(text) => push(facts, kind, text),
        Value::Array(parts) => {
            for part in parts {
                match part.get("thinking") {
                    Some(thinking) => read_content(thinking, DeltaKind::Reasoning, facts),
                    None => read_content(part.get("text").unwrap_or(&Value::Null), kind, facts),
                }
            }
        }
        _ => {}
    }
}

fn push(facts: &mut Vec<Fact>, kind: DeltaKind, text: &str) {
    if !text.is_empty() {
        facts.push(Fact::Event(AgentEvent::Delta { kind, text: text.to_owned() }));
    }
}

fn number(value: &Value, path: &[&str]) -> Option<u64> {
    path.iter().try_fold(value, |value, name| value.get(name))?.as_u64()
}

/// llama.cpp tells how far it is with reading the prompt.
fn progress_of(progress: &Value) -> Option<AgentEvent> {
    Some(AgentEvent::Progress {
        processed: number(progress, &["processed"])?,
        total: number(progress, &["total"])?,
        cached: number(progress, &["cache"]).unwrap_or(0),
        time_ms: number(progress, &["time_ms"]).unwrap_or(0),
    })
}

/// Tokens by `usage`, else by llama.cpp's `timings`, whose `prompt_n` leaves out what came from the cache.
fn usage_of(chunk: &Value) -> Option<Usage> {
    let timings = chunk.get("timings");
    let timed = |name: &str| number(timings?, &[name]);
    let cached_by_timings = timed("cache_n").unwrap_or(0);
    let usage = match chunk.get("usage").filter(|usage| usage.is_object()) {
        Some(usage) => Usage {
            input_tokens: number(usage, &["prompt_tokens"]).unwrap_or(0),
            output_tokens: number(usage, &["completion_tokens"]).unwrap_or(0),
            cached_tokens: number(usage, &["prompt_tokens_details", "cached_tokens"])
                .or_else(|| number(usage, &["prompt_cache_hit_tokens"]))
                .unwrap_or(cached_by_timings),
            reasoning_tokens: number(usage, &["completion_tokens_details", "reasoning_tokens"]).unwrap_or(0),
            cost_usd: usage.get("cost").and_then(Value::as_f64),
            ..Usage::default()
        },
        None => Usage {
            input_tokens: timed("prompt_n")?.saturating_add(cached_by_timings),
            output_tokens: timed("predicted_n")?,
            cached_tokens: cached_by_timings,
            ..Usage::default()
        },
    };
    Some(Usage { context_used: Some(usage.input_tokens.saturating_add(usage.output_tokens)), ..usage })
}
