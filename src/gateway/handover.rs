//! Handing a session over to another agent or profile, and what people think of what came out.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Accepted, Gateway, Idempotency, Principal, sessions::unexpected, validate};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{ContinueSession, Feedback, Policy},
    session::command::{Command, Done, Enqueue, HandOver},
    store::Page,
};

impl Gateway {
    /// Goes on with another agent or profile, after the last turn has ended.
    ///
    /// # Errors
    /// `session_not_found`, `session_busy` while a turn runs or waits and when there was none yet, and those of a send.
    pub async fn continue_session(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: ContinueSession,
        once: Option<Idempotency>,
    ) -> Result<Accepted, ApiError> {
        self.refuse_while_draining()?;
        validate::continuation(&body)?;
        let text = validate::text(&body.text)?;
        if text.is_empty() {
            return Err(ApiError::new(Code::MissingText, "say in \"text\" how the next one shall go on"));
        }
        self.check_agent(body.agent.as_deref())?;
        self.may_write(who, key).await?;
        self.snapshot(who, key).await?;
        let once = self.once(who, "continue", key.as_str(), once)?;
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.sent_before(key, &known.outcome).await;
        }
        let newest = Page { limit: 1, after: None, before: None, ascending: false };
        let Some(last) = self.deps.store.turns(key, None, &newest).await?.data.pop() else {
            return Err(ApiError::new(
                Code::SessionBusy,
                "there is no turn yet that could be continued; send a message",
            ));
        };
        let message = Enqueue {
            user: who.user.clone(),
            text,
            attachments: Arc::default(),
            policy: Policy::Reject,
            agent: None,
            model: None,
            mode: None,
            permission_mode: None,
            source: "continue".into(),
            client_id: None,
            metadata: Map::new(),
            continued_from: Some(last.turn.id),
            attempt: 1,
            once,
            request_id: crate::logs::request_id(),
            before: Arc::default(),
            after: None,
        };
        let hand_over = HandOver { agent: body.agent, profile: body.profile, message };
        let _room = self.room_for(who, Some(key), true).await?;
        match self.execute(who, key, false, Command::HandOver(Arc::new(hand_over))).await? {
            Done::Accepted(accepted) => Ok(*accepted),
            Done::Duplicate(outcome) => self.sent_before(key, &outcome).await,
            _ => Err(unexpected()),
        }
    }

    /// Stores what somebody thinks of the session, or of one of its turns; the newest replaces.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `content_too_large`.
    pub async fn put_feedback(
        &self,
        who: &Principal,
        key: &SessionKey,
        feedback: Feedback,
    ) -> Result<Feedback, ApiError> {
        validate::feedback(&feedback)?;
        self.may_write(who, key).await?;
        if let Some(turn) = feedback.turn_id {
            self.turn(who, key, turn).await?;
        }
        let value = serde_json::to_value(&feedback).map_err(|_never| unexpected())?;
        let name = feedback.turn_id.map_or_else(|| "session".to_owned(), |turn| turn.to_string());
        match self.execute(who, key, false, Command::Feedback(name, value)).await? {
            Done::Unit => Ok(feedback),
            _ => Err(unexpected()),
        }
    }
}

/// Feedback as it is stored: by turn, and `session` for the whole; what was given first goes first when there is too much.
pub fn merge_feedback(stored: &Value, name: &str, value: Value, limit: usize) -> Value {
    let mut all = stored.as_object().cloned().unwrap_or_default();
    all.shift_remove(name);
    all.insert(name.to_owned(), value);
    while all.len() > limit {
        let Some(oldest) = all.keys().next().cloned() else { break };
        all.shift_remove(&oldest);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_feedback_replaces_and_there_is_a_bound() {
        let one = merge_feedback(&Value::Null, "a", json!(1), 2);
        let two = merge_feedback(&merge_feedback(&one, "b", json!(2), 2), "a", json!(3), 2);
        assert_eq!(two, json!({"b": 2, "a": 3}));
        assert_eq!(merge_feedback(&two, "c", json!(4), 2), json!({"a": 3, "c": 4}));
    }
}
