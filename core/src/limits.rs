//! Every limit of the protocol and its default policy, in one place (PROTOCOL §8).
//!
//! Sizes are bytes, times milliseconds unless the name says otherwise.

/// Largest inline message body. Longer ones are refused at the sender, never cut.
pub const BODY_BYTES_MAX: usize = 196_608;
/// Largest encoded envelope.
pub const ENVELOPE_BYTES_MAX: usize = 320 * 1024;
/// Largest broker message, checked before anything is decoded.
pub const BROKER_MESSAGE_BYTES_MAX: usize = 384 * 1024;
/// Recipients of one envelope.
pub const RECIPIENTS_MAX: usize = 256;
/// Certificates in a chain, leaf and root included.
pub const CHAIN_DEPTH_MAX: usize = 4;
/// Seal attempts after the first one.
pub const SEAL_ATTEMPT_MAX: u32 = 3;
/// Attributes of an inner message.
pub const ATTRS_MAX: usize = 16;
/// Length of an attribute's key.
pub const ATTR_KEY_BYTES_MAX: usize = 64;
/// Length of an attribute's value.
pub const ATTR_VALUE_BYTES_MAX: usize = 256;
/// Length of a content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Items of one acknowledgement frame.
pub const ACK_ITEMS_MAX: usize = 64;
/// Stream credits of one acknowledgement frame.
pub const ACK_CREDITS_MAX: usize = 16;

/// Length of a node's name.
pub const NODE_NAME_BYTES_MAX: usize = 128;

/// Shortest time to live of a message, in seconds.
pub const TTL_SECONDS_MIN: u32 = 1;
/// Time to live when the sender names none, in seconds.
pub const TTL_SECONDS_DEFAULT: u32 = 24 * 3600;
/// Longest time to live, in seconds.
pub const TTL_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// How far two clocks may differ.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;
/// Oldest `created_at` a receiver accepts.
pub const MESSAGE_AGE_MS_MAX: u64 = 8 * 24 * 3600 * 1000;
/// How long a deduplication row is kept: longer than any acceptable message lives.
pub const DEDUP_RETENTION_MS: u64 = 9 * 24 * 3600 * 1000;

/// A prekey is replaced after this time (give or take [`PREKEY_ROTATE_JITTER_MS`]).
pub const PREKEY_ROTATE_MS: u64 = 24 * 3600 * 1000;
/// Spread of the rotation time.
pub const PREKEY_ROTATE_JITTER_MS: u64 = 2 * 3600 * 1000;
/// A prekey older than this is stale: still usable, but the delivery is flagged.
pub const PREKEY_FRESH_MS: u64 = 48 * 3600 * 1000;
/// A prekey older than this is refused.
pub const PREKEY_LIFE_MS: u64 = 30 * 24 * 3600 * 1000;
/// Life of an agent certificate.
pub const AGENT_CERT_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Life of a node certificate.
pub const NODE_CERT_LIFE_MS: u64 = 90 * 24 * 3600 * 1000;
/// With no more than this left a node's certificate is to be renewed.
pub const NODE_CERT_DUE_MS: u64 = 30 * 24 * 3600 * 1000;
/// Life of a root certificate.
pub const ROOT_CERT_LIFE_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// A revocation list is followed by the next one within this (PROTOCOL §3.6).
pub const REVOCATION_LIST_LIFE_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// With no more than this left a revocation list is to be followed by the next one.
pub const REVOCATION_LIST_DUE_MS: u64 = 15 * 24 * 3600 * 1000;
/// A revocation list that is overdue by more than this is warned of.
pub const REVOCATION_LIST_OVERDUE_MS: u64 = 24 * 3600 * 1000;
/// How long an entry stays on the list at least: by then every certificate of a node or agent that it revokes has ended, and so has what was
/// sent under it.
pub const REVOCATION_KEPT_MS: u64 = NODE_CERT_LIFE_MS + 30 * 24 * 3600 * 1000;

/// A node session sends a heartbeat this often.
pub const HEARTBEAT_MS: u64 = 15_000;
/// A silent node session keeps its lease this long.
pub const LEASE_MS: u64 = 45_000;
/// Broker credentials live this long; they are renewed at two thirds.
pub const BROKER_JWT_LIFE_MS: u64 = 24 * 3600 * 1000;
/// An invite lives this long unless it says otherwise.
pub const INVITE_LIFE_MS_DEFAULT: u64 = 24 * 3600 * 1000;
/// Longest life of an invite.
pub const INVITE_LIFE_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// A request waits this long unless it says otherwise.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 5 * 60 * 1000;
/// Open requests between one pair of agents.
pub const REQUESTS_OPEN_PER_PAIR_MAX: usize = 16;
/// Unread messages an inbox holds before it refuses more.
pub const INBOX_UNREAD_MAX: u64 = 10_000;
/// Messages per minute between one pair of agents: the loop breaker.
pub const PAIR_RATE_PER_MINUTE_DEFAULT: u32 = 60;
/// Burst of the pair rate.
pub const PAIR_BURST_DEFAULT: u32 = 30;

/// Messages of one pair that wait to be shown because there were too many at once; more are refused.
pub const HELD_PER_PAIR_MAX: u32 = 1_000;
/// How long a message waits to be shown for one that was sent before it.
pub const GAP_WAIT_MS: u64 = 30_000;

/// Longest slug.
pub const SLUG_BYTES_MAX: usize = 512;
/// Longest slug segment.
pub const SLUG_SEGMENT_BYTES_MAX: usize = 63;
/// Segments of a path after the account.
pub const SLUG_SEGMENTS_MAX: usize = 8;
/// Longest account name.
pub const ACCOUNT_BYTES_MAX: usize = 39;
/// Longest Unix socket path that the kernel takes.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Items of one page when the caller names no size.
pub const PAGE_SIZE_DEFAULT: u32 = 50;
/// Items of one page at most.
pub const PAGE_SIZE_MAX: u32 = 1000;

/// Chunks of a stream that may be on the way before the receiver has said anything.
pub const STREAM_FIRST_WINDOW: u32 = 4;
/// Chunks that a receiver allows on the way unless it is short of room.
pub const STREAM_WINDOW_DEFAULT: u32 = 16;
/// Chunks on the way at most, whatever a receiver says.
pub const STREAM_WINDOW_MAX: u32 = 64;
/// Largest file by default policy; the protocol's own limit is 1 GiB.
pub const STREAM_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;
/// Open streams from one agent to another.
pub const STREAMS_OPEN_PER_PAIR_MAX: u64 = 4;
/// Bytes of open streams of one agent, each way.
pub const SPOOL_BYTES_PER_AGENT_MAX: u64 = 1 << 30;
/// A receiver brings what it has to the disk after so many bytes, and only then grants more.
pub const STREAM_SYNC_BYTES: u64 = 1024 * 1024;
/// A sender that heard nothing for this long pauses.
pub const STREAM_STALL_MS: u64 = 60_000;
/// A stream on which nothing moved for this long ends (606).
pub const STREAM_IDLE_MS: u64 = 24 * 3600 * 1000;

/// Items of a checklist that are not deleted.
pub const TASKS_MAX: usize = 500;
/// Edges of one item of a checklist, both ways.
pub const TASK_EDGES_MAX: usize = 64;
/// Characters of an item's subject.
pub const TASK_SUBJECT_CHARS_MAX: usize = 240;
/// Length of an item's description.
pub const TASK_DETAILS_BYTES_MAX: usize = 16 * 1024;
/// Length of a dormant item's pattern.
pub const TASK_PATTERN_BYTES_MAX: usize = 512;
/// Entries of an agent's queue.
pub const FOLLOW_UPS_MAX: usize = 256;
/// Length of an entry of the queue.
pub const FOLLOW_UP_BYTES_MAX: usize = 64 * 1024;
/// Items that may join the checklist with one entry of the queue, or with a spawn.
pub const FOLLOW_UP_TASKS_MAX: usize = 100;
/// Bytes of the entries of one turn, and of one page of a checklist or queue: half of what an RPC may carry.
pub const TURN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the entries of a turn are held for an agent that does not say that its runtime took them.
pub const TURN_LEASE_MS: u64 = 5 * 60 * 1000;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 3600 * 1000;
/// Length of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Events that are kept of an agent.
pub const EVENTS_KEPT_MAX: u64 = 1000;
/// How long an event is kept.
pub const EVENT_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Length of an event's text; longer text is cut.
pub const EVENT_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Length of an attribute's value; longer ones are cut.
pub const EVENT_VALUE_BYTES_MAX: usize = 1024;
/// Length of an attribute's name, and of a kind's.
pub const EVENT_NAME_BYTES_MAX: usize = 64;
/// Attributes of an event.
pub const EVENT_ATTRIBUTES_MAX: usize = 32;
/// Length of an event's id as its publisher writes it.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Length of a repository's name or URL.
pub const EVENT_REPO_BYTES_MAX: usize = 2048;
/// Entries of a queue that events made; what comes beyond stands in the log alone.
pub const EVENT_FOLLOW_UPS_MAX: usize = 32;
