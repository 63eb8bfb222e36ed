//! Moments: Unix milliseconds inside our programs, timestamps in the contract.

use prost_types::{Duration, Timestamp};

/// A moment as the contract writes it.
#[must_use]
pub fn timestamp(unix_ms: u64) -> Timestamp {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1000 * 1_000_000).unwrap_or_default();
    Timestamp { seconds, nanos }
}

/// A span of time as the contract writes it.
#[must_use]
pub fn duration(ms: u64) -> Duration {
    let Timestamp { seconds, nanos } = timestamp(ms);
    Duration { seconds, nanos }
}

/// Unix milliseconds of a moment; one before 1970 is 0.
#[must_use]
pub fn unix_ms(time: &Timestamp) -> u64 {
    let ms = time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_to_the_millisecond() {
        assert_eq!(duration(2_003), Duration { seconds: 2, nanos: 3_000_000 });
        assert_eq!(timestamp(2_003), Timestamp { seconds: 2, nanos: 3_000_000 });
        for ms in [0, 1, 999, 1_700_000_000_123] {
            assert_eq!(unix_ms(&timestamp(ms)), ms);
        }
        assert_eq!(unix_ms(&Timestamp { seconds: -1, nanos: 0 }), 0);
    }
}
