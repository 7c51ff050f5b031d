//! When to try again: which failures, and after how long. Pure, but for the clock and the jitter.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// The longest first wait, where the server asks for none.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait, where the server asks for none.
const LONGEST: Duration = Duration::from_secs(30);
/// Longer than this, a turn is not kept waiting, whatever the server asks for.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Whether a request that got this status may do better later.
pub const fn can_help(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504 | 529)
}

/// How long the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date.
pub fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let text = |value: Option<&reqwest::header::HeaderValue>| Some(value?.to_str().ok()?.trim().to_owned());
    if let Some(millis) = text(headers.get("retry-after-ms")).and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let text = text(headers.get(RETRY_AFTER))?;
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = SystemTime::from(OffsetDateTime::parse(&text, &Rfc2822).ok()?);
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

/// How long to wait before retry number `retry` (from 1): what the server asks for and up to a tenth more, else half
/// to all of a time that doubles. The chance part keeps many sessions from coming back at the same moment.
pub fn wait(retry: u32, first: Duration, asked: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(retry.saturating_sub(1))).min(LONGEST);
    let own = doubled.mul_f64(0.5 + 0.5 * chance());
    asked.map_or(own, |asked| own.max(asked.mul_f64(1.0 + 0.1 * chance())))
}

/// A number from 0 to 1, fresh each time: a new hasher has new keys.
pub fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0) >> 32;
    u32::try_from(bits).map_or(0.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}

/// A wait for a person: `250 ms`, `2 s`.
pub fn shown(wait: Duration) -> String {
    if wait < Duration::from_secs(1) {
        format!("{} ms", wait.as_millis())
    } else {
        format!("{:.0} s", wait.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(reqwest::header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn what_the_server_asks_for_is_read_in_every_form() {
        assert_eq!(asked_for(&HeaderMap::new()), None);
        assert_eq!(asked_for(&header("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(asked_for(&header("retry-after", "0.5")), Some(Duration::from_millis(500)));
        assert_eq!(asked_for(&header("retry-after-ms", "1500")), Some(Duration::from_millis(1500)));
        assert_eq!(asked_for(&header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
        let future = OffsetDateTime::now_utc() + Duration::from_secs(100);
        let date = future.format(&Rfc2822).unwrap().replace("+0000", "GMT");
        let asked = asked_for(&header("retry-after", &date)).unwrap();
        assert!(asked > Duration::from_secs(90) && asked <= Duration::from_secs(100), "{asked:?}");
        for bad in ["soon", "-1", "NaN", "1e999"] {
            assert_eq!(asked_for(&header("retry-after", bad)), None, "{bad}");
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_never_undercut_the_server() {
        for retry in 1..100 {
            let full = FIRST.saturating_mul(2u32.saturating_pow(retry - 1)).min(LONGEST);
            let waited = wait(retry, FIRST, None);
            assert!(waited >= full / 2 && waited <= full, "{retry}: {waited:?}");
        }
        let asked = Duration::from_secs(60);
        let waited = wait(1, FIRST, Some(asked));
        assert!(waited >= asked && waited <= Duration::from_secs(66), "{waited:?}");
        assert_eq!(shown(Duration::from_millis(250)) + &shown(Duration::from_secs(2)), "250 ms2 s");
    }
}
