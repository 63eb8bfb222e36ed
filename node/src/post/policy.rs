//! Rates and limits (PROTOCOL §6.5, DESIGN §8.15): the sender's node asks first, for a friendly answer; the receiver's node holds what
//! is too fast and shows it at the pair's own pace.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use governor::{
    DefaultKeyedRateLimiter as Keyed, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use murmur_core::{
    id::{AgentId, NodeId},
    order::{Pace, Rate},
};

use super::{stats::Counter, types::PostConfig};

/// Pairs over their rate that are remembered for people.
const TRIPS_MAX: usize = 256;
/// For how long a pair that was over its rate is told of.
const TRIP_TOLD_MS: u64 = 10 * 60 * 1000;

/// Who speaks, and to whom.
type Pair = (AgentId, AgentId);

/// One side's limits.
pub(super) struct Policy {
    sending: Keyed<Pair>,
    receiving: Mutex<HashMap<Pair, Pace>>,
    rate: Rate,
    held_max: u64,
    sources: Keyed<NodeId>,
    clock: DefaultClock,
    trips: Mutex<HashMap<Pair, u64>>,
    /// How often a pair was found over its rate.
    pub(super) tripped: Counter,
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
            receiving: Mutex::default(),
            rate: Rate::per_minute(config.pair_per_minute.get(), config.pair_burst.get()),
            held_max: u64::from(config.pair_held_max),
            sources: RateLimiter::keyed(source),
            clock: DefaultClock::default(),
            trips: Mutex::default(),
            tripped: Counter::default(),
        }
    }

    /// Counts a message that a local agent wants to send.
    pub(super) fn may_send(&self, from: AgentId, to: AgentId, now_ms: u64) -> Result<(), OverRate> {
        self.check(&self.sending, &(from, to)).inspect_err(|_| self.trip((from, to), now_ms))
    }

    /// Takes a place for an authentic message from an agent to a local one, if it may be shown at once.
    pub(super) fn may_show(&self, from: AgentId, to: AgentId, now_ms: u64) -> bool {
        let mut receiving = lock(&self.receiving);
        let pace = receiving.entry((from, to)).or_default();
        let may = pace.next_ms(now_ms, self.rate) <= now_ms;
        if may {
            pace.take(now_ms, self.rate);
        }
        may
    }

    /// Takes a place for a message that may not be shown at once, and says when it may. A pair has so many places and no more.
    pub(super) fn hold(&self, from: AgentId, to: AgentId, now_ms: u64) -> Result<u64, OverRate> {
        self.trip((from, to), now_ms);
        let mut receiving = lock(&self.receiving);
        let pace = receiving.entry((from, to)).or_default();
        let wait_ms = pace.next_ms(now_ms, self.rate).saturating_sub(now_ms);
        // The next place would be one interval away if nobody was held.
        let held = wait_ms.saturating_mul(1000).saturating_sub(1) / self.rate.interval_us.max(1);
        if held < self.held_max {
            return Ok(pace.take(now_ms, self.rate));
        }
        // Not each place for itself, or the sender comes for every single one.
        Err(OverRate { retry_after_ms: (wait_ms / 2).max(1_000) })
    }

    /// Takes up a pair's pace after a start, behind the latest time that any message of it was given.
    pub(super) fn resume(&self, from: AgentId, to: AgentId, latest_ms: u64) {
        let resumed = Pace::after(latest_ms, self.rate);
        let mut receiving = lock(&self.receiving);
        let pace = receiving.entry((from, to)).or_default();
        if pace.next_ms(0, self.rate) < resumed.next_ms(0, self.rate) {
            *pace = resumed;
        }
    }

    /// Counts anything that a node sends here.
    pub(super) fn may_arrive(&self, source: NodeId) -> Result<(), OverRate> {
        self.check(&self.sources, &source)
    }

    /// The pairs that were over their rate lately.
    pub(super) fn over_rate(&self, now_ms: u64) -> Vec<Pair> {
        let mut pairs: Vec<_> = lock(&self.trips)
            .iter()
            .filter(|(_, at_ms)| at_ms.saturating_add(TRIP_TOLD_MS) > now_ms)
            .map(|(pair, _)| *pair)
            .collect();
        pairs.sort_unstable();
        pairs
    }

    /// Forgets pairs and nodes that were quiet long enough to have their full burst again.
    pub(super) fn shrink(&self, now_ms: u64) {
        self.sending.retain_recent();
        lock(&self.receiving).retain(|_, pace| !pace.is_rested(now_ms));
        self.sources.retain_recent();
        lock(&self.trips).retain(|_, at_ms| at_ms.saturating_add(TRIP_TOLD_MS) > now_ms);
    }

    fn trip(&self, pair: Pair, now_ms: u64) {
        self.tripped.add();
        let mut trips = lock(&self.trips);
        if trips.len() < TRIPS_MAX || trips.contains_key(&pair) {
            trips.insert(pair, now_ms);
        }
    }

    fn check<K: Clone + std::hash::Hash + Eq>(&self, limiter: &Keyed<K>, key: &K) -> Result<(), OverRate> {
        limiter.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            OverRate { retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1) }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const ALICE: AgentId = AgentId::from_bytes([1; 16]);
    const BOB: AgentId = AgentId::from_bytes([2; 16]);
    const CAROL: AgentId = AgentId::from_bytes([3; 16]);

    fn policy() -> Policy {
        let some = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        let config =
            PostConfig { pair_per_minute: some(60), pair_burst: some(2), pair_held_max: 3, ..PostConfig::default() };
        Policy::new(&config)
    }

    #[test]
    fn what_is_too_fast_is_given_its_time_until_the_places_are_used_up() {
        let policy = policy();
        assert!(policy.may_show(ALICE, BOB, 10_000) && policy.may_show(ALICE, BOB, 10_000));
        assert!(!policy.may_show(ALICE, BOB, 10_000));
        assert!(policy.over_rate(10_000).is_empty());
        let held: Vec<_> = (0..4).map(|_| policy.hold(ALICE, BOB, 10_000)).collect();
        assert_eq!(held[..3], [Ok(11_000), Ok(12_000), Ok(13_000)]);
        assert_eq!(held[3], Err(OverRate { retry_after_ms: 2_000 }));
        assert_eq!(policy.hold(ALICE, BOB, 11_000), Ok(14_000), "a place is free again");
        assert!(policy.may_show(CAROL, BOB, 10_000), "nobody else waits for them");
        assert_eq!(policy.over_rate(10_000), [(ALICE, BOB)]);
        assert!(policy.over_rate(10_000 + 2 * TRIP_TOLD_MS).is_empty());
    }

    #[test]
    fn after_a_restart_nobody_gets_in_before_what_is_held() {
        let policy = policy();
        policy.resume(ALICE, BOB, 13_000);
        policy.resume(ALICE, BOB, 12_000);
        assert!(!policy.may_show(ALICE, BOB, 10_000));
        assert_eq!(policy.hold(ALICE, BOB, 10_000).map_err(|_| ()), Err(()), "all places are taken");
        assert_eq!(policy.hold(ALICE, BOB, 11_500), Ok(14_000));
    }

    #[test]
    fn who_was_quiet_is_forgotten() {
        let policy = policy();
        assert!(policy.may_show(ALICE, BOB, 10_000));
        policy.shrink(10_500);
        assert_eq!(lock(&policy.receiving).len(), 1);
        policy.shrink(11_000);
        assert!(lock(&policy.receiving).is_empty());
    }
}
