//! Parts without which the node is none: one that ends before its time takes the node along, and whoever supervises it starts it anew. A
//! node that has lost a part and goes on would take messages and deliver none.

use std::{error::Error, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A part has ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    /// It returned, which it does only when it is told to.
    #[error("the part `{0}` has ended by itself")]
    Ended(&'static str),
    /// It panicked; the panic itself is in the log.
    #[error("the part `{0}` has panicked")]
    Panicked(&'static str),
    /// It cannot go on.
    #[error("the part `{name}` cannot go on")]
    Failed {
        /// The part.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Spawns parts, and hears when one is lost.
pub struct Vital {
    tasks: TaskTracker,
    stop: CancellationToken,
    losses: mpsc::Sender<Loss>,
}

impl Vital {
    /// Parts that go on until `stop`, tracked by `tasks`; the receiver hears of the first that is lost.
    #[must_use]
    pub fn new(tasks: TaskTracker, stop: CancellationToken) -> (Self, mpsc::Receiver<Loss>) {
        let (losses, lost) = mpsc::channel(1);
        (Self { tasks, stop, losses }, lost)
    }

    /// Spawns a part that cannot fail.
    pub fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, part.map(Ok::<(), std::convert::Infallible>));
    }

    /// Spawns a part.
    pub fn spawn_fallible<E>(&self, name: &'static str, part: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Error + Send + Sync + 'static,
    {
        let (stop, losses) = (self.stop.clone(), self.losses.clone());
        self.tasks.spawn(async move {
            let loss = match AssertUnwindSafe(part).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => Loss::Ended(name),
                Ok(Err(error)) => Loss::Failed { name, source: error.into() },
                Err(_) => Loss::Panicked(name),
            };
            // The first is enough.
            let _ = losses.try_send(loss);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of one part, and whether it was waited for.
    async fn heard(part: impl Future<Output = Result<(), std::fmt::Error>> + Send + 'static) -> Option<String> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (vital, mut losses) = Vital::new(tasks.clone(), stop.clone());
        vital.spawn_fallible("ear", part);
        vital.spawn("other", async move { stop.cancelled().await });
        let loss = losses.recv().await;
        vital.stop.cancel();
        tasks.close();
        tasks.wait().await;
        loss.map(|loss| loss.to_string())
    }

    #[tokio::test]
    async fn a_part_that_panics_ends_or_fails_is_a_loss() {
        let panics = async { std::panic::resume_unwind(Box::new(())) };
        assert_eq!(heard(panics).await.unwrap(), "the part `ear` has panicked");
        assert_eq!(heard(async { Ok(()) }).await.unwrap(), "the part `ear` has ended by itself");
        assert_eq!(heard(async { Err(std::fmt::Error) }).await.unwrap(), "the part `ear` cannot go on");
    }

    #[tokio::test]
    async fn a_part_that_ends_when_it_is_told_to_is_none() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (vital, mut losses) = Vital::new(tasks.clone(), stop.clone());
        vital.spawn("ear", stop.clone().cancelled_owned());
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        drop(vital);
        assert!(losses.recv().await.is_none());
    }
}
