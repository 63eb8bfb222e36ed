//! Deletes what has expired: the bytes, then the row. The timer is read from the rows, so that it survives a restart.

use object_store::ObjectStoreExt as _;
use tokio_util::sync::CancellationToken;

use super::{UploadError, Uploads, room::place};
use crate::db::upload;

/// After a failure.
const AGAIN_MS: u64 = 60_000;

impl Uploads {
    /// Works until `stop` is cancelled.
    pub async fn keep(&self, stop: &CancellationToken) {
        let mut due = self.due.subscribe();
        loop {
            due.borrow_and_update();
            let next = self.delete_expired().await.unwrap_or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "expired uploads could not be deleted");
                Some(self.clock.now_ms() + AGAIN_MS)
            });
            let timer = async {
                match next {
                    Some(at_ms) => self.clock.sleep_until(at_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = timer => {}
                changed = due.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Wakes the keeper: something expires earlier than was thought.
    pub(crate) fn look_again(&self) {
        self.due.send_replace(());
    }

    /// Says when the next one is due.
    async fn delete_expired(&self) -> Result<Option<u64>, UploadError> {
        loop {
            let mut tx = self.db.read().await?;
            let expired = upload::expired(&mut tx, self.clock.now_ms()).await?;
            if expired.is_empty() {
                return Ok(upload::next_expiry(&mut tx).await?);
            }
            drop(tx);
            for row in &expired {
                match self.store.delete(&place(row.key)).await {
                    // It never came whole, or a crash came between the bytes and the row.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut tx = self.db.write().await?;
            for row in &expired {
                upload::delete(&mut tx, row.key).await?;
            }
            tx.commit().await?;
        }
    }
}
