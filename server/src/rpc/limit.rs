//! How often one caller may call (PROTOCOL §6.4).

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::tokens::RateKey;

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

/// The limiters of the gate.
pub(crate) struct Limits {
    calls: Limiter<RateKey>,
    enrolments: Limiter<IpAddr>,
    failures: Limiter<IpAddr>,
}

impl Limits {
    /// `calls` a token, `strangers` an address, for enrolments and failed logins each.
    pub(crate) fn new(calls: Rate, strangers: Rate) -> Self {
        Self { calls: Limiter::new(calls), enrolments: Limiter::new(strangers), failures: Limiter::new(strangers) }
    }

    /// A call of somebody who is known; otherwise how long to wait.
    pub(crate) fn call(&self, caller: RateKey) -> Result<(), Duration> {
        self.calls.check(&caller)
    }

    /// A call that anybody may make.
    pub(crate) fn enrolment(&self, from: IpAddr) -> Result<(), Duration> {
        self.enrolments.check(&from)
    }

    /// A call with a token that was refused.
    pub(crate) fn failure(&self, from: IpAddr) -> Result<(), Duration> {
        self.failures.check(&from)
    }
}

struct Limiter<K: Clone + Hash + Eq>(DefaultKeyedRateLimiter<K>);

impl<K: Clone + Hash + Eq> Limiter<K> {
    fn new(rate: Rate) -> Self {
        Self(RateLimiter::keyed(rate.quota()))
    }

    fn check(&self, key: &K) -> Result<(), Duration> {
        if self.0.len() > CALLERS_MAX {
            self.0.retain_recent();
        }
        self.0.check_key(key).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}
