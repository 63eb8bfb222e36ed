//! That an agent's messages are being shown, on disk before the first of them is (see [`crate::store::showing`]), and which of them
//! were, on disk a moment after.

use std::{sync::Arc, time::Duration};

use murmur_core::id::AgentId;
use tokio_util::sync::CancellationToken;

use super::Post;
use crate::store::{StoreError, inbox, showing};

/// How long a push may stay in memory only. Most messages are read before, and then need no mark.
const NOTE_LATER: Duration = Duration::from_millis(250);
/// Pushes noted in one transaction.
const NOTES_MAX: usize = 256;

/// Writes down which rows sessions were given, a while after they were. What is left at the end is written at once.
pub(super) async fn note_pushes(post: Arc<Post>, token: CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => break,
            () = post.hub.any_pushing() => {}
        }
        tokio::select! {
            () = token.cancelled() => break,
            () = tokio::time::sleep(NOTE_LATER) => {}
        }
        post.write_pushes().await;
    }
    post.write_pushes().await;
}

impl Post {
    /// To be awaited before a session is shown anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_showing(&self, agent: AgentId, session: u64) -> Result<(), StoreError> {
        self.store.write(move |tx| showing::begin(tx, agent, session)).await
    }

    /// To be called when a session is over.
    pub fn end_showing(&self, agent: AgentId, session: u64) {
        let (pushed, now_ms) = (self.hub.in_push(), self.clock.now_ms());
        // Should this be lost, the agent's unread messages count as repeats when they are shown next.
        drop(self.store.queue_lazily::<_, StoreError, _>(move |tx| {
            let pushed: Vec<u64> = pushed.into_iter().collect();
            inbox::mark_pushed(tx, &pushed, now_ms)?;
            showing::end(tx, agent, session)
        }));
    }

    /// Marks what was pushed.
    async fn write_pushes(&self) {
        let mut cursors: Vec<u64> = self.hub.in_push().into_iter().collect();
        cursors.sort_unstable();
        let now_ms = self.clock.now_ms();
        for some in cursors.chunks(NOTES_MAX) {
            let marked = some.to_vec();
            let marking = self.store.queue_lazily(move |tx| inbox::mark_pushed(tx, &marked, now_ms));
            // A mark that is lost means that a repeat does not say that it is one, unless the process ended: then all of them do.
            let marked: Result<(), StoreError> = marking.await;
            if let Err(error) = marked {
                tracing::warn!(%error, "pushes could not be noted");
            }
            self.hub.pushed_on_disk(some);
        }
    }

    /// Takes up what a process that died has shown.
    pub(super) async fn load_shown(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        self.store.write(move |tx| showing::died(tx, now_ms)).await
    }
}
