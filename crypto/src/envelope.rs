//! Receiving: an envelope is decoded, then verified, then opened, and the types do not let anyone skip a step.
//!
//! [`Envelope`] is bytes that read well and nothing more; [`VerifiedEnvelope`] is known to come from the sender; [`Opened`]
//! is the plaintext for one recipient. The order is the protocol's (§5.5): cheap before expensive, authenticate before decrypt.

use std::fmt;

use bytes::Bytes;
use murmur_core::{code::Code, id::AgentId, limits::ENVELOPE_BYTES_MAX};
use subtle::ConstantTimeEq as _;

use crate::{
    SUITE_X25519,
    chain::{Chain, ChainError, VerifiedChain},
    chunk::StreamKey,
    content_key::HeaderHash,
    error::{self, WireError},
    hash::{EnvDigest, label, sha256, sha256_of},
    header::Header,
    keys::{PrekeySecret, PublicKey},
    padding,
    prekey::PrekeyId,
    statement::BadSignature,
    wire,
    wrap::{self, Place, Stanza},
};

/// Largest serialized stanza list: 256 stanzas of suite 0x0201 with room to spare.
pub const STANZAS_BYTES_MAX: usize = 32 * 1024;

/// Why an envelope is not the stated sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The header names another agent, node or certificate than the chain.
    #[error("header must name the agent, node and certificate of the sender's chain")]
    Mismatch,
    /// The sender's certificate does not list the suite.
    #[error("suite must be one of the sender's certificate")]
    Suite,
    /// The signature is not the sender's.
    #[error("envelope signature does not verify")]
    Signature(#[from] BadSignature),
}

impl SenderError {
    /// The protocol's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Mismatch => Code::SenderMismatch,
            Self::Suite => Code::SuiteUnsupported,
            Self::Signature(_) => Code::BadSignature,
        }
    }
}

/// Why a verified envelope does not open for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// `crit` names a header field that this version does not understand.
    #[error("header field {0} must be understood and is not")]
    CritUnknown(u32),
    /// The agent is not among the recipients.
    #[error("agent is not a recipient")]
    NotAddressed,
    /// The prekey is unknown or deleted; answer with a fresh one.
    #[error("prekey {0} is unknown")]
    KeyUnknown(PrekeyId),
    /// It does not decrypt. No detail, on purpose.
    #[error("decryption failed")]
    DecryptFailed,
    /// The content key is not the one that the header commits to.
    #[error("content key does not match its commitment")]
    CommitmentMismatch,
    /// The padding is not as prescribed.
    #[error("padding is wrong")]
    BadPadding,
}

impl OpenError {
    /// The protocol's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::CritUnknown(_) => Code::CritUnknown,
            Self::NotAddressed => Code::NotAddressed,
            Self::KeyUnknown(_) => Code::KeyUnknown,
            Self::DecryptFailed => Code::DecryptFailed,
            Self::CommitmentMismatch => Code::CommitmentMismatch,
            Self::BadPadding => Code::BadPadding,
        }
    }
}

/// A well-formed envelope that nobody vouches for yet.
#[derive(Clone)]
pub struct Envelope {
    header: Header,
    header_hash: HeaderHash,
    stanzas: Vec<Stanza>,
    payload_nonce: [u8; 24],
    payload: Bytes,
    signature: [u8; 64],
    sender_chain: Bytes,
    signed: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope: size first, then exact lengths, version and suite.
    ///
    /// # Errors
    /// [`WireError`] with the protocol's code; such a failure is never answered, since nothing is authenticated.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), ENVELOPE_BYTES_MAX, "envelope")?;
        let envelope: wire::EnvelopeV2 = error::decode(bytes, "envelope")?;
        let header = Header::decode(envelope.header.clone())?;
        let stanzas = decode_stanzas(envelope.stanzas.clone(), header.recipients.len())?;
        let payload_nonce = error::fixed(&envelope.payload_nonce, "payload_nonce")?;
        let signature = error::fixed(&envelope.signature, "signature")?;
        let payload = envelope.payload_ciphertext;
        Ok(Self {
            header_hash: HeaderHash::of(&envelope.header),
            signed: signature_input(&envelope.header, &envelope.stanzas, &payload_nonce, &payload),
            header,
            stanzas,
            payload_nonce,
            payload,
            signature,
            sender_chain: envelope.sender_chain,
        })
    }

    /// The header, as claimed.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The name of this sealed copy, by which it is deduplicated and acknowledged.
    #[must_use]
    pub fn env_digest(&self) -> EnvDigest {
        env_digest(&self.signed, &self.signature)
    }

    /// The sender's chain, if the envelope carries one; not yet believed, and bound to the header by its leaf's fingerprint.
    ///
    /// # Errors
    /// [`ChainError`] when it cannot be read.
    pub fn chain(&self) -> Result<Option<Chain>, ChainError> {
        if self.sender_chain.is_empty() { Ok(None) } else { Chain::decode(self.sender_chain.clone()).map(Some) }
    }

    /// The sender's chain as it came, empty when the envelope carries none; for a cache of verified chains.
    #[must_use]
    pub const fn chain_bytes(&self) -> &Bytes {
        &self.sender_chain
    }

    /// Checks that a verified chain's agent sealed this: ids, certificate, suite and signature.
    ///
    /// # Errors
    /// [`SenderError`] with the first that fails.
    pub fn verify_sender(self, chain: &VerifiedChain) -> Result<VerifiedEnvelope, SenderError> {
        let Header { sender_agent_id, sender_node_id, sender_cert_fp, .. } = &self.header;
        let same_agent = *sender_agent_id == chain.agent_id() && *sender_node_id == chain.node_id();
        if !same_agent || *sender_cert_fp != chain.agent().fp() {
            return Err(SenderError::Mismatch);
        }
        if !chain.agent().claims().accepts_suite(SUITE_X25519) {
            return Err(SenderError::Suite);
        }
        Ok(self.verify(&chain.agent().claims().public_key)?)
    }

    /// Checks the signature alone. Callers that have a chain use [`Envelope::verify_sender`].
    ///
    /// # Errors
    /// [`BadSignature`] when it is not this key's.
    pub fn verify(self, sender: &PublicKey) -> Result<VerifiedEnvelope, BadSignature> {
        if sender.verifies(&self.signed, &self.signature) { Ok(VerifiedEnvelope(self)) } else { Err(BadSignature) }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("header", &self.header).finish_non_exhaustive()
    }
}

/// An envelope whose signature holds.
#[derive(Debug, Clone)]
pub struct VerifiedEnvelope(Envelope);

impl VerifiedEnvelope {
    /// The header, as signed by the sender.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.0.header
    }

    /// The name of this sealed copy.
    #[must_use]
    pub fn env_digest(&self) -> EnvDigest {
        self.0.env_digest()
    }

    /// Opens it for one recipient; `find` gives the private half of the prekey that it was sealed to.
    ///
    /// # Errors
    /// [`OpenError`]; each may be answered, except [`OpenError::NotAddressed`].
    pub fn open<'k>(
        &self,
        recipient: AgentId,
        find: impl FnOnce(PrekeyId) -> Option<&'k PrekeySecret>,
    ) -> Result<Opened, OpenError> {
        let Envelope { header, header_hash, stanzas, payload_nonce, payload, .. } = &self.0;
        if let Some(field) = header.crit_unknown() {
            return Err(OpenError::CritUnknown(field));
        }
        let position = header.recipients.iter().position(|id| *id == recipient).ok_or(OpenError::NotAddressed)?;
        let stanza = stanzas.get(position).ok_or(OpenError::NotAddressed)?;
        let index = u16::try_from(position).map_err(|_| OpenError::NotAddressed)?;
        let place = Place { header_hash: *header_hash, agent_id: recipient, prekey_id: stanza.prekey_id, index };
        let secret = find(stanza.prekey_id).ok_or(OpenError::KeyUnknown(stanza.prekey_id))?;
        let key = wrap::unwrap(place, secret, stanza).ok_or(OpenError::DecryptFailed)?;
        if !bool::from(key.commitment(header.msg_id).ct_eq(&header.key_commitment)) {
            return Err(OpenError::CommitmentMismatch);
        }
        let padded = key.decrypt(*header_hash, payload_nonce, payload).ok_or(OpenError::DecryptFailed)?;
        let inner = padding::unpad(padded).map_err(|_| OpenError::BadPadding)?;
        Ok(Opened { inner, stream_key: StreamKey::new(key.stream_key(*header_hash), *header_hash) })
    }
}

/// The plaintext for one recipient.
pub struct Opened {
    /// The serialized inner message.
    pub inner: Bytes,
    /// The key of the chunk stream, should this message open one.
    pub stream_key: StreamKey,
}

impl Opened {
    /// SHA-256 of the inner message: tells a re-sealed duplicate from another message under the same id.
    #[must_use]
    pub fn inner_digest(&self) -> [u8; 32] {
        sha256(&self.inner)
    }
}

fn decode_stanzas(bytes: Bytes, recipients: usize) -> Result<Vec<Stanza>, WireError> {
    error::at_most(bytes.len(), STANZAS_BYTES_MAX, "stanzas")?;
    let list: wire::StanzaList = error::decode(bytes, "stanzas")?;
    if list.stanzas.len() != recipients {
        return Err(WireError::malformed("stanzas", "must be as many as the recipients"));
    }
    list.stanzas.iter().map(Stanza::from_wire).collect()
}

/// `L("murmur/2 env-sig") || H(header) || H(stanzas) || H(nonce || payload)`.
pub(crate) fn signature_input(header: &[u8], stanzas: &[u8], nonce: &[u8; 24], payload: &[u8]) -> Vec<u8> {
    [label::ENV_SIGNATURE, &sha256(header), &sha256(stanzas), &sha256_of(&[nonce, payload])].concat()
}

pub(crate) fn env_digest(signed: &[u8], signature: &[u8; 64]) -> EnvDigest {
    EnvDigest::from_bytes(sha256_of(&[signed, signature]))
}
