//! What is tidied up in the background: old rows, expired prekeys, quiet rate limits.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use murmur_core::limits::DEDUP_RETENTION_MS;
use tokio_util::sync::CancellationToken;

use super::Post;
use crate::store::{StoreError, Tx, dead_letter, guard, inbox, outbox, stream};

/// How often: nothing here is urgent.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Looks at the broker before it counts as not empty.
const DRAINED_LOOKS: u32 = 5;
/// Before each look: longer than an acknowledgement waits for company.
const DRAINED_PAUSE: Duration = Duration::from_millis(25);
/// Rows deleted in one transaction, so that sending never waits long.
const BATCH: u32 = 500;
/// A guard that nothing touched for a day belongs to a message that is long gone.
const GUARD_MS: u64 = 24 * 3600 * 1000;

pub(super) async fn run(post: Arc<Post>, token: CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if let Err(error) = post.tidy_store().await {
            tracing::warn!(%error, "old rows could not be deleted");
        }
        post.tidy_keys().await;
        post.put_off.tidy();
        post.policy.shrink(post.clock.now_ms());
    }
}

impl Post {
    /// Deletes what is past its time: what was sent and what was read.
    async fn tidy_store(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let sent_before = now_ms.saturating_sub(DEDUP_RETENTION_MS);
        let read_before = now_ms.saturating_sub(self.config.history_ms.max(DEDUP_RETENTION_MS));
        let forget = move |tx: Tx<'_>| {
            let copies = stream::kept(tx, read_before)?;
            dead_letter::prune(tx, read_before)?;
            Ok(copies)
        };
        let copies = self.store.write(forget).await?;
        self.streams.forget_copies(copies).await;
        while self.store.write(move |tx| outbox::prune(tx, sent_before, BATCH)).await? > 0 {}
        while self.store.write(move |tx| inbox::prune(tx, read_before, BATCH)).await? > 0 {}
        if let Some(keep_ms) = self.config.streams.keep_ms {
            self.forget_files(now_ms.saturating_sub(keep_ms)).await?;
        }
        while self.store.write(move |tx| stream::prune(tx, read_before, BATCH)).await? > 0 {}
        self.store.write(move |tx| guard::prune(tx, now_ms.saturating_sub(GUARD_MS))).await
    }

    /// Deletes received files that came before this time and whose message was read.
    pub(super) async fn forget_files(&self, before_ms: u64) -> Result<(), StoreError> {
        loop {
            let paths = self.store.write(move |tx| stream::take_old_files(tx, before_ms, BATCH)).await?;
            if paths.is_empty() {
                return Ok(());
            }
            tracing::info!(files = paths.len(), "received files are past their time and deleted");
            self.streams.forget(paths).await;
        }
    }

    /// Waits a moment until the broker holds nothing for this node, and says whether that was seen. Meanwhile no acknowledgement waits.
    async fn wait_drained(&self) -> bool {
        self.acknowledges_at_once.store(true, Ordering::Relaxed);
        let mut is_drained = false;
        for _ in 0..DRAINED_LOOKS {
            tokio::time::sleep(DRAINED_PAUSE).await;
            match self.bus.is_drained().await {
                Some(false) => {}
                found => {
                    is_drained = found == Some(true);
                    break;
                }
            }
        }
        self.acknowledges_at_once.store(false, Ordering::Relaxed);
        is_drained
    }

    /// Deletes prekeys that no waiting message can need (PROTOCOL §2.6).
    async fn tidy_keys(&self) {
        if self.wait_drained().await {
            self.drained_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        }
        let (keys, now_ms, drained_ms) = (Arc::clone(&self.keys), self.clock.now_ms(), self.drained_ms());
        let deleted = tokio::task::spawn_blocking(move || keys.delete_expired_prekeys(now_ms, drained_ms)).await;
        match deleted {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::info!(count, "expired prekeys were deleted"),
            Ok(Err(error)) => tracing::warn!(%error, "expired prekeys could not be deleted"),
            Err(error) => tracing::error!(%error, "deleting prekeys failed"),
        }
    }
}
