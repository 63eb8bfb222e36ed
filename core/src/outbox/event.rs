//! What happens to a delivery, and what it asks for in turn.

use super::StateName;
use crate::code::Code;

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The scheduled time came. Early or repeated ticks do no harm.
    Tick,
    /// The driver came back after a crash: work that was under way is taken up at once.
    Restarted,
    /// The keys were found and the copy and its random `Nats-Msg-Id` are being committed with this step.
    Sealed {
        /// The attempt of the effect that asked for it.
        seal_attempt: u32,
    },
    /// The recipient has no usable key, or the directory could not be asked.
    KeysMissing {
        /// The attempt of the effect that asked for it.
        seal_attempt: u32,
    },
    /// The copy is at the head of its lane and is published right after this step is committed.
    PublishStarted,
    /// The broker answered a publish, or failed to.
    PublishAnswered {
        /// The attempt of the published copy.
        seal_attempt: u32,
        /// The answer.
        answer: PublishAnswer,
    },
    /// The lookup asked for by [`Effect::Resolve`] is done, or a sealed copy that is about to be published was found to be for another
    /// place than where its recipient is.
    Resolved {
        /// Whether the recipient still has the prekey and route of the sealed copy.
        unchanged: bool,
    },
    /// A verified receipt of the recipient arrived.
    Receipt {
        /// The attempt of the copy whose digest the receipt names.
        seal_attempt: u32,
        /// What it says.
        receipt: Receipt,
    },
    /// The node that has the message gives it back unread: its agent has moved to another one.
    GivenBack,
    /// The control plane confirms that the recipient has ended, so that nobody is left to seal for.
    RecipientGone,
    /// The sender takes the message back.
    Cancel,
}

/// The broker's answer to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishAnswer {
    /// The broker stored the message.
    Stored {
        /// It says that it had seen the `Nats-Msg-Id` before.
        duplicate: bool,
    },
    /// The recipient's lane holds as much as it may (10077).
    LaneFull,
    /// The message is larger than the broker takes (10054).
    TooLarge,
    /// The node may not publish there.
    Denied,
    /// No answer, or a passing failure.
    Failed,
}

/// What a recipient says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// Verified, decrypted and on the recipient node's disk.
    Delivered,
    /// Handed to the agent's session.
    Read,
    /// Refused.
    Failed {
        /// Why.
        code: Code,
        /// How long the recipient asks to wait, in seconds.
        retry_after_s: u32,
        /// Whether a fresh prekey came along; the driver has verified and stored it.
        has_fresh_prekey: bool,
    },
}

/// Something the driver is to do after committing the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Find keys and route, seal, and step with [`Event::Sealed`] or [`Event::KeysMissing`].
    /// For an attempt above 0 the recipient is looked up anew, past any cache.
    Seal {
        /// The attempt number that goes into the envelope.
        seal_attempt: u32,
    },
    /// Replace the publication's `Nats-Msg-Id` by a new random one, in the same transaction as this step.
    RenewNatsMsgId,
    /// Publish the sealed bytes when the copy heads its lane: step with [`Event::PublishStarted`], publish, step with
    /// [`Event::PublishAnswered`].
    Publish,
    /// Look the recipient up anew and step with [`Event::Resolved`]. No answer means: try again later.
    Resolve,
    /// Step with [`Event::Tick`] at this time; replaces an earlier schedule.
    ScheduleAt {
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The delivery came to this closed state: tell whoever waits; a dead one gets its dead-letter row.
    Report(StateName),
    /// Somebody used our random message id before us: count it (`dup_suspect`).
    CountDuplicateSuspect,
}
