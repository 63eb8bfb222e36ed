//! Issuing certificates: a root by itself, everything else by a key that already has one.
//!
//! What is issued here would pass [`crate::chain`]: the same link rules run before anything is signed.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    limits::TTL_SECONDS_MAX,
};

use crate::{
    cert::{CertKind, Certificate, Claims, Origin, RootCertificate, own_suites},
    chain::{self, LinkError},
    error::WireError,
    hash::label,
    keys::{IdentityKey, PublicKey},
    statement::Statement,
};

/// Why a certificate could not be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The key is not the one that the issuer's certificate names.
    #[error("issuing key does not belong to the issuer's certificate")]
    ForeignKey,
    /// The certificate would break a rule by itself.
    #[error("certificate would be malformed")]
    Malformed(#[from] WireError),
    /// The issuer may not issue this certificate.
    #[error("certificate is outside what the issuer may issue")]
    Link(#[from] LinkError),
}

/// From when to when a certificate holds, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Start.
    pub not_before_ms: u64,
    /// End.
    pub not_after_ms: u64,
}

impl Validity {
    /// A span of `life_ms` from `now_ms`. Lives are named in [`murmur_core::limits`].
    #[must_use]
    pub const fn from_now(now_ms: u64, life_ms: u64) -> Self {
        Self { not_before_ms: now_ms, not_after_ms: now_ms.saturating_add(life_ms) }
    }

    /// As [`Validity::from_now`], and for the longest life of a message before. A chain must hold when its message was made, and a message
    /// that waits may be sealed up to its whole life later, under certificates that were renewed meanwhile; the host that made it may also
    /// have a slow clock.
    #[must_use]
    pub const fn for_what_waits(now_ms: u64, life_ms: u64) -> Self {
        let before_ms = TTL_SECONDS_MAX as u64 * 1000;
        Self { not_before_ms: now_ms.saturating_sub(before_ms), not_after_ms: now_ms.saturating_add(life_ms) }
    }
}

/// A root to issue.
#[derive(Debug, Clone)]
pub struct RootSpec {
    /// The workspace, which is also the subject.
    pub workspace_id: WorkspaceId,
    /// Higher than that of every earlier root of this workspace.
    pub serial: u64,
    /// When it holds.
    pub validity: Validity,
    /// What the workspace may speak for, usually `/w/{workspace}/`.
    pub slug_scope: Vec<String>,
    /// Whose machine holds the key.
    pub origin: Origin,
}

/// An enroller, which issues node certificates for the root.
#[derive(Debug, Clone)]
pub struct EnrollerSpec {
    /// Its own id.
    pub enroller_id: [u8; 16],
    /// Its key.
    pub public_key: PublicKey,
    /// Higher than that of every earlier certificate of this enroller.
    pub serial: u64,
    /// When it holds.
    pub validity: Validity,
    /// What its nodes may speak for.
    pub slug_scope: Vec<String>,
    /// [`Origin::Operator`] when the control plane holds the key. It never falls below the issuer's.
    pub origin: Origin,
}

/// A node to issue for.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// The node.
    pub node_id: NodeId,
    /// Its key.
    pub public_key: PublicKey,
    /// Higher than that of every earlier certificate of this node.
    pub serial: u64,
    /// When it holds.
    pub validity: Validity,
    /// What its agents may be called.
    pub slug_scope: Vec<String>,
}

/// An agent to issue for.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// The agent.
    pub agent_id: AgentId,
    /// Its key.
    pub public_key: PublicKey,
    /// Higher than that of every earlier certificate of this agent.
    pub serial: u64,
    /// When it holds.
    pub validity: Validity,
    /// Its absolute slug.
    pub slug: String,
}

/// Makes a self-signed root.
///
/// # Errors
/// [`IssueError::Malformed`] when scope or validity break a rule.
pub fn root(key: &IdentityKey, spec: RootSpec) -> Result<RootCertificate, IssueError> {
    let RootSpec { workspace_id, serial, validity, slug_scope, origin } = spec;
    let claims = Claims {
        kind: CertKind::Root,
        subject_id: *workspace_id.as_bytes(),
        workspace_id,
        public_key: key.public(),
        issuer_fp: None,
        serial,
        not_before_ms: validity.not_before_ms,
        not_after_ms: validity.not_after_ms,
        slug_scope,
        can_issue: true,
        origin,
        suites: own_suites(),
        node_id: None,
        slug: None,
    };
    Ok(RootCertificate::new(sign(key, &claims)?)?)
}

/// A key together with the certificate that allows it to issue.
pub struct Issuer<'a> {
    key: &'a IdentityKey,
    certificate: &'a Certificate,
}

impl<'a> Issuer<'a> {
    /// Joins a key and its certificate.
    ///
    /// # Errors
    /// [`IssueError::ForeignKey`] when they do not belong together.
    pub fn new(key: &'a IdentityKey, certificate: &'a Certificate) -> Result<Self, IssueError> {
        if key.public() != certificate.claims().public_key {
            return Err(IssueError::ForeignKey);
        }
        Ok(Self { key, certificate })
    }

    /// Issues for an enroller.
    ///
    /// # Errors
    /// [`IssueError`] when the issuer may not, or the result would be malformed.
    pub fn enroller(&self, spec: EnrollerSpec) -> Result<Certificate, IssueError> {
        let EnrollerSpec { enroller_id, public_key, serial, validity, slug_scope, origin } = spec;
        let mut claims = self.claims(CertKind::Enroller, enroller_id, public_key, serial, validity);
        claims.slug_scope = slug_scope;
        claims.can_issue = true;
        claims.origin = claims.origin.max(origin);
        self.issue(&claims)
    }

    /// Issues for a node.
    ///
    /// # Errors
    /// [`IssueError`] when the issuer may not, or the result would be malformed.
    pub fn node(&self, spec: NodeSpec) -> Result<Certificate, IssueError> {
        let NodeSpec { node_id, public_key, serial, validity, slug_scope } = spec;
        let mut claims = self.claims(CertKind::Node, *node_id.as_bytes(), public_key, serial, validity);
        claims.slug_scope = slug_scope;
        claims.can_issue = true;
        self.issue(&claims)
    }

    /// Issues for an agent of this node.
    ///
    /// # Errors
    /// [`IssueError`] when the issuer is no node, the slug is outside its scope, or the result would be malformed.
    pub fn agent(&self, spec: AgentSpec) -> Result<Certificate, IssueError> {
        let AgentSpec { agent_id, public_key, serial, validity, slug } = spec;
        let mut claims = self.claims(CertKind::Agent, *agent_id.as_bytes(), public_key, serial, validity);
        claims.node_id = Some(NodeId::from_bytes(self.certificate.claims().subject_id));
        claims.slug = Some(slug);
        self.issue(&claims)
    }

    fn claims(
        &self,
        kind: CertKind,
        subject_id: [u8; 16],
        public_key: PublicKey,
        serial: u64,
        validity: Validity,
    ) -> Claims {
        let issuer = self.certificate.claims();
        Claims {
            kind,
            subject_id,
            workspace_id: issuer.workspace_id,
            public_key,
            issuer_fp: Some(self.certificate.fp()),
            serial,
            not_before_ms: validity.not_before_ms,
            not_after_ms: validity.not_after_ms,
            slug_scope: Vec::new(),
            can_issue: false,
            origin: issuer.origin,
            suites: own_suites(),
            node_id: None,
            slug: None,
        }
    }

    fn issue(&self, claims: &Claims) -> Result<Certificate, IssueError> {
        let certificate = sign(self.key, claims)?;
        chain::check_link(self.certificate, &certificate)?;
        Ok(certificate)
    }
}

/// Signs claims that hold by themselves; decoding what was made runs every rule of a received certificate.
fn sign(key: &IdentityKey, claims: &Claims) -> Result<Certificate, WireError> {
    Certificate::from_statement(Statement::sign(key, label::CERT, claims.encode()))
}
