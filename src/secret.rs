//! Secrets that callers show: made here once, and known afterwards by their SHA-256 alone.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How tokens begin, so that scanners for leaked secrets know them.
pub const TOKEN_PREFIX: &str = "gr_";
/// How the values of login cookies begin.
pub const COOKIE_PREFIX: &str = "grc_";
/// Random bytes of a secret.
const BYTES: usize = 32;

/// A fresh secret of 256 random bits: the prefix and 43 characters of `[A-Za-z0-9_-]`.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn generate(prefix: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// The SHA-256 of a secret. Secrets have 256 random bits, so a slow hash would add nothing.
///
/// Two are compared in constant time.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of what a caller shows.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// The hash of that hexadecimal form.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The drawer to look in: the first 8 bytes. It tells nothing that helps to guess a secret, because nobody can choose
    /// the hash of what they show.
    #[must_use]
    pub fn drawer(self) -> u64 {
        self.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_different_and_plain() {
        let (a, b) = (generate(TOKEN_PREFIX).unwrap(), generate(TOKEN_PREFIX).unwrap());
        assert_ne!(a, b);
        assert!(a.starts_with("gr_") && a.len() == 3 + 43, "{a}");
        assert!(a.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{a}");
    }

    #[test]
    fn a_hash_goes_through_its_hexadecimal_form() {
        let hash = SecretHash::of("abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_hex(), hex);
        assert_eq!(SecretHash::from_hex(hex), Some(hash));
        assert_eq!(hash.drawer(), 0xba78_16bf_8f01_cfea);
        assert_ne!(hash, SecretHash::of("abd"));
        for bad in ["", "zz", &hex[1..], &"g".repeat(64), &"ä".repeat(32)] {
            assert_eq!(SecretHash::from_hex(bad), None, "{bad}");
        }
    }
}
