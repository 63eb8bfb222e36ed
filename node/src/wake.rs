//! Noticing that this process did not run for a while: it was stopped, or the machine slept.
//!
//! A process that comes back from that does not know whether another one has taken its place (PROTOCOL §5.9). What the broker had
//! sent it meanwhile is not to be touched before the control plane has been asked.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use murmur_core::limits::LEASE_MS;
use tokio::sync::watch;

use crate::clock::uptime_ms;

/// How often a lease is looked at, at most.
const TICK_MS_MIN: u64 = 25;

/// Whether this process has been running all the time.
#[derive(Debug)]
pub struct Wake {
    lease_ms: watch::Sender<u64>,
    /// When it was seen running last, on the clock of [`uptime_ms`].
    last_ms: AtomicU64,
    stopped: watch::Sender<bool>,
}

impl Default for Wake {
    fn default() -> Self {
        let stopped = watch::Sender::new(false);
        Self { lease_ms: watch::Sender::new(LEASE_MS), last_ms: AtomicU64::new(uptime_ms()), stopped }
    }
}

impl Wake {
    /// Sets how long the control plane keeps the place of a silent node. Half of that counts as a stop.
    pub fn set_lease(&self, lease: Duration) {
        // What has passed is judged by the lease that held.
        self.is_sure();
        self.lease_ms.send_replace(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1));
    }

    /// Whether this process ran all the time since it was last cleared. Cheap enough to be asked for every message.
    pub fn is_sure(&self) -> bool {
        let now_ms = uptime_ms();
        let gap_ms = now_ms.saturating_sub(self.last_ms.fetch_max(now_ms, Ordering::SeqCst));
        if gap_ms > *self.lease_ms.borrow() / 2 {
            tracing::warn!(
                "this process did not run for {gap_ms} ms: the control plane is asked whether its place is taken"
            );
            self.stopped.send_replace(true);
        }
        !*self.stopped.borrow()
    }

    /// The control plane has been asked, or cannot be.
    pub fn clear(&self) {
        self.stopped.send_replace(false);
    }

    /// Waits until the process is seen to have been stopped.
    pub async fn stopped(&self) {
        // The sender is ours.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Notes for ever that the process runs.
    pub async fn run(&self) {
        let mut lease_ms = self.lease_ms.subscribe();
        loop {
            let tick_ms = (*lease_ms.borrow_and_update() / 20).max(TICK_MS_MIN);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(tick_ms)) => {}
                _ = lease_ms.changed() => {}
            }
            self.is_sure();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_of_half_a_lease_is_a_stop_until_it_is_cleared() {
        let wake = Wake::default();
        assert!(wake.is_sure());
        wake.last_ms.store(uptime_ms() - LEASE_MS / 2 - 1_000, Ordering::SeqCst);
        assert!(!wake.is_sure());
        assert!(!wake.is_sure(), "running again proves nothing");
        wake.clear();
        assert!(wake.is_sure());
    }
}
