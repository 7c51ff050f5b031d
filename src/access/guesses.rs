//! Wrong credentials, counted by the address that they come from: who guesses is slowed down, who is right never is.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::error::{ApiError, Code};

/// With so many addresses in memory, those that have their whole quota again are forgotten, and the others are counted
/// together until it is fewer.
const MANY: usize = 10_000;

/// How often each address was wrong of late.
pub struct Guesses(Option<RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>>);

impl Guesses {
    /// So many a minute from one address, and as many at once; 0 is no limit.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        let quota = NonZeroU32::new(per_minute).map(Quota::per_minute);
        Self(quota.map(|quota| RateLimiter::hashmap_with_clock(quota, DefaultClock::default())))
    }

    /// Counts wrong credentials.
    ///
    /// # Errors
    /// `rate_limited` where the address has been wrong too often.
    pub fn wrong(&self, ip: Option<IpAddr>) -> Result<(), ApiError> {
        let (Some(limiter), Some(ip)) = (&self.0, ip) else { return Ok(()) };
        if limiter.len() >= MANY {
            limiter.retain_recent();
        }
        // So many guessers at once share one quota: memory must not grow with them.
        let crowd = limiter.len() >= MANY;
        let place = if crowd { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { place(ip) };
        let Err(early) = limiter.check_key(&place) else { return Ok(()) };
        let wait = early.wait_time_from(DefaultClock::default().now());
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        let message = format!("too many wrong credentials came from this address; try again in {seconds} s");
        let error = ApiError::new(Code::RateLimited, message).with("of", "wrong_credentials");
        let mut error = error.with("retry_after", seconds);
        error.retry_after = Some(seconds);
        Err(error)
    }
}

/// Where an address counts: of IPv6 the network, since a host has as many addresses as it likes.
fn place(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let guesses = Guesses::new(2);
        let wrong =
            |ip: &str| guesses.wrong(Some(ip.parse().unwrap())).map_err(|error| (error.code, error.retry_after));
        assert_eq!([wrong("10.0.0.1"), wrong("10.0.0.1")], [Ok(()), Ok(())]);
        assert!(matches!(wrong("::ffff:10.0.0.1"), Err((Code::RateLimited, Some(1..=30)))));
        assert_eq!([wrong("10.0.0.2"), wrong("fe80::1"), wrong("fe80::2")], [Ok(()), Ok(()), Ok(())]);
        assert!(wrong("fe80::3").is_err() && wrong("fe80:0:0:1::3").is_ok());
        let free = Guesses::new(0);
        assert!((0..100).all(|_| free.wrong(Some(IpAddr::from([127, 0, 0, 1]))).is_ok()));
    }

    #[test]
    fn many_guessers_share_one_quota() {
        let guesses = Guesses::new(2);
        let wrong = |n: usize| guesses.wrong(Some(Ipv4Addr::from_bits(u32::try_from(n).unwrap() + (10 << 24)).into()));
        assert!((0..MANY).all(|n| wrong(n).is_ok()));
        let more = (MANY..MANY + 20).filter(|n| wrong(*n).is_ok()).count();
        assert!(more <= 3, "{more} of 20 had a quota of their own");
        assert!(guesses.0.unwrap().len() <= MANY + 1);
    }
}
