//! Who may see and change a session, and for how long: the gates that every call passes, and what ends open streams.

use super::{Gateway, Principal, session_not_found};
use crate::{
    access::{Lease, Shows},
    error::{ApiError, Code},
    ids::SessionKey,
    protocol::{Snapshot, Visibility},
};

impl Gateway {
    /// Fails unless the caller may change the session.
    pub(super) async fn may_write(&self, who: &Principal, key: &SessionKey) -> Result<(), ApiError> {
        // In open mode there is one caller, who may do all: no need to look.
        if who.is_admin() {
            return Ok(());
        }
        let snapshot = self.snapshot(who, key).await?;
        if !who.may_write(&snapshot) {
            return Err(ApiError::new(Code::NotSessionOwner, "the session belongs to somebody else"));
        }
        Ok(())
    }

    /// True when the key has a session, whoever sees it.
    pub(super) async fn exists(&self, key: &SessionKey) -> Result<bool, ApiError> {
        Ok(self.view(key).await?.is_some() || self.deps.store.session(key).await?.is_some())
    }

    /// Whether a session may become visible like that.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub(super) fn check_visibility(
        &self,
        who: &Principal,
        visibility: Visibility,
        org: Option<&str>,
    ) -> Result<(), ApiError> {
        let refused = |message: &str| Err(ApiError::new(Code::InvalidParameter, message).with("field", "org_id"));
        match (visibility, org) {
            (Visibility::Private | Visibility::Public, None) => Ok(()),
            (Visibility::Private | Visibility::Public, Some(_)) => refused("org_id goes with visibility org alone"),
            (Visibility::Org, None) => refused("visibility org needs org_id, one of your organisations"),
            (Visibility::Org, Some(org)) => {
                let own = who.orgs.iter().any(|one| one == org);
                if own || (who.is_admin() && self.access.book().has_org(org)) {
                    Ok(())
                } else {
                    refused("org_id must be one of your organisations")
                }
            }
        }
    }

    /// The right to follow a session, which ends when the caller loses it.
    pub(super) async fn lease(&self, who: &Principal, key: &SessionKey) -> Result<Lease, ApiError> {
        let foreign = !who.may_write(&self.snapshot(who, key).await?);
        let lease = self.access.lease(who, Shows::Session(key, foreign))?;
        if foreign {
            // It may have been made private before the lease was listed.
            self.snapshot(who, key).await?;
        }
        Ok(lease)
    }

    /// Ends the streams of those who may not see these sessions any more.
    pub async fn recheck(&self, keys: Vec<SessionKey>) {
        for key in keys {
            let session = match self.snapshot(&Principal::local(), &key).await {
                Ok(session) => session,
                // A stream of a deleted session ends by itself.
                Err(error) => {
                    log::debug!("{key}: who follows it cannot be looked at: {error}");
                    continue;
                }
            };
            self.access.end_strangers(&session);
        }
    }
}

/// What the caller may not see does not exist for it.
pub(super) fn visible(who: &Principal, key: &SessionKey, snapshot: Snapshot) -> Result<Snapshot, ApiError> {
    if who.may_see(&snapshot) { Ok(snapshot) } else { Err(session_not_found(key)) }
}
