//! Watchdogs of the process: every panic is counted and told in the log, wherever it happens, and tasks that must not
//! end are started again.
//!
//! What a panic costs is decided where it happens: a handler answers 500 (`http::boundary`), a session is opened again
//! within its crash budget (`supervisor`), a turn fails with its agent's task, a writer of the store goes on
//! (`store::writer`), a task of the server is started again ([`keep`]). Without the supervisor of sessions nothing can go
//! on: then the server stops, for whoever keeps it running to start it again (`server`).

use std::{
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, PanicHookInfo},
    sync::Once,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;

use crate::metrics;

/// The first and the longest pause before a task is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A task that has worked for so long has done well: its next panic is a first one.
const WELL: Duration = Duration::from_secs(300);

thread_local! {
    /// True while a panic of this thread is being told: telling it may panic too.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// From now on each panic of this process is counted and goes to the log instead of plain stderr. Calls after the first
/// change nothing.
pub fn watch_panics() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let plain = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Some(metrics) = metrics::get() {
                metrics.panics.inc();
            }
            if TELLING.replace(true) {
                return plain(panic);
            }
            tell(panic);
            TELLING.set(false);
        }));
    });
}

fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let what = panic.payload_as_str().unwrap_or("something that is no text");
    log::error!(place = place.as_str(), thread = thread.as_str(); "panicked: {what}");
}

/// Runs a task that must go on as long as the server does: after a panic it is made anew, after a pause that grows. Ends
/// when the task ends by itself.
pub async fn keep<F: Future<Output = ()>>(name: &'static str, mut make: impl FnMut() -> F) {
    let mut pause = PAUSE.0;
    loop {
        let begun = Instant::now();
        if AssertUnwindSafe(make()).catch_unwind().await.is_ok() {
            return;
        }
        if begun.elapsed() > WELL {
            pause = PAUSE.0;
        }
        acted("task_restarted");
        log::error!(task = name, pause:? = pause; "a task of the server has panicked and is started again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Counts what a watchdog has put right.
pub fn acted(what: &str) {
    if let Some(metrics) = metrics::get() {
        metrics.watchdog.with_label_values(&[what]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_made_anew_until_it_ends_by_itself() {
        metrics::install().unwrap();
        watch_panics();
        let counted = || metrics::get().map(|metrics| metrics.panics.get()).unwrap();
        let (before, mut runs) = (counted(), 0);
        let begun = tokio::time::Instant::now();
        keep("test", || {
            runs += 1;
            let run = runs;
            async move { assert!(run > 3, "run {run} fails") }
        })
        .await;
        assert_eq!(runs, 4);
        assert_eq!(begun.elapsed(), PAUSE.0 * (1 + 2 + 4), "the pause grows");
        assert!(counted() >= before + 3, "each panic is counted");
    }
}
