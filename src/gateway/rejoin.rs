//! Finding a turn again, for doors whose clients come back: the one at work, the one that a call made earlier, the one that
//! asks; and where its events begin.

use super::{Accepted, Gateway, Idempotency, Principal};
use crate::{
    error::{ApiError, Code},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::Choice,
    store::Page,
};

/// Where the events of a turn begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnPlace {
    /// The turn.
    pub turn: TurnId,
    /// Its `turn.queued`: a stream after `seq - 1` shows it whole.
    pub seq: u64,
}

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
        let seq = self.place_of(key, turn.id).await?.seq;
        let position = turn.position.unwrap_or(0);
        Ok(Some(Accepted { turn, position, steered: false, seq }))
    }

    /// The turn that runs, or else the next one that waits; none when the session has nothing to do.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn turn_at_work(&self, who: &Principal, key: &SessionKey) -> Result<Option<TurnPlace>, ApiError> {
        self.snapshot(who, key).await?;
        let Some(view) = self.view(key).await? else { return Ok(None) };
        let running = view.state.running.as_ref().map(|running| running.turn.turn.id);
        let turn = running.or_else(|| view.state.queued().first().map(|turn| turn.id));
        match turn {
            Some(turn) => self.place_of(key, turn).await.map(Some),
            None => Ok(None),
        }
    }

    /// Where the events of a turn begin.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `store_unavailable`.
    pub async fn turn_place(&self, who: &Principal, key: &SessionKey, turn: TurnId) -> Result<TurnPlace, ApiError> {
        self.snapshot(who, key).await?;
        self.place_of(key, turn).await
    }

    async fn place_of(&self, key: &SessionKey, turn: TurnId) -> Result<TurnPlace, ApiError> {
        self.stored_turn(key, turn).await.map(|record| TurnPlace { turn, seq: record.first_seq })
    }

    /// A question of this session, settled or not.
    ///
    /// # Errors
    /// `session_not_found`, `choice_not_found`, `store_unavailable`.
    pub async fn choice(&self, who: &Principal, key: &SessionKey, id: ChoiceId) -> Result<Choice, ApiError> {
        self.snapshot(who, key).await?;
        let found = self.deps.store.choice(key, id).await?;
        let missing = || ApiError::new(Code::ChoiceNotFound, "the session has no choice of that id");
        found.map(|(choice, _settled)| choice).ok_or_else(missing)
    }
}
