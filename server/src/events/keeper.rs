//! What is older than a week is let go.

use murmur_core::limits::EVENT_LIFE_MS;
use tokio_util::sync::CancellationToken;

use super::Events;
use crate::db::{DbError, event};

/// Logs of one change.
const LOGS_MAX: u32 = 256;
/// After a failure, and between two rounds: a timer for each event would be no gain.
const ROUND_MS: u64 = 60_000;

impl Events {
    /// Works until `stop` is cancelled.
    pub async fn keep(&self, stop: &CancellationToken) {
        let mut published = self.agents.listen_published();
        loop {
            published.borrow_and_update();
            let now_ms = self.clock.now_ms();
            let next = match self.let_go().await {
                Ok(next) => next.map(|at_ms| at_ms.max(now_ms + ROUND_MS)),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "old events could not be let go");
                    Some(now_ms + ROUND_MS)
                }
            };
            let news = async {
                match next {
                    Some(at_ms) => self.clock.sleep_until(at_ms).await,
                    // There is none: the first one that comes is the next.
                    None => {
                        let _ = published.changed().await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = news => {}
            }
        }
    }

    /// Lets go of what is too old, and says when something will be.
    async fn let_go(&self) -> Result<Option<u64>, DbError> {
        let before_ms = self.clock.now_ms().saturating_sub(EVENT_LIFE_MS);
        loop {
            let aged = event::aged(&mut *self.db.read().await?, before_ms, LOGS_MAX).await?;
            if aged.is_empty() {
                break;
            }
            let mut tx = self.db.write().await?;
            for (agent_id, seq) in aged {
                event::cut(&mut tx, agent_id, seq, self.clock.now_ms()).await?;
            }
            tx.commit().await?;
        }
        let first = event::first_received(&mut *self.db.read().await?).await?;
        Ok(first.map(|at_ms| at_ms + EVENT_LIFE_MS + 1))
    }
}
