//! What can go wrong with an upload.

use crate::{agents::AgentError, db::DbError, invalid::Invalid, random::RandomError};

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Who calls cannot be made out.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// It is larger than a file may be.
    #[error("the file has {size_bytes} bytes, and at most {max} are taken")]
    TooLarge {
        /// As announced.
        size_bytes: u64,
        /// As configured.
        max: u64,
    },
    /// The account has enough here.
    #[error("the account has {0}, which is as much as it may")]
    Limit(String),
    /// The object store failed.
    #[error("reading or writing the store of uploads")]
    Store(#[from] object_store::Error),
    /// The database failed.
    #[error("reading or writing uploads")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making a link")]
    Random(#[from] RandomError),
}
