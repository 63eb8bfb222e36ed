//! What callers hand to the post and get from it.

use std::num::NonZeroU32;

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, ConversationId, MessageId},
    limits, outbox,
    slug::Slug,
};

pub use murmur_core::outbox::StateName;

pub use super::stream::{Attachment, FileDraft, StreamConfig, Transfers};
pub use crate::store::{
    inbox::{InboxMessage, MessageKind},
    transfer::{FileInfo, Transfer, TransferState},
};

/// An agent of this node on whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalAgent {
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug.
    pub slug: Slug,
}

/// A message to send, as the caller typed it.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Slug as typed; may be empty when `in_reply_to` is set.
    pub to: String,
    /// What to say.
    pub body: Bytes,
    /// `None` for plain text.
    pub content_type: Option<String>,
    /// A message in the sender's inbox that this answers.
    pub in_reply_to: Option<MessageId>,
    /// Seconds; `None` for a day.
    pub ttl_seconds: Option<u32>,
    /// The caller's own key for this message.
    pub idempotency_key: Option<String>,
    /// A file that was copied; [`super::Post::send_file`] sets it.
    pub file: Option<Box<Attachment>>,
}

/// A message that was accepted: it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub msg_id: MessageId,
    /// The conversation of the two agents.
    pub conversation_id: ConversationId,
    /// Whom the slug meant.
    pub to: Slug,
    /// Whether the recipient has a session right now.
    pub recipient_online: bool,
    /// Unread messages of the sender.
    pub unread: u64,
}

/// How waiting for a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the request's own delivery stands.
    pub delivery: StateName,
    /// The reply, if it came; it is marked as read.
    pub reply: Option<InboxMessage>,
    /// The time was over.
    pub timed_out: bool,
    /// Why the request ended before its time, such as `POLICY_DENIED` or `EXPIRED`.
    pub failure: Option<String>,
    /// Unread messages that are left, where that was known without asking.
    pub unread: Option<u64>,
}

/// Which messages of an inbox to read.
#[derive(Debug, Clone, Default)]
pub struct InboxQuery {
    /// Only behind this cursor, read or not; 0 means unread ones, or with `all` every one.
    pub after: u64,
    /// At most so many; 0 means [`limits::PAGE_SIZE_DEFAULT`], and [`limits::PAGE_SIZE_MAX`] is the most.
    pub limit: u32,
    /// Leave them unread.
    pub peek: bool,
    /// Read and unread ones.
    pub all: bool,
    /// Only from this slug, as typed.
    pub from: Option<String>,
}

/// A page of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// The messages, in order of arrival.
    pub messages: Vec<InboxMessage>,
    /// Where the next page begins; 0 when there is none.
    pub next_after: u64,
    /// Unread messages that are left.
    pub unread: u64,
    /// Those that are left when what of this page can be read is marked.
    pub unread_behind: u64,
}

/// How one recipient's share of a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// The recipient's slug when the message was sent.
    pub to: Slug,
    /// The recipient.
    pub to_agent_id: AgentId,
    /// Where it stands.
    pub state: StateName,
    /// The last code that the recipient or the broker answered with, by name.
    pub code: Option<String>,
    /// How often it was published.
    pub publish_tries: u32,
    /// When it was sent.
    pub created_ms: u64,
    /// When the recipient's node had it.
    pub delivered_ms: Option<u64>,
    /// When the recipient read it.
    pub read_ms: Option<u64>,
    /// When it ends if it is not delivered.
    pub expires_ms: u64,
    /// The recipient's key was past its fresh time.
    pub stale_prekey: bool,
}

/// Which way a followed message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It was received.
    In,
    /// It was sent.
    Out,
}

/// A message that went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailItem {
    /// Received or sent.
    pub direction: Direction,
    /// The message.
    pub message: InboxMessage,
    /// For a sent one: how its delivery stands.
    pub state: Option<StateName>,
}

/// The post's policy and schedules. The defaults are the protocol's (PROTOCOL §5.4, §5.5, §6.5).
#[derive(Debug, Clone)]
pub struct PostConfig {
    /// Messages per minute between one pair of agents.
    pub pair_per_minute: NonZeroU32,
    /// Burst of the pair rate.
    pub pair_burst: NonZeroU32,
    /// Messages of one pair that may wait to be shown at its rate.
    pub pair_held_max: u32,
    /// How long a message waits to be shown for one that was sent before it.
    pub gap_wait_ms: u64,
    /// How long a full inbox asks its senders to wait.
    pub inbox_full_retry_ms: u64,
    /// Messages per second from one source node.
    pub source_per_second: NonZeroU32,
    /// Burst of the source rate.
    pub source_burst: NonZeroU32,
    /// Unread messages an inbox holds.
    pub inbox_unread_max: u64,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Publishes that may wait for the broker at one time.
    pub publishes_in_flight: usize,
    /// Messages of one agent to another that the broker is given to keep; below its own limit, `lane_messages_max`.
    pub lane_window: usize,
    /// Read messages are deleted after this time; never less than the deduplication time.
    pub history_ms: u64,
    /// Rows and bytes of the quarantine per source node.
    pub quarantine_rows: u32,
    /// Bytes of the quarantine per source node.
    pub quarantine_bytes: u64,
    /// Retry, back-off and republish times.
    pub outbox: outbox::Config,
    /// Files: where they are and how much of them.
    pub streams: StreamConfig,
}

impl Default for PostConfig {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let some = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        Self {
            pair_per_minute: some(limits::PAIR_RATE_PER_MINUTE_DEFAULT),
            pair_burst: some(limits::PAIR_BURST_DEFAULT),
            pair_held_max: limits::HELD_PER_PAIR_MAX,
            gap_wait_ms: limits::GAP_WAIT_MS,
            inbox_full_retry_ms: 60_000,
            source_per_second: some(5_000),
            source_burst: some(20_000),
            inbox_unread_max: limits::INBOX_UNREAD_MAX,
            body_bytes_max: limits::BODY_BYTES_MAX,
            publishes_in_flight: 256,
            lane_window: 800,
            history_ms: 30 * DAY_MS,
            quarantine_rows: 1_000,
            quarantine_bytes: 64 * 1024 * 1024,
            outbox: outbox::Config::default(),
            streams: StreamConfig::default(),
        }
    }
}
