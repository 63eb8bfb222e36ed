//! Where the control plane's time comes from: the system, or a test that moves it by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the wall-clock time. Clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Unix milliseconds, when time stands still until it is moved.
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ms` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self { manual: Some(Arc::new(AtomicU64::new(now_ms))) }
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, by_ms: u64) {
        if let Some(now_ms) = &self.manual {
            now_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.manual {
            Some(now_ms) => now_ms.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
