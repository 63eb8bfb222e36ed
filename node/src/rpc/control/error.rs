//! The control plane is away, refuses, or says what cannot be read.

use std::time::Duration;

use murmur_core::reason::Reason;
use murmur_proto::status::RpcError;
use tonic::{Code, Status};

/// What went wrong with a call to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It cannot be reached, or does not answer in time.
    #[error("the control plane cannot be reached: {0}")]
    Down(String),
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] RpcError),
    /// Its answer breaks the contract.
    #[error("the control plane's answer cannot be read: {0}")]
    Malformed(String),
}

impl ControlError {
    /// It did not answer within this time.
    pub(super) fn silent(waited: Duration) -> Self {
        Self::Down(format!("no answer within {} s", waited.as_secs()))
    }

    /// The reason of a refusal.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Down(_) | Self::Malformed(_) => None,
        }
    }
}

impl From<Status> for ControlError {
    fn from(status: Status) -> Self {
        let error = RpcError::from(&status);
        let is_broken = matches!(
            error.code,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
        );
        let is_leaving = matches!(error.reason, Some(Reason::Draining | Reason::ControlPlaneDown));
        if is_leaving || (error.reason.is_none() && is_broken) {
            Self::Down(error.message)
        } else {
            Self::Refused(error)
        }
    }
}
