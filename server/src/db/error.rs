//! What can go wrong in the database.

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
    /// Whether a row with the same unique value exists already.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Sql(error) => error.as_database_error().is_some_and(|error| error.is_unique_violation()),
            Self::Look(_) | Self::Migrate(_) | Self::Corrupt { .. } => false,
        }
    }
}
