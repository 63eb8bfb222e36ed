//! Prekeys: the rotating X25519 keys that messages are sealed to (PROTOCOL §2.4, §2.6).

use std::fmt;

use bytes::Bytes;
use murmur_core::{
    id::AgentId,
    limits::{CLOCK_SKEW_MS, PREKEY_FRESH_MS, PREKEY_LIFE_MS},
};
use prost::Message as _;

use crate::{
    SUITE_X25519, WIRE_VERSION,
    cert::{CertKind, Certificate},
    error::{self, WireError},
    hash::{Fingerprint, label, sha256_of},
    keys::{IdentityKey, PrekeyPublic},
    statement::Statement,
    wire,
};

/// Names a prekey: the first eight bytes of `H(L("murmur/2 prekey-id") || body)`, computed and never chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrekeyId([u8; 8]);

impl PrekeyId {
    /// Wraps eight raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    fn of(body: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = sha256_of(&[label::PREKEY_ID, body]);
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for PrekeyId {
    /// Prints sixteen lowercase hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PrekeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrekeyId({self})")
    }
}

/// Why a prekey is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrekeyError {
    /// It cannot be read, names another version or suite, or its key is of low order.
    #[error("prekey is malformed")]
    Malformed(#[from] WireError),
    /// It was made for another agent or under another certificate.
    #[error("prekey must belong to the agent's certificate")]
    ForeignCertificate,
    /// The agent's key did not sign it.
    #[error("prekey must be signed by the agent's key")]
    Signature,
    /// Its time is over.
    #[error("prekey expired at {not_after_ms} ms")]
    Expired {
        /// When, Unix milliseconds.
        not_after_ms: u64,
    },
    /// It claims to be made in the future.
    #[error("prekey was created at {created_ms} ms, in the future")]
    NotYet {
        /// When, Unix milliseconds.
        created_ms: u64,
    },
    /// A newer one was seen before.
    #[error("prekey seq must be at least {floor}, got {seq}")]
    Rollback {
        /// The highest seen.
        floor: u64,
        /// What this one says.
        seq: u64,
    },
}

/// A prekey to issue.
#[derive(Debug, Clone, Copy)]
pub struct PrekeySpec {
    /// The agent it is for.
    pub agent_id: AgentId,
    /// The agent's certificate, whose key signs.
    pub cert_fp: Fingerprint,
    /// The key.
    pub public: PrekeyPublic,
    /// Higher than that of every earlier prekey under this certificate.
    pub seq: u64,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// Until when it is fresh.
    pub fresh_until_ms: u64,
    /// Until when it is accepted.
    pub not_after_ms: u64,
}

impl PrekeySpec {
    /// A prekey with the protocol's lifetimes: fresh for 48 hours, accepted for 30 days.
    #[must_use]
    pub const fn new(agent_id: AgentId, cert_fp: Fingerprint, public: PrekeyPublic, seq: u64, created_ms: u64) -> Self {
        let fresh_until_ms = created_ms.saturating_add(PREKEY_FRESH_MS);
        let not_after_ms = created_ms.saturating_add(PREKEY_LIFE_MS);
        Self { agent_id, cert_fp, public, seq, created_ms, fresh_until_ms, not_after_ms }
    }
}

/// A prekey that may be sealed to. [`verify`] makes one; a node that stored what it verified may make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedPrekey {
    /// The agent it belongs to.
    pub agent_id: AgentId,
    /// Its name.
    pub id: PrekeyId,
    /// The key.
    pub public: PrekeyPublic,
    /// Its place in the agent certificate's sequence.
    pub seq: u64,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// Until when it is fresh.
    pub fresh_until_ms: u64,
    /// Until when it is accepted.
    pub not_after_ms: u64,
}

impl VerifiedPrekey {
    /// Whether it is past its fresh time: the recipient has been away, and the delivery is flagged.
    #[must_use]
    pub const fn is_stale(&self, now_ms: u64) -> bool {
        now_ms > self.fresh_until_ms
    }
}

/// Signs a prekey with the agent's identity key and says what its id is.
#[must_use]
pub fn issue(key: &IdentityKey, spec: &PrekeySpec) -> (Statement, PrekeyId) {
    let PrekeySpec { agent_id, cert_fp, public, seq, created_ms, fresh_until_ms, not_after_ms } = *spec;
    let body = wire::PrekeyBody {
        version: WIRE_VERSION,
        suite: SUITE_X25519,
        agent_id: Bytes::copy_from_slice(agent_id.as_bytes()),
        cert_fp: Bytes::copy_from_slice(cert_fp.as_bytes()),
        public_key: Bytes::copy_from_slice(public.as_bytes()),
        seq,
        created_ms,
        fresh_until_ms,
        not_after_ms,
    }
    .encode_to_vec();
    let id = PrekeyId::of(&body);
    (Statement::sign(key, label::PREKEY, body), id)
}

/// Checks a prekey against the agent's certificate, whose own chain the caller has verified.
///
/// `seq_floor` is the highest sequence seen under that certificate, 0 for none. Staleness is no error: ask
/// [`VerifiedPrekey::is_stale`].
///
/// # Errors
/// [`PrekeyError`] with the first rule that fails.
pub fn verify(
    statement: &Statement,
    agent: &Certificate,
    now_ms: u64,
    seq_floor: u64,
) -> Result<VerifiedPrekey, PrekeyError> {
    let (prekey, cert_fp) = parse(statement)?;
    let claims = agent.claims();
    let same_agent = claims.kind == CertKind::Agent && claims.subject_id == *prekey.agent_id.as_bytes();
    if !same_agent || cert_fp != agent.fp() {
        return Err(PrekeyError::ForeignCertificate);
    }
    let VerifiedPrekey { seq, created_ms, not_after_ms, .. } = prekey;
    if now_ms > not_after_ms {
        return Err(PrekeyError::Expired { not_after_ms });
    }
    if created_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
        return Err(PrekeyError::NotYet { created_ms });
    }
    if seq < seq_floor {
        return Err(PrekeyError::Rollback { floor: seq_floor, seq });
    }
    statement.verify(label::PREKEY, &claims.public_key).map_err(|_| PrekeyError::Signature)?;
    Ok(prekey)
}

/// Reads the body: what it says, and the certificate it claims to be signed under.
fn parse(statement: &Statement) -> Result<(VerifiedPrekey, Fingerprint), WireError> {
    let body: wire::PrekeyBody = error::decode(statement.body().clone(), "prekey")?;
    if body.version != WIRE_VERSION {
        return Err(WireError::malformed("version", "must be 2"));
    }
    if body.suite != SUITE_X25519 {
        return Err(WireError::malformed("suite", "must be 0x0201"));
    }
    if body.created_ms > body.fresh_until_ms || body.fresh_until_ms > body.not_after_ms {
        return Err(WireError::malformed(
            "created_ms",
            "must not be after fresh_until_ms, nor that after not_after_ms",
        ));
    }
    let public = PrekeyPublic::from_bytes(&error::fixed(&body.public_key, "public_key")?)
        .map_err(|invalid| WireError::malformed("public_key", invalid.to_string()))?;
    let prekey = VerifiedPrekey {
        agent_id: AgentId::from_bytes(error::fixed(&body.agent_id, "agent_id")?),
        id: PrekeyId::of(statement.body()),
        public,
        seq: body.seq,
        created_ms: body.created_ms,
        fresh_until_ms: body.fresh_until_ms,
        not_after_ms: body.not_after_ms,
    };
    Ok((prekey, Fingerprint::from_bytes(error::fixed(&body.cert_fp, "cert_fp")?)))
}
