//! Certificates: who holds a key, what it may speak for, and who vouches for it (PROTOCOL §2.4).
//!
//! A [`Certificate`] here is well-formed and no more: whether to believe it is [`crate::chain`]'s business.

use bytes::Bytes;
use murmur_core::id::{AgentId, NodeId, WorkspaceId};
use prost::Message as _;

use crate::{
    SUITE_X25519, WIRE_VERSION,
    error::{self, WireError},
    hash::{Fingerprint, label, sha256_of},
    keys::PublicKey,
    scope,
    statement::{BadSignature, Statement},
    wire,
};

/// Scopes of one certificate at most.
pub const SCOPES_MAX: usize = 64;
/// Suites of one certificate at most.
pub const SUITES_MAX: usize = 16;

/// What a certificate is for, highest first: an issuer's kind is always lower in number than its subject's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum CertKind {
    /// A workspace's root, signed by itself.
    Root = 1,
    /// Issues node certificates on the root's behalf.
    Enroller = 2,
    /// A node; issues the certificates of its agents.
    Node = 3,
    /// An agent; signs messages, acknowledgements and prekeys.
    Agent = 4,
}

/// Who held the issuing key. A chain with one [`Origin::Operator`] link is the operator's as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Origin {
    /// The workspace's owner.
    Owner = 1,
    /// The control plane's operator, who could therefore issue keys of its own.
    Operator = 2,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// What it is for.
    pub kind: CertKind,
    /// Workspace, enroller, node or agent id, by kind.
    pub subject_id: [u8; 16],
    /// The workspace it belongs to.
    pub workspace_id: WorkspaceId,
    /// The subject's key.
    pub public_key: PublicKey,
    /// The issuer's certificate; `None` for a root.
    pub issuer_fp: Option<Fingerprint>,
    /// Strictly increasing per subject.
    pub serial: u64,
    /// Start of validity, Unix milliseconds.
    pub not_before_ms: u64,
    /// End of validity, Unix milliseconds.
    pub not_after_ms: u64,
    /// Slug prefixes it may speak for; empty for an agent.
    pub slug_scope: Vec<String>,
    /// Whether it may issue certificates.
    pub can_issue: bool,
    /// Who held the issuing key.
    pub origin: Origin,
    /// Suites the subject accepts.
    pub suites: Vec<u32>,
    /// The node that holds an agent's key; `None` for every other kind.
    pub node_id: Option<NodeId>,
    /// An agent's absolute slug; `None` for every other kind.
    pub slug: Option<String>,
}

impl Claims {
    /// Whether the subject accepts a suite.
    #[must_use]
    pub fn accepts_suite(&self, suite: u32) -> bool {
        self.suites.contains(&suite)
    }

    /// The agent, when this is an agent's certificate.
    #[must_use]
    pub fn agent_id(&self) -> Option<AgentId> {
        (self.kind == CertKind::Agent).then(|| AgentId::from_bytes(self.subject_id))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        wire::CertBody {
            version: WIRE_VERSION,
            kind: self.kind as u32,
            subject_id: Bytes::copy_from_slice(&self.subject_id),
            workspace_id: Bytes::copy_from_slice(self.workspace_id.as_bytes()),
            public_key: Bytes::copy_from_slice(self.public_key.as_bytes()),
            issuer_fp: self.issuer_fp.map(|fp| Bytes::copy_from_slice(fp.as_bytes())).unwrap_or_default(),
            serial: self.serial,
            not_before_ms: self.not_before_ms,
            not_after_ms: self.not_after_ms,
            slug_scope: self.slug_scope.clone(),
            can_issue: self.can_issue,
            origin: self.origin as u32,
            suites: self.suites.clone(),
            node_id: self.node_id.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
            slug: self.slug.clone().unwrap_or_default(),
        }
        .encode_to_vec()
    }

    fn from_wire(body: wire::CertBody) -> Result<Self, WireError> {
        if body.version != WIRE_VERSION {
            return Err(WireError::malformed("version", "must be 2"));
        }
        error::count_at_most(body.slug_scope.len(), SCOPES_MAX, "slug_scope")?;
        error::count_at_most(body.suites.len(), SUITES_MAX, "suites")?;
        let public_key = PublicKey::from_bytes(&error::fixed(&body.public_key, "public_key")?)
            .map_err(|invalid| WireError::malformed("public_key", invalid.to_string()))?;
        let claims = Self {
            kind: kind_from_wire(body.kind)?,
            subject_id: error::fixed(&body.subject_id, "subject_id")?,
            workspace_id: WorkspaceId::from_bytes(error::fixed(&body.workspace_id, "workspace_id")?),
            public_key,
            issuer_fp: error::fixed_or_absent(&body.issuer_fp, "issuer_fp")?.map(Fingerprint::from_bytes),
            serial: body.serial,
            not_before_ms: body.not_before_ms,
            not_after_ms: body.not_after_ms,
            slug_scope: body.slug_scope,
            can_issue: body.can_issue,
            origin: origin_from_wire(body.origin)?,
            suites: body.suites,
            node_id: error::fixed_or_absent(&body.node_id, "node_id")?.map(NodeId::from_bytes),
            slug: Some(body.slug).filter(|slug| !slug.is_empty()),
        };
        claims.check()?;
        Ok(claims)
    }

    /// The rules that one certificate can break by itself.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        let is_root = self.kind == CertKind::Root;
        let is_agent = self.kind == CertKind::Agent;
        error::require(self.not_before_ms < self.not_after_ms, "not_after_ms", "must be after not_before_ms")?;
        error::require(self.issuer_fp.is_none() == is_root, "issuer_fp", "must be empty for a root and no other kind")?;
        error::require(
            !is_root || self.subject_id == *self.workspace_id.as_bytes(),
            "subject_id",
            "must be the workspace's",
        )?;
        error::require(!(is_agent && self.can_issue), "can_issue", "must be false for an agent")?;
        error::require(!is_agent || self.slug_scope.is_empty(), "slug_scope", "must be empty for an agent")?;
        error::require(
            self.slug_scope.iter().all(|text| scope::is_scope(text)),
            "slug_scope",
            "must be slug prefixes",
        )?;
        error::require(self.node_id.is_some() == is_agent, "node_id", "must be set for an agent and no other kind")?;
        error::require(self.slug.is_some() == is_agent, "slug", "must be set for an agent and no other kind")?;
        error::require(self.slug.as_deref().is_none_or(scope::is_slug), "slug", "must be an absolute slug")
    }
}

/// A well-formed certificate, not yet believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    statement: Statement,
    claims: Claims,
    fp: Fingerprint,
}

impl Certificate {
    /// Reads a serialized `SignedStatement` of a certificate.
    ///
    /// # Errors
    /// [`WireError`] naming the field and the rule it breaks.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        Self::from_statement(Statement::decode(bytes)?)
    }

    /// Reads a certificate from a statement.
    ///
    /// # Errors
    /// As [`Certificate::decode`].
    pub fn from_statement(statement: Statement) -> Result<Self, WireError> {
        let claims = Claims::from_wire(error::decode(statement.body().clone(), "certificate")?)?;
        let fp = Fingerprint::from_bytes(sha256_of(&[label::CERT_FP, statement.body()]));
        Ok(Self { statement, claims, fp })
    }

    /// The serialized `SignedStatement`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.statement.encode()
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Its name.
    #[must_use]
    pub const fn fp(&self) -> Fingerprint {
        self.fp
    }

    /// Body and signature.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Whether `issuer` signed it.
    pub(crate) fn verify(&self, issuer: &PublicKey) -> Result<(), BadSignature> {
        self.statement.verify(label::CERT, issuer)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("fp", &self.fp).field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// A root certificate whose own signature holds: what a peer pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootCertificate(Certificate);

impl RootCertificate {
    /// Reads and checks a serialized root certificate.
    ///
    /// # Errors
    /// [`WireError`] when it is malformed, of another kind, unable to issue, or not signed by itself.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        Self::new(Certificate::decode(bytes)?)
    }

    /// Checks that a certificate is a root.
    ///
    /// # Errors
    /// As [`RootCertificate::decode`].
    pub fn new(certificate: Certificate) -> Result<Self, WireError> {
        let claims = certificate.claims();
        if claims.kind != CertKind::Root || !claims.can_issue {
            return Err(WireError::malformed("kind", "must be a root that can issue"));
        }
        let verified = certificate.verify(&claims.public_key);
        verified.map_err(|_| WireError::malformed("signature", "must be the root's own"))?;
        Ok(Self(certificate))
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// Its name, which is what is pinned.
    #[must_use]
    pub const fn fp(&self) -> Fingerprint {
        self.0.fp()
    }

    /// The workspace it is the root of.
    #[must_use]
    pub const fn workspace_id(&self) -> WorkspaceId {
        self.0.claims().workspace_id
    }

    /// The root's key, as compared by the safety number.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.0.claims().public_key
    }
}

fn kind_from_wire(number: u32) -> Result<CertKind, WireError> {
    [CertKind::Root, CertKind::Enroller, CertKind::Node, CertKind::Agent]
        .into_iter()
        .find(|kind| *kind as u32 == number)
        .ok_or_else(|| WireError::malformed("kind", format!("must be 1 to 4, got {number}")))
}

fn origin_from_wire(number: u32) -> Result<Origin, WireError> {
    [Origin::Owner, Origin::Operator]
        .into_iter()
        .find(|origin| *origin as u32 == number)
        .ok_or_else(|| WireError::malformed("origin", format!("must be 1 or 2, got {number}")))
}

/// The suites this implementation accepts, as put into the certificates it issues.
#[must_use]
pub fn own_suites() -> Vec<u32> {
    vec![SUITE_X25519]
}
