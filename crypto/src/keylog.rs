//! The key log: every certificate, revocation and policy in one hash chain, so that a directory which tells two stories leaves
//! evidence (PROTOCOL §3.4).

use crate::hash::{label, sha256, sha256_of};

/// How long the log is and what it hashes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLog {
    /// Entries so far.
    pub size: u64,
    /// `head_n = H(L("murmur/2 keylog") || head_{n-1} || H(body_n))`; all zero for an empty log.
    pub head: [u8; 32],
}

impl KeyLog {
    /// The log with one more entry: a statement's body.
    #[must_use]
    pub fn append(self, body: &[u8]) -> Self {
        Self { size: self.size.saturating_add(1), head: sha256_of(&[label::KEYLOG, &self.head, &sha256(body)]) }
    }
}
