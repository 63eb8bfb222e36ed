//! What can go wrong when an agent sends, reads or waits.

use murmur_core::{
    id::{MessageId, StreamId},
    outbox::StateName,
    slug::ResolveError,
};

use crate::{store::StoreError, vital::Loss};

/// Messages cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What waits cannot be loaded.
    #[error("what waits to be delivered cannot be read")]
    Store(#[from] StoreError),
    /// A part of the post has ended before its time.
    #[error("messages cannot go on")]
    Lost(#[from] Loss),
}

/// A message was not accepted. Every variant is one [`murmur_core::reason::Reason`].
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The slug means no agent that the caller may see: `AGENT_NOT_FOUND`, `AMBIGUOUS_SLUG`, `NO_AGENT_IDENTITY` or
    /// `FIELD_INVALID`, as the cause says.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The agent that the slug means has ended: `AGENT_NOT_FOUND`.
    #[error("the agent {slug} has ended")]
    Ended {
        /// The slug it had.
        slug: String,
    },
    /// `FIELD_INVALID`.
    #[error("{field} {rule}")]
    Field {
        /// The field as the contract names it.
        field: &'static str,
        /// The rule it breaks.
        rule: String,
    },
    /// `BODY_TOO_LARGE`.
    #[error("the body has {bytes} bytes and may have {limit}")]
    BodyTooLarge {
        /// What was given.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// `SELF_MESSAGE`.
    #[error("an agent cannot write to itself")]
    SelfMessage,
    /// `MESSAGE_NOT_FOUND`: `in_reply_to` names no message in the speaker's inbox.
    #[error("there is no message {msg_id} in the inbox")]
    MessageNotFound {
        /// What was named.
        msg_id: MessageId,
    },
    /// `RATE_LIMITED`, with when to try again.
    #[error(
        "too many messages to {to}, as when two agents answer each other for ever; try again in {retry_after_ms} ms"
    )]
    RateLimited {
        /// The recipient.
        to: String,
        /// Milliseconds until the next one is allowed.
        retry_after_ms: u64,
    },
    /// `IDEMPOTENCY_CONFLICT`.
    #[error("idempotency_key was used for other content, in message {msg_id}")]
    IdempotencyConflict {
        /// The message that has the key.
        msg_id: MessageId,
    },
    /// `REQUESTS_OPEN_TOO_MANY`.
    #[error("{limit} requests to {to} are open already")]
    RequestsOpenTooMany {
        /// The recipient.
        to: String,
        /// How many may be open.
        limit: usize,
    },
    /// `FILE_REFUSED`: what `path` names may not be sent.
    #[error("path {rule}")]
    FileRefused {
        /// The rule it breaks.
        rule: String,
    },
    /// `FILE_TOO_LARGE`.
    #[error("the file has {bytes} bytes and may have {limit}")]
    FileTooLarge {
        /// What it has, at least.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// `TRANSFERS_OPEN_TOO_MANY`.
    #[error("{limit} files to {to} are on their way already")]
    TransfersOpenTooMany {
        /// The recipient.
        to: String,
        /// How many may be open.
        limit: u64,
    },
    /// `STORAGE_FULL`: the agent has as many bytes on their way as it may.
    #[error("{bytes} bytes of files are on their way already, and at most {limit} may be")]
    SpoolFull {
        /// What is on its way.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// `STORAGE_FULL`: the disk that the node keeps files on has no room for the copy.
    #[error("the node's disk has no room for {bytes} bytes beside the {reserve} that file_reserve_bytes keeps free")]
    DiskFull {
        /// What the file has.
        bytes: u64,
        /// What stays free.
        reserve: u64,
    },
    /// `STORAGE_FAILED`: the file could not be copied.
    #[error("the file could not be copied: {0}")]
    Spool(String),
    /// `STORAGE_FULL` or `STORAGE_FAILED`, as the cause says.
    #[error("the message could not be stored")]
    Store(#[from] StoreError),
    /// `INTERNAL`: the operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
}

/// Messages could not be shown, waited for, taken back or begun again.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// `MESSAGE_NOT_FOUND`: the agent sent no such message.
    #[error("there is no sent message {msg_id}")]
    MessageNotFound {
        /// What was named.
        msg_id: MessageId,
    },
    /// `REQUEST_NOT_FOUND`: the agent made no such request.
    #[error("there is no request {msg_id}")]
    RequestNotFound {
        /// What was named.
        msg_id: MessageId,
    },
    /// `MESSAGE_ENDED`: there is nothing to take back any more.
    #[error("message {msg_id} is {state} already")]
    Ended {
        /// What was named.
        msg_id: MessageId,
        /// How it ended.
        state: StateName,
    },
    /// `MESSAGE_NOT_DEAD`: only dead letters can be begun again or dropped.
    #[error("message {msg_id} is {state} and no dead letter")]
    NotDead {
        /// What was named.
        msg_id: MessageId,
        /// How it stands.
        state: StateName,
    },
    /// `FILE_GONE`: the file that went with it is gone, so that it cannot be begun again: the node has no copy any more, and the
    /// original is not there, or not as it was.
    #[error("message {msg_id} carried a file that is not there any more as it was")]
    FileGone {
        /// What was named.
        msg_id: MessageId,
    },
    /// The file of a message cannot be sent again now; reasons as in [`SendError`].
    #[error(transparent)]
    Send(Box<SendError>),
    /// `AGENT_NOT_FOUND`: the recipient of a dead letter has ended, and no agent has its name now.
    #[error("the agent {slug} has ended, and none has that name now")]
    AgentEnded {
        /// The slug it had.
        slug: String,
    },
    /// `AGENT_NOT_FOUND`: the agent whose messages are asked for never was on this node.
    #[error("there is no agent {slug} on this node")]
    NoAgent {
        /// What was named.
        slug: String,
    },
    /// `MESSAGE_NOT_FOUND`: the quarantine has no such number.
    #[error("there is nothing with number {number} in the quarantine")]
    NotQuarantined {
        /// What was named.
        number: u64,
    },
    /// `INTERNAL`: a stored message cannot be read.
    #[error("the stored message {msg_id} cannot be read")]
    Unreadable {
        /// Which one.
        msg_id: MessageId,
    },
    /// `INTERNAL`: the operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
    /// `TRANSFER_NOT_FOUND`: the agent has no such transfer.
    #[error("there is no file transfer {stream_id}")]
    TransferNotFound {
        /// What was named.
        stream_id: StreamId,
    },
    /// The slug to filter by means no agent; reasons as in [`SendError::Resolve`].
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// `STORAGE_FAILED`.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
}
