//! The end of a session, also of one that cannot be read.

use serde_json::{Map, json};

use super::{Gateway, Principal, session_not_found, too_slow};
use crate::{
    access::Deed,
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{Event, EventBody, Frame, frame::Batch},
    session::{command::Command, workspace},
    store::{Append, AppendError, SessionWrite},
    timestamp::Timestamp,
};

impl Gateway {
    /// Deletes a session with its data.
    ///
    /// # Errors
    /// `session_not_found`, `session_busy` unless `force`, `primary_session`.
    pub async fn delete_session(&self, who: &Principal, key: &SessionKey, force: bool) -> Result<(), ApiError> {
        let deleted = async {
            self.may_write(who, key).await?;
            self.snapshot(who, key).await?;
            self.execute(who, key, false, Command::Delete { force, untouched_since: None }).await?;
            Ok(())
        };
        match deleted.await {
            // Nobody can read it, or whoever opens it fails: nobody has it.
            Err(ApiError { code: Code::SessionUnreadable | Code::AgentError, .. }) if force => {
                self.remove_unread(who, key).await
            }
            deleted => deleted,
        }
    }

    /// Deletes a session without reading it: the way out where it cannot be opened.
    async fn remove_unread(&self, who: &Principal, key: &SessionKey) -> Result<(), ApiError> {
        self.refuse_while_draining()?;
        let removal = self.deps.store.claim_for_removal(key).await?;
        let (claimed, audience) = removal.ok_or_else(|| session_not_found(key))?;
        if !who.is_admin() && *audience.owner != *who.user {
            return Err(session_not_found(key));
        }
        let at = Timestamp::now();
        let body = EventBody::SessionDeleted { changed: Map::new() };
        let event = Event { seq: claimed.last_seq + 1, body, session: key.clone(), turn_id: None, at };
        let detail = json!({"force": true, "unreadable": true});
        let deed = Deed { action: "session.delete", session: Some(key), owner: &audience.owner, detail }.by(who);
        let append = Append {
            key: key.clone(),
            epoch: claimed.epoch,
            expected_seq: claimed.last_seq,
            events: Batch::new(vec![Frame::encode(&event)]),
            at,
            session: SessionWrite::Delete,
            turns: Vec::new(),
            messages: Vec::new(),
            choices: Vec::new(),
            rules: Vec::new(),
            native_ids: Vec::new(),
            idempotency: Vec::new(),
            audit: vec![deed],
            deliveries: Vec::new(),
            dropped: Vec::new(),
            spends: Vec::new(),
            audience: Some(audience),
            urgent: true,
        };
        match self.deps.outbound.append(append, None).await {
            Ok(()) => {}
            Err(AppendError::Fenced) => return Err(too_slow()),
            Err(AppendError::Store(error)) => return Err(error.into()),
        }
        workspace::forget(&self.config(), key);
        log::warn!(session:% = key; "a session that could not be opened was deleted");
        if key.as_str() == self.config().session.primary {
            // It is always there.
            self.ensure(who, key).await?;
        }
        Ok(())
    }
}
