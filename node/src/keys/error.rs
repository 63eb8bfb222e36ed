//! What can go wrong with keys.

use std::path::PathBuf;

use murmur_crypto::{chain::ChainError, error::RandomError, issue::IssueError};

/// Keys cannot be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be used.
    #[error("could not use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The node may not issue the certificate.
    #[error("the agent's certificate could not be issued")]
    Issue(#[from] IssueError),
    /// The agent's certificate and the node's do not make a chain.
    #[error("the agent's chain could not be made")]
    Chain(#[from] ChainError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}
