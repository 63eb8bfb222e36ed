//! How the process ends: first softly, so that callers can finish and streams say goodbye, then hard.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
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
    /// A vital task ended before its time.
    has_lost: Arc<AtomicBool>,
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

    /// Runs a task without which the process is none, and which ends only when the soft end has begun. When it panics or ends earlier, that
    /// is logged by its name and the soft end begins: whoever supervises the process starts it anew, where one that goes on without it would
    /// say that all is well.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let lifecycle = self.clone();
        self.spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) if lifecycle.is_draining() => {}
                Ok(()) => lifecycle.lose(name, "ended by itself"),
                Err(_) => lifecycle.lose(name, "panicked"),
            }
        });
    }

    fn lose(&self, name: &'static str, how: &'static str) {
        tracing::error!(part = name, "the part `{name}` has {how}: shutting down");
        self.has_lost.store(true, Ordering::Release);
        self.drain();
    }

    /// Drains, waits for every task, and cuts off those that take longer than `patience`. False when some did, and when a vital one had
    /// ended before its time.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.drain();
        let in_time = tokio::time::timeout(patience, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        self.tasks.wait().await;
        in_time && !self.has_lost.load(Ordering::Acquire)
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn drains_by_itself(lifecycle: &Lifecycle) {
        tokio::time::timeout(PATIENCE, lifecycle.draining()).await.expect("the soft end does not begin");
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_or_ends_takes_the_process_along() {
        let panics = async { std::panic::resume_unwind(Box::new(())) };
        for task in [panics.boxed(), async {}.boxed()] {
            let lifecycle = Lifecycle::new();
            let other = lifecycle.clone();
            lifecycle.spawn_vital("other", async move { other.draining().await });
            lifecycle.spawn_vital("ear", task);
            drains_by_itself(&lifecycle).await;
            assert!(!lifecycle.finish(PATIENCE).await, "it counts as a good end");
        }
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_at_the_end_is_told_too() {
        let lifecycle = Lifecycle::new();
        let other = lifecycle.clone();
        lifecycle.spawn_vital("ear", async move {
            other.draining().await;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(!lifecycle.finish(PATIENCE).await, "it counts as a good end");
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_with_the_process_and_any_other_that_panics_are_no_loss() {
        let lifecycle = Lifecycle::new();
        let other = lifecycle.clone();
        lifecycle.spawn_vital("ear", async move { other.draining().await });
        lifecycle.spawn(async { std::panic::resume_unwind(Box::new(())) });
        assert!(lifecycle.finish(PATIENCE).await, "it counts as a bad end");
    }
}
