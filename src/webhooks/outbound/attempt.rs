//! One attempt: a signed POST to an address that was judged, and a look at the answer.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{
    Client, Response,
    header::{CONTENT_TYPE, USER_AGENT},
    redirect::Policy,
};

use super::{
    address::{Guard, Judging},
    check,
    schedule::Outcome,
};
use crate::{
    agents::openai::retry::asked_for,
    store::PendingDelivery,
    timestamp::Timestamp,
    tls::install_crypto_provider,
    webhooks::signature::{self, Secret},
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer that says no which are read, for the error.
const EXCERPT: usize = 4096;
/// Characters of it that are kept.
const SHOWN: usize = 300;
/// How long the reading of it may take.
const EXCERPT_TIME: Duration = Duration::from_secs(2);
/// Connections to one host that are kept for the next delivery.
const IDLE: usize = 1;

/// Makes attempts.
pub(super) struct Sender {
    guard: Guard,
    timeout: Duration,
    plain: OnceLock<Result<Client, String>>,
    tls: OnceLock<Result<Client, String>>,
}

impl Sender {
    /// One that waits so long for an answer.
    pub(super) const fn new(guard: Guard, timeout: Duration) -> Self {
        Self { guard, timeout, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// Who judges addresses.
    pub(super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The client for one of the two schemes, each with a resolver that knows it.
    fn client(&self, tls: bool) -> Result<&Client, String> {
        let slot = if tls { &self.tls } else { &self.plain };
        slot.get_or_init(|| build(&self.guard, tls)).as_ref().map_err(Clone::clone)
    }

    /// Sends a delivery, signed with each of the secrets.
    pub(super) async fn send(&self, url: &str, secrets: &[Secret], delivery: &PendingDelivery) -> Outcome {
        match tokio::time::timeout(self.timeout, self.try_send(url, secrets, delivery)).await {
            Ok(Ok(response)) => judge(response).await,
            Ok(Err(error)) => Outcome::Failed { status: None, error, retry_after: None },
            Err(_late) => {
                let error = format!("no answer within {}", humantime::format_duration(self.timeout));
                Outcome::Failed { status: None, error, retry_after: None }
            }
        }
    }

    async fn try_send(&self, url: &str, secrets: &[Secret], delivery: &PendingDelivery) -> Result<Response, String> {
        let url = check::form(url).map_err(|error| error.to_string())?;
        // A host that is an address is not resolved by the client, so it is judged here; a name is judged where it is
        // resolved, and only then.
        if url.domain().is_none() {
            self.guard.check(&url).await.map_err(|error| error.to_string())?;
        }
        let id = delivery.id.to_string();
        let sent = Timestamp::now().0 / 1_000_000;
        let signatures: Vec<String> =
            secrets.iter().map(|secret| signature::sign(secret, &id, sent, delivery.body.as_bytes())).collect();
        let request = self
            .client(url.scheme() == "https")?
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("greenroom/", env!("CARGO_PKG_VERSION")))
            .header(signature::ID, id)
            .header(signature::TIMESTAMP, sent)
            .header(signature::SIGNATURE, signatures.join(" "))
            .body(delivery.body.clone());
        request.send().await.map_err(|error| cause(&error))
    }
}

fn build(guard: &Guard, tls: bool) -> Result<Client, String> {
    install_crypto_provider();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(IDLE)
        .redirect(Policy::none())
        // A proxy would resolve names itself.
        .no_proxy()
        .dns_resolver(Arc::new(Judging { guard: guard.clone(), tls }));
    if !tls {
        // A machine without certificates can still reach a plain address: reading the system's would fail there.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| cause(&error))
}

/// The last cause of an error, which says what went wrong; without the address, which may hold a secret.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

async fn judge(response: Response) -> Outcome {
    let status = response.status().as_u16();
    if response.status().is_success() {
        return Outcome::Taken(status);
    }
    let retry_after = asked_for(response.headers());
    let redirect = if response.status().is_redirection() { " (redirects are not followed)" } else { "" };
    let excerpt = excerpt(response).await;
    let error = match excerpt.is_empty() {
        true => format!("the receiver answered {status}{redirect}"),
        false => format!("the receiver answered {status}{redirect}: {excerpt}"),
    };
    Outcome::Failed { status: Some(status), error, retry_after }
}

/// The beginning of an answer, on one line.
async fn excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < EXCERPT
            && let Ok(Some(piece)) = response.chunk().await
        {
            bytes.extend_from_slice(piece.get(..piece.len().min(EXCERPT)).unwrap_or_default());
        }
    };
    // What came until then is good enough.
    let _late = tokio::time::timeout(EXCERPT_TIME, read).await;
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}
