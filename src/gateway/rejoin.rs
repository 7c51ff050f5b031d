//! Finding again what a call made earlier: for doors whose clients name a turn by words of their own.

use super::{Accepted, Gateway, Idempotency, Principal};
use crate::{
    error::{ApiError, Code},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::Choice,
    store::Page,
};

impl Gateway {
    /// The turn that a message became when it was sent before: with the same `Idempotency-Key`, or as the session's
    /// latest, by the client's own id of it. Sends nothing.
    ///
    /// # Errors
    /// `session_not_found`, `idempotency_key_reused`, `store_unavailable`.
    pub async fn sent(
        &self,
        who: &Principal,
        key: &SessionKey,
        once: Option<Idempotency>,
        client_id: Option<&str>,
    ) -> Result<Option<Accepted>, ApiError> {
        self.snapshot(who, key).await?;
        let once = self.once(who, "messages", key.as_str(), once)?;
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.sent_before(key, &known.outcome).await.map(Some);
        }
        let Some(client_id) = client_id else { return Ok(None) };
        let latest = Page { limit: 1, after: None, before: None, ascending: false };
        let page = self.turns(who, key, None, latest).await?;
        let Some(turn) = page.data.into_iter().next().filter(|turn| turn.client_id.as_deref() == Some(client_id))
        else {
            return Ok(None);
        };
        let seq = self.beginning(key, turn.id).await?;
        let position = turn.position.unwrap_or(0);
        Ok(Some(Accepted { turn, position, steered: false, seq }))
    }

    /// A choice, settled or not, with the first event of its turn.
    ///
    /// # Errors
    /// `session_not_found`, `choice_not_found`, `store_unavailable`.
    pub async fn choice(&self, who: &Principal, key: &SessionKey, id: ChoiceId) -> Result<(Choice, u64), ApiError> {
        self.snapshot(who, key).await?;
        let found = self.deps.store.choice(key, id).await?;
        let unknown = || ApiError::new(Code::ChoiceNotFound, "the session has no choice of that id");
        let (choice, _) = found.ok_or_else(unknown)?;
        let seq = self.beginning(key, choice.turn_id).await?;
        Ok((choice, seq))
    }

    async fn beginning(&self, key: &SessionKey, turn: TurnId) -> Result<u64, ApiError> {
        Ok(self.stored_turn(key, turn).await?.first_seq)
    }
}
