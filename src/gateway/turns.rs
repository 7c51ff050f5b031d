//! Turns: send, wait, look at, change, stop; and the choices that they wait on.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Accepted, Finished, Gateway, Idempotency, Principal, sessions::unexpected, validate};
use crate::{
    access::{Shows, invalid_credentials},
    error::{ApiError, Code},
    ids::{ChoiceId, SessionKey, TurnId},
    logs,
    protocol::{Choice, ChoiceAnswer, Message, Policy, ResolvedBy, SendMessage, Turn, TurnState, frame::EndReason},
    session::{
        command::{After, Command, Done, Enqueue, Once},
        messages::AwaitTurn,
    },
    store::{Page, Paged, TurnRecord},
};

/// What comes before a message in its conversation.
#[derive(Debug, Clone, Default)]
pub struct Behind {
    /// What was said elsewhere; it counts where the conversation begins with the message.
    pub before: Vec<Message>,
    /// The turn that it must follow.
    pub after: Option<After>,
}

impl Gateway {
    /// Accepts a message; makes the session if there is none. When this returns, the turn is committed.
    ///
    /// # Errors
    /// `missing_text`, `content_too_large`, `queue_full`, `session_busy`, `session_archived`, `store_unavailable`, …
    pub async fn send(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: SendMessage,
        source: &str,
        once: Option<Idempotency>,
    ) -> Result<Accepted, ApiError> {
        self.send_behind(who, key, body, source, once, Behind::default()).await
    }

    /// The same, with what comes before it in the conversation.
    ///
    /// # Errors
    /// As [`Gateway::send`], and `previous_response_not_last`.
    pub async fn send_behind(
        &self,
        who: &Principal,
        key: &SessionKey,
        body: SendMessage,
        source: &str,
        once: Option<Idempotency>,
        behind: Behind,
    ) -> Result<Accepted, ApiError> {
        let once = self.once(who, "messages", key.as_str(), once)?;
        self.send_once(who, key, body, source, once, behind).await
    }

    /// The same with a call that must not happen twice in whichever scope.
    pub(super) async fn send_once(
        &self,
        who: &Principal,
        key: &SessionKey,
        mut body: SendMessage,
        source: &str,
        once: Option<Once>,
        behind: Behind,
    ) -> Result<Accepted, ApiError> {
        self.refuse_while_draining()?;
        validate::envelope(&body)?;
        let (text, attachments) = validate::content(&mut body)?;
        self.check_agent(body.agent.as_deref())?;
        if body.permission_mode.is_some() {
            // What follows tells of the session's agent; who may send at all is decided by the session.
            self.may_write_or_create(who, key).await?;
        }
        self.check_permission_mode(body.permission_mode.as_deref(), body.agent.as_deref(), Some(key)).await?;
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.sent_before(key, &known.outcome).await;
        }
        let message = Enqueue {
            user: who.user.clone(),
            text,
            attachments,
            policy: body.policy,
            agent: body.agent,
            model: body.model,
            mode: body.mode,
            permission_mode: body.permission_mode,
            source: body.source.unwrap_or_else(|| source.to_owned()),
            client_id: body.client_id,
            metadata: body.metadata,
            continued_from: None,
            attempt: 1,
            once,
            request_id: logs::request_id(),
            before: Arc::new(behind.before),
            after: behind.after,
        };
        self.enqueue(who, key, message).await
    }

    async fn enqueue(&self, who: &Principal, key: &SessionKey, message: Enqueue) -> Result<Accepted, ApiError> {
        let _room = self.room_for(who, Some(key), true).await?;
        match self.execute(who, key, true, Command::Enqueue(Arc::new(message))).await? {
            Done::Accepted(accepted) => Ok(*accepted),
            Done::Duplicate(outcome) => self.sent_before(key, &outcome).await,
            _ => Err(unexpected()),
        }
    }

    /// The turn that an earlier call with the same `Idempotency-Key` made, as it is now.
    pub(super) async fn sent_before(&self, key: &SessionKey, outcome: &str) -> Result<Accepted, ApiError> {
        let value: Value = serde_json::from_str(outcome).map_err(|_bad| unexpected())?;
        let steered = value.get("steered").is_some();
        let id = value.get("turn").or_else(|| value.get("steered")).and_then(Value::as_str);
        let id: TurnId = id.and_then(|id| id.parse().ok()).ok_or_else(unexpected)?;
        let record = self.stored_turn(key, id).await?;
        let seq = record.first_seq;
        let turn = self.current(key, id).await?.unwrap_or(record.turn);
        let position = turn.position.unwrap_or(0);
        Ok(Accepted { turn, position, steered, seq })
    }

    async fn may_write_or_create(&self, who: &Principal, key: &SessionKey) -> Result<(), ApiError> {
        if self.exists(key).await? { self.may_write(who, key).await } else { Ok(()) }
    }

    /// A turn that waits or runs now.
    async fn current(&self, key: &SessionKey, id: TurnId) -> Result<Option<Turn>, ApiError> {
        Ok(self.view(key).await?.and_then(|view| view.state.turn(id)))
    }

    pub(super) async fn stored_turn(&self, key: &SessionKey, id: TurnId) -> Result<TurnRecord, ApiError> {
        let found = self.deps.store.turn(key, id).await?.filter(|record| record.steers.is_none());
        found.ok_or_else(|| ApiError::new(Code::TurnNotFound, "the session has no turn of that id"))
    }

    /// Waits until the turn is over; none when time is up first, or the server stops before it is. Whoever waits may leave: that
    /// cancels nothing.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `store_unavailable`; `invalid_credentials` when those of the caller end
    /// meanwhile.
    pub async fn wait(
        &self,
        who: &Principal,
        key: &SessionKey,
        turn: TurnId,
        limit: Duration,
    ) -> Result<Option<Finished>, ApiError> {
        self.snapshot(who, key).await?;
        let lease = self.access.lease(who, Shows::Nothing)?;
        tokio::select! {
            biased;
            reason = lease.ended() => match reason {
                // Sessions have stopped before anybody is sent away: the turn's end may be there, not told here yet.
                EndReason::ShuttingDown => self.ended(key, turn).await,
                _ => Err(invalid_credentials()),
            },
            finished = self.wait_for_end(key, turn, limit) => finished,
        }
    }

    async fn wait_for_end(
        &self,
        key: &SessionKey,
        turn: TurnId,
        limit: Duration,
    ) -> Result<Option<Finished>, ApiError> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let waiter = match self.view(key).await? {
                Some(_) => self.ask(key, false, AwaitTurn(turn)).await?.flatten(),
                None => None,
            };
            if let Some(waiter) = waiter {
                match tokio::time::timeout_at(deadline, waiter).await {
                    Ok(Ok(finished)) => return Ok(Some(finished)),
                    // Its actor ended under it: the store tells how the turn stands.
                    Ok(Err(_dropped)) => {}
                    Err(_late) => return Ok(None),
                }
            }
            if let Some(finished) = self.ended(key, turn).await? {
                return Ok(Some(finished));
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
            // It is not terminal and nobody has it: opening the session settles it or runs it.
            self.find(key, false, true).await?;
        }
    }

    /// How a turn ended, as it is stored; none while it waits or runs.
    async fn ended(&self, key: &SessionKey, turn: TurnId) -> Result<Option<Finished>, ApiError> {
        let record = self.stored_turn(key, turn).await?;
        if !record.turn.state.is_terminal() {
            return Ok(None);
        }
        let messages = self.deps.store.messages_of_turn(record.conversation, turn).await?;
        Ok(Some(Finished { turn: record.turn, response: Message::response(&messages) }))
    }

    /// A page of turns, each as it is now.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn turns(
        &self,
        who: &Principal,
        key: &SessionKey,
        state: Option<TurnState>,
        page: Page,
    ) -> Result<Paged<Turn>, ApiError> {
        self.snapshot(who, key).await?;
        let paged = self.deps.store.turns(key, state, &page).await?;
        let view = self.view(key).await?;
        let fresh = |record: TurnRecord| {
            let current = view.as_ref().and_then(|view| view.state.turn(record.turn.id));
            current.unwrap_or(record.turn)
        };
        Ok(Paged { data: paged.data.into_iter().map(fresh).collect(), has_more: paged.has_more })
    }

    /// A turn as it is now.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `store_unavailable`.
    pub async fn turn(&self, who: &Principal, key: &SessionKey, id: TurnId) -> Result<Turn, ApiError> {
        self.snapshot(who, key).await?;
        match self.current(key, id).await? {
            Some(turn) => Ok(turn),
            None => Ok(self.stored_turn(key, id).await?.turn),
        }
    }

    /// Has a command about one turn decided; when the session does not have the turn any more, `over` says what
    /// that means for a turn that was there once.
    async fn on_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        command: Command,
        over: Code,
    ) -> Result<Turn, ApiError> {
        match self.execute(who, key, false, command).await {
            Ok(Done::Turn(turn)) => Ok(*turn),
            Ok(_) => Err(unexpected()),
            Err(error) if error.code == Code::TurnNotFound => {
                let turn = self.stored_turn(key, id).await?.turn;
                let message = format!("the turn is over: {}", turn.state.as_str());
                Err(ApiError::new(over, message).with("state", turn.state))
            }
            Err(error) => Err(error),
        }
    }

    /// Stops a turn. The turn as it is after the call: `cancelled` at once when it was queued; still running while
    /// it is being stopped.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `turn_not_cancellable`.
    pub async fn cancel_turn(&self, who: &Principal, key: &SessionKey, id: TurnId) -> Result<Turn, ApiError> {
        self.may_write(who, key).await?;
        let turn = self.on_turn(who, key, id, Command::Cancel(id), Code::TurnNotCancellable).await?;
        Ok(turn)
    }

    /// Changes the text of a queued turn.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `turn_not_queued`, `missing_text`, `content_too_large`.
    pub async fn edit_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        text: String,
    ) -> Result<Turn, ApiError> {
        let text = validate::text(&text)?;
        if text.is_empty() {
            return Err(ApiError::new(Code::MissingText, "the text of a turn has at least one character"));
        }
        self.may_write(who, key).await?;
        let turn = self.on_turn(who, key, id, Command::Edit(id, text), Code::TurnNotQueued).await?;
        Ok(turn)
    }

    /// Puts a queued turn before another, or last.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `turn_not_queued`.
    pub async fn move_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        before: Option<TurnId>,
    ) -> Result<Turn, ApiError> {
        self.may_write(who, key).await?;
        // The other turn may be the one that is not there: then the answer is about that one.
        if let Some(other) = before
            && self.current(key, other).await?.is_none()
        {
            let turn = self.stored_turn(key, other).await?.turn;
            let message = format!("the turn in \"before\" is over: {}", turn.state.as_str());
            return Err(ApiError::new(Code::TurnNotQueued, message).with("state", turn.state));
        }
        let turn = self.on_turn(who, key, id, Command::Move(id, before), Code::TurnNotQueued).await?;
        Ok(turn)
    }

    /// Runs a failed, cancelled or interrupted turn again, as a new turn.
    ///
    /// # Errors
    /// `session_not_found`, `turn_not_found`, `turn_not_retryable`, and those of a send.
    pub async fn retry_turn(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: TurnId,
        once: Option<Idempotency>,
    ) -> Result<Accepted, ApiError> {
        self.may_write(who, key).await?;
        self.snapshot(who, key).await?;
        let once = self.once(who, "retry", &format!("{key} {id}"), once)?;
        if let Some(known) = self.known_call(once.as_ref()).await? {
            return self.sent_before(key, &known.outcome).await;
        }
        let record = self.stored_turn(key, id).await?;
        let turn = record.turn;
        if !matches!(turn.state, TurnState::Failed | TurnState::Cancelled | TurnState::Interrupted) {
            let message = format!(
                "only a failed, cancelled or interrupted turn can be tried again; it is {}",
                turn.state.as_str()
            );
            return Err(ApiError::new(Code::TurnNotRetryable, message).with("state", turn.state));
        }
        let message = Enqueue {
            user: who.user.clone(),
            text: turn.text,
            attachments: record.attachments,
            policy: Policy::Enqueue,
            agent: Some(turn.agent),
            model: turn.model,
            mode: record.mode,
            permission_mode: record.permission_mode,
            source: turn.source,
            client_id: turn.client_id,
            metadata: turn.metadata,
            continued_from: Some(turn.id),
            attempt: turn.attempt.saturating_add(1),
            once,
            request_id: logs::request_id(),
            before: Arc::default(),
            after: None,
        };
        self.enqueue(who, key, message).await
    }

    /// Stops the running turn: the one that is being stopped; none when nothing runs.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn abort(&self, who: &Principal, key: &SessionKey) -> Result<Option<TurnId>, ApiError> {
        self.may_write(who, key).await?;
        match self.execute(who, key, false, Command::Abort).await? {
            Done::Stopping(turn) => Ok(turn),
            _ => Err(unexpected()),
        }
    }

    /// Settles all queued turns as cancelled: how many.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn clear_queue(&self, who: &Principal, key: &SessionKey) -> Result<usize, ApiError> {
        self.may_write(who, key).await?;
        match self.execute(who, key, false, Command::ClearQueue).await? {
            Done::Count(count) => Ok(count),
            _ => Err(unexpected()),
        }
    }

    /// Pending choices of one session, or of all that the caller may answer.
    ///
    /// # Errors
    /// `session_not_found`, `store_unavailable`.
    pub async fn choices(&self, who: &Principal, key: Option<&SessionKey>) -> Result<Vec<Choice>, ApiError> {
        if let Some(key) = key {
            self.snapshot(who, key).await?;
        }
        // Of one session everybody who sees it sees them; of all only those that the caller may answer.
        let owner = Some(who.user.as_str()).filter(|_| key.is_none() && !who.is_admin());
        Ok(self.deps.store.pending_choices(key, owner).await?)
    }

    /// Answers a question.
    ///
    /// # Errors
    /// `session_not_found`, `choice_not_found`, `choice_already_resolved`, `invalid_choice_payload`.
    pub async fn answer(
        &self,
        who: &Principal,
        key: &SessionKey,
        id: ChoiceId,
        answer: ChoiceAnswer,
        by: ResolvedBy,
    ) -> Result<(), ApiError> {
        self.may_write(who, key).await?;
        let error = match self.execute(who, key, false, Command::Answer(id, answer, by)).await {
            Ok(_) => {
                return Ok(());
            }
            Err(error) => error,
        };
        if error.code == Code::ChoiceNotFound && self.deps.store.choice(key, id).await?.is_some() {
            let message = "the choice is settled already";
            return Err(ApiError::new(Code::ChoiceAlreadyResolved, message));
        }
        Err(error)
    }
}
