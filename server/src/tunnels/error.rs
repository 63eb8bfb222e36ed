//! What can go wrong with a tunnel.

use crate::{db::DbError, invalid::Invalid, random::RandomError};

/// Why a port gets no URL.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent is not a live one of the node.
    #[error("no live agent {0} of this node")]
    AgentNotFound(String),
    /// The agent has enough.
    #[error("the agent has {0} tunnels, which is as many as it may")]
    Limit(usize),
    /// The database failed.
    #[error("reading or writing tunnels")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making a link")]
    Random(#[from] RandomError),
}

/// Why a visitor gets no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no such tunnel, or its agent has ended.
    #[error("there is no such tunnel, or its agent has ended")]
    NotFound,
    /// Too many at once.
    #[error("too many connections at once")]
    Busy,
    /// The node does not listen.
    #[error("the host is not connected")]
    Offline,
    /// The node cannot connect to the port.
    #[error("nothing answers on the port: {0}")]
    Refused(String),
    /// The node did not answer.
    #[error("the host did not answer in time")]
    Silent,
    /// The database failed.
    #[error("reading tunnels")]
    Db(#[from] DbError),
    /// No randomness.
    #[error("making an id")]
    Random(#[from] RandomError),
}
