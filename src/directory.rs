//! The directory: which sessions are live, and how to reach them. Written by the supervisor alone, read by everybody,
//! so that a call to a live session does not have to ask the supervisor first.
//!
//! It may be a moment late, which is harmless: a handle whose actor has ended says so, and then the supervisor is
//! asked. "Not in the directory" never means "nowhere".

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{ids::SessionKey, session::SessionHandle};

/// Live sessions by key; cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {
    live: Arc<RwLock<HashMap<SessionKey, SessionHandle>>>,
}

impl Directory {
    /// The session of that key, if it is live.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<SessionHandle> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(key).filter(|session| session.connected()).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&self, key: SessionKey, session: SessionHandle) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(key, session);
    }

    pub(crate) fn remove(&self, key: &SessionKey) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
