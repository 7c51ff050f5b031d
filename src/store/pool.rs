//! Reading: a few connections, opened when they are first needed, on tokio's blocking threads.
//!
//! A semaphore and a list instead of a pool library: no threads of its own and nothing opened at start, so an idle
//! server stays small; and those who wait for a connection wait as futures, not as blocked threads.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    StoreError,
    connection::{AnyConnection, Role, Target},
    fault::Fault,
    wal::Progress,
};

/// The reading connections.
pub(super) struct Pool {
    target: Target,
    size: usize,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<AnyConnection>>,
    timeout: Duration,
    /// What is read is told when it is on the disk.
    progress: Arc<Progress>,
    /// What a read found damaged. It stays: a file does not heal, and what is read by chance may still be whole.
    damage: Mutex<Option<String>>,
}

impl Pool {
    /// A pool of at most `size` connections.
    pub(super) fn new(target: Target, size: u32, timeout: Duration, progress: Arc<Progress>) -> Arc<Self> {
        let size = usize::try_from(size).unwrap_or(1).max(1);
        let permits = Arc::new(Semaphore::new(size));
        Arc::new(Self { target, size, permits, idle: Mutex::default(), timeout, progress, damage: Mutex::default() })
    }

    /// Runs `read` on a connection. It may run twice, when the first connection turns out to be dead. When time is up
    /// the caller is told so, while a statement that has begun runs to its end on its own thread.
    pub(super) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Fault> + Send + 'static,
    {
        let pool = Arc::clone(self);
        let work = async move {
            let permit = Arc::clone(&pool.permits).acquire_owned().await;
            let permit = permit.map_err(|_closed| StoreError::Unavailable("the store is closed".into()))?;
            let done = tokio::task::spawn_blocking(move || {
                let result = pool.on_connection(&read);
                drop(permit);
                pool.progress.wait(pool.timeout)?;
                result
            });
            done.await.map_err(|error| StoreError::Corrupt(format!("a read failed: {error}")))?
        };
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", self.timeout.as_secs_f32()))),
        }
    }

    fn on_connection<T>(&self, read: &impl Fn(&mut AnyConnection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            match read(&mut connection) {
                // It died while it was idle; a new one may do.
                Err(Fault::Lost(_)) => {}
                other => return self.give_back(connection, other),
            }
        }
        let mut connection = self.target.connect(Role::Reader)?;
        let result = read(&mut connection);
        self.give_back(connection, result)
    }

    /// Keeps the connection for the next read, unless it may be damaged.
    fn give_back<T>(&self, connection: AnyConnection, result: Result<T, Fault>) -> Result<T, StoreError> {
        if let Err(fault @ Fault::Damaged(_)) = result {
            return Err(self.note_damage(fault));
        }
        if matches!(result, Ok(_) | Err(Fault::Row(_))) && !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(result?)
    }

    /// Tells of a damage once in the log, and keeps it for those who ask how the store is.
    fn note_damage(&self, fault: Fault) -> StoreError {
        let error = StoreError::from(fault);
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.is_none() {
            log::error!(cause:% = error; "the database is damaged");
            *damage = Some(error.to_string());
        }
        error
    }

    /// What was found damaged since the start.
    pub(super) fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The database.
    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    #[cfg(test)]
    pub(super) fn disk(&self) -> &tokio::sync::Mutex<bool> {
        &self.progress.disk
    }

    /// Connections that read now.
    pub(super) fn in_use(&self) -> usize {
        self.size.saturating_sub(self.permits.available_permits())
    }

    /// Lets nobody read any more and closes what is idle.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
