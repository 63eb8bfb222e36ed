//! What can go wrong with the store.

use std::path::PathBuf;

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its folder cannot be used.
    #[error("could not prepare the store at {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("another process uses the store at {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the store is of version {found}, and this program knows versions up to {known}")]
    TooNew {
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file's pages do not fit together.
    #[error("the store at {path} is damaged ({what}): put back a copy of it, or enrol anew in another data directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// SQLite refused.
    #[error("could not open the store")]
    Sqlite(#[from] rusqlite::Error),
}

/// Reading or writing failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the configured size of the database, is full.
    #[error("the node's store is full: its disk has no room, or store_pages_max is reached")]
    Full,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// It was undone together with something else that failed.
    #[error("the store undid a change together with another one that failed")]
    Undone,
    /// A row holds what no version of this program writes.
    #[error("the store holds a wrong {0}")]
    Corrupt(&'static str),
    /// SQLite failed otherwise.
    #[error("the store failed: {0}")]
    Sqlite(std::sync::Arc<rusqlite::Error>),
}

impl StoreError {
    /// Whether SQLite says that the file itself is damaged.
    pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ if Self::is_damage(&error) => Self::Corrupt("page: the file is damaged"),
            _ => Self::Sqlite(std::sync::Arc::new(error)),
        }
    }
}
