//! The states of a delivery, each with only the data that is true in it.

use std::{fmt, str::FromStr};

use crate::code::Code;

/// Where a delivery stands. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be sealed.
    Queued {
        /// Number of the next seal, 0 for the first.
        seal_attempt: u32,
        /// Not before this time.
        not_before_ms: u64,
        /// The latest back-off delay, 0 for none.
        backoff_prev_ms: u64,
    },
    /// Sealed, to be published.
    Sealed {
        /// Number of the seal.
        seal_attempt: u32,
        /// Publishes begun under the current `Nats-Msg-Id`.
        publish_tries: u32,
        /// Publications beyond the first one of this copy.
        republish_count: u32,
        /// Time of the next try.
        next_at_ms: u64,
        /// The latest back-off delay, 0 for none.
        backoff_prev_ms: u64,
    },
    /// Held by the broker, no receipt yet.
    Stored {
        /// Number of the seal.
        seal_attempt: u32,
        /// Publications beyond the first one of this copy.
        republish_count: u32,
        /// When the broker acknowledged it.
        since_ms: u64,
        /// When silence is met with another publish.
        next_at_ms: u64,
        /// The latest back-off delay, 0 for none.
        backoff_prev_ms: u64,
    },
    /// On the recipient node's disk.
    Delivered {
        /// When the receipt came.
        at_ms: u64,
    },
    /// Seen by the recipient.
    Read {
        /// When the receipt came.
        at_ms: u64,
    },
    /// Its time ran out.
    Expired,
    /// It cannot be delivered.
    Dead {
        /// Why.
        cause: DeadCause,
    },
    /// Taken back by the sender.
    Cancelled,
}

impl State {
    /// The state of a new delivery.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self::Queued { seal_attempt: 0, not_before_ms: now_ms, backoff_prev_ms: 0 }
    }

    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> StateName {
        match self {
            Self::Queued { .. } => StateName::Queued,
            Self::Sealed { .. } => StateName::Sealed,
            Self::Stored { .. } => StateName::Stored,
            Self::Delivered { .. } => StateName::Delivered,
            Self::Read { .. } => StateName::Read,
            Self::Expired => StateName::Expired,
            Self::Dead { .. } => StateName::Dead,
            Self::Cancelled => StateName::Cancelled,
        }
    }

    /// When it wants to be looked at again; `None` once closed. The expiry may come earlier.
    #[must_use]
    pub const fn next_at_ms(&self) -> Option<u64> {
        match self {
            Self::Queued { not_before_ms: at, .. }
            | Self::Sealed { next_at_ms: at, .. }
            | Self::Stored { next_at_ms: at, .. } => Some(*at),
            Self::Delivered { .. } | Self::Read { .. } | Self::Expired | Self::Dead { .. } | Self::Cancelled => None,
        }
    }
}

/// The names of the states, as stored and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "`State` explains each")]
pub enum StateName {
    Queued,
    Sealed,
    Stored,
    Delivered,
    Read,
    Expired,
    Dead,
    Cancelled,
}

impl StateName {
    /// Every name.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Sealed,
        Self::Stored,
        Self::Delivered,
        Self::Read,
        Self::Expired,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Sealed => "SEALED",
            Self::Stored => "STORED",
            Self::Delivered => "DELIVERED",
            Self::Read => "READ",
            Self::Expired => "EXPIRED",
            Self::Dead => "DEAD",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether the message may still be on its way. A delivered one is closed; it may become read, nothing else.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Sealed | Self::Stored)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown delivery state `{0}`")]
pub struct InvalidStateName(String);

impl FromStr for StateName {
    type Err = InvalidStateName;

    fn from_str(text: &str) -> Result<Self, InvalidStateName> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| InvalidStateName(text.chars().take(32).collect()))
    }
}

/// Why a delivery is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadCause {
    /// The recipient refused for good.
    Refused(Code),
    /// The recipient asked for another seal once too often.
    SealsExhausted(Code),
    /// The broker takes no message of this size.
    TooLarge,
    /// The node may not publish to the recipient.
    PublishDenied,
    /// The recipient ended before the message could be sealed for it.
    AgentGone,
}

impl DeadCause {
    /// The word stored and shown; the code, if any, is kept beside it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(_) => "REFUSED",
            Self::SealsExhausted(_) => "SEALS_EXHAUSTED",
            Self::TooLarge => "TOO_LARGE",
            Self::PublishDenied => "PUBLISH_DENIED",
            // The name of the code that the recipient's own node answers with.
            Self::AgentGone => "AGENT_GONE",
        }
    }

    /// The recipient's code, if it was the recipient.
    #[must_use]
    pub const fn code(self) -> Option<Code> {
        match self {
            Self::Refused(code) | Self::SealsExhausted(code) => Some(code),
            Self::TooLarge | Self::PublishDenied | Self::AgentGone => None,
        }
    }

    /// The cause of a stored word and code, if they fit.
    #[must_use]
    pub fn from_parts(word: &str, code: Option<Code>) -> Option<Self> {
        match (word, code) {
            ("REFUSED", Some(code)) => Some(Self::Refused(code)),
            ("SEALS_EXHAUSTED", Some(code)) => Some(Self::SealsExhausted(code)),
            ("TOO_LARGE", None) => Some(Self::TooLarge),
            ("PUBLISH_DENIED", None) => Some(Self::PublishDenied),
            ("AGENT_GONE", None) => Some(Self::AgentGone),
            _ => None,
        }
    }
}

impl fmt::Display for DeadCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.code().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}
