//! Beginning a dead or expired message again, because a person wants it (PROTOCOL §5.4, DLQ).

use super::{Delivery, State};
use crate::limits::{CLOCK_SKEW_MS, TTL_SECONDS_MAX};

/// How a message that was given up can be begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redrive {
    /// Under its own id, so that a recipient who has it after all knows it as a duplicate.
    Same {
        /// Its time to live from now on, counted from when it was first accepted, in seconds.
        ttl_seconds: u32,
    },
    /// As a new message that names the old one: recipients refuse anything as old as this.
    Anew,
}

/// Decides how a message can be begun again. It gets the time to live that it had, counted from now, as far as the longest one
/// allows: a recipient counts from `created_ms`, and its clock may be ahead of ours.
#[must_use]
pub fn redrive(created_ms: u64, ttl_seconds: u32, now_ms: u64) -> Redrive {
    let latest_ms = created_ms.saturating_add(u64::from(TTL_SECONDS_MAX) * 1000);
    if now_ms.saturating_add(CLOCK_SKEW_MS) >= latest_ms {
        return Redrive::Anew;
    }
    let wanted_ms = now_ms.saturating_add(u64::from(ttl_seconds) * 1000).min(latest_ms);
    let whole_seconds = wanted_ms.saturating_sub(created_ms).div_ceil(1000);
    Redrive::Same { ttl_seconds: u32::try_from(whole_seconds).unwrap_or(TTL_SECONDS_MAX).min(TTL_SECONDS_MAX) }
}

impl Delivery {
    /// The delivery begun again with the first seal, to expire at `expires_ms`; `None` unless it is dead or expired.
    #[must_use]
    pub const fn redriven(self, now_ms: u64, expires_ms: u64) -> Option<Self> {
        match self.state {
            State::Dead { .. } | State::Expired => Some(Self::new(now_ms, expires_ms)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::DeadCause;

    const WEEK_MS: u64 = TTL_SECONDS_MAX as u64 * 1000;

    #[test]
    fn within_the_longest_life_it_keeps_its_id_and_gets_its_time_again() {
        assert_eq!(redrive(1_000, 60, 61_000), Redrive::Same { ttl_seconds: 120 });
        assert_eq!(redrive(1_000, 60, WEEK_MS - CLOCK_SKEW_MS), Redrive::Same { ttl_seconds: TTL_SECONDS_MAX - 241 });
        assert_eq!(redrive(1_000, TTL_SECONDS_MAX, 5_000), Redrive::Same { ttl_seconds: TTL_SECONDS_MAX });
    }

    #[test]
    fn later_it_is_a_new_message() {
        assert_eq!(redrive(1_000, 60, 1_000 + WEEK_MS - CLOCK_SKEW_MS), Redrive::Anew);
        assert_eq!(redrive(0, 60, u64::MAX), Redrive::Anew);
    }

    #[test]
    fn only_what_was_given_up_is_begun_again() {
        let at = |state| Delivery { expires_ms: 5, state }.redriven(7, 9);
        assert_eq!(at(State::Expired), Some(Delivery::new(7, 9)));
        assert_eq!(at(State::Dead { cause: DeadCause::TooLarge }), Some(Delivery::new(7, 9)));
        for state in [State::new(0), State::Delivered { at_ms: 1 }, State::Read { at_ms: 1 }, State::Cancelled] {
            assert_eq!(at(state), None);
        }
    }

    proptest! {
        #[test]
        fn the_new_life_has_begun_not_ended_and_keeps_to_the_limit(
            created_ms in 0..WEEK_MS,
            ttl_seconds in 1..=TTL_SECONDS_MAX,
            later_ms in 0..2 * WEEK_MS,
        ) {
            let now_ms = created_ms + later_ms;
            if let Redrive::Same { ttl_seconds: new } = redrive(created_ms, ttl_seconds, now_ms) {
                prop_assert!(new <= TTL_SECONDS_MAX);
                prop_assert!(created_ms + u64::from(new) * 1000 > now_ms, "it would have expired already");
            } else {
                prop_assert!(later_ms + CLOCK_SKEW_MS >= WEEK_MS);
            }
        }
    }
}
