//! That an agent's messages are being shown, on disk before the first of them is (see [`crate::store::showing`]).

use murmur_core::id::AgentId;

use super::Post;
use crate::store::{StoreError, showing};

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
        // Should this be lost, the agent's unread messages count as repeats when they are shown next.
        drop(self.store.queue_lazily::<_, StoreError, _>(move |tx| showing::end(tx, agent, session)));
    }

    /// Takes up what a process that died has shown.
    pub(super) async fn load_shown(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        self.store.write(move |tx| showing::died(tx, now_ms)).await
    }
}
