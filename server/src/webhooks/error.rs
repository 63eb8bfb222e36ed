//! What the webhooks room refuses.

use std::time::Duration;

use murmur_crypto::at_rest::NotOpened;

use crate::{
    agents::AgentError, db::DbError, invalid::Invalid, random::RandomError, together::Unwritten, tokens::TokenError,
};

/// Why a source could not be made, changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The caller's workspace, or the one that it names.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The caller reaches a part of the workspace alone.
    #[error("a source of webhooks concerns the whole workspace, and this token only `{0}`")]
    Beyond(String),
    /// No such source for this caller.
    #[error("no webhook `{0}`")]
    NotFound(String),
    /// The name is taken.
    #[error("there is a webhook `{0}`")]
    Exists(String),
    /// The workspace has enough.
    #[error("a workspace has at most {0} sources of webhooks")]
    Limit(u64),
    /// Its secret cannot be opened.
    #[error("the secret of the webhook cannot be opened; rotating it makes a new one")]
    Sealed,
    /// The database failed.
    #[error("reading or writing a source of webhooks")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making a webhook's secret")]
    Random(#[from] RandomError),
}

/// Why a delivery was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// No such source, or no signature of it. Whoever posts is told nothing.
    #[error("no webhook of ours signed this")]
    Unauthentic,
    /// The source sends more than it may.
    #[error("too many deliveries")]
    Limited(Duration),
    /// The body is no JSON by its header.
    #[error("content type must be application/json, got `{0}`")]
    ContentType(String),
    /// The body is not what it says it is.
    #[error("{0}")]
    Malformed(String),
    /// The events could not be handed on.
    #[error("handing events to agents")]
    Agent(#[from] AgentError),
    /// A stored secret was changed, or the key file was.
    #[error("opening a webhook's secret")]
    Secret(#[from] NotOpened),
    /// The database failed.
    #[error("storing a delivery")]
    Unwritten(#[source] Unwritten),
}

impl From<Unwritten> for TakeError {
    fn from(error: Unwritten) -> Self {
        Self::Unwritten(error)
    }
}

impl From<DbError> for TakeError {
    fn from(error: DbError) -> Self {
        Self::Unwritten(error.into())
    }
}
