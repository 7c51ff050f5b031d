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
    /// It is the job's own fault, or what is stored makes no sense. The same again fails again.
    Row(String),
}

/// What SQLite says when a file or a statement is wrong, and not the moment.
const HOPELESS: [&str; 7] =
    ["malformed", "not a database", "no such table", "no such column", "datatype mismatch", "too big", "syntax error"];

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
            Fault::Row(text) => Self::Corrupt(text),
        }
    }
}
