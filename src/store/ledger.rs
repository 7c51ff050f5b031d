//! Two small ledgers: calls that must not happen twice, and process groups that must not be left behind.

use std::time::Duration;

use diesel::prelude::*;

use super::{
    IdempotencyRecord, Store, StoreError,
    codec::{parse_optional, text},
    connection::{AnyConnection, each},
    fault::Fault,
    schema::{idempotency_keys, processes},
    writer::{Reply, Write},
};
use crate::{agents::ProcessRecord, ids::SessionKey, timestamp::Timestamp};

/// How long a call is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Remembers a call; an earlier one under the same scope and key gives way.
pub(super) fn remember(
    connection: &mut AnyConnection,
    record: &IdempotencyRecord,
    session_key: Option<&str>,
) -> Result<(), Fault> {
    let values = || {
        (
            idempotency_keys::request_hash.eq(record.request_hash.clone()),
            idempotency_keys::outcome.eq(text(&record.outcome)),
            idempotency_keys::created_at.eq(record.created_at.0),
            idempotency_keys::session_key.eq(session_key.map(str::to_owned)),
        )
    };
    let name = (idempotency_keys::scope.eq(text(&record.scope)), idempotency_keys::key.eq(text(&record.key)));
    each!(connection, c => diesel::insert_into(idempotency_keys::table)
        .values((name, values()))
        .on_conflict((idempotency_keys::scope, idempotency_keys::key))
        .do_update()
        .set(values())
        .execute(c))?;
    Ok(())
}

/// Forgets the calls before `before`; gives their number.
pub(super) fn sweep(connection: &mut AnyConnection, before: Timestamp) -> Result<usize, Fault> {
    let old = idempotency_keys::table.filter(idempotency_keys::created_at.lt(before.0));
    Ok(diesel::delete(old).execute(connection)?)
}

/// Records a process group; an old one of the same number is gone.
pub(super) fn start(connection: &mut AnyConnection, process: &ProcessRecord) -> Result<(), Fault> {
    end(connection, process.pgid)?;
    let values = (
        processes::pgid.eq(process.pgid),
        processes::started_ticks.eq(process.started_ticks),
        processes::boot_id.eq(text(&process.boot_id)),
        processes::agent.eq(text(&process.agent)),
        processes::session.eq(text(&process.session)),
        processes::marker.eq(text(&process.marker)),
    );
    diesel::insert_into(processes::table).values(values).execute(connection)?;
    Ok(())
}

/// Strikes a process group out.
pub(super) fn end(connection: &mut AnyConnection, pgid: i32) -> Result<(), Fault> {
    diesel::delete(processes::table.filter(processes::pgid.eq(pgid))).execute(connection)?;
    Ok(())
}

impl Store {
    /// The call under that scope and key; none when there is none of the last 24 hours.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn idempotency(&self, scope: &str, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let (scope, key) = (text(scope), text(key));
        let oldest = Timestamp(Timestamp::now().0.saturating_sub(Timestamp::default().plus(REMEMBERED).0));
        self.read(move |connection| {
            let row = idempotency_keys::table
                .filter(idempotency_keys::scope.eq(&scope))
                .filter(idempotency_keys::key.eq(&key))
                .filter(idempotency_keys::created_at.ge(oldest.0))
                .select((idempotency_keys::request_hash, idempotency_keys::outcome, idempotency_keys::created_at))
                .first::<(String, String, i64)>(connection)
                .optional()?;
            Ok(row.map(|(request_hash, outcome, created_at)| IdempotencyRecord {
                scope: scope.clone(),
                key: key.clone(),
                request_hash,
                outcome,
                created_at: Timestamp(created_at),
            }))
        })
        .await
    }

    /// The session that the call under that scope and key was about; none for a call that is not remembered, or about none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session_of_call(&self, scope: &str, key: &str) -> Result<Option<SessionKey>, StoreError> {
        let (scope, key) = (text(scope), text(key));
        self.read(move |connection| {
            let session = idempotency_keys::table
                .filter(idempotency_keys::scope.eq(&scope))
                .filter(idempotency_keys::key.eq(&key))
                .select(idempotency_keys::session_key)
                .first::<Option<String>>(connection)
                .optional()?;
            parse_optional("idempotency_keys.session_key", session.flatten().as_deref())
        })
        .await
    }

    /// Remembers a call that belongs to no append. An earlier one under the same scope and key gives way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remember_call(&self, record: IdempotencyRecord) -> Result<(), StoreError> {
        self.write(Write::RememberCall(record)).await.map(|_| ())
    }

    /// Forgets the calls before `before`, which should be 24 hours ago or longer; gives their number.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_idempotency(&self, before: Timestamp) -> Result<usize, StoreError> {
        match self.write(Write::SweepIdempotency(before)).await? {
            Reply::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// Records a process group that was started, so that it can be found after a crash.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn process_started(&self, process: ProcessRecord) -> Result<(), StoreError> {
        self.write(Write::ProcessStarted(process)).await.map(|_| ())
    }

    /// Strikes out a process group that is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn process_ended(&self, pgid: i32) -> Result<(), StoreError> {
        self.write(Write::ProcessEnded(pgid)).await.map(|_| ())
    }

    /// The process groups that were started and not seen to end.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn processes(&self) -> Result<Vec<ProcessRecord>, StoreError> {
        self.read(|connection| {
            let rows = processes::table
                .order(processes::pgid.asc())
                .load::<(i32, i64, String, String, String, String)>(connection)?;
            let read = |(pgid, started_ticks, boot_id, agent, session, marker)| ProcessRecord {
                pgid,
                started_ticks,
                boot_id,
                agent,
                session,
                marker,
            };
            Ok(rows.into_iter().map(read).collect())
        })
        .await
    }
}
