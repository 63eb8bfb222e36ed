//! Revocation lists: the certificates of a workspace that do not count any more (PROTOCOL §3.6).
//!
//! A list is the whole of what is revoked, signed by the workspace's root and numbered. Whoever has one takes a later one in its place and
//! never an earlier one, so neither a control plane nor a broker can bring a revoked key back.

use bytes::Bytes;
use murmur_core::{id::WorkspaceId, limits::REVOCATION_LIST_LIFE_MS_MAX};
use prost::Message as _;

use crate::{
    cert::{Certificate, RootCertificate},
    error::{self, WireError},
    hash::{Fingerprint, label},
    issue::IssueError,
    keys::IdentityKey,
    statement::{BadSignature, Statement},
    wire,
};

/// Largest serialized list.
pub const REVOCATION_LIST_BYTES_MAX: usize = 256 * 1024;
/// Longest reason.
pub const REASON_BYTES_MAX: usize = 200;

/// Why a list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationListError {
    /// It cannot be read, or breaks a rule by itself.
    #[error("revocation list is malformed")]
    Malformed(#[from] WireError),
    /// It is of another workspace than the root.
    #[error("revocation list must be of the root's workspace")]
    Workspace,
    /// The root did not sign it.
    #[error("revocation list must be signed by the workspace's root")]
    Signature(#[from] BadSignature),
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// One certificate.
    Certificate(Fingerprint),
    /// Every certificate of a subject with a serial below one.
    Subject {
        /// Workspace, enroller, node or agent.
        subject_id: [u8; 16],
        /// The first serial that counts.
        serial_lt: u64,
    },
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub what: Revoked,
    /// For people; at most [`REASON_BYTES_MAX`] on one line.
    pub reason: String,
    /// Since when, Unix milliseconds.
    pub at_ms: u64,
}

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationListSpec {
    /// Higher than that of every earlier list of this workspace.
    pub version: u64,
    /// When it was made, Unix milliseconds.
    pub issued_ms: u64,
    /// When the next one is due, at most [`REVOCATION_LIST_LIFE_MS_MAX`] later.
    pub next_update_ms: u64,
    /// Everything that is revoked.
    pub entries: Vec<Revocation>,
}

/// A list whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    spec: RevocationListSpec,
    statement: Statement,
}

impl RevocationList {
    /// Signs a list with the key of a workspace's root.
    ///
    /// # Errors
    /// [`IssueError::ForeignKey`] when the key is not the root's, [`IssueError::Malformed`] when the list would break a rule.
    pub fn issue(key: &IdentityKey, root: &RootCertificate, spec: &RevocationListSpec) -> Result<Self, IssueError> {
        if key.public() != root.public_key() {
            return Err(IssueError::ForeignKey);
        }
        let statement = Statement::sign(key, label::CRL, body_of(root.workspace_id(), spec).encode_to_vec());
        // Reading what was made runs every rule of a list that is received.
        let (_, spec) = read(&statement)?;
        error::at_most(statement.encode().len(), REVOCATION_LIST_BYTES_MAX, "statement")?;
        Ok(Self { spec, statement })
    }

    /// Reads a serialized list and checks that the root signed it.
    ///
    /// # Errors
    /// [`RevocationListError`].
    pub fn decode(bytes: impl Into<Bytes>, root: &RootCertificate) -> Result<Self, RevocationListError> {
        let statement = Statement::decode_at_most(bytes, REVOCATION_LIST_BYTES_MAX)?;
        statement.verify(label::CRL, &root.public_key())?;
        let (workspace_id, spec) = read(&statement)?;
        if workspace_id != root.workspace_id() {
            return Err(RevocationListError::Workspace);
        }
        Ok(Self { spec, statement })
    }

    /// The serialized `SignedStatement`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.statement.encode()
    }

    /// What it says.
    #[must_use]
    pub const fn spec(&self) -> &RevocationListSpec {
        &self.spec
    }

    /// Whether it revokes a certificate.
    #[must_use]
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        self.entry_of(certificate).is_some()
    }

    /// The entry that revokes a certificate.
    #[must_use]
    pub fn entry_of(&self, certificate: &Certificate) -> Option<&Revocation> {
        let claims = certificate.claims();
        self.spec.entries.iter().find(|entry| match entry.what {
            Revoked::Certificate(fp) => fp == certificate.fp(),
            Revoked::Subject { subject_id, serial_lt } => subject_id == claims.subject_id && claims.serial < serial_lt,
        })
    }
}

fn body_of(workspace_id: WorkspaceId, spec: &RevocationListSpec) -> wire::RevocationListBody {
    let entries = spec.entries.iter().map(|entry| {
        let (cert_fp, subject_id, serial_lt) = match entry.what {
            Revoked::Certificate(fp) => (Bytes::copy_from_slice(fp.as_bytes()), Bytes::new(), 0),
            Revoked::Subject { subject_id, serial_lt } => {
                (Bytes::new(), Bytes::copy_from_slice(&subject_id), serial_lt)
            }
        };
        wire::RevocationBody { cert_fp, subject_id, serial_lt, reason: entry.reason.clone(), at_ms: entry.at_ms }
    });
    wire::RevocationListBody {
        workspace_id: Bytes::copy_from_slice(workspace_id.as_bytes()),
        version: spec.version,
        issued_ms: spec.issued_ms,
        next_update_ms: spec.next_update_ms,
        entries: entries.collect(),
    }
}

/// Reads what a statement says and checks every rule but the signature.
fn read(statement: &Statement) -> Result<(WorkspaceId, RevocationListSpec), WireError> {
    let body: wire::RevocationListBody = error::decode(statement.body().clone(), "body")?;
    let workspace_id = WorkspaceId::from_bytes(error::fixed(&body.workspace_id, "workspace_id")?);
    error::require(body.version > 0, "version", "must be at least 1")?;
    let life = body.next_update_ms.checked_sub(body.issued_ms);
    let is_in_time = life.is_some_and(|life| life <= REVOCATION_LIST_LIFE_MS_MAX);
    error::require(is_in_time, "next_update_ms", "must be at most 30 days after issued_ms")?;
    let entries = body.entries.into_iter().map(read_entry).collect::<Result<_, _>>()?;
    let wire::RevocationListBody { version, issued_ms, next_update_ms, .. } = body;
    Ok((workspace_id, RevocationListSpec { version, issued_ms, next_update_ms, entries }))
}

fn read_entry(entry: wire::RevocationBody) -> Result<Revocation, WireError> {
    let cert_fp = error::fixed_or_absent(&entry.cert_fp, "cert_fp")?;
    let subject_id = error::fixed_or_absent(&entry.subject_id, "subject_id")?;
    let what = match (cert_fp, subject_id) {
        (Some(fp), None) => {
            error::require(entry.serial_lt == 0, "serial_lt", "must be absent without subject_id")?;
            Revoked::Certificate(Fingerprint::from_bytes(fp))
        }
        (None, Some(subject_id)) => {
            error::require(entry.serial_lt > 0, "serial_lt", "must be at least 1")?;
            Revoked::Subject { subject_id, serial_lt: entry.serial_lt }
        }
        _ => return Err(WireError::malformed("entries", "must name a certificate or a subject each, and not both")),
    };
    error::at_most(entry.reason.len(), REASON_BYTES_MAX, "reason")?;
    error::require(!entry.reason.chars().any(char::is_control), "reason", "must be printable text on one line")?;
    Ok(Revocation { what, reason: entry.reason, at_ms: entry.at_ms })
}
