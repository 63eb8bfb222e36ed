//! How the process ends: first softly, so that callers can finish and streams say goodbye, then hard.

use std::{future::Future, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a shell calls a process that SIGINT ended.
const EXIT_CODE_ABORTED: i32 = 130;

/// Owner of every task. Clones share one fate.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// Nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the soft end: readiness goes, streams are told, nothing new is accepted.
    pub fn drain(&self) {
        self.soft.cancel();
        self.tasks.close();
    }

    /// Whether the soft end has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the soft end begins.
    pub async fn draining(&self) {
        self.soft.cancelled().await;
    }

    /// The soft end as a token, for those that want one.
    #[must_use]
    pub fn soft_token(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Runs a task that the hard end cuts off.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.hard.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = hard.cancelled() => {}
            }
        });
    }

    /// Drains, waits for every task, and cuts off those that take longer than `patience`; false when some did.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.drain();
        let in_time = tokio::time::timeout(patience, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        self.tasks.wait().await;
        in_time
    }
}

/// Begins the soft end at SIGTERM or SIGINT; a second signal ends the process at once. Call it before anybody can know that
/// the process runs, or an early signal kills it.
///
/// # Errors
/// When no handler can be installed.
pub fn drain_on_signal(lifecycle: Lifecycle) -> std::io::Result<()> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        either(&mut signals).await;
        tracing::info!("shutting down; a second signal ends at once");
        lifecycle.drain();
        either(&mut signals).await;
        std::process::exit(EXIT_CODE_ABORTED);
    });
    Ok(())
}

async fn either((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
