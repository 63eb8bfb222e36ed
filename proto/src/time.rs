//! Moments: Unix milliseconds inside our programs, timestamps in the contract.

use std::time;

use prost_types::{Duration, Timestamp};

/// A timestamp's nanoseconds are fewer than this.
const NANOS_END: i32 = 1_000_000_000;

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

/// As [`unix_ms`], for what somebody else wrote: `None` for a moment before 1970, and for one that is none.
#[must_use]
pub fn written_ms(time: &Timestamp) -> Option<u64> {
    (time.seconds >= 0 && (0..NANOS_END).contains(&time.nanos)).then(|| unix_ms(time))
}

/// A span of time that somebody else wrote; `None` for a negative one, and for one that is none. The library's own conversion panics at
/// its bounds.
#[must_use]
pub fn span(duration: &Duration) -> Option<time::Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|_| duration.nanos < NANOS_END)?;
    Some(time::Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
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

    #[test]
    fn what_somebody_wrote_is_read_or_refused_and_never_a_fault() {
        assert_eq!(span(&duration(2_003)), Some(time::Duration::from_millis(2_003)));
        assert_eq!(written_ms(&timestamp(2_003)), Some(2_003));
        let wrong =
            [(-1, 0), (i64::MIN, 0), (i64::MIN, 1), (i64::MAX, i32::MIN), (0, -1), (0, NANOS_END), (1, i32::MAX)];
        for (seconds, nanos) in wrong {
            assert_eq!(span(&Duration { seconds, nanos }), None, "{seconds} {nanos}");
            assert_eq!(written_ms(&Timestamp { seconds, nanos }), None, "{seconds} {nanos}");
        }
        assert!(span(&Duration { seconds: i64::MAX, nanos: 999_999_999 }).is_some());
        assert_eq!(written_ms(&Timestamp { seconds: i64::MAX, nanos: 0 }), u64::try_from(i64::MAX).ok());
    }
}
