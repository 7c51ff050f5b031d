//! The few numbers that `top` takes out of `/metrics`. Pure.

/// The samples of a scrape that are shown, summed over labels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Numbers {
    /// Turns that ended.
    pub turns: f64,
    /// Of these, the ones that did not complete.
    pub failed: f64,
    /// Tokens in and out.
    pub tokens: f64,
    /// US dollars.
    pub cost: f64,
    /// HTTP answers.
    pub requests: f64,
    /// Turns that run, and that wait.
    pub running: f64,
    /// Turns that wait.
    pub queued: f64,
    /// Sessions in memory, and how many may be.
    pub live: (f64, f64),
    /// Agent processes, and how many may be.
    pub processes: (f64, f64),
    /// Turns that wait for a process.
    pub waiting: f64,
    /// Connections, and how many may be.
    pub connections: (f64, f64),
    /// Streams.
    pub streams: f64,
    /// Jobs that wait for the store.
    pub store_queue: f64,
    /// When the server started, in seconds since 1970.
    pub started: f64,
}

impl Numbers {
    /// Reads the text format; what is not known is passed over.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut numbers = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let has = |label: &str| labels.contains(label);
            match name {
                "greenroom_turns_total" => {
                    numbers.turns += value;
                    if !has("outcome=\"completed\"") {
                        numbers.failed += value;
                    }
                }
                "greenroom_tokens_total" if has("kind=\"input\"") || has("kind=\"output\"") => numbers.tokens += value,
                "greenroom_cost_usd_total" => numbers.cost += value,
                "greenroom_http_requests_total" => numbers.requests += value,
                "greenroom_running_turns" => numbers.running = value,
                "greenroom_queued_turns" => numbers.queued = value,
                "greenroom_live_sessions" => numbers.live.0 = value,
                "greenroom_agent_processes" if has("used") => numbers.processes.0 = value,
                "greenroom_agent_processes" => numbers.waiting = value,
                "greenroom_http_connections" => numbers.connections.0 = value,
                "greenroom_streams" => numbers.streams += value,
                "greenroom_store_queue_jobs" => numbers.store_queue = value,
                "greenroom_start_time_seconds" => numbers.started = value,
                "greenroom_limit" if has("session.max_live") => numbers.live.1 = value,
                "greenroom_limit" if has("pool.max_processes") => numbers.processes.1 = value,
                "greenroom_limit" if has("limits.max_connections") => numbers.connections.1 = value,
                _ => {}
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_summed_over_labels() {
        let text = "# HELP greenroom_turns_total x\ngreenroom_turns_total{agent=\"a\",outcome=\"completed\"} 3\n\
            greenroom_turns_total{agent=\"a\",outcome=\"failed\"} 2\ngreenroom_tokens_total{agent=\"a\",kind=\"input\"} 5\n\
            greenroom_tokens_total{agent=\"a\",kind=\"cached\"} 4\ngreenroom_limit{setting=\"session.max_live\"} 9\n\
            greenroom_live_sessions 1\nsomething_else 7\nnonsense\n";
        let numbers = Numbers::read(text);
        assert_eq!((numbers.turns, numbers.failed, numbers.tokens, numbers.live), (5.0, 2.0, 5.0, (1.0, 9.0)));
    }

    #[test]
    fn every_metric_that_is_read_exists() {
        crate::metrics::install().unwrap();
        let known = crate::metrics::get().unwrap().names();
        let source = include_str!("metrics.rs").split("#[cfg(test)]").next().unwrap();
        let read: Vec<&str> = source.split('"').filter(|word| word.starts_with("greenroom_")).collect();
        assert!(read.len() > 10 && read.iter().all(|name| known.contains(name)), "{read:?}");
    }
}
