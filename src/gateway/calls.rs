//! Calls without a session: one question to one agent, and nothing that stays.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream, stream::unfold};

use super::{Gateway, Idempotency, Item, Lease, Principal, validate};
use crate::{
    access::Shows,
    error::ApiError,
    ids::{SessionKey, TurnId},
    protocol::{Message, SendMessage, frame::EndReason},
    session::{
        call::{Begun, Call, Piece, begin},
        check_day_of,
    },
    timestamp::Timestamp,
};

/// Calls that run, by user.
pub(super) type Calls = Arc<Mutex<HashMap<String, u32>>>;

/// A call that is counted; dropping it says that it is over.
pub(super) struct CallHeld {
    calls: Calls,
    user: String,
}

impl Drop for CallHeld {
    fn drop(&mut self) {
        let mut calls = lock(&self.calls);
        if let Some(count) = calls.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                calls.remove(&self.user);
            }
        }
    }
}

fn lock(calls: &Calls) -> MutexGuard<'_, HashMap<String, u32>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// The agent, with its model where one is named; both known.
    pub agent: (String, Option<String>),
    /// What was said before.
    pub before: Vec<Message>,
    /// The new input.
    pub message: SendMessage,
}

/// A call that runs.
pub struct Calling<S> {
    /// What its events call it.
    pub turn: TurnId,
    /// Since when.
    pub at: Timestamp,
    /// Its events, from `turn.started` to `turn.finished`. Dropping it stops the call.
    pub items: S,
    /// Where it ends, the call has to be dropped.
    pub lease: Lease,
}

impl Gateway {
    /// Asks an agent, outside of any session.
    ///
    /// # Errors
    /// `missing_text`, `content_too_large`, `invalid_attachment`, `rate_limited`, `budget_exceeded`, `shutting_down`.
    pub async fn call(
        &self,
        who: &Principal,
        mut asked: Asked,
    ) -> Result<Calling<impl Stream<Item = Item> + use<>>, ApiError> {
        self.refuse_while_draining()?;
        let (text, files) = validate::content(&mut asked.message)?;
        let (agent, model) = asked.agent;
        check_day_of(&self.config().budget, &who.user, &self.deps.day_sums, Timestamp::now())?;
        let held = self.room_for_call(who).await?;
        let lease = self.access.lease(who, Shows::Nothing)?;
        let call = Call { user: who.user.clone(), agent, model, before: asked.before, text, files };
        let Begun { turn, at, pieces } = begin(Arc::clone(&self.deps), call, held);
        let items = unfold(pieces, |mut pieces| async move {
            let item = match pieces.recv().await? {
                Piece::Frames(frames, _room) => Item::Frames(frames),
                Piece::TooSlow => Item::end(EndReason::TooSlow, None),
            };
            Some((item, pieces))
        });
        Ok(Calling { turn, at, items, lease })
    }

    /// Calls of a user that run now.
    pub(super) fn calls_of(&self, user: &str) -> i64 {
        lock(&self.calls).get(user).copied().map_or(0, i64::from)
    }

    /// Counts a call of a user.
    pub(super) fn hold_call(&self, user: &str) -> CallHeld {
        *lock(&self.calls).entry(user.to_owned()).or_default() += 1;
        CallHeld { calls: Arc::clone(&self.calls), user: user.to_owned() }
    }

    /// The key of a session that is made for a caller who names none. With an `Idempotency-Key` it is always the same, so
    /// that the call finds what it has made before.
    #[must_use]
    pub fn key_for(&self, who: &Principal, once: Option<&Idempotency>) -> SessionKey {
        use sha2::{Digest as _, Sha256};
        let Some(once) = once else { return SessionKey::generate() };
        let digest = Sha256::digest(format!("{}\n{}", who.user, once.key).as_bytes());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("once:{hex}").parse().unwrap_or_else(|_invalid| SessionKey::generate())
    }
}
