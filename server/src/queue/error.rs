//! What the queue room refuses.

use murmur_core::{id::TurnId, limits::FOLLOW_UPS_MAX, slug::Slug};

use crate::{
    agents::AgentError, db::DbError, idempotency::OnceError, invalid::Invalid, random::RandomError,
    target::TargetError, tasks::TaskError,
};

/// Why a call about a queue was refused. Nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent is not there, or not the caller's to give work to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its life takes no work any more.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The queue is full.
    #[error("the queue of {0} holds {FOLLOW_UPS_MAX} entries, which is all it may")]
    Full(Slug),
    /// The items that come with it do not fit.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The turn is not the agent's latest one: its lease was over, and its entries were handed out again.
    #[error("turn {0} is not open")]
    TurnNotFound(TurnId),
    /// The idempotency key means something else.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// The database failed.
    #[error("reading or writing a queue")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}
