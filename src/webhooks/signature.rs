//! Standard Webhooks 1.0: how a message is signed, and how its signature is checked. Pure.
//!
//! Signed is `{id}.{timestamp}.{body}` with HMAC-SHA256, over the raw body. The header holds a list, so that a sender can sign
//! with an old and a new secret while it changes from one to the other.

use std::{borrow::Cow, fmt, time::Duration};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The header with the id of a message: the same over all its attempts.
pub const ID: &str = "webhook-id";
/// The header with the time of an attempt, in whole seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures, apart by spaces.
pub const SIGNATURE: &str = "webhook-signature";
/// How long before or after now a message may say that it was sent.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// How a secret begins.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Random bytes of a new secret.
const NEW_BYTES: usize = 32;
/// The one version of signatures by a shared secret.
const VERSION: &str = "v1";
/// Signatures of one message that are looked at: more make no sense, and each costs a hash of the whole body and secret.
const MAX_SIGNATURES: usize = 16;
/// The longest id of a message, in bytes.
const MAX_ID: usize = 256;

/// Standard base64, padded or not: some tools leave the padding out of a secret.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A secret that sender and receiver share. It never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret of Standard Webhooks is whsec_ and the base64 of 24 to 64 bytes")]
pub struct BadSecret;

impl Secret {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// When it has not that form.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(BadSecret)?;
        let key = LENIENT.decode(encoded).map_err(|_bad| BadSecret)?;
        if SECRET_BYTES.contains(&key.len()) { Ok(Self(key)) } else { Err(BadSecret) }
    }

    /// A fresh one of 256 random bits.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = vec![0; NEW_BYTES];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Its text, `whsec_…`. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_***")
    }
}

/// What the three headers of a message say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`
    pub signature: &'a str,
}

/// Why a message is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A header cannot be what it should be.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// It was sent too long ago, or will be.
    #[error("the time of the message is more than {0} s away from now")]
    OutOfTime(u64),
    /// No signature of it was made with a secret of the receiver.
    #[error("no signature fits the message")]
    NoMatch,
}

/// The entry of `webhook-signature` for a message: `v1,` and base64. `timestamp` is in seconds since 1970.
#[must_use]
pub fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let tag = mac(secret, id, &timestamp.to_string(), body).finalize().into_bytes();
    format!("{VERSION},{}", BASE64_STANDARD.encode(tag))
}

/// Checks that the message comes from somebody who knows one of the secrets, and was sent within `tolerance` of `now`, which
/// is in seconds since 1970. Signatures are compared in constant time; those of other versions are passed over.
///
/// # Errors
/// Why it is not believed; nothing of it depends on the secrets.
pub fn verify(
    secrets: &[Secret],
    headers: &Headers<'_>,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<(), Refused> {
    // A dot in the id would let one message be read as another.
    let plain = |id: &str| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'.');
    if !plain(headers.id) {
        let what = "webhook-id must have 1 to 256 visible characters of ASCII, and no dot";
        return Err(Refused::Malformed(what.into()));
    }
    let digits = !headers.timestamp.is_empty() && headers.timestamp.bytes().all(|b| b.is_ascii_digit());
    let Some(sent) = headers.timestamp.parse::<i64>().ok().filter(|_| digits) else {
        return Err(Refused::Malformed("webhook-timestamp must be whole seconds since 1970".into()));
    };
    if now.abs_diff(sent) > tolerance.as_secs() {
        return Err(Refused::OutOfTime(tolerance.as_secs()));
    }
    let entries = headers.signature.split_ascii_whitespace().filter_map(|entry| entry.split_once(','));
    let tags = entries.filter(|(version, _)| *version == VERSION).take(MAX_SIGNATURES);
    let tags: Vec<Vec<u8>> = tags.filter_map(|(_, tag)| LENIENT.decode(tag).ok()).collect();
    let fits = |secret: &Secret| {
        let expected = mac(secret, headers.id, headers.timestamp, body);
        tags.iter().any(|tag| expected.clone().verify_slice(tag).is_ok())
    };
    if secrets.iter().any(fits) { Ok(()) } else { Err(Refused::NoMatch) }
}

fn mac(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = hmac(&secret.0);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

/// HMAC-SHA256 by a key of any length.
pub(super) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_never) => unreachable!("HMAC takes keys of every length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The published example of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const MESSAGE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SENT: i64 = 1_614_265_330;
    const TAG: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(id: &str, timestamp: &str, signature: &str, body: &[u8], now: i64) -> Result<(), Refused> {
        let secrets = [Secret::generate().unwrap(), Secret::parse(SECRET).unwrap()];
        verify(&secrets, &Headers { id, timestamp, signature }, body, now, TOLERANCE)
    }

    #[test]
    fn the_published_vector() {
        assert_eq!(sign(&Secret::parse(SECRET).unwrap(), MESSAGE, SENT, BODY), TAG);
        assert_eq!(check(MESSAGE, "1614265330", TAG, BODY, SENT), Ok(()));
    }

    #[test]
    fn one_signature_of_many_is_enough() {
        let many = format!("v1a,AAAA v1,AAAA nonsense v2,{} {TAG}", &TAG[3..]);
        assert_eq!(check(MESSAGE, "1614265330", &many, BODY, SENT), Ok(()));
        for bad in ["", "v1,", "v1", &TAG[3..], &format!("v1a{}", &TAG[2..]), &format!("V1{}", &TAG[2..])] {
            assert_eq!(check(MESSAGE, "1614265330", bad, BODY, SENT), Err(Refused::NoMatch), "{bad}");
        }
        let late = format!("{} {TAG}", "v1,AAAA ".repeat(MAX_SIGNATURES));
        assert_eq!(check(MESSAGE, "1614265330", &late, BODY, SENT), Err(Refused::NoMatch));
    }

    #[test]
    fn every_part_is_signed() {
        assert_eq!(check("msg_other", "1614265330", TAG, BODY, SENT), Err(Refused::NoMatch));
        assert_eq!(check(MESSAGE, "1614265331", TAG, BODY, SENT), Err(Refused::NoMatch));
        assert_eq!(check(MESSAGE, "1614265330", TAG, br#"{"test": 2432232315}"#, SENT), Err(Refused::NoMatch));
        // Not even another spelling of the same second.
        assert_eq!(check(MESSAGE, "01614265330", TAG, BODY, SENT), Err(Refused::NoMatch));
    }

    #[test]
    fn the_time_is_near_in_both_directions() {
        for (now, good) in [(300, true), (-300, true), (301, false), (-301, false)] {
            assert_eq!(check(MESSAGE, "1614265330", TAG, BODY, SENT + now).is_ok(), good, "{now}");
        }
        for bad in ["", "soon", "-1614265330", "+1614265330", "1614265330.5", "99999999999999999999"] {
            assert!(matches!(check(MESSAGE, bad, TAG, BODY, SENT), Err(Refused::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn an_id_cannot_hold_what_divides_the_parts() {
        for bad in ["", "msg.1", "a b", "ä", &"x".repeat(257)] {
            assert!(matches!(check(bad, "1614265330", TAG, BODY, SENT), Err(Refused::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn secrets_have_one_form() {
        let fresh = Secret::generate().unwrap();
        assert_eq!(Secret::parse(&fresh.expose()), Ok(fresh.clone()));
        assert_eq!(Secret::parse(fresh.expose().trim_end_matches('=')), Ok(fresh.clone()));
        assert_eq!(format!("{fresh:?}"), "whsec_***");
        for bad in ["", "whsec_", &SECRET[6..], "whsec_c2hvcnQ=", "whsec_???", &format!("whsec_{}", "A".repeat(88))] {
            assert_eq!(Secret::parse(bad), Err(BadSecret), "{bad}");
        }
    }
}
