//! Waits between tries: they grow with decorrelated jitter until something succeeds.

use std::time::Duration;

use murmur_core::retry::Backoff;

/// Waits that grow.
#[derive(Debug)]
pub(crate) struct Delay {
    backoff: Backoff,
    previous_ms: u64,
}

impl Delay {
    /// The first wait is the shortest.
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self { backoff, previous_ms: 0 }
    }

    /// Begins anew: something succeeded.
    pub(crate) const fn reset(&mut self) {
        self.previous_ms = 0;
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        let mut random = [0; 8];
        // Without randomness the wait is the shortest one, which is no reason to end the node.
        let _ = getrandom::fill(&mut random);
        self.previous_ms = self.backoff.next(self.previous_ms, u64::from_le_bytes(random));
        tokio::time::sleep(Duration::from_millis(self.previous_ms)).await;
    }
}
