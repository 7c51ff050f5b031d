//! What can go wrong inside, sorted by what to do about it.

use diesel::result::{DatabaseErrorKind, Error};

use super::StoreError;

/// A failure, by its cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is gone; nothing of the transaction is written. Connect and do it again.
    Lost(String),
    /// Somebody else was in the way. The same again, a little later, may work.
    Busy(String),
    /// The database cannot do it now: it is full, read-only, or its disk fails.
    Unavailable(String),
    /// The file is not what a database should be: written over, or cut. It does not heal by itself.
    Damaged(String),
    /// It is the job's own fault, or what is stored makes no sense. The same again fails again.
    Row(String),
}

/// What SQLite says when its file was written over or cut, and Postgres of its own.
const DAMAGED: [&str; 6] = [
    "database disk image is malformed",
    "file is not a database",
    "malformed database schema",
    "invalid page in block",
    "could not read block",
    "could not open file",
];
/// What they say when a statement is wrong, and not the moment.
const HOPELESS: [&str; 5] = ["no such table", "no such column", "datatype mismatch", "too big", "syntax error"];

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        use DatabaseErrorKind as Kind;
        let text = error.to_string();
        match error {
            Error::DatabaseError(Kind::ClosedConnection | Kind::UnableToSendCommand, _) => Self::Lost(text),
            Error::DatabaseError(Kind::SerializationFailure, _) => Self::Busy(text),
            Error::DatabaseError(Kind::ReadOnlyTransaction, _) => Self::Unavailable(text),
            Error::DatabaseError(Kind::Unknown, _) => {
                // SQLite's "locked" is none of these: it has waited for `busy_timeout` by then.
                if text.contains("deadlock") {
                    Self::Busy(text)
                } else if DAMAGED.iter().any(|damaged| text.contains(damaged)) {
                    Self::Damaged(text)
                } else if HOPELESS.iter().any(|hopeless| text.contains(hopeless)) {
                    Self::Row(text)
                } else {
                    Self::Unavailable(text)
                }
            }
            Error::BrokenTransactionManager | Error::RollbackErrorOnCommit { .. } | Error::AlreadyInTransaction => {
                Self::Lost(text)
            }
            // A constraint that is hurt, a value that cannot be bound or read.
            _ => Self::Row(text),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(text) | Fault::Busy(text) | Fault::Unavailable(text) => Self::Unavailable(text),
            Fault::Damaged(text) => Self::Unavailable(format!("the database is damaged ({text}): restore a backup")),
            Fault::Row(text) => Self::Corrupt(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        Fault::from(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned())))
    }

    #[test]
    fn what_is_damaged_is_told_from_what_is_wrong_and_from_what_passes() {
        assert!(matches!(fault("database disk image is malformed"), Fault::Damaged(_)));
        assert!(matches!(fault("file is not a database"), Fault::Damaged(_)));
        assert!(matches!(fault("no such table: turns"), Fault::Row(_)));
        assert!(matches!(fault("database or disk is full"), Fault::Unavailable(_)));
        assert!(matches!(fault("attempt to write a readonly database"), Fault::Unavailable(_)));
        assert!(matches!(fault("deadlock detected"), Fault::Busy(_)));
        let error = StoreError::from(fault("database disk image is malformed"));
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("restore a backup")), "{error}");
    }
}
