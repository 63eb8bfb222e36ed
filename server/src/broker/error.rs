//! What can go wrong between the control plane and the broker.

use std::{io, path::PathBuf};

/// A step with the broker, its keys or its files that failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A file could not be read, written or protected.
    #[error("broker file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or answer does not have the expected form.
    #[error("{what} malformed")]
    Malformed {
        /// What was read.
        what: &'static str,
    },
    /// A key of another kind than expected, such as a user's where an account's belongs.
    #[error("{what} must be {expected}")]
    WrongKey {
        /// Which key.
        what: &'static str,
        /// The expected kind.
        expected: &'static str,
    },
    /// A setting that breaks a rule.
    #[error("{setting} {rule}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// The rule.
        rule: String,
    },
    /// Signing or reading a key failed.
    #[error("broker key")]
    Key(#[from] nkeys::error::Error),
    /// JSON could not be written.
    #[error("encoding broker claims")]
    Encode(#[source] serde_json::Error),
    /// The broker could not be reached or refused the credentials.
    #[error("connecting to the broker")]
    Connect(#[from] async_nats::ConnectError),
    /// The broker did not answer.
    #[error("asking the broker to {action}")]
    Request {
        /// What was asked.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The broker answered no.
    #[error("the broker refused to {action}: {reason}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// The broker's words.
        reason: String,
    },
}

impl BrokerError {
    pub(crate) fn request<E>(action: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Request { action, source: source.into() }
    }

    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
