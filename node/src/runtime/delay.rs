//! Waits between tries to ask the control plane for a turn while it is away.

use std::time::Duration;

use murmur_core::retry::Backoff;

const BACKOFF: Backoff = Backoff { base_ms: 200, cap_ms: 10_000 };

/// Waits that grow until they are reset.
#[derive(Debug)]
pub(super) struct ClaimDelay {
    previous_ms: u64,
}

impl ClaimDelay {
    pub(super) const fn new() -> Self {
        Self { previous_ms: 0 }
    }

    pub(super) fn next(&mut self) -> Duration {
        let mut random = [0; 8];
        // Without randomness the wait is the shortest one.
        let _ = getrandom::fill(&mut random);
        self.previous_ms = BACKOFF.next(self.previous_ms, u64::from_le_bytes(random));
        Duration::from_millis(self.previous_ms)
    }

    pub(super) const fn reset(&mut self) {
        self.previous_ms = 0;
    }
}
