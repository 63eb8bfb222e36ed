//! Lets go of agents some time after their end, with all that is only about them, and of what is as old about those that live.
//!
//! An agent that has ended can be read and resurrected for `agent_keep_ms`; its status tells until when. It is kept longer while an agent
//! below it is, or a live one begins with its history. What is gone is still told as such for a year.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    db::{Db, DbError, agent_pruned},
    uploads::Uploads,
};

/// Agents of one change.
const AGENTS_MAX: u32 = 64;
/// At least so often it is looked for what is old about those that live; and after a failure.
const ROUND_MS: u64 = 24 * 3600 * 1000;
/// Ends that fall into so long a time are let go together.
const TOGETHER_MS: u64 = 60 * 1000;
/// How long it is told of an agent that it is gone.
const TOLD_MS: u64 = 365 * ROUND_MS;

/// See the module.
pub struct Retention {
    db: Db,
    clock: Clock,
    uploads: Arc<Uploads>,
    /// 0: for ever.
    keep_ms: u64,
}

impl Retention {
    /// Keeps for `keep_ms`; 0 is for ever.
    #[must_use]
    pub fn new(db: Db, clock: Clock, uploads: Arc<Uploads>, keep_ms: u64) -> Self {
        Self { db, clock, uploads, keep_ms }
    }

    /// Works until `stop` is cancelled. The timer is read from the rows, so that it survives a restart.
    pub async fn keep(&self, stop: &CancellationToken) {
        if self.keep_ms == 0 {
            return stop.cancelled().await;
        }
        loop {
            let round_ms = self.clock.now_ms() + ROUND_MS;
            let next = self.let_go().await.unwrap_or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "agents that ended long ago could not be let go");
                round_ms
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep_until(next.min(round_ms)) => {}
            }
        }
    }

    /// Lets go of what is due, and says when more is. Whoever ends from now on is kept for longer than that.
    async fn let_go(&self) -> Result<u64, DbError> {
        let now_ms = self.clock.now_ms();
        let before_ms = now_ms.saturating_sub(self.keep_ms);
        let mut count = 0;
        loop {
            if agent_pruned::due(&mut *self.db.read().await?, before_ms, 1).await?.is_empty() {
                break;
            }
            let mut tx = self.db.write().await?;
            // Read again: one of them may have been resurrected meanwhile.
            let due = agent_pruned::due(&mut tx, before_ms, AGENTS_MAX).await?;
            for id in &due {
                agent_pruned::prune(&mut tx, *id, now_ms).await?;
            }
            tx.commit().await?;
            count += due.len();
        }
        if count > 0 {
            tracing::info!("{count} agents that ended long ago were let go");
            self.uploads.look_again();
        }
        self.trim(before_ms).await?;
        let first = agent_pruned::first_ended(&mut *self.db.read().await?, before_ms).await?;
        Ok(first.unwrap_or(now_ms) + self.keep_ms + TOGETHER_MS.min(self.keep_ms))
    }

    /// What is as old about agents that live.
    async fn trim(&self, before_ms: u64) -> Result<(), DbError> {
        let mut after = Vec::new();
        loop {
            let old = agent_pruned::with_old_rows(&mut *self.db.read().await?, &after, before_ms, AGENTS_MAX).await?;
            let Some(last) = old.last() else { break };
            after = last.to_vec();
            let mut tx = self.db.write().await?;
            for id in old {
                agent_pruned::trim(&mut tx, id, before_ms).await?;
            }
            tx.commit().await?;
        }
        let told_before_ms = self.clock.now_ms().saturating_sub(TOLD_MS);
        let oldest = agent_pruned::oldest(&mut *self.db.read().await?).await?;
        if oldest.is_some_and(|pruned_ms| pruned_ms <= told_before_ms) {
            let mut tx = self.db.write().await?;
            agent_pruned::forget(&mut tx, told_before_ms).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
