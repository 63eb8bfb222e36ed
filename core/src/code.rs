//! Reply codes of the wire protocol (PROTOCOL §4.5): what a recipient node may say about a message, and what the sender does.

use std::fmt;

/// Why a message was refused, as carried in a negative acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are the protocol's own; PROTOCOL §4.5 explains each")]
pub enum Code {
    Malformed = 101,
    VersionUnsupported = 102,
    SuiteUnsupported = 103,
    CritUnknown = 104,
    TooLarge = 105,
    BadSignature = 201,
    ChainInvalid = 202,
    Revoked = 203,
    UntrustedRoot = 204,
    SenderMismatch = 205,
    KeyUnknown = 301,
    NotAddressed = 302,
    DecryptFailed = 303,
    CommitmentMismatch = 304,
    BadPadding = 305,
    Expired = 401,
    ClockSkew = 402,
    MsgIdConflict = 403,
    ConversationMismatch = 404,
    NotAMember = 405,
    AgentGone = 406,
    AgentMoved = 407,
    PolicyDenied = 501,
    RateLimited = 502,
    InboxFull = 503,
    TypeRefused = 504,
    StreamUnknown = 601,
    StreamGap = 602,
    StreamTooLarge = 603,
    ChunkAuth = 604,
    CreditExceeded = 605,
    StreamCancelled = 606,
    TryLater = 701,
    StorageFull = 702,
}

/// What a sender does when a recipient answers with a code (PROTOCOL §4.5, last column).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// No answer is ever sent for this code; one that arrives is ignored.
    Ignore,
    /// Seal again with fresh keys, at most three times.
    Reseal,
    /// Look the recipient up again, then seal again.
    ResolveAndReseal,
    /// Wait, then publish again.
    BackOff,
    /// The message ends as expired.
    Expire,
    /// The message ends as dead.
    Dead,
    /// A matter of the chunk stream, not of the message.
    Stream,
}

impl Code {
    /// Every code, in numeric order.
    pub const ALL: [Self; 34] = [
        Self::Malformed,
        Self::VersionUnsupported,
        Self::SuiteUnsupported,
        Self::CritUnknown,
        Self::TooLarge,
        Self::BadSignature,
        Self::ChainInvalid,
        Self::Revoked,
        Self::UntrustedRoot,
        Self::SenderMismatch,
        Self::KeyUnknown,
        Self::NotAddressed,
        Self::DecryptFailed,
        Self::CommitmentMismatch,
        Self::BadPadding,
        Self::Expired,
        Self::ClockSkew,
        Self::MsgIdConflict,
        Self::ConversationMismatch,
        Self::NotAMember,
        Self::AgentGone,
        Self::AgentMoved,
        Self::PolicyDenied,
        Self::RateLimited,
        Self::InboxFull,
        Self::TypeRefused,
        Self::StreamUnknown,
        Self::StreamGap,
        Self::StreamTooLarge,
        Self::ChunkAuth,
        Self::CreditExceeded,
        Self::StreamCancelled,
        Self::TryLater,
        Self::StorageFull,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The protocol's name, such as `KEY_UNKNOWN`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::VersionUnsupported => "VERSION_UNSUPPORTED",
            Self::SuiteUnsupported => "SUITE_UNSUPPORTED",
            Self::CritUnknown => "CRIT_UNKNOWN",
            Self::TooLarge => "TOO_LARGE",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::ChainInvalid => "CHAIN_INVALID",
            Self::Revoked => "REVOKED",
            Self::UntrustedRoot => "UNTRUSTED_ROOT",
            Self::SenderMismatch => "SENDER_MISMATCH",
            Self::KeyUnknown => "KEY_UNKNOWN",
            Self::NotAddressed => "NOT_ADDRESSED",
            Self::DecryptFailed => "DECRYPT_FAILED",
            Self::CommitmentMismatch => "COMMITMENT_MISMATCH",
            Self::BadPadding => "BAD_PADDING",
            Self::Expired => "EXPIRED",
            Self::ClockSkew => "CLOCK_SKEW",
            Self::MsgIdConflict => "MSGID_CONFLICT",
            Self::ConversationMismatch => "CONVERSATION_MISMATCH",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::AgentGone => "AGENT_GONE",
            Self::AgentMoved => "AGENT_MOVED",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::RateLimited => "RATE_LIMITED",
            Self::InboxFull => "INBOX_FULL",
            Self::TypeRefused => "TYPE_REFUSED",
            Self::StreamUnknown => "STREAM_UNKNOWN",
            Self::StreamGap => "STREAM_GAP",
            Self::StreamTooLarge => "STREAM_TOO_LARGE",
            Self::ChunkAuth => "CHUNK_AUTH",
            Self::CreditExceeded => "CREDIT_EXCEEDED",
            Self::StreamCancelled => "STREAM_CANCELLED",
            Self::TryLater => "TRY_LATER",
            Self::StorageFull => "STORAGE_FULL",
        }
    }

    /// What the sender does on hearing this code.
    #[must_use]
    pub const fn reaction(self) -> Reaction {
        match self {
            Self::Malformed
            | Self::VersionUnsupported
            | Self::SuiteUnsupported
            | Self::TooLarge
            | Self::BadSignature
            | Self::ChainInvalid
            | Self::Revoked
            | Self::UntrustedRoot
            | Self::SenderMismatch
            | Self::NotAddressed => Reaction::Ignore,
            Self::CritUnknown
            | Self::DecryptFailed
            | Self::CommitmentMismatch
            | Self::BadPadding
            | Self::ClockSkew
            | Self::MsgIdConflict
            | Self::ConversationMismatch
            | Self::NotAMember
            | Self::AgentGone
            | Self::PolicyDenied
            | Self::TypeRefused
            // The message that opens the stream is refused, and with it the stream.
            | Self::StreamTooLarge => Reaction::Dead,
            Self::KeyUnknown => Reaction::Reseal,
            Self::Expired => Reaction::Expire,
            Self::AgentMoved => Reaction::ResolveAndReseal,
            Self::RateLimited | Self::InboxFull | Self::TryLater | Self::StorageFull => Reaction::BackOff,
            Self::StreamUnknown
            | Self::StreamGap
            | Self::ChunkAuth
            | Self::CreditExceeded
            | Self::StreamCancelled => Reaction::Stream,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ascending_and_read_back() {
        assert!(Code::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
    }

    #[test]
    fn nothing_unauthenticated_is_answered() {
        for code in [Code::Malformed, Code::BadSignature, Code::ChainInvalid, Code::SenderMismatch, Code::NotAddressed]
        {
            assert_eq!(code.reaction(), Reaction::Ignore, "{code}");
        }
    }
}
