//! Whether a caller may have one more session, or one more turn at once.

use tokio::sync::OwnedMutexGuard;

use super::{Gateway, Principal};
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
        let full = |count: i64, max: u32| max > 0 && count >= i64::from(max);
        if !share.exists && full(share.sessions, limits.max_sessions) {
            let max = limits.max_sessions;
            let message = format!("you have {max} sessions; archive or delete one first");
            return Err(ApiError::new(Code::TooManySessions, message).with("limit", max));
        }
        if full(share.busy_elsewhere, max_turns) {
            let message = format!("{max_turns} of your sessions are at work; wait until a turn is over");
            return Err(ApiError::new(Code::RateLimited, message).with("limit", max_turns).with("of", "turns"));
        }
        Ok(Some(held))
    }
}
