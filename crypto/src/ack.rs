//! Acknowledgements: signed, not encrypted, ids and codes only (PROTOCOL §4.4).
//!
//! Only an acknowledgement that [`AckFrame::verify_sender`] let through, from the agent that was addressed, about a copy that
//! was really sent, completes a delivery. The last two are the outbox's to know.

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{AgentId, MessageId},
    limits::{ACK_CREDITS_MAX, ACK_ITEMS_MAX},
};
use prost::Message as _;

use crate::{
    WIRE_VERSION,
    chain::{Chain, ChainError, VerifiedChain},
    envelope::SenderError,
    error::{self, WireError},
    hash::{EnvDigest, Fingerprint, label},
    keys::{IdentityKey, PublicKey},
    statement::{BadSignature, Statement},
    wire,
};

/// Largest serialized frame: 64 items, each with a prekey, and a chain.
pub const ACK_BYTES_MAX: usize = 128 * 1024;
/// Largest serialized prekey inside an item.
pub const FRESH_PREKEY_BYTES_MAX: usize = 1024;
/// Largest window of a credit.
pub const CREDIT_WINDOW_MAX: u32 = 64;

/// What became of one sealed copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckStatus {
    /// Verified, decrypted and on the recipient node's disk.
    Delivered,
    /// Handed to the agent.
    Read,
    /// Refused.
    Failed {
        /// Why.
        code: Code,
        /// How long to wait before another try, in seconds.
        retry_after_s: Option<u32>,
        /// With [`Code::KeyUnknown`]: a prekey to seal to, still to be verified.
        fresh_prekey: Option<Statement>,
    },
}

/// The fate of one sealed copy of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckItem {
    /// The message.
    pub msg_id: MessageId,
    /// The copy; counts only if it was really sent.
    pub env_digest: EnvDigest,
    /// What became of it.
    pub status: AckStatus,
}

/// Whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditState {
    /// More may be sent.
    Open,
    /// All has arrived.
    Done,
    /// No more is wanted.
    Cancel,
}

/// Permission to send more chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The stream.
    pub stream_id: [u8; 16],
    /// First chunk not yet received.
    pub next_index: u32,
    /// Chunks that may be in flight from there.
    pub window: u32,
    /// Whether the stream goes on.
    pub state: CreditState,
}

/// What one agent says about messages of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckBody {
    /// Who acknowledges.
    pub acker_agent_id: AgentId,
    /// With which certificate.
    pub acker_cert_fp: Fingerprint,
    /// Whose messages these are.
    pub sender_agent_id: AgentId,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// At most 64.
    pub items: Vec<AckItem>,
    /// At most 16.
    pub credits: Vec<Credit>,
}

impl AckBody {
    /// Signs the body with the acknowledging agent's key and serializes the frame.
    ///
    /// # Errors
    /// [`WireError`] when there are too many items or credits, or a prekey stands where none belongs.
    pub fn sign(&self, key: &IdentityKey, chain: Option<&Chain>) -> Result<Bytes, WireError> {
        self.check()?;
        let statement = Statement::sign(key, label::ACK, self.to_wire().encode_to_vec());
        let frame = wire::AckFrame {
            body: statement.body().clone(),
            signature: Bytes::copy_from_slice(statement.signature()),
            signer_chain: chain.map(Chain::encode).unwrap_or_default().into(),
        };
        let bytes = frame.encode_to_vec();
        error::at_most(bytes.len(), ACK_BYTES_MAX, "ack")?;
        Ok(bytes.into())
    }

    fn check(&self) -> Result<(), WireError> {
        error::count_at_most(self.items.len(), ACK_ITEMS_MAX, "items")?;
        error::count_at_most(self.credits.len(), ACK_CREDITS_MAX, "credits")?;
        if self.credits.iter().any(|credit| credit.window > CREDIT_WINDOW_MAX) {
            return Err(WireError::malformed("window", "must be at most 64"));
        }
        self.items.iter().try_for_each(|item| match &item.status {
            AckStatus::Failed { code, fresh_prekey: Some(_), .. } if *code != Code::KeyUnknown => {
                Err(WireError::malformed("fresh_prekey", "must stand with KEY_UNKNOWN only"))
            }
            _ => Ok(()),
        })
    }

    fn from_wire(body: &wire::AckBody) -> Result<Self, WireError> {
        if body.version != WIRE_VERSION {
            return Err(WireError::malformed("version", "must be 2"));
        }
        error::count_at_most(body.items.len(), ACK_ITEMS_MAX, "items")?;
        error::count_at_most(body.credits.len(), ACK_CREDITS_MAX, "credits")?;
        let body = Self {
            acker_agent_id: AgentId::from_bytes(error::fixed(&body.acker_agent_id, "acker_agent_id")?),
            acker_cert_fp: Fingerprint::from_bytes(error::fixed(&body.acker_cert_fp, "acker_cert_fp")?),
            sender_agent_id: AgentId::from_bytes(error::fixed(&body.sender_agent_id, "sender_agent_id")?),
            at_ms: body.at_ms,
            items: body.items.iter().map(item_from_wire).collect::<Result<_, _>>()?,
            credits: body.credits.iter().map(credit_from_wire).collect::<Result<_, _>>()?,
        };
        body.check()?;
        Ok(body)
    }

    fn to_wire(&self) -> wire::AckBody {
        wire::AckBody {
            version: WIRE_VERSION,
            acker_agent_id: Bytes::copy_from_slice(self.acker_agent_id.as_bytes()),
            acker_cert_fp: Bytes::copy_from_slice(self.acker_cert_fp.as_bytes()),
            sender_agent_id: Bytes::copy_from_slice(self.sender_agent_id.as_bytes()),
            at_ms: self.at_ms,
            items: self.items.iter().map(item_to_wire).collect(),
            credits: self.credits.iter().map(credit_to_wire).collect(),
        }
    }
}

/// A well-formed frame that nobody vouches for yet.
#[derive(Clone)]
pub struct AckFrame {
    body: AckBody,
    statement: Statement,
    signer_chain: Bytes,
}

impl AckFrame {
    /// Reads a serialized frame. A code this version does not know makes it malformed: the message then stays open until it
    /// expires, which is visible, rather than being closed for a reason nobody can name.
    ///
    /// # Errors
    /// [`WireError`] naming the field and the rule it breaks.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), ACK_BYTES_MAX, "ack")?;
        let frame: wire::AckFrame = error::decode(bytes, "ack")?;
        let body = AckBody::from_wire(&error::decode(frame.body.clone(), "ack.body")?)?;
        let signature = error::fixed(&frame.signature, "signature")?;
        Ok(Self { body, statement: Statement::from_parts(frame.body, signature), signer_chain: frame.signer_chain })
    }

    /// What it claims; for finding the signer's chain only.
    #[must_use]
    pub const fn claimed(&self) -> &AckBody {
        &self.body
    }

    /// The signer's chain, if the frame carries one; not yet believed.
    ///
    /// # Errors
    /// [`ChainError`] when it cannot be read.
    pub fn chain(&self) -> Result<Option<Chain>, ChainError> {
        if self.signer_chain.is_empty() { Ok(None) } else { Chain::decode(self.signer_chain.clone()).map(Some) }
    }

    /// The signer's chain as it came, empty when the frame carries none; for a cache of verified chains.
    #[must_use]
    pub const fn chain_bytes(&self) -> &Bytes {
        &self.signer_chain
    }

    /// Checks that a verified chain's agent signed this, and yields what it says.
    ///
    /// # Errors
    /// [`SenderError::Mismatch`] when the body names another agent or certificate, [`SenderError::Signature`] otherwise.
    pub fn verify_sender(self, chain: &VerifiedChain) -> Result<AckBody, SenderError> {
        if self.body.acker_agent_id != chain.agent_id() || self.body.acker_cert_fp != chain.agent().fp() {
            return Err(SenderError::Mismatch);
        }
        Ok(self.verify(&chain.agent().claims().public_key)?)
    }

    /// Checks the signature alone. Callers that have a chain use [`AckFrame::verify_sender`].
    ///
    /// # Errors
    /// [`BadSignature`] when it is not this key's.
    pub fn verify(self, signer: &PublicKey) -> Result<AckBody, BadSignature> {
        self.statement.verify(label::ACK, signer)?;
        Ok(self.body)
    }
}

const DELIVERED: u32 = 1;
const READ: u32 = 2;
const FAILED: u32 = 3;

fn item_to_wire(item: &AckItem) -> wire::AckItem {
    let (status, code, retry_after_s, fresh_prekey) = match &item.status {
        AckStatus::Delivered => (DELIVERED, 0, None, None),
        AckStatus::Read => (READ, 0, None, None),
        AckStatus::Failed { code, retry_after_s, fresh_prekey } => {
            (FAILED, code.number(), *retry_after_s, fresh_prekey.as_ref())
        }
    };
    wire::AckItem {
        msg_id: Bytes::copy_from_slice(item.msg_id.as_bytes()),
        env_digest: Bytes::copy_from_slice(item.env_digest.as_bytes()),
        status,
        code,
        retry_after_s: retry_after_s.unwrap_or_default(),
        fresh_prekey: fresh_prekey.map(Statement::encode).unwrap_or_default().into(),
    }
}

fn item_from_wire(item: &wire::AckItem) -> Result<AckItem, WireError> {
    let status = match item.status {
        DELIVERED => AckStatus::Delivered,
        READ => AckStatus::Read,
        FAILED => failed_from_wire(item)?,
        other => return Err(WireError::malformed("status", format!("must be 1 to 3, got {other}"))),
    };
    Ok(AckItem {
        msg_id: MessageId::from_bytes(error::fixed(&item.msg_id, "msg_id")?),
        env_digest: EnvDigest::from_bytes(error::fixed(&item.env_digest, "env_digest")?),
        status,
    })
}

fn failed_from_wire(item: &wire::AckItem) -> Result<AckStatus, WireError> {
    let code = Code::from_number(item.code)
        .ok_or_else(|| WireError::malformed("code", format!("must be one of the protocol's, got {}", item.code)))?;
    error::at_most(item.fresh_prekey.len(), FRESH_PREKEY_BYTES_MAX, "fresh_prekey")?;
    let prekey = Some(&item.fresh_prekey).filter(|bytes| !bytes.is_empty());
    Ok(AckStatus::Failed {
        code,
        retry_after_s: Some(item.retry_after_s).filter(|seconds| *seconds != 0),
        fresh_prekey: prekey.map(|bytes| Statement::decode(bytes.clone())).transpose()?,
    })
}

fn credit_to_wire(credit: &Credit) -> wire::Credit {
    wire::Credit {
        stream_id: Bytes::copy_from_slice(&credit.stream_id),
        next_index: credit.next_index,
        window: credit.window,
        state: match credit.state {
            CreditState::Open => 0,
            CreditState::Done => 1,
            CreditState::Cancel => 2,
        },
    }
}

fn credit_from_wire(credit: &wire::Credit) -> Result<Credit, WireError> {
    let state = match credit.state {
        0 => CreditState::Open,
        1 => CreditState::Done,
        2 => CreditState::Cancel,
        other => return Err(WireError::malformed("state", format!("must be 0 to 2, got {other}"))),
    };
    let stream_id = error::fixed(&credit.stream_id, "stream_id")?;
    Ok(Credit { stream_id, next_index: credit.next_index, window: credit.window, state })
}
