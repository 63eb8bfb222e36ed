//! What the post counts, for metrics and status.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the process started. Each is shown as it is at the time of reading.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) delivered: Counter,
    pub(super) duplicates: Counter,
    pub(super) published: Counter,
    pub(super) retried: Counter,
    pub(super) dead: Counter,
    pub(super) expired: Counter,
    pub(super) quarantined: Counter,
    pub(super) refused: Counter,
    pub(super) acks_ignored: Counter,
    pub(super) duplicate_suspects: Counter,
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What [`super::Post::stats`] answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostStats {
    /// Deliveries that are on this node's disk only.
    pub queued: u64,
    /// Deliveries that are sealed and not yet with the broker.
    pub sealed: u64,
    /// Deliveries that are with the broker and not yet acknowledged.
    pub stored: u64,
    /// How long the oldest open delivery has waited, milliseconds; 0 when there is none.
    pub oldest_pending_ms: u64,
    /// Messages accepted from local agents.
    pub sent: u64,
    /// Messages stored for local agents.
    pub received: u64,
    /// Deliveries acknowledged by their recipients.
    pub delivered: u64,
    /// Arrivals that were known already.
    pub duplicates: u64,
    /// Publishes that the broker took.
    pub published: u64,
    /// Publishes that the broker did not take.
    pub retried: u64,
    /// Deliveries that ended as dead.
    pub dead: u64,
    /// Deliveries that ended as expired.
    pub expired: u64,
    /// Arrivals put into quarantine.
    pub quarantined: u64,
    /// Arrivals that lie in the quarantine now.
    pub in_quarantine: u64,
    /// Arrivals refused with a code that the sender was told.
    pub refused: u64,
    /// Acknowledgements that did not count.
    pub acks_ignored: u64,
    /// Random broker ids that somebody had used before us.
    pub duplicate_suspects: u64,
    /// Messages that are stored and wait for their turn to be shown.
    pub held: u64,
    /// How often a pair of agents was found over its rate.
    pub pair_rate_trips: u64,
    /// The pairs that were over their rate in the last minutes: who speaks, and to whom, by slug where it is known.
    pub over_rate: Vec<(String, String)>,
    /// Dead letters that nobody has seen to.
    pub dead_letters: u64,
}

/// Hears how long each delivery took from acceptance to the recipient's receipt.
pub type LatencyHook = Box<dyn Fn(std::time::Duration) + Send + Sync>;
