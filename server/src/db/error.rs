//! What can go wrong in the database.

use std::{error::Error, io, iter};

/// `SQLITE_FULL`.
const FULL: i32 = 13;
/// `SQLITE_IOERR_SHMSIZE`: there was no room for the index of the write-ahead log.
const FULL_FOR_INDEX: i32 = 4874;

/// A failed query, or a row that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database refused or could not be reached.
    #[error("asking the database")]
    Sql(#[from] sqlx::Error),
    /// As [`DbError::Sql`], of a look.
    #[error("asking the database")]
    Look(#[from] rusqlite::Error),
    /// The schema could not be brought up to date.
    #[error("migrating the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A stored value breaks a rule that every writer keeps.
    #[error("column `{column}` holds an impossible value")]
    Corrupt {
        /// Which column.
        column: &'static str,
    },
}

impl DbError {
    /// Whether nobody asked the database: others wrote all the time, or this process ends.
    #[must_use]
    pub const fn is_no_turn(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed))
    }

    /// Whether a row with the same unique value exists already.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Sql(error) => error.as_database_error().is_some_and(|error| error.is_unique_violation()),
            Self::Look(_) | Self::Migrate(_) | Self::Corrupt { .. } => false,
        }
    }
}

/// Whether the cause of an error is that a disk is full.
#[must_use]
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |error| (*error).source()).any(|error| {
        if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
            return error.code().and_then(|code| code.parse().ok()).is_some_and(is_code_of_full);
        }
        if let Some(rusqlite::Error::SqliteFailure(error, _)) = error.downcast_ref() {
            return is_code_of_full(error.extended_code);
        }
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    })
}

const fn is_code_of_full(code: i32) -> bool {
    matches!(code, FULL | FULL_FOR_INDEX)
}
