//! For operators: the numbers.

use super::Gateway;
use crate::{
    config::Config,
    metrics::{self, Metrics},
};

impl Gateway {
    /// All metrics as text. Levels are read here, each from a counter that is kept anyway: no session is asked.
    ///
    /// # Errors
    /// One line; does not happen in a server that runs.
    pub fn metrics(&self) -> Result<String, String> {
        let Some(metrics) = metrics::get() else { return Err("nothing is counted in this process".into()) };
        let level = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.live_sessions.set(level(self.directory.len()));
        metrics.feed_bytes.set(level(self.deps.store.ring().fill().0));
        let (waiting, readers) = self.deps.store.load();
        metrics.store_queue.set(level(waiting));
        metrics.store_readers.set(level(readers));
        let pool = &self.deps.pool;
        metrics.pool.with_label_values(&["used"]).set(level(pool.in_use()));
        metrics.pool.with_label_values(&["waited_for"]).set(level(pool.waiting()));
        set_limits(metrics, self.config(), self.deps.store.ring().fill().1);
        metrics.render()
    }
}

/// The bounds that levels and counts are to be seen against.
fn set_limits(metrics: &Metrics, config: &Config, ring: usize) {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let writers = usize::try_from(config.store.writers).unwrap_or(1);
    let sqlite = config.store.url.as_ref().is_none_or(|url| url.expose().starts_with("sqlite:"));
    let limits = [
        ("limits.max_connections", count(config.limits.max_connections)),
        ("limits.max_body", count(config.limits.max_body.bytes())),
        ("limits.max_upload", count(config.limits.max_upload.bytes())),
        ("limits.max_frame", count(config.limits.max_frame.bytes())),
        ("session.max_live", count(config.session.max_live)),
        ("session.max_queue", count(config.session.max_queue)),
        ("stream.max_subscribers", count(config.stream.max_subscribers)),
        ("stream.max_lag_bytes", count(config.stream.max_lag_bytes.bytes())),
        ("stream.max_lag", config.stream.max_lag.0.as_secs_f64()),
        ("pool.max_processes", count(config.pool.max_processes)),
        ("store.queue", count(config.store.queue) * if sqlite { 1.0 } else { count(writers) }),
        ("store.readers", f64::from(config.store.readers)),
        ("feed.ring", count(ring)),
    ];
    for (setting, value) in limits {
        metrics.limits.with_label_values(&[setting]).set(value);
    }
}
