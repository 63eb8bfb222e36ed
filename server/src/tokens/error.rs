//! What can go wrong with tokens.

use crate::{db::DbError, invalid::Invalid, random::RandomError};

/// Why a bearer token does not let its holder in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It is no token at all.
    #[error("the token is malformed")]
    Malformed(#[from] murmur_core::token::TokenError),
    /// Nobody was ever given it.
    #[error("the token is unknown")]
    Unknown,
    /// Its time is over.
    #[error("the token expired")]
    Expired,
    /// It was withdrawn.
    #[error("the token was revoked")]
    Revoked,
    /// The database failed.
    #[error("verifying a token")]
    Db(#[from] DbError),
}

/// Why a token could not be issued, revoked or listed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// More was asked for than the caller has.
    #[error("{0}")]
    Beyond(String),
    /// No such workspace for this caller.
    #[error("no workspace `{0}`")]
    WorkspaceNotFound(String),
    /// No such agent for this caller.
    #[error("no agent {0} in this workspace")]
    AgentNotFound(String),
    /// No such token for this caller.
    #[error("no token {0}")]
    NotFound(String),
    /// The caller's own token was revoked meanwhile.
    #[error("the calling token was revoked")]
    CallerRevoked,
    /// The database failed.
    #[error("storing a token")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making a token")]
    Random(#[from] RandomError),
}
