//! Where the control plane's time comes from: the system, or a test that moves it by hand.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

/// Timers are set for no longer than this and looked at again then: the wall clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Tells the wall-clock time. Clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Unix milliseconds, when time stands still until it is moved.
    manual: Option<Arc<watch::Sender<u64>>>,
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
        Self { manual: Some(Arc::new(watch::Sender::new(now_ms))) }
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, by_ms: u64) {
        if let Some(now_ms) = &self.manual {
            now_ms.send_modify(|now_ms| *now_ms += by_ms);
        }
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.manual {
            Some(now_ms) => *now_ms.borrow(),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Resolves when it is `at_ms`, Unix milliseconds.
    pub async fn sleep_until(&self, at_ms: u64) {
        if let Some(now_ms) = &self.manual {
            // A clock that nobody moves any more stands.
            let _ = now_ms.subscribe().wait_for(|now_ms| *now_ms >= at_ms).await;
            return;
        }
        loop {
            let left = at_ms.saturating_sub(self.now_ms());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left).min(SLEEP_MAX)).await;
        }
    }
}
