//! What the tasks room refuses.

use murmur_core::checklist::{Refused, TaskId};

use crate::{db::DbError, idempotency::OnceError, invalid::Invalid, target::TargetError};

/// Why a call about a checklist was refused. Nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent is not there, or not the caller's to write to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no such item.
    #[error("there is no item {0} in this checklist")]
    NotFound(TaskId),
    /// The rules of the checklist forbid it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The idempotency key means something else.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// The database failed.
    #[error("reading or writing a checklist")]
    Db(#[from] DbError),
}
