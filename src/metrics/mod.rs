//! What an operator can count, in the conventions of Prometheus: base units, `_total`, `_seconds`.
//!
//! One set for the process, as with the log. Where something happens it is counted there and then; what is a level (a
//! queue's length, a limit) is set when it is asked for. Nothing here walks over sessions, and no label holds a session
//! key, a user or an id: labels are agents of the configuration, routes, states and names of settings.
//!
//! The crate `prometheus` without its protobuf part writes the classic text format, which every scraper reads.

mod turns;

use std::{cell::RefCell, sync::OnceLock};

use prometheus::{
    CounterVec, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

pub use turns::{Running, Settled, Tally, ended};

/// What all names begin with.
const PREFIX: &str = "greenroom";
/// Upper bounds for what a person or an agent waits for, in seconds.
const WAITS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
/// Upper bounds for what the server does itself, in seconds.
const WORK: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Upper bounds for jobs in one commit.
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    /// From accepted to started.
    pub queue_wait: HistogramVec,
    /// From started to the first thing that the agent says.
    pub first_token: HistogramVec,
    /// From started to the end, by outcome.
    pub turn_duration: HistogramVec,
    /// Turns that ended, by outcome.
    pub turns: IntCounterVec,
    /// Tokens by kind.
    pub tokens: IntCounterVec,
    /// US dollars.
    pub cost: CounterVec,
    /// What happened with budgets, by outcome.
    pub budgets: IntCounterVec,
    /// Turns that wait.
    pub queued_turns: IntGauge,
    /// Turns that run.
    pub running_turns: IntGauge,
    /// Sessions in memory.
    pub live_sessions: IntGauge,
    /// Streams by what they follow: `session` or `all`.
    pub streams: IntGaugeVec,
    /// Streams that fell behind and read on from the store.
    pub lags: IntCounterVec,
    /// Streams that were cut because they took nothing.
    pub cut_streams: IntCounter,
    /// Bytes that wait for streams of sessions, shared ones counted for each.
    pub stream_bytes: IntGauge,
    /// Panics, wherever they happened.
    pub panics: IntCounter,
    /// What watchdogs have put right.
    pub watchdog: IntCounterVec,
    /// WebSocket connections.
    pub sockets: IntGauge,
    /// TCP connections.
    pub connections: IntGauge,
    /// Bytes in the ring of the feed.
    pub feed_bytes: IntGauge,
    /// Agent processes that have a place, and turns that wait for one.
    pub pool: IntGaugeVec,
    /// Places for turns that run, over all sessions, and turns that wait for one.
    pub turn_places: IntGaugeVec,
    /// Jobs in one commit.
    pub store_batch: Histogram,
    /// How long a commit takes.
    pub store_commit: Histogram,
    /// Bytes of the database as of the last round of retention: `used`, `free`, `log`.
    pub store_bytes: IntGaugeVec,
    /// 1 while the database is over its budget and nothing is left to prune.
    pub store_over_budget: IntGauge,
    /// Rounds of retention, by outcome.
    pub retention_rounds: IntCounterVec,
    /// Events that retention has removed, by reason.
    pub retention_events: IntCounterVec,
    /// Sessions that retention has deleted, by reason.
    pub retention_sessions: IntCounterVec,
    /// Jobs that wait for a writer.
    pub store_queue: IntGauge,
    /// Reads that have a connection.
    pub store_readers: IntGauge,
    /// Answers by method, route template and status.
    pub requests: IntCounterVec,
    /// Time to the head of an answer.
    pub request_duration: HistogramVec,
    /// Webhook deliveries by what came of an attempt, and those that were dropped.
    pub webhook_deliveries: IntCounterVec,
    /// Time of one attempt at a webhook delivery.
    pub webhook_attempt: Histogram,
    /// Webhook deliveries that wait.
    pub webhook_backlog: IntGauge,
    /// Inbound webhooks by route and outcome.
    pub webhooks: IntCounterVec,
    /// Calls that were refused, by error code.
    pub refusals: IntCounterVec,
    /// Entries of the audit that wait to be written.
    pub audit_queue: IntGauge,
    /// The configured bounds, by setting.
    pub limits: GaugeVec,
    /// Lines in the log ring.
    pub log_lines: IntGauge,
    /// Log records by level.
    pub log_records: IntCounterVec,
    /// The version, and when the process started.
    info: IntGaugeVec,
    started: Gauge,
}

/// A registry that is being filled.
struct Filling {
    registry: Registry,
    names: RefCell<Vec<String>>,
}

/// Registers a collector.
fn add<C: Collector + Clone + 'static>(filling: &Filling, made: prometheus::Result<C>) -> prometheus::Result<C> {
    let collector = made?;
    // The registry puts its prefix before the names that it shows, not into the collectors.
    let names = collector.desc().into_iter().map(|desc| format!("{PREFIX}_{}", desc.fq_name));
    filling.names.borrow_mut().extend(names);
    filling.registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn timed(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some(PREFIX.into()), None)?;
        let filling = Filling { registry, names: RefCell::default() };
        let r = &filling;
        let waits = |name: &str, help: &str, labels: &[&str]| HistogramVec::new(timed(name, help, WAITS), labels);
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauges = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            queue_wait: add(r, waits("turn_queue_wait_seconds", "Time from accepted to started.", &["agent"]))?,
            first_token: add(
                r,
                waits("turn_first_token_seconds", "Time from started to the first output of the agent.", &["agent"]),
            )?,
            turn_duration: add(
                r,
                waits("turn_duration_seconds", "Time from started to the end.", &["agent", "outcome"]),
            )?,
            turns: add(r, counters("turns_total", "Turns that ended.", &["agent", "outcome"]))?,
            tokens: add(
                r,
                counters(
                    "tokens_total",
                    "Tokens of turns that ended: input, output, and of these cached, reasoning.",
                    &["agent", "kind"],
                ),
            )?,
            cost: add(
                r,
                CounterVec::new(
                    Opts::new("cost_usd_total", "US dollars of turns that ended, as agents tell."),
                    &["agent"],
                ),
            )?,
            budgets: add(
                r,
                counters(
                    "budget_events_total",
                    "Budgets that were warned of, exceeded, and what followed.",
                    &["outcome"],
                ),
            )?,
            queued_turns: add(r, IntGauge::new("queued_turns", "Turns that wait, in live sessions."))?,
            running_turns: add(r, IntGauge::new("running_turns", "Turns that run."))?,
            live_sessions: add(r, IntGauge::new("live_sessions", "Sessions in memory."))?,
            streams: add(r, gauges("streams", "Streams that follow one session, or all.", &["of"]))?,
            lags: add(
                r,
                counters("stream_lags_total", "Streams that fell behind and read on from the store.", &["of"]),
            )?,
            cut_streams: add(r, IntCounter::new("streams_cut_total", "Streams that were cut: they took nothing."))?,
            stream_bytes: add(
                r,
                IntGauge::new(
                    "stream_waiting_bytes",
                    "Bytes that wait for streams of sessions, each stream's counted.",
                ),
            )?,
            panics: add(r, IntCounter::new("panics_total", "Panics; each was contained."))?,
            watchdog: add(r, counters("watchdog_actions_total", "What watchdogs have put right.", &["action"]))?,
            sockets: add(r, IntGauge::new("websockets", "WebSocket connections."))?,
            connections: add(r, IntGauge::new("http_connections", "TCP connections of clients."))?,
            feed_bytes: add(r, IntGauge::new("feed_ring_bytes", "Bytes kept for those that follow all sessions."))?,
            pool: add(r, gauges("agent_processes", "Places for agent processes: used, or waited for.", &["state"]))?,
            turn_places: add(r, gauges("turn_places", "Places for turns that run: used, or waited for.", &["state"]))?,
            store_batch: add(r, Histogram::with_opts(timed("store_batch_jobs", "Jobs in one commit.", BATCHES)))?,
            store_commit: add(
                r,
                Histogram::with_opts(timed("store_commit_seconds", "Time of one commit, tries included.", WORK)),
            )?,
            store_bytes: add(
                r,
                gauges("store_bytes", "Size of the database: used, free, and SQLite's log.", &["part"]),
            )?,
            store_over_budget: add(
                r,
                IntGauge::new(
                    "store_over_budget",
                    "1 while the database is over store.max_size with nothing to prune.",
                ),
            )?,
            retention_rounds: add(r, counters("retention_rounds_total", "Rounds of retention.", &["outcome"]))?,
            retention_events: add(
                r,
                counters("retention_events_total", "Events that were pruned, for their age or for size.", &["why"]),
            )?,
            retention_sessions: add(
                r,
                counters(
                    "retention_sessions_total",
                    "Sessions that were deleted, for their age or for size.",
                    &["why"],
                ),
            )?,
            store_queue: add(r, IntGauge::new("store_queue_jobs", "Jobs that wait for a writer of the store."))?,
            store_readers: add(r, IntGauge::new("store_readers", "Connections that read from the store now."))?,
            requests: add(r, counters("http_requests_total", "Answers.", &["method", "route", "status"]))?,
            request_duration: add(
                r,
                HistogramVec::new(
                    timed("http_request_duration_seconds", "Time to the head of the answer.", WORK),
                    &["method", "route"],
                ),
            )?,
            webhook_deliveries: add(
                r,
                counters(
                    "webhook_deliveries_total",
                    "Attempts at webhook deliveries, and drops, by outcome.",
                    &["outcome"],
                ),
            )?,
            webhook_attempt: add(
                r,
                Histogram::with_opts(timed(
                    "webhook_attempt_seconds",
                    "Time of one attempt at a webhook delivery.",
                    WAITS,
                )),
            )?,
            webhook_backlog: add(r, IntGauge::new("webhook_backlog", "Webhook deliveries that wait."))?,
            webhooks: add(r, counters("webhooks_received_total", "Inbound webhooks.", &["route", "outcome"]))?,
            refusals: add(r, counters("refusals_total", "Calls that were refused.", &["code"]))?,
            audit_queue: add(r, IntGauge::new("audit_queue_entries", "Entries of the audit that wait to be written."))?,
            limits: add(r, GaugeVec::new(Opts::new("limit", "Configured bounds, in base units."), &["setting"]))?,
            log_lines: add(r, IntGauge::new("log_ring_lines", "Lines of the log that are kept in memory."))?,
            log_records: add(r, counters("log_records_total", "Log records.", &["level"]))?,
            info: add(r, gauges("build_info", "Always 1.", &["version"]))?,
            started: add(r, Gauge::new("start_time_seconds", "When the process started, since 1970."))?,
            names: filling.names.take(),
            registry: filling.registry,
        };
        metrics.info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        metrics.started.set(now.map_or(0.0, |now| now.as_secs_f64()));
        // What can be told in advance is there from the start, so that a first increase is seen as one.
        for of in ["session", "all"] {
            metrics.streams.with_label_values(&[of]).set(0);
            metrics.lags.with_label_values(&[of]).reset();
        }
        for why in ["age", "size"] {
            metrics.retention_events.with_label_values(&[why]).reset();
            metrics.retention_sessions.with_label_values(&[why]).reset();
        }
        for outcome in ["ok", "failed"] {
            metrics.retention_rounds.with_label_values(&[outcome]).reset();
        }
        for part in ["used", "free", "log"] {
            metrics.store_bytes.with_label_values(&[part]).set(0);
        }
        for code in crate::error::Code::ALL {
            metrics.refusals.with_label_values(&[code.as_str()]).reset();
        }
        for outcome in ["warned", "exceeded", "asked", "changed", "stopped", "refused"] {
            metrics.budgets.with_label_values(&[outcome]).reset();
        }
        for action in ["task_restarted", "turn_without_agent", "session_retried"] {
            metrics.watchdog.with_label_values(&[action]).reset();
        }
        for outcome in ["delivered", "retried", "failed", "dropped"] {
            metrics.webhook_deliveries.with_label_values(&[outcome]).reset();
        }
        for level in ["error", "warn", "info", "debug", "trace"] {
            metrics.log_records.with_label_values(&[level]).reset();
        }
        Ok(metrics)
    }

    /// The names of all metrics, whether anything was counted yet or not.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Everything as text for a scraper.
    ///
    /// # Errors
    /// One line; does not happen with metrics that were registered.
    pub fn render(&self) -> Result<String, String> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(|error| error.to_string())?;
        String::from_utf8(text).map_err(|error| error.to_string())
    }
}

static METRICS: OnceLock<Metrics> = OnceLock::new();

/// Begins to count. Calls after the first change nothing.
///
/// # Errors
/// One line: two metrics of one name, which is a mistake here.
pub fn install() -> Result<(), String> {
    if METRICS.get().is_none() {
        let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
        // Somebody else may have been faster; theirs are as good.
        let _ = METRICS.set(metrics);
    }
    Ok(())
}

/// What is counted; none before [`install`], as in commands that are no server.
#[must_use]
pub fn get() -> Option<&'static Metrics> {
    METRICS.get()
}

/// Counts a refusal.
pub fn refused(code: crate::error::Code) {
    if let Some(metrics) = get() {
        metrics.refusals.with_label_values(&[code.as_str()]).inc();
    }
}

/// One more of something, for as long as this lives.
#[derive(Debug)]
pub struct Held(Option<IntGauge>);

impl Held {
    /// Counts one more of what `pick` names.
    #[must_use]
    pub fn of(pick: impl FnOnce(&Metrics) -> IntGauge) -> Self {
        let gauge = get().map(pick);
        gauge.iter().for_each(IntGauge::inc);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_conventions() {
        let metrics = Metrics::new().unwrap();
        metrics.turns.with_label_values(&["echo", "completed"]).inc();
        metrics.queue_wait.with_label_values(&["echo"]).observe(0.2);
        let text = metrics.render().unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        for (name, kind) in types {
            assert!(name.starts_with("greenroom_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            assert!(!["_ms", "_millis", "_count", "_sum"].iter().any(|unit| name.ends_with(unit)), "{name}");
            if kind == "histogram" {
                assert!(name.ends_with("_seconds") || name.ends_with("_jobs"), "{name}");
            }
        }
        assert!(text.contains("greenroom_turns_total{agent=\"echo\",outcome=\"completed\"} 1"), "{text}");
    }
}
