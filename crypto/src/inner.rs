//! The inner message: what is said, encrypted end to end (PROTOCOL §4.2).

use std::fmt;

use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{AgentId, ConversationId, MessageId, WorkspaceId},
    limits::{ATTR_KEY_BYTES_MAX, ATTR_VALUE_BYTES_MAX, ATTRS_MAX, BODY_BYTES_MAX, CONTENT_TYPE_BYTES_MAX},
};
use prost::Message as _;

use crate::{
    error::{self, WireError},
    hash::{label, sha256_of},
    header::Header,
    keylog::KeyLog,
    wire,
};

pub use crate::manifest::{FILENAME_BYTES_MAX, STREAM_BYTES_MAX, StreamManifest};

/// What a message without a content type is.
pub const CONTENT_TYPE_DEFAULT: &str = "text/plain; charset=utf-8";
/// Longest `traceparent`; version 00 has 55 bytes.
pub const TRACEPARENT_BYTES_MAX: usize = 64;
/// Longest `tracestate` (W3C Trace Context §3.3.1.5).
pub const TRACESTATE_BYTES_MAX: usize = 512;
/// Largest serialized inner message: a full body, every attribute and all the rest.
pub const INNER_BYTES_MAX: usize = BODY_BYTES_MAX + 8 * 1024;

/// What an inner message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Says something.
    Message,
    /// Wants a reply.
    Request,
    /// Answers a request.
    Reply,
    /// Announces a chunk stream.
    StreamOpen,
    /// Between nodes: cancellation, channel state.
    Control,
}

/// How prominently to show a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// As usual.
    #[default]
    Normal,
    /// Ahead of others.
    High,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// 1 to 64 bytes.
    pub key: String,
    /// At most 256 bytes.
    pub value: String,
}

/// The sender's view of a workspace's key log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLogHead {
    /// Whose log.
    pub workspace_id: WorkspaceId,
    /// Its length and hash.
    pub log: KeyLog,
}

/// What is said.
#[derive(Clone, PartialEq, Eq)]
pub struct InnerMessage {
    /// What it is for.
    pub kind: Kind,
    /// What the body is; never empty once decoded.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
    /// The message this one continues.
    pub parent_msg_id: Option<MessageId>,
    /// The request that is answered or cancelled.
    pub in_reply_to: Option<MessageId>,
    /// When the asker stops waiting, Unix milliseconds.
    pub deadline_ms: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
    /// The stream that this message opens.
    pub stream: Option<StreamManifest>,
    /// For fork detection.
    pub log_head: Option<KeyLogHead>,
    /// At most 16.
    pub attrs: Vec<Attr>,
    /// For display only.
    pub priority: Priority,
    /// 0 for a direct message, else the channel's epoch.
    pub channel_epoch: u64,
    /// Equals the header's.
    pub conversation_id: ConversationId,
}

impl InnerMessage {
    /// A plain message with a body and nothing else.
    #[must_use]
    pub fn new(kind: Kind, conversation_id: ConversationId, body: impl Into<Bytes>) -> Self {
        Self {
            kind,
            content_type: CONTENT_TYPE_DEFAULT.to_owned(),
            body: body.into(),
            parent_msg_id: None,
            in_reply_to: None,
            deadline_ms: None,
            traceparent: None,
            tracestate: None,
            stream: None,
            log_head: None,
            attrs: Vec::new(),
            priority: Priority::Normal,
            channel_epoch: 0,
            conversation_id,
        }
    }

    /// Serializes the message.
    ///
    /// # Errors
    /// [`WireError`] when a field breaks a limit.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        self.check()?;
        let id = |id: Option<MessageId>| id.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default();
        let is_default_type = self.content_type == CONTENT_TYPE_DEFAULT;
        let inner = wire::InnerV2 {
            kind: kind_to_wire(self.kind).into(),
            content_type: if is_default_type { String::new() } else { self.content_type.clone() },
            body: self.body.clone(),
            parent_msg_id: id(self.parent_msg_id),
            in_reply_to: id(self.in_reply_to),
            deadline_ms: self.deadline_ms.unwrap_or_default(),
            traceparent: self.traceparent.clone().unwrap_or_default(),
            tracestate: self.tracestate.clone().unwrap_or_default(),
            stream: self.stream.as_ref().map(StreamManifest::to_wire),
            log_head: self.log_head.as_ref().map(log_head_to_wire),
            attrs: self.attrs.iter().map(|Attr { key, value }| kv(key, value)).collect(),
            priority: u32::from(self.priority == Priority::High),
            channel_epoch: self.channel_epoch,
            conversation_id: Bytes::copy_from_slice(self.conversation_id.as_bytes()),
        };
        Ok(inner.encode_to_vec().into())
    }

    /// Reads a serialized message, checking every limit.
    ///
    /// # Errors
    /// [`WireError`] naming the field and the rule it breaks.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), INNER_BYTES_MAX, "inner")?;
        let inner: wire::InnerV2 = error::decode(bytes, "inner")?;
        error::count_at_most(inner.attrs.len(), ATTRS_MAX, "attrs")?;
        let id = |bytes: &[u8], field| error::fixed_or_absent(bytes, field).map(|id| id.map(MessageId::from_bytes));
        let content_type = if inner.content_type.is_empty() { CONTENT_TYPE_DEFAULT.into() } else { inner.content_type };
        let message = Self {
            kind: kind_from_wire(inner.kind)?,
            content_type,
            body: inner.body,
            parent_msg_id: id(&inner.parent_msg_id, "parent_msg_id")?,
            in_reply_to: id(&inner.in_reply_to, "in_reply_to")?,
            deadline_ms: Some(inner.deadline_ms).filter(|at| *at != 0),
            traceparent: Some(inner.traceparent).filter(|text| !text.is_empty()),
            tracestate: Some(inner.tracestate).filter(|text| !text.is_empty()),
            stream: inner.stream.map(StreamManifest::from_wire).transpose()?,
            log_head: inner.log_head.as_ref().map(log_head_from_wire).transpose()?,
            attrs: inner.attrs.into_iter().map(|kv| Attr { key: kv.key, value: kv.value }).collect(),
            priority: priority_from_wire(inner.priority)?,
            channel_epoch: inner.channel_epoch,
            conversation_id: ConversationId::from_bytes(error::fixed(&inner.conversation_id, "conversation_id")?),
        };
        message.check()?;
        Ok(message)
    }

    /// The rules that hold for what is sent and what arrives.
    fn check(&self) -> Result<(), WireError> {
        error::at_most(self.body.len(), BODY_BYTES_MAX, "body")?;
        error::at_most(self.content_type.len(), CONTENT_TYPE_BYTES_MAX, "content_type")?;
        error::at_most(self.traceparent.as_deref().map_or(0, str::len), TRACEPARENT_BYTES_MAX, "traceparent")?;
        error::at_most(self.tracestate.as_deref().map_or(0, str::len), TRACESTATE_BYTES_MAX, "tracestate")?;
        error::count_at_most(self.attrs.len(), ATTRS_MAX, "attrs")?;
        for Attr { key, value } in &self.attrs {
            error::require(!key.is_empty(), "attrs", "must have keys of at least 1 byte")?;
            error::at_most(key.len(), ATTR_KEY_BYTES_MAX, "attrs.key")?;
            error::at_most(value.len(), ATTR_VALUE_BYTES_MAX, "attrs.value")?;
        }
        let opens_stream = self.kind == Kind::StreamOpen;
        error::require(
            self.stream.is_some() == opens_stream,
            "stream",
            "must be set for STREAM_OPEN and no other kind",
        )?;
        let answers = self.kind != Kind::Reply || self.in_reply_to.is_some();
        error::require(answers, "in_reply_to", "must name the request that a REPLY answers")?;
        error::require(
            self.kind == Kind::Request || self.deadline_ms.is_none(),
            "deadline_ms",
            "must be set for REQUEST only",
        )?;
        self.stream.as_ref().map_or(Ok(()), StreamManifest::check)
    }
}

impl fmt::Debug for InnerMessage {
    /// Prints lengths, never content: bodies must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerMessage")
            .field("kind", &self.kind)
            .field("conversation_id", &self.conversation_id)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Whether a message that [`InnerMessage::encode`] serialized opens a stream, without reading all of it: the kind comes first.
#[must_use]
pub fn opens_stream(serialized: &[u8]) -> bool {
    const KIND_FIELD: u8 = 1 << 3;
    serialized.first() == Some(&KIND_FIELD)
        && serialized.get(1).is_some_and(|kind| i32::from(*kind) == i32::from(wire::Kind::StreamOpen))
}

/// The conversation of a direct message between two agents, the same from both sides.
#[must_use]
pub fn dm_conversation_id(a: AgentId, b: AgentId) -> ConversationId {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let digest = sha256_of(&[label::DM, low.as_bytes(), high.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    ConversationId::from_bytes(id)
}

/// A message whose inside belongs to another conversation than its outside (code 404).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("conversation of header, inner message and participants must be the same")]
pub struct ConversationMismatch;

impl ConversationMismatch {
    /// The protocol's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::ConversationMismatch
    }
}

/// Checks that what was said belongs where it arrived: one conversation inside and out, and for a direct message the one
/// derived from its two agents.
///
/// # Errors
/// [`ConversationMismatch`].
pub fn check_inner(header: &Header, inner: &InnerMessage) -> Result<(), ConversationMismatch> {
    if inner.conversation_id != header.conversation_id {
        return Err(ConversationMismatch);
    }
    if inner.channel_epoch > 0 {
        return Ok(());
    }
    match header.recipients.as_slice() {
        [only] if dm_conversation_id(header.sender_agent_id, *only) == header.conversation_id => Ok(()),
        _ => Err(ConversationMismatch),
    }
}

const fn kind_to_wire(kind: Kind) -> wire::Kind {
    match kind {
        Kind::Message => wire::Kind::Message,
        Kind::Request => wire::Kind::Request,
        Kind::Reply => wire::Kind::Reply,
        Kind::StreamOpen => wire::Kind::StreamOpen,
        Kind::Control => wire::Kind::Control,
    }
}

fn kind_from_wire(number: i32) -> Result<Kind, WireError> {
    [Kind::Message, Kind::Request, Kind::Reply, Kind::StreamOpen, Kind::Control]
        .into_iter()
        .find(|kind| i32::from(kind_to_wire(*kind)) == number)
        .ok_or_else(|| WireError::malformed("kind", format!("must be 1 to 5, got {number}")))
}

fn priority_from_wire(number: u32) -> Result<Priority, WireError> {
    match number {
        0 => Ok(Priority::Normal),
        1 => Ok(Priority::High),
        _ => Err(WireError::malformed("priority", format!("must be 0 or 1, got {number}"))),
    }
}

fn kv(key: &str, value: &str) -> wire::Kv {
    wire::Kv { key: key.to_owned(), value: value.to_owned() }
}

fn log_head_to_wire(head: &KeyLogHead) -> wire::KeyLogHead {
    wire::KeyLogHead {
        workspace_id: Bytes::copy_from_slice(head.workspace_id.as_bytes()),
        size: head.log.size,
        head: Bytes::copy_from_slice(&head.log.head),
    }
}

fn log_head_from_wire(head: &wire::KeyLogHead) -> Result<KeyLogHead, WireError> {
    Ok(KeyLogHead {
        workspace_id: WorkspaceId::from_bytes(error::fixed(&head.workspace_id, "log_head.workspace_id")?),
        log: KeyLog { size: head.size, head: error::fixed(&head.head, "log_head.head")? },
    })
}
