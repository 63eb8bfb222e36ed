//! The clock: the one place of the node that asks what time it is.
//!
//! Debug builds add an offset from `MURMUR_CLOCK_OFFSET_MS` (milliseconds, may be negative), so that scenarios can let two
//! nodes disagree; release builds hold no trace of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds, as this process sees it. Cheap to clone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    offset_ms: i64,
}

impl Clock {
    /// The system's clock, with the offset of a debug build's environment.
    #[must_use]
    pub fn system() -> Self {
        Self { offset_ms: offset_ms() }
    }

    /// A clock that is ahead of the system's by `offset_ms`.
    #[must_use]
    pub const fn with_offset(offset_ms: i64) -> Self {
        Self { offset_ms }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(self.offset_ms)
    }
}

#[cfg(debug_assertions)]
fn offset_ms() -> i64 {
    std::env::var("MURMUR_CLOCK_OFFSET_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(not(debug_assertions))]
const fn offset_ms() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_the_clock() {
        let (now, ahead) = (Clock::with_offset(0).now_ms(), Clock::with_offset(3_600_000).now_ms());
        assert!(ahead >= now + 3_600_000);
        assert!(Clock::with_offset(-3_600_000).now_ms() < now);
    }
}
