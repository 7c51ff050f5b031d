//! Turns that are shown from their beginning: which one is at work, and where its events begin.

use super::{Gateway, Principal};
use crate::{
    error::{ApiError, Code},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::Choice,
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
