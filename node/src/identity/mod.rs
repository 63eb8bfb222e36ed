//! Who this node is: its keys, the root it pinned, and what the owner signed for it.
//!
//! Everything lives in `<data dir>/identity/` in files of mode 0600: `node.key` and `broker.nk` (made here, never leaving),
//! `node.token`, `node.json` (what enrolment answered) and `broker.json` (the last broker credentials). `node.json` is written
//! last, so that its presence means that enrolment is complete; its certificate is there once the owner approved.

mod dir;
mod file;
mod record;

use std::sync::Arc;

use arc_swap::ArcSwap;
use murmur_core::{
    id::{NodeId, WorkspaceId},
    slug::{AccountName, Slug, WorkspaceName},
};
use murmur_crypto::{
    cert::{Certificate, RootCertificate},
    chain::{Chain, ChainError, NothingSeen, VerifiedNodeChain, verify_node_chain},
    error::WireError,
    keys::{IdentityKey, PublicKey},
};

pub use dir::IdentityDir;
pub use file::{create_private_dir, read_private, write_private};
pub use record::{BrokerRecord, NodeRecord};

use crate::clock::CORRECTION_MS_MAX;

/// An enrolled and approved node.
pub struct NodeIdentity {
    /// The node.
    pub node_id: NodeId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The workspace's name: the first part of every slug here.
    pub workspace: WorkspaceName,
    /// Whose node it is.
    pub account: AccountName,
    /// The host's name, for people.
    pub name: String,
    /// Where the control plane is.
    pub control_plane_url: String,
    /// The root that the invite pinned.
    pub root: RootCertificate,
    /// What the owner signed last; it holds under [`NodeIdentity::root`].
    certificate: ArcSwap<Certificate>,
    /// The node's own key: it signs the certificates of its agents.
    pub key: IdentityKey,
    /// Slug prefixes that the node may name agents under.
    pub slug_scope: Vec<String>,
}

/// Why the files do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("could not use {path}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A certificate cannot be read.
    #[error("certificate is malformed")]
    Certificate(#[from] WireError),
    /// The certificate does not follow from the pinned root.
    #[error("the node's certificate does not hold under the pinned root")]
    Chain(#[from] ChainError),
    /// The certificate is about another key or node.
    #[error("the node's certificate is not this node's: {0} differs")]
    Foreign(&'static str),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] murmur_crypto::error::RandomError),
    /// The broker key cannot be used.
    #[error("the broker key cannot be used: {0}")]
    BrokerKey(String),
}

impl NodeIdentity {
    /// Puts the identity together from its record and checks the certificate against key and root.
    ///
    /// # Errors
    /// [`IdentityError`] when the record has no certificate that holds.
    pub fn new(record: &NodeRecord, key: IdentityKey, now_ms: u64) -> Result<Self, IdentityError> {
        let root = RootCertificate::decode(record.root_certificate.clone())?;
        let bytes = record.node_certificate.clone().ok_or(IdentityError::Foreign("certificate"))?;
        let certificate = check_certificate(&bytes, record.node_id, &key.public(), &root, now_ms)?;
        let slug_scope = certificate.claims().slug_scope.clone();
        Ok(Self {
            node_id: record.node_id,
            workspace_id: record.workspace_id,
            workspace: record.workspace.clone(),
            account: record.account.clone(),
            name: record.name.clone(),
            control_plane_url: record.control_plane_url.clone(),
            root,
            certificate: ArcSwap::from_pointee(certificate),
            key,
            slug_scope,
        })
    }

    /// What the owner signed last.
    #[must_use]
    pub fn certificate(&self) -> Arc<Certificate> {
        self.certificate.load_full()
    }

    /// Checks that a certificate may take the place of the current one: it holds, it is this node's, and it is newer.
    ///
    /// # Errors
    /// [`IdentityError`] with the first rule that fails.
    pub fn check_renewed(&self, bytes: &[u8], now_ms: u64) -> Result<Certificate, IdentityError> {
        let renewed = check_certificate(bytes, self.node_id, &self.key.public(), &self.root, now_ms)?;
        let is_newer = renewed.claims().serial > self.certificate().claims().serial;
        if is_newer { Ok(renewed) } else { Err(IdentityError::Foreign("serial")) }
    }

    /// Certifies agents under this from now on.
    pub fn set_certificate(&self, certificate: Certificate) {
        self.certificate.store(Arc::new(certificate));
    }

    /// Whether a slug is of this node's workspace and account.
    #[must_use]
    pub fn owns(&self, slug: &Slug) -> bool {
        *slug.workspace() == self.workspace && *slug.account() == self.account
    }
}

/// Checks that a certificate is this node's and holds under the pinned root.
///
/// # Errors
/// [`IdentityError`] with the first rule that fails.
pub fn check_certificate(
    bytes: &[u8],
    node_id: NodeId,
    key: &PublicKey,
    root: &RootCertificate,
    now_ms: u64,
) -> Result<Certificate, IdentityError> {
    let certificate = Certificate::decode(bytes.to_vec())?;
    let chain = Chain::new(certificate.clone(), Vec::new())?;
    // Nobody has told the time yet, and a host's clock that is some hours late must not keep the node from asking for it.
    let begins_ms = certificate.claims().not_before_ms;
    let at_ms = if begins_ms.saturating_sub(now_ms) <= CORRECTION_MS_MAX { now_ms.max(begins_ms) } else { now_ms };
    let verified: VerifiedNodeChain = verify_node_chain(&chain, root, at_ms, &NothingSeen)?;
    if verified.node_id() != node_id {
        return Err(IdentityError::Foreign("node id"));
    }
    if certificate.claims().public_key != *key {
        return Err(IdentityError::Foreign("public key"));
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests;
