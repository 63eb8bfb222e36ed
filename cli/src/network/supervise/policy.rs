//! When a crashed part is started again, and how soon. Pure: time and randomness are arguments.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use murmur_core::retry::Backoff;

/// The rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Waits before a restart, with decorrelated jitter.
    pub(crate) backoff: Backoff,
    /// A part that lived this long was well: the waits begin anew.
    pub(crate) well_after: Duration,
    /// So many crashes within the window are too many.
    pub(crate) crashes_max: u32,
    pub(crate) window: Duration,
    /// A part that crashed too often is tried again this much later, once each time.
    pub(crate) rest: Duration,
}

impl Policy {
    /// The rules of `up`, with its one choice.
    pub(crate) const fn new(crashes_max: u32) -> Self {
        Self {
            backoff: Backoff { base_ms: 250, cap_ms: 10_000 },
            well_after: Duration::from_secs(10),
            crashes_max,
            window: Duration::from_secs(60),
            rest: Duration::from_secs(60),
        }
    }
}

/// What to do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Start it again after this time.
    Wait(Duration),
    /// Leave it down for a rest: it crashed so often within the window, or has not been well since it did.
    Rest { crashes: u32 },
}

/// The recent crashes of one part.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    recent: VecDeque<Instant>,
    previous_ms: u64,
    /// How often it crashed within the window when that was too often, as long as it has not been well since.
    too_many: Option<u32>,
}

impl Crashes {
    /// Notes a crash of a process that had lived for some time.
    pub(super) fn note(&mut self, policy: &Policy, lived: Duration, now: Instant, random: u64) -> Next {
        if lived >= policy.well_after {
            (self.previous_ms, self.too_many) = (0, None);
        }
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) > policy.window) {
            self.recent.pop_front();
        }
        let crashes = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if crashes >= policy.crashes_max {
            self.too_many.get_or_insert(crashes);
        }
        if let Some(crashes) = self.too_many {
            return Next::Rest { crashes };
        }
        self.previous_ms = policy.backoff.next(self.previous_ms, random);
        Next::Wait(Duration::from_millis(self.previous_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy::new(5);
    const AT_ONCE: Duration = Duration::ZERO;

    fn wait_ms(next: Next) -> u64 {
        let Next::Wait(wait) = next else { panic!("{next:?} is no wait") };
        wait.as_millis().try_into().unwrap()
    }

    #[test]
    fn waits_grow_until_a_part_has_lived_for_a_while() {
        let (mut crashes, now) = (Crashes::default(), Instant::now());
        assert_eq!(wait_ms(crashes.note(&POLICY, AT_ONCE, now, 500)), 250);
        assert_eq!(wait_ms(crashes.note(&POLICY, AT_ONCE, now, 500)), 750);
        assert!(wait_ms(crashes.note(&POLICY, AT_ONCE, now, 2_000)) > 750);
        assert_eq!(wait_ms(crashes.note(&POLICY, POLICY.well_after, now, 2_000)), 250);
    }

    #[test]
    fn after_too_many_crashes_within_the_window_it_is_tried_now_and_then_until_it_is_well() {
        let (mut crashes, mut now) = (Crashes::default(), Instant::now());
        for _ in 0..4 {
            assert!(matches!(crashes.note(&POLICY, AT_ONCE, now, 0), Next::Wait(_)));
        }
        for _ in 0..3 {
            assert_eq!(crashes.note(&POLICY, AT_ONCE, now, 0), Next::Rest { crashes: 5 });
            now += POLICY.window + POLICY.rest;
        }
        assert!(matches!(crashes.note(&POLICY, POLICY.well_after, now, 0), Next::Wait(_)));
    }

    #[test]
    fn crashes_that_are_far_apart_are_no_loop() {
        let (mut crashes, mut now) = (Crashes::default(), Instant::now());
        for _ in 0..100 {
            assert!(matches!(crashes.note(&POLICY, AT_ONCE, now, 0), Next::Wait(_)));
            now += POLICY.window / 3;
        }
    }
}
