//! Messages that came as webhooks: each once, however often its sender says it.

use super::{
    Accepted, Behind, Gateway, Idempotency, Principal,
    sessions::{check_once_key, unexpected},
};
use crate::{
    error::{ApiError, Code},
    session::command::Once,
    webhooks::inbound::{Message, Route, Routes},
};

impl Gateway {
    /// The routes by which webhooks come in.
    #[must_use]
    pub fn webhook_routes(&self) -> &Routes {
        &self.routes
    }

    /// Who calls with a webhook of a route that was believed.
    ///
    /// # Errors
    /// `session_not_allowed` when the user that the route acts for may not act; `rate_limited` when it has called too often.
    pub fn webhook_caller(&self, route: &Route, ip: Option<std::net::IpAddr>) -> Result<Principal, ApiError> {
        let who = Principal::webhook(&route.owner, ip);
        if !self.access.book().may_act(&who.user) {
            let what = format!("this route acts for {}, who may not act now", who.user);
            return Err(ApiError::new(Code::SessionNotAllowed, what));
        }
        if let Some((_, counted)) = self.access.limits.request(&who) {
            counted?;
        }
        Ok(who)
    }

    /// Accepts the message of a webhook; with `once` it has been accepted at most once in 24 hours, whichever session the
    /// body names. The answer is that of [`Gateway::send`], and whether the message had come before.
    ///
    /// # Errors
    /// Those of [`Gateway::send`]; `idempotency_key_reused` where the key of `once` came with another request.
    pub async fn receive(
        &self,
        who: &Principal,
        route: &Route,
        message: Message,
        once: Option<Idempotency>,
    ) -> Result<(Accepted, bool), ApiError> {
        let Message { key, send, .. } = message;
        let Some(Idempotency { key: name, request_hash }) = once else {
            return Ok((self.send_once(who, &key, send, "webhook", None, Behind::default()).await?, false));
        };
        check_once_key(&name)?;
        // No other scope has one word and a space: those of callers name a session too.
        let once = Once { scope: format!("webhook {}", route.name), key: name, request_hash };
        // Two at once may be for two sessions, so that no session sees both: the second waits here for the first.
        let making = self.making(&once);
        let _one = making.lock().await;
        if let Some(known) = self.known_call(Some(&once)).await? {
            let session = self.deps.store.session_of_call(&once.scope, &once.key).await?;
            let accepted = self.sent_before(&session.ok_or_else(unexpected)?, &known.outcome).await?;
            return Ok((accepted, true));
        }
        Ok((self.send_once(who, &key, send, "webhook", Some(once), Behind::default()).await?, false))
    }
}
