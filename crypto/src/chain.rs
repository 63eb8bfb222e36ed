//! Chains: from an agent's or node's certificate to a pinned root, every rule on the way (PROTOCOL §2.4).

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{NodeId, WorkspaceId},
    limits::{CHAIN_DEPTH_MAX, CLOCK_SKEW_MS},
};
use prost::Message as _;

use crate::{
    cert::{CertKind, Certificate, Origin, RootCertificate},
    error::{self, WireError},
    hash::Fingerprint,
    scope,
    statement::Statement,
    wire,
};

pub use crate::verified_chain::{VerifiedChain, VerifiedNodeChain};

/// Largest serialized chain.
pub const CHAIN_BYTES_MAX: usize = 48 * 1024;

/// What a verifier remembers: revocations, and how far each subject's serial had come.
pub trait TrustState {
    /// Whether a certificate is revoked, by fingerprint or by subject and serial.
    fn is_revoked(&self, certificate: &Certificate) -> bool;

    /// The highest serial seen for a subject, if any was seen.
    fn highest_serial(&self, kind: CertKind, subject_id: &[u8; 16]) -> Option<u64>;
}

/// The trust state of a verifier that has seen nothing yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingSeen;

impl TrustState for NothingSeen {
    fn is_revoked(&self, _: &Certificate) -> bool {
        false
    }

    fn highest_serial(&self, _: CertKind, _: &[u8; 16]) -> Option<u64> {
        None
    }
}

/// How a certificate fails to follow from its issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// `issuer_fp` names another certificate.
    #[error("issuer_fp must be the fingerprint of the next certificate")]
    Issuer,
    /// The issuer did not sign it.
    #[error("signature must be the issuer's")]
    Signature,
    /// The issuer may not issue this kind.
    #[error("kind must be one that the issuer may issue")]
    Kind,
    /// Issuer and subject belong to different workspaces.
    #[error("workspace_id must equal the issuer's")]
    Workspace,
    /// The scope or slug reaches beyond the issuer's scope.
    #[error("scope must be inside the issuer's")]
    Scope,
    /// An agent's `node_id` is not the issuing node.
    #[error("node_id must be the issuing node's")]
    Node,
}

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It cannot be read.
    #[error("chain is malformed")]
    Malformed(#[from] WireError),
    /// It has no certificate, or more than [`CHAIN_DEPTH_MAX`] with its root.
    #[error("chain must have one to three certificates below the root, got {0}")]
    Depth(usize),
    /// Its leaf is not of the kind asked for.
    #[error("chain's leaf must be of kind {expected:?}, got {got:?}")]
    Leaf {
        /// What was asked for.
        expected: CertKind,
        /// What it is.
        got: CertKind,
    },
    /// It does not end at the pinned root.
    #[error("chain must end at the pinned root")]
    UntrustedRoot,
    /// Two neighbours do not follow from each other.
    #[error("chain is broken")]
    Link(#[from] LinkError),
    /// A certificate is not valid at the time asked for.
    #[error("certificate {0} is not valid at this time")]
    Time(Fingerprint),
    /// A newer certificate of the same subject was seen before.
    #[error("certificate {0} is older than one seen before")]
    Serial(Fingerprint),
    /// A certificate is revoked.
    #[error("certificate {0} is revoked")]
    Revoked(Fingerprint),
}

impl ChainError {
    /// The protocol's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::UntrustedRoot => Code::UntrustedRoot,
            Self::Revoked(_) => Code::Revoked,
            Self::Malformed(_)
            | Self::Depth(_)
            | Self::Leaf { .. }
            | Self::Link(_)
            | Self::Time(_)
            | Self::Serial(_) => Code::ChainInvalid,
        }
    }
}

/// Certificates from a leaf towards its root, the root omitted; well-formed, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    leaf: Certificate,
    /// Issuers of the leaf, nearest first.
    issuers: Vec<Certificate>,
}

impl Chain {
    /// Joins a leaf and its issuers, nearest first, the root omitted.
    ///
    /// # Errors
    /// [`ChainError::Depth`] when it would be too long.
    pub fn new(leaf: Certificate, issuers: Vec<Certificate>) -> Result<Self, ChainError> {
        if issuers.len() + 2 > CHAIN_DEPTH_MAX {
            return Err(ChainError::Depth(issuers.len() + 1));
        }
        Ok(Self { leaf, issuers })
    }

    /// Reads a serialized `Chain`.
    ///
    /// # Errors
    /// [`ChainError::Malformed`] or [`ChainError::Depth`].
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, ChainError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), CHAIN_BYTES_MAX, "chain")?;
        let chain: wire::Chain = error::decode(bytes, "chain")?;
        let depth = chain.certs.len();
        if depth >= CHAIN_DEPTH_MAX {
            return Err(ChainError::Depth(depth));
        }
        let mut certs = chain.certs.iter().map(|cert| Certificate::from_statement(Statement::from_wire(cert)?));
        let leaf = certs.next().ok_or(ChainError::Depth(0))??;
        Ok(Self { leaf, issuers: certs.collect::<Result<_, _>>()? })
    }

    /// The serialized `Chain`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::Chain { certs: self.certificates().map(|cert| cert.statement().to_wire()).collect() }.encode_to_vec()
    }

    /// The chain of a certificate that this chain's leaf issued.
    ///
    /// # Errors
    /// [`ChainError::Depth`] when it would be too long.
    pub fn extend(&self, leaf: Certificate) -> Result<Self, ChainError> {
        Self::new(leaf, self.certificates().cloned().collect())
    }

    /// The certificate that the chain is about.
    #[must_use]
    pub const fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// All certificates, leaf first.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.issuers)
    }

    /// The workspace that the leaf claims, by which the pinned root is looked up.
    #[must_use]
    pub const fn workspace_id(&self) -> WorkspaceId {
        self.leaf.claims().workspace_id
    }

    /// The root that the chain claims to end at; `None` when its top is a root itself, which has no place in a chain.
    #[must_use]
    pub fn root_fp(&self) -> Option<Fingerprint> {
        self.issuers.last().unwrap_or(&self.leaf).claims().issuer_fp
    }
}

/// Checks an agent's chain against a pinned root, at the time when the thing it vouches for was made.
///
/// # Errors
/// [`ChainError`] with the first rule that fails.
pub fn verify_chain(
    chain: &Chain,
    root: &RootCertificate,
    at_ms: u64,
    trust: &(impl TrustState + ?Sized),
) -> Result<VerifiedChain, ChainError> {
    let leaf = chain.leaf();
    let wrong_leaf = || ChainError::Leaf { expected: CertKind::Agent, got: leaf.claims().kind };
    let agent_id = leaf.claims().agent_id().ok_or_else(wrong_leaf)?;
    let origin = check_path(chain, root, at_ms, trust)?;
    // Only a node issues an agent (`check_link`), so an agent's path always has one.
    let node = chain.issuers.first().ok_or(LinkError::Kind)?.clone();
    let node_id = NodeId::from_bytes(node.claims().subject_id);
    let node = VerifiedNodeChain { node, node_id, root_fp: root.fp(), origin };
    Ok(VerifiedChain { agent: leaf.clone(), agent_id, node })
}

/// Checks a node's chain against a pinned root.
///
/// # Errors
/// [`ChainError`] with the first rule that fails.
pub fn verify_node_chain(
    chain: &Chain,
    root: &RootCertificate,
    at_ms: u64,
    trust: &(impl TrustState + ?Sized),
) -> Result<VerifiedNodeChain, ChainError> {
    let leaf = chain.leaf();
    if leaf.claims().kind != CertKind::Node {
        return Err(ChainError::Leaf { expected: CertKind::Node, got: leaf.claims().kind });
    }
    let origin = check_path(chain, root, at_ms, trust)?;
    let node_id = NodeId::from_bytes(leaf.claims().subject_id);
    Ok(VerifiedNodeChain { node: leaf.clone(), node_id, root_fp: root.fp(), origin })
}

/// Cheap rules first, signatures last: a chain of a foreign root costs no curve arithmetic.
fn check_path(
    chain: &Chain,
    root: &RootCertificate,
    at_ms: u64,
    trust: &(impl TrustState + ?Sized),
) -> Result<Origin, ChainError> {
    if chain.root_fp() != Some(root.fp()) {
        return Err(ChainError::UntrustedRoot);
    }
    let path: Vec<&Certificate> = chain.certificates().chain([root.certificate()]).collect();
    for certificate in &path {
        check_standing(certificate, at_ms, trust)?;
    }
    for (child, parent) in path.iter().zip(&path[1..]) {
        check_link(parent, child)?;
    }
    Ok(path.iter().map(|certificate| certificate.claims().origin).max().unwrap_or(Origin::Operator))
}

/// The rules about one certificate that depend on time and on what was seen.
fn check_standing(certificate: &Certificate, at_ms: u64, trust: &(impl TrustState + ?Sized)) -> Result<(), ChainError> {
    let (claims, fp) = (certificate.claims(), certificate.fp());
    let begun = at_ms.saturating_add(CLOCK_SKEW_MS) >= claims.not_before_ms;
    let ended = at_ms > claims.not_after_ms.saturating_add(CLOCK_SKEW_MS);
    if !begun || ended {
        return Err(ChainError::Time(fp));
    }
    if trust.is_revoked(certificate) {
        return Err(ChainError::Revoked(fp));
    }
    let seen = trust.highest_serial(claims.kind, &claims.subject_id);
    if seen.is_some_and(|seen| claims.serial < seen) { Err(ChainError::Serial(fp)) } else { Ok(()) }
}

/// The rules between an issuer's certificate and its subject's.
pub(crate) fn check_link(parent: &Certificate, child: &Certificate) -> Result<(), LinkError> {
    let (issuer, subject) = (parent.claims(), child.claims());
    if subject.issuer_fp != Some(parent.fp()) {
        return Err(LinkError::Issuer);
    }
    // A node vouches for the agents whose keys it holds, so no other kind may.
    let is_agent = subject.kind == CertKind::Agent;
    if !issuer.can_issue || issuer.kind >= subject.kind || (is_agent && issuer.kind != CertKind::Node) {
        return Err(LinkError::Kind);
    }
    if subject.workspace_id != issuer.workspace_id {
        return Err(LinkError::Workspace);
    }
    let names = subject.slug_scope.iter().chain(&subject.slug);
    if !names.into_iter().all(|name| scope::is_within(name, &issuer.slug_scope)) {
        return Err(LinkError::Scope);
    }
    if is_agent && subject.node_id != Some(NodeId::from_bytes(issuer.subject_id)) {
        return Err(LinkError::Node);
    }
    child.verify(&issuer.public_key).map_err(|_| LinkError::Signature)
}
