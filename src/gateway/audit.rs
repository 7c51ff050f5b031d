//! What was done to sessions, and who may read of it.

use serde_json::Value;

use super::{Gateway, Principal, session_not_found};
use crate::{
    access::Deed,
    error::{ApiError, Code},
    protocol::account::AuditEntry,
    store::{AuditFilter, Page, Paged},
};

impl Gateway {
    /// Notes what was done to the server.
    pub(super) fn note_server(&self, who: &Principal, action: &'static str, detail: Value) {
        self.access.audit.note(Deed { action, session: None, owner: &who.user, detail }.by(who));
    }

    /// A page of the audit, newest first: everything for admins, their own sessions and themselves for others.
    ///
    /// # Errors
    /// For one session `session_not_found` where the caller has no part in it, `not_session_owner` where it sees
    /// somebody else's; `store_unavailable`.
    pub async fn audit(
        &self,
        who: &Principal,
        mut filter: AuditFilter,
        page: Page,
    ) -> Result<Paged<AuditEntry>, ApiError> {
        // What was answered before this call is in it.
        self.access.audit.flush().await;
        if who.is_admin() {
            return Ok(self.deps.store.audit(&filter, &page).await?);
        }
        filter.owner = Some(who.user.clone());
        if let Some(key) = &filter.session {
            match self.snapshot(who, key).await {
                Ok(session) if who.may_write(&session) => {}
                Ok(_) => {
                    return Err(ApiError::new(Code::NotSessionOwner, "the session belongs to somebody else"));
                }
                // It may have been the caller's before it was deleted.
                Err(error) if error.code == Code::SessionNotFound => {
                    let any = Page { limit: 1, after: None, before: None, ascending: false };
                    let own = AuditFilter {
                        session: Some(key.clone()),
                        owner: filter.owner.clone(),
                        ..AuditFilter::default()
                    };
                    if self.deps.store.audit(&own, &any).await?.data.is_empty() {
                        return Err(session_not_found(key));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.deps.store.audit(&filter, &page).await?)
    }
}
