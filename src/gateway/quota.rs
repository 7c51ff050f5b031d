//! Whether a caller may have one more session, or one more turn at once.

use tokio::sync::OwnedMutexGuard;

use super::{Gateway, Principal, calls::CallHeld};
use crate::{
    error::{ApiError, Code},
    ids::SessionKey,
};

impl Gateway {
    /// Fails where the caller has as many sessions, or sessions at work, as it may. What it gives is to be held until the
    /// new one is committed, so that two calls at once do not both take the last place.
    ///
    /// # Errors
    /// `too_many_sessions`, `rate_limited`, `store_unavailable`.
    pub(super) async fn room_for(
        &self,
        who: &Principal,
        key: Option<&SessionKey>,
        turn: bool,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        let limits = self.access.limits.of(who);
        let max_turns = if turn { limits.max_turns } else { 0 };
        if limits.max_sessions == 0 && max_turns == 0 {
            return Ok(None);
        }
        let held = self.access.limits.counting(&who.user).lock_owned().await;
        let share = self.deps.store.share_of(&who.user, key).await?;
        if !share.exists && full(share.sessions, limits.max_sessions) {
            return Err(too_many_sessions(limits.max_sessions));
        }
        if full(share.busy_elsewhere.saturating_add(self.calls_of(&who.user)), max_turns) {
            return Err(too_many_turns(max_turns));
        }
        Ok(Some(held))
    }

    /// Counts a call without a session, for as long as what it gives is held. Fails where the caller has as much at work as
    /// it may.
    ///
    /// # Errors
    /// `rate_limited`, `store_unavailable`.
    pub(super) async fn room_for_call(&self, who: &Principal) -> Result<CallHeld, ApiError> {
        let max_turns = self.access.limits.of(who).max_turns;
        if max_turns > 0 {
            let _held = self.access.limits.counting(&who.user).lock_owned().await;
            let share = self.deps.store.share_of(&who.user, None).await?;
            if full(share.busy_elsewhere.saturating_add(self.calls_of(&who.user)), max_turns) {
                return Err(too_many_turns(max_turns));
            }
            return Ok(self.hold_call(&who.user));
        }
        Ok(self.hold_call(&who.user))
    }

    /// Fails where the caller has as many sessions as it may, so that this archived one of its own cannot come back. An
    /// admin takes no place of its own for what it brings back for somebody else. To be held like that of
    /// [`Gateway::room_for`].
    ///
    /// # Errors
    /// `too_many_sessions`, `session_not_found`, `store_unavailable`.
    pub(super) async fn room_to_unarchive(
        &self,
        who: &Principal,
        key: &SessionKey,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        let max = self.access.limits.of(who).max_sessions;
        if max == 0 {
            return Ok(None);
        }
        let held = self.access.limits.counting(&who.user).lock_owned().await;
        let session = self.snapshot(who, key).await?;
        if session.archived && session.owner == who.user {
            let share = self.deps.store.share_of(&who.user, Some(key)).await?;
            if full(share.sessions, max) {
                return Err(too_many_sessions(max));
            }
        }
        Ok(Some(held))
    }
}

fn full(count: i64, max: u32) -> bool {
    max > 0 && count >= i64::from(max)
}

fn too_many_turns(max: u32) -> ApiError {
    let message = format!("{max} of your sessions or calls are at work; wait until one is done");
    ApiError::new(Code::RateLimited, message).with("limit", max).with("of", "turns")
}

fn too_many_sessions(max: u32) -> ApiError {
    ApiError::new(Code::TooManySessions, format!("you have {max} sessions; archive or delete one first"))
        .with("limit", max)
}
