//! Sealing: pad, encrypt once, wrap the key for every recipient, sign the whole (PROTOCOL §2.5).

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, ConversationId, MessageId, NodeId},
    limits::ENVELOPE_BYTES_MAX,
};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    chain::Chain,
    chunk::StreamKey,
    content_key::{ContentKey, HeaderHash},
    envelope::{env_digest, signature_input},
    error::{RandomError, WireError},
    hash::{EnvDigest, Fingerprint},
    hazmat::SealRandomness,
    header::Header,
    keys::{Encapsulation, IdentityKey, PrekeyPublic},
    padding,
    prekey::{PrekeyId, VerifiedPrekey},
    wire,
    wrap::{self, Place, Stanza},
};

/// Why a message could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The header would break a rule.
    #[error("envelope header would be malformed")]
    Header(#[from] WireError),
    /// The envelope would be larger than the broker takes.
    #[error("envelope must be at most {ENVELOPE_BYTES_MAX} bytes, would be {0}")]
    TooLarge(usize),
    /// Randomness was not given for exactly the recipients.
    #[error("randomness must be given for every recipient")]
    Randomness,
    /// A recipient's prekey took no key.
    #[error("sealing to prekey {0} failed")]
    Prekey(PrekeyId),
    /// The payload could not be encrypted.
    #[error("encrypting the payload failed")]
    Payload,
    /// The operating system gave no randomness.
    #[error("sealing needs randomness")]
    NoRandomness(#[from] RandomError),
}

/// Whom to seal to, and with which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The agent.
    pub agent_id: AgentId,
    /// The prekey's name.
    pub prekey_id: PrekeyId,
    /// The prekey.
    pub public: PrekeyPublic,
}

impl From<&VerifiedPrekey> for Recipient {
    fn from(prekey: &VerifiedPrekey) -> Self {
        Self { agent_id: prekey.agent_id, prekey_id: prekey.id, public: prekey.public }
    }
}

/// A message to seal: the header's fields, whom it is for, and what is said.
#[derive(Clone, Copy)]
pub struct SealRequest<'a> {
    /// The message.
    pub msg_id: MessageId,
    /// Who speaks.
    pub sender_agent_id: AgentId,
    /// The sender's node.
    pub sender_node_id: NodeId,
    /// The sender's certificate.
    pub sender_cert_fp: Fingerprint,
    /// Which conversation it belongs to.
    pub conversation_id: ConversationId,
    /// Its place in the conversation, from 1.
    pub sequence: u64,
    /// When the sender's outbox was created or restored, Unix milliseconds.
    pub sequence_epoch: u64,
    /// When the message was made, Unix milliseconds.
    pub created_at_ms: u64,
    /// How long it is worth delivering, in seconds.
    pub ttl_seconds: u32,
    /// How often it was sealed before.
    pub seal_attempt: u32,
    /// Where acknowledgements go.
    pub reply_route: Option<&'a str>,
    /// Whom it is for: 1 to 256 distinct agents.
    pub recipients: &'a [Recipient],
    /// The serialized inner message.
    pub inner: &'a [u8],
    /// The sender's chain, to be carried along.
    pub chain: Option<&'a Chain>,
}

/// A sealed copy, ready to publish.
pub struct Sealed {
    /// The serialized envelope.
    pub bytes: Bytes,
    /// Its name.
    pub env_digest: EnvDigest,
    /// The key of the chunk stream, should this message open one.
    pub stream_key: StreamKey,
}

/// Seals a message with fresh randomness.
///
/// # Errors
/// [`SealError`] when a field breaks a rule, the result is too large, or there is no randomness.
pub fn seal(sender: &IdentityKey, request: &SealRequest<'_>) -> Result<Sealed, SealError> {
    seal_encapsulated(sender, request, None)
}

/// Seals as [`seal`] does, with what was encapsulated before for one of the recipients; for whom it was not, nothing is different.
///
/// # Errors
/// As [`seal`].
pub fn seal_encapsulated(
    sender: &IdentityKey,
    request: &SealRequest<'_>,
    encapsulation: Option<Encapsulation>,
) -> Result<Sealed, SealError> {
    seal_with(sender, request, &draw(request.recipients.len())?, encapsulation)
}

/// Everything random about one copy for so many recipients, drawn at once: each call of the system costs as much as what it gives here.
fn draw(recipients: usize) -> Result<SealRandomness, RandomError> {
    let mut drawn = Zeroizing::new(vec![[0; 32]; recipients + 2]);
    getrandom::fill(drawn.as_flattened_mut())?;
    let (cek, nonce) = (Zeroizing::new(drawn.swap_remove(0)), drawn.swap_remove(0));
    let mut payload_nonce = [0; 24];
    payload_nonce.copy_from_slice(&nonce[..24]);
    Ok(SealRandomness { cek, payload_nonce, hpke_ikm_e: drawn })
}

pub(crate) fn seal_with(
    sender: &IdentityKey,
    request: &SealRequest<'_>,
    randomness: &SealRandomness,
    encapsulation: Option<Encapsulation>,
) -> Result<Sealed, SealError> {
    let SealRandomness { cek, payload_nonce, hpke_ikm_e } = randomness;
    let key = ContentKey(cek.clone());
    let header = header(request, &key);
    header.check()?;
    let header = header.encode();
    let header_hash = HeaderHash::of(&header);
    let stanzas = wrap_all(request, header_hash, &key, hpke_ikm_e, encapsulation)?;
    let padded = padding::pad(request.inner).ok_or(SealError::Payload)?;
    let payload = key.encrypt(header_hash, payload_nonce, padded).ok_or(SealError::Payload)?;
    let chain = request.chain.map(Chain::encode).unwrap_or_default();
    let (bytes, env_digest) = assemble(sender, header, encode_stanzas(&stanzas), payload_nonce, payload, chain);
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(SealError::TooLarge(bytes.len()));
    }
    let stream_key = StreamKey::new(key.stream_key(header_hash), header_hash);
    Ok(Sealed { bytes, env_digest, stream_key })
}

fn header(request: &SealRequest<'_>, key: &ContentKey) -> Header {
    Header {
        msg_id: request.msg_id,
        sender_agent_id: request.sender_agent_id,
        sender_node_id: request.sender_node_id,
        sender_cert_fp: request.sender_cert_fp,
        conversation_id: request.conversation_id,
        sequence: request.sequence,
        sequence_epoch: request.sequence_epoch,
        created_at_ms: request.created_at_ms,
        ttl_seconds: request.ttl_seconds,
        seal_attempt: request.seal_attempt,
        key_commitment: key.commitment(request.msg_id),
        recipients: request.recipients.iter().map(|recipient| recipient.agent_id).collect(),
        crit: Vec::new(),
        reply_route: request.reply_route.map(str::to_owned),
    }
}

fn wrap_all(
    request: &SealRequest<'_>,
    header_hash: HeaderHash,
    key: &ContentKey,
    ikms: &[[u8; 32]],
    mut encapsulation: Option<Encapsulation>,
) -> Result<Vec<Stanza>, SealError> {
    let recipients = request.recipients;
    if recipients.len() != ikms.len() {
        return Err(SealError::Randomness);
    }
    let places = (0_u16..).zip(recipients);
    let stanzas = places.zip(ikms).map(|((index, recipient), ikm)| {
        let Recipient { agent_id, prekey_id, public } = *recipient;
        let place = Place { header_hash, agent_id, prekey_id, index };
        let encapsulation = encapsulation.take_if(|encapsulation| encapsulation.is_to(public.as_bytes()));
        wrap::wrap(place, public, encapsulation, key, ikm).ok_or(SealError::Prekey(prekey_id))
    });
    stanzas.collect()
}

pub(crate) fn encode_stanzas(stanzas: &[Stanza]) -> Vec<u8> {
    wire::StanzaList { stanzas: stanzas.iter().map(Stanza::to_wire).collect() }.encode_to_vec()
}

/// Signs the parts and joins them.
pub(crate) fn assemble(
    sender: &IdentityKey,
    header: Vec<u8>,
    stanzas: Vec<u8>,
    payload_nonce: &[u8; 24],
    payload: Vec<u8>,
    sender_chain: Vec<u8>,
) -> (Bytes, EnvDigest) {
    let signed = signature_input(&header, &stanzas, payload_nonce, &payload);
    let signature = sender.sign(&signed);
    let envelope = wire::EnvelopeV2 {
        header: header.into(),
        stanzas: stanzas.into(),
        payload_nonce: Bytes::copy_from_slice(payload_nonce),
        payload_ciphertext: payload.into(),
        signature: Bytes::copy_from_slice(&signature),
        sender_chain: sender_chain.into(),
    };
    (envelope.encode_to_vec().into(), env_digest(&signed, &signature))
}
