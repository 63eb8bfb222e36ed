//! What the events room refuses.

use crate::{
    agents::AgentError, db::DbError, invalid::Invalid, random::RandomError, together::Unwritten, tokens::AuthError,
};

/// Why a call about events was refused. Nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent is not there for this caller, or has ended.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The resume token is of another database, or of a future that was rolled back.
    #[error("the watch cannot go on from this resume token")]
    ResumeTokenStale,
    /// The caller's token was withdrawn during a stream.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The database failed.
    #[error("reading or writing events")]
    Db(#[from] DbError),
    /// Whoever was to write it ended in the middle.
    #[error("the event was not written")]
    Ended,
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}

impl From<Unwritten> for EventError {
    fn from(error: Unwritten) -> Self {
        match error {
            Unwritten::Db(error) => Self::Db(error),
            Unwritten::Ended => Self::Ended,
        }
    }
}
