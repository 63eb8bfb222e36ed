//! How often somebody may do something: a bucket for each.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference as _},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

/// Callers that are remembered before those who have been quiet are forgotten; of strangers no more are.
const CALLERS_MAX: usize = 10_000;
/// Between two times of forgetting, which looks at everybody.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// The part of an IPv6 address that a provider gives to one customer; the rest is the customer's to choose.
const NETWORK_BITS: u32 = 64;

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
pub(crate) struct Limiter<K: Clone + Hash + Eq, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, Buckets<K>, C, NoOpMiddleware<C::Instant>>,
    tidied: Mutex<C::Instant>,
}

/// A bucket for each network that strangers come from. However many there are, no more than [`CALLERS_MAX`] have one of their own; those that
/// come then share one.
pub(crate) struct Strangers(Limiter<Network>);

/// What one stranger has: an IPv4 address, or an IPv6 network with all its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

/// How full the buckets are; that of `None` is shared by those who come when there are `own_max` others.
struct Buckets<K> {
    levels: Mutex<HashMap<Option<K>, Nanos>>,
    own_max: usize,
}

impl<K: Clone + Hash + Eq> Limiter<K> {
    /// For keys whose number is bounded by others: each has a bucket of its own.
    pub(crate) fn new(rate: Rate) -> Self {
        Self::with(rate, usize::MAX, DefaultClock::default())
    }
}

impl<K: Clone + Hash + Eq, C: Clock> Limiter<K, C> {
    fn with(rate: Rate, own_max: usize, clock: C) -> Self {
        let tidied = Mutex::new(clock.now());
        let buckets = Buckets { levels: Mutex::default(), own_max };
        Self { limiter: RateLimiter::new(rate.quota(), buckets, clock), tidied }
    }

    /// Counts one; otherwise how long to wait.
    pub(crate) fn check(&self, key: &K) -> Result<(), Duration> {
        if self.limiter.len() >= CALLERS_MAX && self.is_untidy() {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// Whether it is time to forget those who have been quiet; true for one caller only.
    fn is_untidy(&self) -> bool {
        let now = self.limiter.clock().now();
        let mut tidied = lock(&self.tidied);
        let is_time = now.duration_since(*tidied) >= Nanos::from(TIDY_EVERY);
        if is_time {
            *tidied = now;
        }
        is_time
    }
}

impl Strangers {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(Limiter::with(rate, CALLERS_MAX, DefaultClock::default()))
    }

    /// Counts one of this address; otherwise how long to wait.
    pub(crate) fn check(&self, from: IpAddr) -> Result<(), Duration> {
        self.0.check(&Network::of(from))
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        // A socket for both families shows IPv4 as a part of IPv6.
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let mask = u128::MAX << (Ipv6Addr::BITS - NETWORK_BITS);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl<K: Clone + Hash + Eq> StateStore for Buckets<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut levels = lock(&self.levels);
        let own = Some(key.clone());
        let has_own = levels.len() < self.own_max || levels.contains_key(&own);
        let bucket = own.filter(|_| has_own);
        let (done, level) = measure(levels.get(&bucket).copied())?;
        levels.insert(bucket, level);
        Ok(done)
    }
}

impl<K: Clone + Hash + Eq> ShrinkableKeyedStateStore<K> for Buckets<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        lock(&self.levels).retain(|_, level| *level > drop_below);
    }

    fn len(&self) -> usize {
        lock(&self.levels).len()
    }

    fn is_empty(&self) -> bool {
        lock(&self.levels).is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    /// Once in so long, and no more at once.
    fn once_in(per: Duration) -> Rate {
        Rate { per, count: NonZeroU32::MIN, burst: NonZeroU32::MIN }
    }

    fn is_let_in(strangers: &Strangers, address: &str) -> bool {
        strangers.check(address.parse().unwrap()).is_ok()
    }

    /// Strangers with a clock, of whom as many were here as are remembered.
    fn crowd(per: Duration) -> (Limiter<usize, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::with(once_in(per), CALLERS_MAX, clock.clone());
        for key in 0..CALLERS_MAX {
            limiter.check(&key).unwrap();
        }
        (limiter, clock)
    }

    #[test]
    fn the_addresses_of_one_network_are_one_stranger() {
        let strangers = Strangers::new(once_in(Duration::from_secs(3600)));
        for (address, is_new) in [
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", false),
            ("2001:db8:0:2::1", true),
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("::ffff:192.0.2.2", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(is_let_in(&strangers, address), is_new, "{address}");
        }
    }

    #[test]
    fn strangers_beyond_the_bound_share_a_bucket() {
        let hour = Duration::from_secs(3600);
        let (limiter, clock) = crowd(hour);
        assert_eq!(limiter.check(&CALLERS_MAX), Ok(()));
        assert!(limiter.check(&(CALLERS_MAX + 1)).is_err(), "it has a bucket of its own");
        assert_eq!(limiter.limiter.len(), CALLERS_MAX + 1);
        clock.advance(hour);
        // Those from before have theirs still.
        assert_eq!([limiter.check(&0), limiter.check(&1)], [Ok(()); 2]);
    }

    #[test]
    fn those_who_were_quiet_are_forgotten_once_a_second() {
        let (limiter, clock) = crowd(TIDY_EVERY / 10);
        clock.advance(TIDY_EVERY / 2);
        assert_eq!(limiter.check(&CALLERS_MAX), Ok(()));
        assert_eq!(limiter.limiter.len(), CALLERS_MAX + 1, "it was tidied too soon");
        clock.advance(TIDY_EVERY / 2);
        assert_eq!(limiter.check(&CALLERS_MAX), Ok(()));
        assert_eq!(limiter.limiter.len(), 1);
    }

    #[test]
    fn known_callers_share_nothing() {
        let limiter = Limiter::new(once_in(Duration::from_secs(3600)));
        for key in 0..CALLERS_MAX + 2 {
            limiter.check(&key).unwrap();
        }
    }
}
