//! What each caller may use up: requests by rate here; turns, streams and sessions are counted where they are.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::Principal;
use crate::{
    config::{CallerLimits, CallersConfig},
    error::{ApiError, Code},
};

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Whose bucket: a token with limits of its own, or a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Token(String),
    User(String),
}

/// The limits of all callers.
pub struct Limits {
    config: CallersConfig,
    /// False when nobody's requests are counted: then no lock is taken.
    counts_requests: bool,
    buckets: Mutex<HashMap<Holder, Arc<Bucket>>>,
    /// Held while a user's sessions or turns are counted and one is added.
    counting: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// How much of its rate a caller has left: the `RateLimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests at once.
    pub limit: u32,
    /// Requests that are left now.
    pub remaining: u32,
    /// Seconds until all of them are back.
    pub reset: u32,
    /// Requests per second.
    pub per_second: u32,
}

impl Limits {
    /// The limits of a configuration.
    #[must_use]
    pub fn new(config: &CallersConfig) -> Self {
        let overrides = config.users.values().chain(config.tokens.values());
        let counts_requests =
            config.requests_per_second > 0 || overrides.flat_map(|one| one.requests_per_second).any(|rate| rate > 0);
        Self { config: config.clone(), counts_requests, buckets: Mutex::default(), counting: Mutex::default() }
    }

    /// The limits of a caller: its token's, else its user's, else everybody's.
    #[must_use]
    pub fn of(&self, who: &Principal) -> CallerLimits<u32> {
        let token = who.via.token().and_then(|id| self.config.tokens.get(&id.to_string()));
        let user = self.config.users.get(&who.user);
        let pick = |of: fn(&CallerLimits<Option<u32>>) -> Option<u32>, all| {
            token.and_then(of).or_else(|| user.and_then(of)).unwrap_or(all)
        };
        CallerLimits {
            requests_per_second: pick(|one| one.requests_per_second, self.config.requests_per_second),
            burst: pick(|one| one.burst, self.config.burst),
            max_turns: pick(|one| one.max_turns, self.config.max_turns),
            max_streams: pick(|one| one.max_streams, self.config.max_streams),
            max_sessions: pick(|one| one.max_sessions, self.config.max_sessions),
        }
    }

    /// Counts a request. None when the caller's are not counted; else what is left, and the refusal where it is too
    /// much.
    #[must_use]
    pub fn request(&self, who: &Principal) -> Option<(Budget, Result<(), ApiError>)> {
        if !self.counts_requests {
            return None;
        }
        let limits = self.of(who);
        let rate = NonZeroU32::new(limits.requests_per_second)?;
        let burst = NonZeroU32::new(limits.burst).unwrap_or(rate);
        let bucket = self.bucket(who, Quota::per_second(rate).allow_burst(burst));
        let budget = |remaining: u32| Budget {
            limit: burst.get(),
            remaining,
            reset: (burst.get() - remaining.min(burst.get())).div_ceil(rate.get()),
            per_second: rate.get(),
        };
        Some(match bucket.check() {
            Ok(state) => (budget(state.remaining_burst_capacity()), Ok(())),
            Err(early) => {
                let wait = early.wait_time_from(DefaultClock::default().now());
                let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
                let message = format!("you may make {rate} requests a second; try again in {seconds} s");
                let error = ApiError::new(Code::RateLimited, message).with("limit", rate).with("of", "requests");
                let mut error = error.with("retry_after", seconds);
                error.retry_after = Some(seconds);
                (budget(0), Err(error))
            }
        })
    }

    fn bucket(&self, who: &Principal, quota: Quota) -> Arc<Bucket> {
        let token = who.via.token().map(|id| id.to_string());
        let own = |token: &String| self.config.tokens.get(token).is_some_and(|own| own.requests_per_second.is_some());
        let holder = match token.filter(own) {
            Some(token) => Holder::Token(token),
            None => Holder::User(who.user.clone()),
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(RateLimiter::direct(quota).with_middleware());
        Arc::clone(buckets.entry(holder).or_insert_with(new))
    }

    /// The lock under which a user's sessions and turns are counted and one is added.
    pub fn counting(&self, user: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        counting.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(counting.entry(user.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_user_with_overrides() {
        let mut config = CallersConfig { requests_per_second: 1, burst: 2, max_streams: 7, ..CallersConfig::default() };
        let own = CallerLimits { requests_per_second: Some(0), max_streams: Some(9), ..CallerLimits::default() };
        config.users.insert("root".into(), own);
        let limits = Limits::new(&config);
        let who = |name: &str| Principal { user: name.into(), ..Principal::local() };
        let (first, ok) = limits.request(&who("alice")).unwrap();
        assert_eq!((first, ok), (Budget { limit: 2, remaining: 1, reset: 1, per_second: 1 }, Ok(())));
        assert!(limits.request(&who("alice")).unwrap().1.is_ok());
        let (left, refused) = limits.request(&who("alice")).unwrap();
        let refused = refused.unwrap_err();
        assert_eq!((left.remaining, refused.code, refused.retry_after), (0, Code::RateLimited, Some(1)));
        assert!(limits.request(&who("bob")).unwrap().1.is_ok(), "each has its own");
        assert!(limits.request(&who("root")).is_none(), "0 is no limit");
        assert_eq!((limits.of(&who("root")).max_streams, limits.of(&who("bob")).max_streams), (9, 7));
        assert!(Limits::new(&CallersConfig::default()).request(&who("alice")).is_none());
    }
}
