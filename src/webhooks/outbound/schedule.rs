//! What an answer means, and when to try again. Pure, but for the chance in a wait.

use std::time::Duration;

use crate::{agents::openai::retry::chance, config::DeliveryConfig, timestamp::Timestamp};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Taken(u16),
    /// It was not.
    Failed {
        /// The status, where there was an answer.
        status: Option<u16>,
        /// What went wrong.
        error: String,
        /// How long the receiver asked to wait.
        retry_after: Option<Duration>,
    },
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// It is done.
    Done,
    /// It is tried again then.
    At(Timestamp),
    /// It is given up.
    GiveUp,
    /// It is given up, and nothing is sent to this endpoint any more, for this reason.
    Disable(&'static str),
}

/// The receiver does not want to be told any more.
const GONE: u16 = 410;

/// Statuses with which a receiver may ask to be left alone for a while.
const fn may_ask(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// What follows from attempt number `tries` (from 1) after `given_up` deliveries in a row were given up.
pub(super) fn next(config: &DeliveryConfig, outcome: &Outcome, tries: u32, given_up: u64, now: Timestamp) -> Next {
    let Outcome::Failed { status, retry_after, .. } = outcome else { return Next::Done };
    if *status == Some(GONE) {
        return Next::Disable("gone");
    }
    let Some(wait) = usize::try_from(tries).ok().and_then(|tries| config.schedule.get(tries)) else {
        return if given_up + 1 >= config.disable_after { Next::Disable("failing") } else { Next::GiveUp };
    };
    // Up to a tenth more, so that many do not come back at the same moment.
    let own = wait.0.mul_f64(1.0 + 0.1 * chance());
    let asked = retry_after.filter(|_| status.is_some_and(may_ask)).unwrap_or_default();
    // Never earlier than the schedule has it: a receiver that always asks for a second would use up all attempts in ten.
    Next::At(now.plus(own.max(asked.min(config.max_retry_after.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Duration as Span;

    fn config() -> DeliveryConfig {
        let schedule = vec![Span::secs(0), Span::secs(10), Span::secs(100)];
        DeliveryConfig { schedule, max_retry_after: Span::secs(1000), disable_after: 2, ..DeliveryConfig::default() }
    }

    fn failed(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Failed { status: Some(status), error: "x".into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    fn wait(outcome: &Outcome, tries: u32) -> f64 {
        match next(&config(), outcome, tries, 0, Timestamp(0)) {
            Next::At(at) => at.since(Timestamp(0)).as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_follow_the_schedule_and_then_it_is_given_up() {
        assert!((10.0..=11.0).contains(&wait(&failed(500, None), 1)));
        assert!((100.0..=110.0).contains(&wait(&failed(301, None), 2)));
        assert_eq!(next(&config(), &failed(500, None), 3, 0, Timestamp(0)), Next::GiveUp);
        assert_eq!(next(&config(), &failed(500, None), 3, 1, Timestamp(0)), Next::Disable("failing"));
        assert_eq!(next(&config(), &Outcome::Taken(204), 1, 1, Timestamp(0)), Next::Done);
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_within_limits_and_for_no_less() {
        for status in [429, 502, 503, 504] {
            assert_eq!(wait(&failed(status, Some(60)), 1), 60.0);
        }
        assert!(wait(&failed(429, Some(1)), 1) >= 10.0);
        assert_eq!(wait(&failed(503, Some(1_000_000)), 1), 1000.0);
        assert!(wait(&failed(500, Some(60)), 1) <= 11.0, "not with every status");
    }

    #[test]
    fn gone_is_gone_at_once() {
        assert_eq!(next(&config(), &failed(410, None), 1, 0, Timestamp(0)), Next::Disable("gone"));
    }

    #[test]
    fn the_default_goes_on_for_three_days() {
        let waits = DeliveryConfig::default().schedule;
        let sum: Duration = waits.iter().map(|wait| wait.0).sum();
        assert!(waits.len() == 10 && sum > Duration::from_hours(72) && sum < Duration::from_hours(80), "{sum:?}");
    }
}
