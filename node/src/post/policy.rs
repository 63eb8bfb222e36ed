//! Rates and limits (PROTOCOL §6.5): the sender's node asks first, for a friendly answer; the receiver's node is the authority.

use governor::{
    DefaultKeyedRateLimiter as Keyed, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use murmur_core::id::{AgentId, NodeId};

use super::types::PostConfig;

/// One side's limits.
pub(super) struct Policy {
    sending: Keyed<(AgentId, AgentId)>,
    receiving: Keyed<(AgentId, AgentId)>,
    sources: Keyed<NodeId>,
    clock: DefaultClock,
}

/// Too much; may go on after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverRate {
    pub(super) retry_after_ms: u64,
}

impl Policy {
    pub(super) fn new(config: &PostConfig) -> Self {
        let pair = Quota::per_minute(config.pair_per_minute).allow_burst(config.pair_burst);
        let source = Quota::per_second(config.source_per_second).allow_burst(config.source_burst);
        Self {
            sending: RateLimiter::keyed(pair),
            receiving: RateLimiter::keyed(pair),
            sources: RateLimiter::keyed(source),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a message that a local agent wants to send.
    pub(super) fn may_send(&self, from: AgentId, to: AgentId) -> Result<(), OverRate> {
        self.check(&self.sending, &(from, to))
    }

    /// Counts an authenticated message from an agent to a local one.
    pub(super) fn may_receive(&self, from: AgentId, to: AgentId) -> Result<(), OverRate> {
        self.check(&self.receiving, &(from, to))
    }

    /// Counts anything that a node sends here.
    pub(super) fn may_arrive(&self, source: NodeId) -> Result<(), OverRate> {
        self.check(&self.sources, &source)
    }

    /// Forgets pairs and nodes that were quiet long enough to have their full burst again.
    pub(super) fn shrink(&self) {
        self.sending.retain_recent();
        self.receiving.retain_recent();
        self.sources.retain_recent();
    }

    fn check<K: Clone + std::hash::Hash + Eq>(&self, limiter: &Keyed<K>, key: &K) -> Result<(), OverRate> {
        limiter.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            OverRate { retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1) }
        })
    }
}
