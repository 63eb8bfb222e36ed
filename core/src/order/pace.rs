//! Pacing: a burst at once, then one at a time (the generic cell rate algorithm, as a shaper).

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two messages once the burst is used up, in microseconds.
    pub interval_us: u64,
    /// Messages that may come at once.
    pub burst: u32,
}

impl Rate {
    /// So many a minute, and so many at once.
    #[must_use]
    pub const fn per_minute(count: u32, burst: u32) -> Self {
        Self { interval_us: 60_000_000 / if count == 0 { 1 } else { count as u64 }, burst }
    }

    const fn burst_us(self) -> u64 {
        self.interval_us.saturating_mul((self.burst as u64).saturating_sub(1))
    }
}

/// How far ahead of its rate somebody is. The default is somebody who was quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// When the whole burst would be free again, in Unix microseconds.
    free_us: u64,
}

impl Pace {
    /// The pace after a message that got this place, for whoever forgot the rest.
    #[must_use]
    pub const fn after(at_ms: u64, rate: Rate) -> Self {
        Self { free_us: at_ms.saturating_mul(1000).saturating_add(rate.burst_us()).saturating_add(rate.interval_us) }
    }

    /// When the next message may be shown, in Unix milliseconds; never before `now_ms`.
    #[must_use]
    pub fn next_ms(&self, now_ms: u64, rate: Rate) -> u64 {
        self.free_us.saturating_sub(rate.burst_us()).div_ceil(1000).max(now_ms)
    }

    /// Takes the next place, and says when it is.
    pub fn take(&mut self, now_ms: u64, rate: Rate) -> u64 {
        let at_us = self.free_us.saturating_sub(rate.burst_us()).max(now_ms.saturating_mul(1000));
        self.free_us = self.free_us.max(at_us).saturating_add(rate.interval_us);
        at_us.div_ceil(1000)
    }

    /// Whether the whole burst is free, so that nothing needs to be remembered.
    #[must_use]
    pub const fn is_rested(&self, now_ms: u64) -> bool {
        self.free_us <= now_ms.saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_one_at_a_time() {
        let (rate, mut pace) = (Rate::per_minute(60, 3), Pace::default());
        let times: Vec<_> = (0..6).map(|_| pace.take(5_000, rate)).collect();
        assert_eq!(times, [5_000, 5_000, 5_000, 6_000, 7_000, 8_000]);
        assert_eq!(pace.next_ms(5_000, rate), 9_000);
        assert!(!pace.is_rested(10_999) && pace.is_rested(11_000));
    }

    #[test]
    fn what_was_forgotten_is_taken_up_where_the_last_message_stands() {
        let (rate, mut pace) = (Rate::per_minute(60, 3), Pace::default());
        let last = (0..6).map(|_| pace.take(5_000, rate)).last().unwrap_or_default();
        assert_eq!(Pace::after(last, rate), pace);
    }

    proptest! {
        #[test]
        fn nobody_is_faster_than_the_rate_and_nobody_is_held_without_cause(
            steps in proptest::collection::vec(0..5_000_u64, 1..200),
            per_minute in 1..100_000_u32,
            burst in 1..50_u32,
        ) {
            let (rate, mut pace, mut now_ms) = (Rate::per_minute(per_minute, burst), Pace::default(), 1_000_000);
            let mut times: Vec<u64> = Vec::new();
            for step in steps {
                now_ms += step;
                let expected = pace.next_ms(now_ms, rate);
                let at_ms = pace.take(now_ms, rate);
                prop_assert_eq!(at_ms, expected);
                prop_assert!(at_ms >= now_ms);
                prop_assert!(times.last().is_none_or(|last| *last <= at_ms), "two changed places");
                let burst = burst as usize;
                if let Some(earlier) = times.len().checked_sub(burst).map(|at| times[at]) {
                    // Rounding up to whole milliseconds may take one off.
                    prop_assert!((at_ms + 1 - earlier) * 1000 >= rate.interval_us, "more than a burst at once");
                }
                if at_ms > now_ms {
                    prop_assert!(times.len() >= burst, "held within the burst");
                }
                times.push(at_ms);
            }
        }
    }
}
