//! When to try again (PROTOCOL §5.4): decorrelated jitter for failures, a fixed schedule for silence.
//!
//! Randomness is an argument: any `u64`, drawn evenly by the caller. Times are milliseconds.

/// Back-off with decorrelated jitter: `next = min(cap, rand(base, previous * 3))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Shortest delay.
    pub base_ms: u64,
    /// Longest delay.
    pub cap_ms: u64,
}

impl Backoff {
    /// For a broker or control plane that cannot be reached.
    pub const TRANSPORT: Self = Self { base_ms: 250, cap_ms: 60_000 };
    /// For a recipient that asks to wait.
    pub const NACK: Self = Self { base_ms: 5_000, cap_ms: 15 * 60_000 };

    /// The delay after one of `previous_ms` (0 before the first), between base and cap.
    #[must_use]
    pub fn next(&self, previous_ms: u64, random: u64) -> u64 {
        let spread = previous_ms.saturating_mul(3).saturating_sub(self.base_ms);
        let jitter = spread.checked_add(1).map_or(random, |width| random % width);
        self.base_ms.saturating_add(jitter).min(self.cap_ms)
    }
}

/// How long the broker may hold a message without any receipt before it is published again.
///
/// Each wait is counted from the latest acknowledgement by the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepublishSchedule {
    /// The first waits, in order.
    pub first_ms: Vec<u64>,
    /// Every wait after those.
    pub then_ms: u64,
}

impl RepublishSchedule {
    /// The wait after `count` publications beyond the first one.
    #[must_use]
    pub fn wait_ms(&self, count: u32) -> u64 {
        usize::try_from(count).ok().and_then(|count| self.first_ms.get(count)).copied().unwrap_or(self.then_ms)
    }
}

impl Default for RepublishSchedule {
    /// Ten minutes, one hour, six hours, a day, then daily.
    fn default() -> Self {
        const MINUTE: u64 = 60_000;
        const DAY: u64 = 24 * 60 * MINUTE;
        Self { first_ms: vec![10 * MINUTE, 60 * MINUTE, 6 * 60 * MINUTE, DAY], then_ms: DAY }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_delay_is_the_base() {
        assert_eq!(Backoff::TRANSPORT.next(0, u64::MAX), 250);
        assert_eq!(Backoff::NACK.next(0, 7), 5_000);
    }

    #[test]
    fn silence_is_met_ever_more_slowly() {
        let minutes: Vec<_> = (0..6).map(|count| RepublishSchedule::default().wait_ms(count) / 60_000).collect();
        assert_eq!(minutes, [10, 60, 360, 1440, 1440, 1440]);
    }

    proptest! {
        #[test]
        fn delays_stay_between_base_and_cap(previous: u64, random: u64) {
            let delay = Backoff::TRANSPORT.next(previous, random);
            prop_assert!((250..=60_000).contains(&delay));
            prop_assert!(delay <= previous.saturating_mul(3).max(250));
        }
    }
}
