//! Migrations: part of the program, run when the store is opened.

use std::collections::BTreeSet;

use diesel::{Connection, RunQueryDsl as _, migration::MigrationSource, sql_query};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{StoreError, connection::AnyConnection};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The lock under which servers that start together migrate one after the other ("greenroom" as a number).
const ADVISORY_LOCK: i64 = 0x6772_6565_6e72;

/// Why migrations were not made.
enum Undone {
    /// One of them cannot be made.
    Migration(Box<dyn std::error::Error + Send + Sync>),
    /// The transaction around them failed.
    Transaction(diesel::result::Error),
}

impl From<diesel::result::Error> for Undone {
    fn from(error: diesel::result::Error) -> Self {
        Self::Transaction(error)
    }
}

/// Brings the database up to date. One that a newer program has migrated is left alone.
pub(super) fn run(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Setup(format!("the database cannot be migrated: {error}"));
    match connection {
        AnyConnection::Sqlite(c) => up(c, SQLITE),
        AnyConnection::Postgres(c) => {
            let locked = sql_query(format!("SELECT pg_advisory_lock({ADVISORY_LOCK})")).execute(c);
            locked.map_err(|error| failed(&error))?;
            let result = up(c, POSTGRES);
            let unlocked = sql_query(format!("SELECT pg_advisory_unlock({ADVISORY_LOCK})")).execute(c);
            unlocked.map_err(|error| failed(&error))?;
            result
        }
    }
}

/// Makes sure that the database is up to date, without changing it: a server runs on it.
pub(super) fn check(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let pending = match connection {
        AnyConnection::Sqlite(c) => c.has_pending_migration(SQLITE),
        AnyConnection::Postgres(c) => c.has_pending_migration(POSTGRES),
    };
    match pending {
        Ok(false) => Ok(()),
        Ok(true) => Err(StoreError::Setup(
            "a server of an older version runs on this database; stop it and start this version first".into(),
        )),
        Err(error) => Err(StoreError::Setup(format!("the database cannot be read: {error}"))),
    }
}

fn up<C, DB>(connection: &mut C, migrations: EmbeddedMigrations) -> Result<(), StoreError>
where
    DB: diesel::backend::Backend,
    C: MigrationHarness<DB> + Connection<Backend = DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let failed = |error: &dyn std::fmt::Display| StoreError::Setup(format!("the database cannot be migrated: {error}"));
    let known = migrations.migrations().map_err(|error| failed(&error))?;
    let known: BTreeSet<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    let applied = connection.applied_migrations().map_err(|error| failed(&error))?;
    if let Some(newer) = applied.iter().find(|version| !known.contains(&version.to_string())) {
        return Err(StoreError::Setup(format!(
            "this database was last used by a newer version of greenroom (migration {newer}); \
             start that version, or use another database. Nothing was changed"
        )));
    }
    if applied.len() < known.len() {
        // All of them or none: with some of them the program that was here before could not go on either.
        let done = connection.transaction(|connection| match connection.run_pending_migrations(migrations) {
            Ok(_) => Ok(()),
            Err(error) => Err(Undone::Migration(error)),
        });
        done.map_err(|error| match error {
            Undone::Migration(error) => StoreError::Setup(format!(
                "the database cannot be migrated, and was left as it was: {}",
                error.to_string().replace('\n', " ")
            )),
            Undone::Transaction(error) => failed(&error),
        })?;
    }
    Ok(())
}
