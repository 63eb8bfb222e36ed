//! Transfers as agents see them: list, follow, cancel.

use std::{collections::HashMap, sync::Arc, time::Duration};

use murmur_core::{
    code::Code,
    id::{AgentId, StreamId},
    limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX},
    outbox::Event,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    post::{LocalAgent, Post, QueryError, transition::Key},
    store::{
        StoreError, Tx, stream,
        transfer::{self, Transfer, TransferState},
    },
};

/// Changes closer together than this are shown as one.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Transfers of an agent as they change.
pub struct Transfers {
    post: Arc<Post>,
    agent: AgentId,
    only: Option<StreamId>,
    changed: watch::Receiver<u64>,
    shown: HashMap<(StreamId, bool), Transfer>,
    is_first: bool,
}

impl Post {
    /// Files of an agent in both directions, newest first; without `all` only those that may still move.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn transfers(&self, agent: AgentId, all: bool, limit: u32) -> Result<Vec<Transfer>, StoreError> {
        let limit = if limit == 0 { PAGE_SIZE_DEFAULT } else { limit.min(PAGE_SIZE_MAX) };
        self.store.read(move |tx| transfer::list(tx, agent, all, limit)).await
    }

    /// Follows one transfer of an agent, or all of them.
    ///
    /// # Errors
    /// [`QueryError::TransferNotFound`].
    pub async fn follow_transfers(
        self: &Arc<Self>,
        agent: AgentId,
        only: Option<StreamId>,
    ) -> Result<Transfers, QueryError> {
        if let Some(stream_id) = only {
            self.transfer(agent, stream_id).await?;
        }
        let changed = self.streams.watch(agent);
        Ok(Transfers { post: Arc::clone(self), agent, only, changed, shown: HashMap::new(), is_first: true })
    }

    /// Ends a transfer of an agent, whichever end it has; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`QueryError::TransferNotFound`].
    pub async fn cancel_transfer(&self, agent: &LocalAgent, stream_id: StreamId) -> Result<Transfer, QueryError> {
        let found = self.transfer(agent.agent_id, stream_id).await?;
        if found.file.state.is_open() {
            let cancelled = TransferState::Cancelled;
            let look = move |tx: Tx<'_>| Ok((stream::outgoing(tx, stream_id)?, stream::incoming(tx, stream_id)?));
            match (found.is_incoming, self.store.read(look).await?) {
                (true, (_, Some(row))) => {
                    self.end_incoming(&row, cancelled, Code::StreamCancelled, false).await?;
                }
                (false, (Some(row), _)) => {
                    // Should the recipient have the message by now, it is told; else it never gets it.
                    self.step(Key { msg_id: row.msg_id, recipient: row.recipient }, Event::Cancel).await;
                    self.end_outgoing(&row, cancelled, Code::StreamCancelled.name(), false).await?;
                }
                _ => {}
            }
        }
        self.transfer(agent.agent_id, stream_id).await
    }

    async fn transfer(&self, agent: AgentId, stream_id: StreamId) -> Result<Transfer, QueryError> {
        let found = self.store.read(move |tx| transfer::get(tx, agent, stream_id)).await?;
        found.ok_or(QueryError::TransferNotFound { stream_id })
    }
}

impl Transfers {
    /// What has changed since the last call, at first everything; `None` once the only one that is followed has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Transfer>>, StoreError> {
        loop {
            if !std::mem::take(&mut self.is_first) {
                if self.only.is_some() && self.shown.values().any(|shown| !shown.file.state.is_open()) {
                    return Ok(None);
                }
                let since = Instant::now();
                if self.changed.changed().await.is_err() {
                    return Ok(None);
                }
                tokio::time::sleep_until(since + SHOW_EVERY).await;
            }
            self.changed.borrow_and_update();
            let fresh = self.look().await?;
            if !fresh.is_empty() {
                return Ok(Some(fresh));
            }
        }
    }

    /// Transfers that differ from what was shown. One that was shown and has ended is shown once more.
    async fn look(&mut self) -> Result<Vec<Transfer>, StoreError> {
        let (agent, only) = (self.agent, self.only);
        let before: Vec<StreamId> =
            self.shown.values().filter(|t| t.file.state.is_open()).map(|t| t.file.stream_id).collect();
        let look = move |tx: Tx<'_>| match only {
            Some(stream_id) => Ok(transfer::get(tx, agent, stream_id)?.into_iter().collect()),
            None => {
                let mut found = transfer::list(tx, agent, false, PAGE_SIZE_MAX)?;
                for stream_id in before {
                    if !found.iter().any(|transfer| transfer.file.stream_id == stream_id) {
                        found.extend(transfer::get(tx, agent, stream_id)?);
                    }
                }
                Ok(found)
            }
        };
        let mut found: Vec<Transfer> = self.post.store.read(look).await?;
        found.retain(|transfer| {
            let key = (transfer.file.stream_id, transfer.is_incoming);
            self.shown.insert(key, transfer.clone()).as_ref() != Some(transfer)
        });
        Ok(found)
    }
}
