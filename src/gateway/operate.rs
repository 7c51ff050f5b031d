//! For operators: the numbers, and the settings that may change.

use std::sync::PoisonError;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Gateway, Principal};
use crate::{
    config::{
        Config,
        live::{self, Changes, MUTABLE, Refusal},
    },
    error::{ApiError, Code},
    logs,
    metrics::{self, Metrics},
    server,
    session::Effective,
};

/// The settings in force: what `GET /v1/config` shows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Settings")]
pub struct SettingsView {
    /// All of them by topic and name, secrets as `***`.
    #[schemars(extend("type" = "object"))]
    pub settings: Value,
    /// The keys that may change while the server runs.
    pub mutable: &'static [&'static str],
    /// Those that have another value than the configuration gives them, until the server stops.
    pub overridden: Changes,
}

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingChange {
    /// Its key.
    pub key: String,
    /// Its value before.
    pub from: Value,
    /// Its value now.
    pub to: Value,
}

/// What the configuration gives, and what was changed since the start.
pub(super) struct Settings {
    base: Config,
    changes: Changes,
}

impl Settings {
    pub(super) const fn new(base: Config) -> Self {
        Self { base, changes: Changes::new() }
    }
}

impl Gateway {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> SettingsView {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        SettingsView { settings: json!(self.config().config), mutable: MUTABLE, overridden: settings.changes.clone() }
    }

    /// Changes settings until the server stops; null gives one its configured value back. All of them, or none.
    ///
    /// # Errors
    /// `setting_not_mutable`; `invalid_json` for a setting that is not there, or a value that it does not take.
    pub fn change_settings(&self, who: &Principal, body: &Map<String, Value>) -> Result<Vec<SettingChange>, ApiError> {
        // Held to the end: two changes at once must not undo each other.
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = live::leaves(&settings.base, body).map_err(refused)?;
        let mut changes = settings.changes.clone();
        for (key, value) in &asked {
            if value.is_null() {
                changes.remove(key);
            } else {
                changes.insert(key.clone(), value.clone());
            }
        }
        let config = live::with(&settings.base, &changes).map_err(refused)?;
        let before = self.config();
        if config.log.level != before.log.level {
            let invalid = |error| refused(Refusal::Invalid("log.level".into(), error));
            logs::set_level(&config.log.level).map_err(invalid)?;
        }
        let (old, new) = (json!(before.config), json!(config));
        let at =
            |all: &Value, key: &str| all.pointer(&format!("/{}", key.replace('.', "/"))).cloned().unwrap_or_default();
        let made = asked.keys().map(|key| SettingChange { key: key.clone(), from: at(&old, key), to: at(&new, key) });
        let made: Vec<SettingChange> = made.filter(|change| change.from != change.to).collect();
        settings.changes = changes;
        self.deps.change(Effective { settings: server::settings(&config), config });
        for SettingChange { key, from, to } in &made {
            log::info!(user = who.user.as_str(), key = key.as_str(), from:% = from, to:% = to; "a setting was changed");
        }
        if !made.is_empty() {
            // None of the settings that may change holds a secret.
            let detail = made.iter().map(|one| (one.key.clone(), json!({"from": one.from, "to": one.to})));
            self.note_server(who, "config.update", Value::Object(detail.collect()));
        }
        Ok(made)
    }

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
        metrics.audit_queue.set(level(self.access.audit.load().0));
        metrics.log_lines.set(level(logs::lines().map_or(0, |lines| lines.len())));
        metrics.webhook_backlog.set(i64::try_from(self.deps.outbound.backlog()).unwrap_or(i64::MAX));
        metrics.pool.with_label_values(&["used"]).set(level(pool.in_use()));
        metrics.pool.with_label_values(&["waited_for"]).set(level(pool.waiting()));
        let admission = &self.deps.admission;
        metrics.turn_places.with_label_values(&["used"]).set(level(admission.running()));
        metrics.turn_places.with_label_values(&["waited_for"]).set(level(admission.waiting()));
        set_limits(metrics, &self.config(), self.deps.store.ring().fill().1, self.access.audit.load().1);
        metrics.render()
    }
}

fn refused(refusal: Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::Fixed(key) => {
            ApiError::new(Code::SettingNotMutable, message).with("field", key).with("mutable", MUTABLE)
        }
        Refusal::Unknown(key) | Refusal::Invalid(key, _) => {
            ApiError::new(Code::InvalidJson, message).with("field", key)
        }
    }
}

/// The bounds that levels and counts are to be seen against.
fn set_limits(metrics: &Metrics, config: &Config, ring: usize, audit: usize) {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    // The same, for what may be more than a u32 holds: a size is exact up to 2^53 bytes.
    let bytes = |n: u64| {
        f64::from(u32::try_from(n >> 20).unwrap_or(u32::MAX)) * f64::from(1u32 << 20)
            + f64::from(u32::try_from(n & 0xf_ffff).unwrap_or(0))
    };
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
        ("pool.max_running", count(config.pool.max_running)),
        ("store.max_size", bytes(config.store.max_size.0)),
        ("audit.queue", count(audit)),
        ("store.queue", count(config.store.queue) * if sqlite { 1.0 } else { count(writers) }),
        ("store.readers", f64::from(config.store.readers)),
        ("delivery.max_backlog", count(usize::try_from(config.delivery.max_backlog).unwrap_or(usize::MAX))),
        ("feed.ring", count(ring)),
        ("log.ring", count(logs::MAX_LINES)),
    ];
    for (setting, value) in limits {
        metrics.limits.with_label_values(&[setting]).set(value);
    }
}
