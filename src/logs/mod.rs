//! The log of this process: lines on stderr, and the newest of them in memory for operators.
//!
//! A line that is written while a request is served gets its `request_id`, and one that names a session gets the `turn`
//! that runs there and the `request_id` of the call that sent it: so all lines of a turn can be found by one id,
//! whoever writes them.

mod context;
mod lines;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use env_logger::Logger;
use log::{Log, Metadata, Record};

pub use context::{TurnTag, request_id, tag, untag, within};
pub use lines::{Line, Lines, MAX_LINES, Tail};

/// Makes a logger for directives such as `info,greenroom::ws=debug`.
pub type Make = fn(&str, crate::config::LogFormat) -> Result<Logger, String>;

struct Tee {
    make: Make,
    format: crate::config::LogFormat,
    inner: RwLock<Logger>,
    lines: Arc<Lines>,
}

static TEE: OnceLock<Tee> = OnceLock::new();

/// Begins to log, to stderr and into memory.
///
/// # Errors
/// One line: the directives are wrong, or something else logs in this process already.
pub fn install(make: Make, level: &str, format: crate::config::LogFormat) -> Result<(), String> {
    let logger = make(level, format)?;
    let filter = logger.filter();
    let tee = Tee { make, format, inner: RwLock::new(logger), lines: Arc::default() };
    let tee = TEE.get_or_init(|| tee);
    log::set_logger(tee).map_err(|error| error.to_string())?;
    log::set_max_level(filter);
    Ok(())
}

/// Changes what is logged from now on.
///
/// # Errors
/// One line: what is wrong with the directives; or nothing is logged by this process.
pub fn set_level(level: &str) -> Result<(), String> {
    let tee = TEE.get().ok_or("this process does not log")?;
    let logger = (tee.make)(level, tee.format)?;
    let filter = logger.filter();
    *tee.inner.write().unwrap_or_else(PoisonError::into_inner) = logger;
    log::set_max_level(filter);
    Ok(())
}

/// The newest lines; none where this process does not log.
#[must_use]
pub fn lines() -> Option<&'static Arc<Lines>> {
    TEE.get().map(|tee| &tee.lines)
}

impl Log for Tee {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if !inner.matches(record) {
            return;
        }
        context::enrich(record, |record| {
            self.lines.push(Line::of(record));
            inner.log(record);
        });
        drop(inner);
        if let Some(metrics) = crate::metrics::get() {
            metrics.log_records.with_label_values(&[&record.level().as_str().to_ascii_lowercase()]).inc();
        }
    }

    fn flush(&self) {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).flush();
    }
}
