//! Invites: how a stranger learns a workspace's root and gets in once (PROTOCOL §3.3).
//!
//! An invite is text that people paste. It is signed by the root it announces, so it proves itself whole but not where it came
//! from: whoever can read the channel can take the secret. That is why peers then compare the [`crate::safety`] number.

use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use murmur_core::{
    id::WorkspaceId,
    limits::{CLOCK_SKEW_MS, INVITE_LIFE_MS_MAX},
};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    cert::{RootCertificate, SCOPES_MAX},
    chain::{Chain, ChainError},
    error::{self, RandomError, WireError},
    hash::{Fingerprint, label, sha256},
    keys::{IdentityKey, random},
    scope,
    statement::Statement,
    wire,
};

/// What an invite begins with.
pub const PREFIX: &str = "MURMUR:";
/// Longest text read as an invite or a reply.
pub const INVITE_TEXT_BYTES_MAX: usize = 32 * 1024;
/// Longest control plane address.
pub const CP_URL_BYTES_MAX: usize = 512;
/// Server keys of one invite at most.
pub const CP_SPKI_MAX: usize = 8;

const FORMAT: u8 = 2;

/// Why a text is no invite, or one that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It does not begin as it must.
    #[error("text must begin with {0}")]
    Prefix(&'static str),
    /// What follows is not base64url, or too long.
    #[error("text after the prefix must be base64url of at most 32 KiB")]
    Encoding,
    /// It is an invite of version 1, which carries a shared broker credential.
    #[error("invite is of version 1, which is not accepted")]
    VersionOne,
    /// It is of a version to come.
    #[error("invite format must be 2, got {0}")]
    Format(u8),
    /// It cannot be read.
    #[error("invite is malformed")]
    Malformed(#[from] WireError),
    /// Its chain cannot be read.
    #[error("invite's chain is malformed")]
    Chain(#[from] ChainError),
    /// The root that it announces did not sign it.
    #[error("invite must be signed by its root")]
    Signature,
    /// Its time is over.
    #[error("invite expired at {expires_ms} ms")]
    Expired {
        /// When, Unix milliseconds.
        expires_ms: u64,
    },
    /// It claims to live longer than invites may.
    #[error("invite must expire within 7 days, expires at {expires_ms} ms")]
    TooLong {
        /// When, Unix milliseconds.
        expires_ms: u64,
    },
    /// The reply answers another invite, or its maker did not know the secret.
    #[error("reply must be made with this invite's secret")]
    Mac,
}

/// What an invite is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Two workspaces pin each other's root.
    Peer,
    /// A node enrols in the workspace.
    Node,
}

/// What an invite says.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// What it is for.
    pub purpose: Purpose,
    /// The inviting workspace's root, to be pinned.
    pub root: RootCertificate,
    /// Chain of whoever made the invite; `None` when the root itself did.
    pub inviter: Option<Chain>,
    /// Where to join.
    pub cp_url: String,
    /// SHA-256 of each public key that the server may present; empty leaves it to ordinary TLS.
    pub cp_spki_sha256: Vec<[u8; 32]>,
    /// One-time secret; the control plane knows its digest only.
    pub secret: Zeroizing<[u8; 32]>,
    /// What a new node may speak for.
    pub slug_scope: Vec<String>,
    /// How often it can be used.
    pub max_uses: u32,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

impl Invite {
    /// A fresh secret.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn new_secret() -> Result<Zeroizing<[u8; 32]>, RandomError> {
        random()
    }

    /// The workspace that invites.
    #[must_use]
    pub const fn workspace_id(&self) -> WorkspaceId {
        self.root.workspace_id()
    }

    /// What the control plane stores instead of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&*self.secret)
    }

    /// Signs the invite with the root's key and prints it.
    ///
    /// # Errors
    /// [`InviteError::Signature`] when the key is not the root's, [`InviteError::Malformed`] when a field breaks a rule.
    pub fn sign(&self, root: &IdentityKey) -> Result<String, InviteError> {
        if root.public() != self.root.public_key() {
            return Err(InviteError::Signature);
        }
        self.check()?;
        let body = self.to_wire().encode_to_vec();
        Ok(print(PREFIX, &Statement::sign(root, label::INVITE, body)))
    }

    /// Reads an invite, checks its signature by the root it announces, and its time.
    ///
    /// # Errors
    /// [`InviteError`] with the first rule that fails.
    pub fn read(text: &str, now_ms: u64) -> Result<Self, InviteError> {
        let statement = parse(PREFIX, text)?;
        let invite = Self::from_wire(error::decode(statement.body().clone(), "invite")?)?;
        statement.verify(label::INVITE, &invite.root.public_key()).map_err(|_| InviteError::Signature)?;
        let expires_ms = invite.expires_ms;
        if now_ms > expires_ms {
            return Err(InviteError::Expired { expires_ms });
        }
        if expires_ms > now_ms.saturating_add(INVITE_LIFE_MS_MAX + CLOCK_SKEW_MS) {
            return Err(InviteError::TooLong { expires_ms });
        }
        Ok(invite)
    }

    fn check(&self) -> Result<(), WireError> {
        error::at_most(self.cp_url.len(), CP_URL_BYTES_MAX, "cp_url")?;
        error::count_at_most(self.cp_spki_sha256.len(), CP_SPKI_MAX, "cp_spki_sha256")?;
        error::count_at_most(self.slug_scope.len(), SCOPES_MAX, "slug_scope")?;
        error::require(
            self.slug_scope.iter().all(|text| scope::is_scope(text)),
            "slug_scope",
            "must be slug prefixes",
        )?;
        error::require(self.max_uses >= 1, "max_uses", "must be at least 1")
    }

    fn to_wire(&self) -> wire::InviteBody {
        let bytes = Bytes::copy_from_slice;
        wire::InviteBody {
            purpose: match self.purpose {
                Purpose::Peer => 1,
                Purpose::Node => 2,
            },
            workspace_id: bytes(self.workspace_id().as_bytes()),
            root_public_key: bytes(self.root.public_key().as_bytes()),
            root_fp: bytes(self.root.fp().as_bytes()),
            inviter_chain: self.inviter.as_ref().map(Chain::encode).unwrap_or_default().into(),
            cp_url: self.cp_url.clone(),
            cp_spki_sha256: self.cp_spki_sha256.iter().map(|digest| bytes(digest)).collect(),
            secret: bytes(&*self.secret),
            slug_scope: self.slug_scope.clone(),
            max_uses: self.max_uses,
            expires_ms: self.expires_ms,
            root_cert: self.root.certificate().encode().into(),
        }
    }

    fn from_wire(body: wire::InviteBody) -> Result<Self, InviteError> {
        error::count_at_most(body.cp_spki_sha256.len(), CP_SPKI_MAX, "cp_spki_sha256")?;
        let root = root_from_wire(body.root_cert, &body.root_public_key)?;
        if error::fixed(&body.root_fp, "root_fp").map(Fingerprint::from_bytes)? != root.fp() {
            return Err(WireError::malformed("root_fp", "must be that of root_cert").into());
        }
        if body.workspace_id != root.workspace_id().as_bytes()[..] {
            return Err(WireError::malformed("workspace_id", "must be that of root_cert").into());
        }
        let invite = Self {
            purpose: purpose_from_wire(body.purpose)?,
            root,
            inviter: chain_from_wire(body.inviter_chain)?,
            cp_url: body.cp_url,
            cp_spki_sha256: spki_from_wire(&body.cp_spki_sha256)?,
            secret: Zeroizing::new(error::fixed(&body.secret, "secret")?),
            slug_scope: body.slug_scope,
            max_uses: body.max_uses,
            expires_ms: body.expires_ms,
        };
        invite.check()?;
        Ok(invite)
    }
}

/// The bytes behind an invite's text, which its reply hashes.
pub(crate) fn raw(prefix: &'static str, text: &str) -> Result<Vec<u8>, InviteError> {
    let text = text.trim();
    let encoded = text.strip_prefix(prefix).ok_or(InviteError::Prefix(prefix))?;
    if encoded.len() > INVITE_TEXT_BYTES_MAX {
        return Err(InviteError::Encoding);
    }
    // Version 1 printed plain base64, so all four alphabets are tried before a text is called unreadable.
    let decoded = [BASE64URL_NOPAD, BASE64URL, BASE64, BASE64_NOPAD]
        .iter()
        .find_map(|alphabet| alphabet.decode(encoded.as_bytes()).ok());
    match decoded {
        Some(bytes) if bytes.first() == Some(&b'{') => Err(InviteError::VersionOne),
        _ => BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| InviteError::Encoding),
    }
}

pub(crate) fn parse(prefix: &'static str, text: &str) -> Result<Statement, InviteError> {
    let raw = raw(prefix, text)?;
    match raw.split_first() {
        Some((&FORMAT, statement)) => Ok(Statement::decode(statement.to_vec())?),
        Some((other, _)) => Err(InviteError::Format(*other)),
        None => Err(InviteError::Encoding),
    }
}

pub(crate) fn print(prefix: &str, statement: &Statement) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend(statement.encode());
    format!("{prefix}{}", BASE64URL_NOPAD.encode(&bytes))
}

pub(crate) fn root_from_wire(cert: Bytes, public_key: &[u8]) -> Result<RootCertificate, WireError> {
    let root = RootCertificate::decode(cert)?;
    if public_key != root.public_key().as_bytes() {
        return Err(WireError::malformed("root_public_key", "must be that of root_cert"));
    }
    Ok(root)
}

pub(crate) fn chain_from_wire(bytes: Bytes) -> Result<Option<Chain>, ChainError> {
    if bytes.is_empty() { Ok(None) } else { Chain::decode(bytes).map(Some) }
}

fn spki_from_wire(digests: &[Bytes]) -> Result<Vec<[u8; 32]>, WireError> {
    digests.iter().map(|digest| error::fixed(digest, "cp_spki_sha256")).collect()
}

fn purpose_from_wire(number: u32) -> Result<Purpose, WireError> {
    match number {
        1 => Ok(Purpose::Peer),
        2 => Ok(Purpose::Node),
        _ => Err(WireError::malformed("purpose", format!("must be 1 or 2, got {number}"))),
    }
}
