//! Turns by the names that OpenAI's clients give them: a response is a turn, found without its session's key.

use super::{After, Gateway, Principal};
use crate::{
    error::{ApiError, Code},
    ids::{SessionKey, TurnId},
    protocol::{Message, Turn},
    store::{Page, TurnRecord},
};

impl Gateway {
    /// A turn that the caller may see, with what was said in it.
    ///
    /// # Errors
    /// `response_not_found`, `store_unavailable`.
    pub async fn response(&self, who: &Principal, id: TurnId) -> Result<(Turn, Vec<Message>), ApiError> {
        let record = self.seen_turn(who, id).await?.ok_or_else(no_response)?;
        let messages = self.deps.store.messages_of_turn(record.conversation, id).await?;
        let turn = self.turn(who, &record.turn.session, id).await?;
        Ok((turn, messages))
    }

    async fn seen_turn(&self, who: &Principal, id: TurnId) -> Result<Option<TurnRecord>, ApiError> {
        let Some(record) = self.deps.store.turn_by_id(id).await? else { return Ok(None) };
        match self.snapshot(who, &record.turn.session).await {
            Ok(_) => Ok(Some(record)),
            Err(error) if error.code == Code::SessionNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The session of a response, and the condition that nothing has come after it.
    ///
    /// # Errors
    /// `previous_response_not_found`, `store_unavailable`.
    pub async fn behind_response(&self, who: &Principal, id: TurnId) -> Result<(SessionKey, After), ApiError> {
        let record = self.seen_turn(who, id).await?.ok_or_else(no_previous)?;
        let key = record.turn.session.clone();
        // The newest event first: what comes after it changes the number, and the condition does not hold any more.
        let snapshot = self.snapshot(who, &key).await?;
        let page = Page { after: None, before: None, limit: 1, ascending: false };
        let last = self.deps.store.turns(&key, None, &page).await?.data.pop();
        let is_last = last.is_some_and(|last| last.turn.id == id) && snapshot.id == record.conversation;
        // No event has that number.
        let seq = if is_last { snapshot.last_seq } else { u64::MAX };
        Ok((key, After { turn: id, seq }))
    }

    /// The first messages of a conversation; none for one that has not begun.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn began_with(&self, who: &Principal, key: &SessionKey) -> Result<Option<Vec<Message>>, ApiError> {
        let snapshot = match self.snapshot(who, key).await {
            Err(error) if error.code == Code::SessionNotFound => return Ok(None),
            snapshot => snapshot?,
        };
        if snapshot.message_count == 0 && !snapshot.busy {
            return Ok(None);
        }
        let page = Page { after: None, before: None, limit: 8, ascending: true };
        let page = self.deps.store.messages(snapshot.id, &page).await?;
        Ok(Some(page.data))
    }
}

fn no_response() -> ApiError {
    ApiError::new(Code::ResponseNotFound, "there is no such response, or it was not kept").with("param", "response_id")
}

/// `previous_response_id` names nothing.
#[must_use]
pub fn no_previous() -> ApiError {
    let message = "there is no such response, or it was not kept: set store to true, or name a session";
    ApiError::new(Code::PreviousResponseNotFound, message).with("param", "previous_response_id")
}
