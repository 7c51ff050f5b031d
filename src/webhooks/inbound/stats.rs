//! What a route went through since the start: for `GET /v1/channels/status` and the metrics.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::Route;
use crate::{error::ApiError, metrics, timestamp::Timestamp};

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It became a message.
    Accepted,
    /// It had come before.
    Duplicate,
    /// It was believed, and nothing that the route wants.
    Ignored,
    /// It was refused.
    Refused,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Accepted, Self::Duplicate, Self::Ignored, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// The counts of a route.
#[derive(Debug)]
pub struct Stats {
    route: String,
    counts: [AtomicU64; 4],
    last: Mutex<(Option<Timestamp>, Option<RouteError>)>,
}

/// A route and how it does.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "WebhookRoute")]
pub struct RouteStatus {
    /// Its name.
    route: String,
    /// How senders are told from others.
    verify: &'static str,
    /// How the keys of its sessions begin.
    prefix: String,
    /// Whose sessions they are.
    owner: String,
    /// Webhooks that became messages.
    accepted_total: u64,
    /// Webhooks that had come before, and got the first answer again.
    duplicate_total: u64,
    /// Webhooks that were believed, and nothing that the route wants.
    ignored_total: u64,
    /// Webhooks that were refused.
    refused_total: u64,
    /// When the last one came; null when there was none.
    last_at: Option<Timestamp>,
    /// Why the last refused one was refused; null when there was none.
    last_error: Option<RouteError>,
}

/// Why a webhook was refused.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "WebhookRouteError")]
pub struct RouteError {
    /// When.
    at: Timestamp,
    /// The code of the answer.
    code: &'static str,
    /// Its message.
    message: String,
}

impl Stats {
    pub(super) fn new(route: &str) -> Self {
        let stats = Self { route: route.to_owned(), counts: Default::default(), last: Mutex::default() };
        if let Some(metrics) = metrics::get() {
            for outcome in Outcome::ALL {
                metrics.webhooks.with_label_values(&[route, outcome.as_str()]).reset();
            }
        }
        stats
    }

    /// Counts one, and keeps why it was refused.
    pub fn note(&self, outcome: Outcome, error: Option<&ApiError>) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(metrics) = metrics::get() {
            metrics.webhooks.with_label_values(&[self.route.as_str(), outcome.as_str()]).inc();
        }
        let at = Timestamp::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.0 = Some(at);
        if let Some(error) = error {
            last.1 = Some(RouteError { at, code: error.code.as_str(), message: error.message.clone() });
        }
    }

    pub(super) fn status(&self, route: &Route) -> RouteStatus {
        let count =
            |outcome: Outcome| self.counts.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        let (last_at, last_error) = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        RouteStatus {
            route: route.name.clone(),
            verify: route.check.name(),
            prefix: route.prefix.as_str().to_owned(),
            owner: route.owner.clone(),
            accepted_total: count(Outcome::Accepted),
            duplicate_total: count(Outcome::Duplicate),
            ignored_total: count(Outcome::Ignored),
            refused_total: count(Outcome::Refused),
            last_at,
            last_error,
        }
    }
}
