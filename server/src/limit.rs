//! How often somebody may do something: a bucket for each.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

/// Callers that are remembered before those who have been quiet are forgotten.
const CALLERS_MAX: usize = 10_000;

/// A steady rate and how much may come at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per: Duration,
    pub(crate) count: NonZeroU32,
    pub(crate) burst: NonZeroU32,
}

impl Rate {
    fn quota(self) -> Quota {
        // The period is never zero: `count` is not, and config allows no zero `per`.
        Quota::with_period(self.per / self.count.get()).unwrap_or(Quota::per_second(self.count)).allow_burst(self.burst)
    }
}

/// A bucket for each key.
pub(crate) struct Limiter<K: Clone + Hash + Eq>(DefaultKeyedRateLimiter<K>);

impl<K: Clone + Hash + Eq> Limiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(RateLimiter::keyed(rate.quota()))
    }

    /// Counts one; otherwise how long to wait.
    pub(crate) fn check(&self, key: &K) -> Result<(), Duration> {
        if self.0.len() > CALLERS_MAX {
            self.0.retain_recent();
        }
        self.0.check_key(key).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}
