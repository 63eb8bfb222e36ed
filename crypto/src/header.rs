//! The envelope's header: what a recipient's node must know before it decrypts (PROTOCOL §4.1).

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{AgentId, ConversationId, MessageId, NodeId},
    limits::{CLOCK_SKEW_MS, MESSAGE_AGE_MS_MAX, RECIPIENTS_MAX, SEAL_ATTEMPT_MAX, TTL_SECONDS_MAX, TTL_SECONDS_MIN},
};
use prost::Message as _;

use crate::{
    SUITE_X25519, WIRE_VERSION,
    error::{self, WireError},
    hash::Fingerprint,
    wire,
};

/// Largest serialized header: 256 recipients and every other field fit with room for fields to come.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Longest reply route.
pub const REPLY_ROUTE_BYTES_MAX: usize = 256;
/// Entries of `crit` at most.
pub const CRIT_MAX: usize = 16;

/// Header fields that this version understands, by number.
const FIELDS_KNOWN: std::ops::RangeInclusive<u32> = 1..=16;

/// A well-formed header. Whether it is true is decided by the envelope's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The message, unique per sender.
    pub msg_id: MessageId,
    /// Who speaks.
    pub sender_agent_id: AgentId,
    /// Whose node sealed it.
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
    /// How often it was sealed again.
    pub seal_attempt: u32,
    /// What every recipient's content key must hash to.
    pub key_commitment: [u8; 32],
    /// Whom it is for, in the order of the stanzas.
    pub recipients: Vec<AgentId>,
    /// Header fields the receiver must understand.
    pub crit: Vec<u32>,
    /// Where acknowledgements go; `None`: ask the directory.
    pub reply_route: Option<String>,
}

impl Header {
    /// When the message stops being worth delivering, Unix milliseconds.
    #[must_use]
    pub const fn expires_at_ms(&self) -> u64 {
        self.created_at_ms.saturating_add(self.ttl_seconds as u64 * 1000)
    }

    /// The first field in `crit` that this version does not understand.
    #[must_use]
    pub fn crit_unknown(&self) -> Option<u32> {
        self.crit.iter().copied().find(|field| !FIELDS_KNOWN.contains(field))
    }

    /// Whether the message may still be accepted. A refusal is answered only once the signature has been verified.
    ///
    /// # Errors
    /// [`Code::ClockSkew`] for a message from the future, [`Code::Expired`] for one whose time is over.
    pub const fn check_time(&self, now_ms: u64) -> Result<(), Code> {
        if self.created_at_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
            return Err(Code::ClockSkew);
        }
        let too_old = self.created_at_ms < now_ms.saturating_sub(MESSAGE_AGE_MS_MAX);
        if too_old || now_ms > self.expires_at_ms() { Err(Code::Expired) } else { Ok(()) }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        error::at_most(bytes.len(), HEADER_BYTES_MAX, "header")?;
        let header: wire::EnvelopeHeader = error::decode(bytes, "header")?;
        check_version_and_suite(&header)?;
        error::count_at_most(header.recipients.len(), RECIPIENTS_MAX, "recipients")?;
        let recipients = header.recipients.iter().map(|id| Ok(AgentId::from_bytes(error::fixed(id, "recipients")?)));
        let header = Self {
            msg_id: MessageId::from_bytes(error::fixed(&header.msg_id, "msg_id")?),
            sender_agent_id: AgentId::from_bytes(error::fixed(&header.sender_agent_id, "sender_agent_id")?),
            sender_node_id: NodeId::from_bytes(error::fixed(&header.sender_node_id, "sender_node_id")?),
            sender_cert_fp: Fingerprint::from_bytes(error::fixed(&header.sender_cert_fp, "sender_cert_fp")?),
            conversation_id: ConversationId::from_bytes(error::fixed(&header.conversation_id, "conversation_id")?),
            sequence: header.sequence,
            sequence_epoch: header.sequence_epoch,
            created_at_ms: header.created_at_ms,
            ttl_seconds: header.ttl_seconds,
            seal_attempt: header.seal_attempt,
            key_commitment: error::fixed(&header.key_commitment, "key_commitment")?,
            recipients: recipients.collect::<Result<_, WireError>>()?,
            crit: header.crit,
            reply_route: Some(header.reply_route).filter(|route| !route.is_empty()),
        };
        header.check()?;
        Ok(header)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = Bytes::copy_from_slice;
        wire::EnvelopeHeader {
            version: WIRE_VERSION,
            suite: SUITE_X25519,
            msg_id: bytes(self.msg_id.as_bytes()),
            sender_agent_id: bytes(self.sender_agent_id.as_bytes()),
            sender_node_id: bytes(self.sender_node_id.as_bytes()),
            sender_cert_fp: bytes(self.sender_cert_fp.as_bytes()),
            conversation_id: bytes(self.conversation_id.as_bytes()),
            sequence: self.sequence,
            sequence_epoch: self.sequence_epoch,
            created_at_ms: self.created_at_ms,
            ttl_seconds: self.ttl_seconds,
            seal_attempt: self.seal_attempt,
            key_commitment: bytes(&self.key_commitment),
            recipients: self.recipients.iter().map(|id| bytes(id.as_bytes())).collect(),
            crit: self.crit.clone(),
            reply_route: self.reply_route.clone().unwrap_or_default(),
        }
        .encode_to_vec()
    }

    /// The rules between and within fields, the same for what is sent and what arrives.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        let ttl = TTL_SECONDS_MIN..=TTL_SECONDS_MAX;
        error::require(self.sequence >= 1, "sequence", "must be at least 1")?;
        error::require(ttl.contains(&self.ttl_seconds), "ttl_seconds", "must be 1 to 604800")?;
        error::require(self.seal_attempt <= SEAL_ATTEMPT_MAX, "seal_attempt", "must be 0 to 3")?;
        error::count_at_most(self.recipients.len(), RECIPIENTS_MAX, "recipients")?;
        error::require(!self.recipients.is_empty(), "recipients", "must not be empty")?;
        error::require(!self.recipients.contains(&self.sender_agent_id), "recipients", "must not contain the sender")?;
        error::require(are_distinct(&self.recipients), "recipients", "must be distinct")?;
        error::count_at_most(self.crit.len(), CRIT_MAX, "crit")?;
        let route = self.reply_route.as_deref();
        error::require(
            route.is_none_or(|route| is_reply_route(route, self.sender_node_id)),
            "reply_route",
            "must be mm.in.<site>.<shard>.<workspace>.<node> with the sender's own node",
        )
    }
}

fn check_version_and_suite(header: &wire::EnvelopeHeader) -> Result<(), WireError> {
    if header.version != WIRE_VERSION {
        let rule = format!("must be 2, got {}", header.version);
        return Err(WireError { code: Code::VersionUnsupported, field: "version", rule: rule.into() });
    }
    if header.suite != SUITE_X25519 {
        let rule = format!("must be 0x0201, got {:#06x}", header.suite);
        return Err(WireError { code: Code::SuiteUnsupported, field: "suite", rule: rule.into() });
    }
    Ok(())
}

fn are_distinct(ids: &[AgentId]) -> bool {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.is_sorted_by(|a, b| a < b)
}

/// Acknowledgements must not be steered at a third party, so the route's last token is the sender's own node.
fn is_reply_route(route: &str, sender: NodeId) -> bool {
    let word = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |token: &str| token.len() == 2 && token.bytes().all(|b| b.is_ascii_digit());
    let hex = |token: &str| token.len() == 32 && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if route.len() > REPLY_ROUTE_BYTES_MAX {
        return false;
    }
    let tokens: Vec<&str> = route.split('.').collect();
    let ["mm", "in", site, shard, workspace, node] = tokens.as_slice() else { return false };
    word(site) && digits(shard) && hex(workspace) && *node == sender.hex()
}
