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

    /// The next wait, longer each time.
    pub(crate) fn next(&mut self) -> Duration {
        // Without randomness the wait is the shortest one, which is no reason to end the node.
        self.previous_ms = self.backoff.next(self.previous_ms, getrandom::u64().unwrap_or_default());
        Duration::from_millis(self.previous_ms)
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}
