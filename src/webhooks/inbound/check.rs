//! Whether a webhook comes from whom it should: by the raw body and the headers, in constant time.

use std::{net::IpAddr, time::Duration};

use hmac::Mac as _;
use subtle::ConstantTimeEq as _;

use super::Headers;
use crate::{
    config::{self, Verify},
    error::{ApiError, Code},
    secret::SecretHash,
    webhooks::signature::{self, hmac},
};

/// The header with the signature of GitHub.
const GITHUB: &str = "x-hub-signature-256";
/// The headers of Slack.
const SLACK: &str = "x-slack-signature";
const SLACK_TIME: &str = "x-slack-request-timestamp";
/// The header with the secret itself.
const SECRET: &str = "x-webhook-secret";
/// Headers that a proxy adds, beside all that begin with [`X_FORWARDED`]: who came through one is not on this machine.
const FORWARDED: [&str; 10] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
    "fly-client-ip",
];
const X_FORWARDED: &str = "x-forwarded";

/// How senders are told from others.
#[derive(Debug)]
pub enum Check {
    /// By a signature of Standard Webhooks.
    Standard(Vec<signature::Secret>),
    /// By the signature of GitHub.
    Github(Vec<config::Secret>),
    /// By the signature of Slack.
    Slack(Vec<config::Secret>),
    /// By the secret itself.
    Secret(Vec<config::Secret>),
    /// By where they are: on this machine.
    Here,
}

/// What a check has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the sender calls the message, where the check is about a name: the same over all attempts.
    pub delivery: Option<String>,
}

impl Check {
    /// The check of a route with these secrets; else the key of the configuration and what is wrong with it.
    pub(super) fn new(verify: Verify, secrets: Vec<config::Secret>) -> Result<Self, (&'static str, String)> {
        let key = ".secret";
        if verify == Verify::None {
            let none = secrets.is_empty();
            return none
                .then_some(Self::Here)
                .ok_or_else(|| (key, "with verify = \"none\" nobody would look at it".into()));
        }
        if secrets.is_empty() || secrets.iter().any(|secret| secret.expose().trim().is_empty()) {
            let what = format!("verify = \"{}\" needs a secret, or a secret_env", verify.as_str());
            return Err((key, what));
        }
        Ok(match verify {
            Verify::Standard => {
                let parsed = secrets.iter().map(|secret| signature::Secret::parse(secret.expose()));
                Self::Standard(parsed.collect::<Result<_, _>>().map_err(|bad| (key, bad.to_string()))?)
            }
            Verify::Github => Self::Github(secrets),
            Verify::Slack => Self::Slack(secrets),
            Verify::Secret => Self::Secret(secrets),
            Verify::None => Self::Here,
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Standard(_) => Verify::Standard.as_str(),
            Self::Github(_) => Verify::Github.as_str(),
            Self::Slack(_) => Verify::Slack.as_str(),
            Self::Secret(_) => Verify::Secret.as_str(),
            Self::Here => Verify::None.as_str(),
        }
    }

    /// Checks a request from `peer`; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `missing_credentials` where a header is not there, `invalid_signature` where it is wrong.
    pub fn verify(&self, headers: &Headers, body: &[u8], now: i64, peer: Option<IpAddr>) -> Result<Verified, ApiError> {
        match self {
            Self::Standard(secrets) => {
                let id = need(headers, signature::ID)?;
                let (timestamp, signature) =
                    (need(headers, signature::TIMESTAMP)?, need(headers, signature::SIGNATURE)?);
                let sent = signature::Headers { id, timestamp, signature };
                signature::verify(secrets, &sent, body, now, signature::TOLERANCE)
                    .map_err(|refused| wrong(&refused.to_string()))?;
                return Ok(Verified { delivery: Some(id.to_owned()) });
            }
            Self::Github(secrets) => {
                let given = need(headers, GITHUB)?;
                fits(secrets, given, |secret| github(secret, body))?;
                return Ok(Verified { delivery: headers.get("x-github-delivery").map(str::to_owned) });
            }
            Self::Slack(secrets) => {
                let (time, given) = (need(headers, SLACK_TIME)?, need(headers, SLACK)?);
                let digits = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
                let sent = time.parse::<i64>().ok().filter(|_| digits);
                let sent = sent.ok_or_else(|| wrong("x-slack-request-timestamp must be whole seconds since 1970"))?;
                let away = Duration::from_secs(now.abs_diff(sent));
                if away > signature::TOLERANCE {
                    return Err(wrong(&signature::Refused::OutOfTime(signature::TOLERANCE.as_secs()).to_string()));
                }
                fits(secrets, given, |secret| slack(secret, time, body))?;
            }
            Self::Secret(secrets) => {
                let given = SecretHash::of(need(headers, SECRET)?);
                // Each is looked at, so that the time does not tell which one it was.
                let fits = secrets.iter().fold(false, |fits, secret| fits | (SecretHash::of(secret.expose()) == given));
                if !fits {
                    return Err(wrong("the secret is not that of the route"));
                }
            }
            Self::Here => {
                let here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
                let by_proxy = |name: &str| FORWARDED.contains(&name) || name.starts_with(X_FORWARDED);
                if !here || headers.names().any(by_proxy) {
                    let what = "this route takes no webhooks from other machines; configure another verify for it";
                    return Err(ApiError::new(Code::MissingCredentials, what).with("parameter", SECRET));
                }
            }
        }
        Ok(Verified { delivery: None })
    }

    /// Signs a body as a sender would, with the first secret: adds what is missing of its headers.
    pub fn sign(&self, headers: &mut Headers, body: &[u8], now: i64) {
        let fresh = || uuid::Uuid::now_v7().simple().to_string();
        match self {
            Self::Standard(secrets) => {
                let id = headers.get(signature::ID).map_or_else(|| format!("msg_{}", fresh()), str::to_owned);
                let tags: Vec<String> =
                    secrets.first().map(|secret| signature::sign(secret, &id, now, body)).into_iter().collect();
                headers.set(signature::ID, id);
                headers.set(signature::TIMESTAMP, now.to_string());
                headers.set(signature::SIGNATURE, tags.join(" "));
            }
            Self::Github(secrets) => {
                headers.set(GITHUB, secrets.first().map(|secret| github(secret, body)).unwrap_or_default());
                if headers.get("x-github-delivery").is_none() {
                    headers.set("x-github-delivery", uuid::Uuid::now_v7().to_string());
                }
            }
            Self::Slack(secrets) => {
                let time = now.to_string();
                headers.set(SLACK, secrets.first().map(|secret| slack(secret, &time, body)).unwrap_or_default());
                headers.set(SLACK_TIME, time);
            }
            Self::Secret(secrets) => {
                headers.set(SECRET, secrets.first().map(|secret| secret.expose()).unwrap_or_default());
            }
            Self::Here => {}
        }
    }
}

fn need<'a>(headers: &'a Headers, name: &'static str) -> Result<&'a str, ApiError> {
    headers.get(name).ok_or_else(|| {
        let what = format!("a webhook of this route has the header {name}, once");
        ApiError::new(Code::MissingCredentials, what).with("parameter", name)
    })
}

fn wrong(what: &str) -> ApiError {
    ApiError::new(Code::InvalidSignature, format!("the webhook is not believed: {what}"))
}

/// Fails unless one of the secrets gives this signature.
fn fits(secrets: &[config::Secret], given: &str, sign: impl Fn(&config::Secret) -> String) -> Result<(), ApiError> {
    let fits = secrets.iter().any(|secret| bool::from(sign(secret).as_bytes().ct_eq(given.as_bytes())));
    if fits { Ok(()) } else { Err(wrong(&signature::Refused::NoMatch.to_string())) }
}

fn github(secret: &config::Secret, body: &[u8]) -> String {
    format!("sha256={}", hex(hmac(secret.expose().as_bytes()).chain_update(body)))
}

fn slack(secret: &config::Secret, time: &str, body: &[u8]) -> String {
    let mac = hmac(secret.expose().as_bytes()).chain_update("v0:").chain_update(time).chain_update(":");
    format!("v0={}", hex(mac.chain_update(body)))
}

fn hex(mac: hmac::Hmac<sha2::Sha256>) -> String {
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_531_420_618;

    fn check(verify: Verify, secrets: &[&str]) -> Check {
        Check::new(verify, secrets.iter().map(|secret| config::Secret::new(*secret)).collect()).unwrap()
    }

    fn headers(all: &[(&str, &str)]) -> Headers {
        Headers::new(all.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn code(check: &Check, all: &[(&str, &str)], body: &[u8], now: i64) -> Result<(), Code> {
        check.verify(&headers(all), body, now, None).map(|_| ()).map_err(|error| error.code)
    }

    #[test]
    fn the_published_example_of_github() {
        // From GitHub's documentation on validating webhook deliveries.
        let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let check = check(Verify::Github, &["old", "It's a Secret to Everybody"]);
        let all = [(GITHUB, tag), ("x-github-delivery", "d-1")];
        let shown = check.verify(&headers(&all), b"Hello, World!", NOW, None).unwrap();
        assert_eq!(shown.delivery.as_deref(), Some("d-1"));
        assert_eq!(code(&check, &all, b"Hello, World?", NOW), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &[(GITHUB, &tag[7..])], b"Hello, World!", NOW), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &[("x-hub-signature", tag)], b"Hello, World!", NOW), Err(Code::MissingCredentials));
    }

    #[test]
    fn the_published_example_of_slack() {
        // From Slack's documentation on verifying requests.
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let tag = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        let check = check(Verify::Slack, &["8f742231b10e8888abcd99yyyzzz85a5"]);
        let all = [(SLACK, tag), (SLACK_TIME, "1531420618")];
        assert_eq!(code(&check, &all, body, NOW + 300), Ok(()));
        assert_eq!(code(&check, &all, body, NOW + 301), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &all, body, NOW - 301), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &[(SLACK, tag), (SLACK_TIME, "1531420619")], body, NOW), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &[(SLACK, tag), (SLACK_TIME, "-5")], body, NOW), Err(Code::InvalidSignature));
        assert_eq!(code(&check, &all[..1], body, NOW), Err(Code::MissingCredentials));
    }

    #[test]
    fn a_secret_may_be_one_of_several() {
        let check = check(Verify::Secret, &["old", "new"]);
        for (given, expected) in
            [("old", Ok(())), ("new", Ok(())), ("ol", Err(Code::InvalidSignature)), ("", Err(Code::InvalidSignature))]
        {
            assert_eq!(code(&check, &[(SECRET, given)], b"", NOW), expected, "{given}");
        }
        assert_eq!(code(&check, &[], b"", NOW), Err(Code::MissingCredentials));
        assert_eq!(code(&check, &[(SECRET, "old"), (SECRET, "old")], b"", NOW), Err(Code::MissingCredentials));
    }

    #[test]
    fn without_a_check_only_this_machine_may() {
        let here = |peer: &str, all: &[(&str, &str)]| {
            Check::Here.verify(&headers(all), b"", NOW, Some(peer.parse().unwrap())).is_ok()
        };
        assert!(here("127.0.0.1", &[]) && here("::1", &[]) && here("::ffff:127.0.0.1", &[]));
        assert!(!here("10.0.0.1", &[]));
        for name in ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Via", "CF-Connecting-IP"] {
            assert!(!here("127.0.0.1", &[(name, "10.0.0.1")]), "{name}");
            assert!(!here("127.0.0.1", &[(name, "10.0.0.1"), (name, "10.0.0.2")]), "{name} by two proxies");
        }
        assert!(Check::Here.verify(&Headers::default(), b"", NOW, None).is_err());
    }

    #[test]
    fn what_is_signed_here_is_believed_here() {
        let secret = signature::Secret::generate().unwrap().expose();
        for verify in [Verify::Standard, Verify::Github, Verify::Slack, Verify::Secret] {
            let check = check(verify, &[&secret, &signature::Secret::generate().unwrap().expose()]);
            let mut headers = Headers::default();
            check.sign(&mut headers, b"{}", NOW);
            assert!(check.verify(&headers, b"{}", NOW, None).is_ok(), "{verify:?}");
            assert!(verify == Verify::Secret || check.verify(&headers, b"{ }", NOW, None).is_err(), "{verify:?}");
        }
    }
}
