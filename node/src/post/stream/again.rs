//! A file that is sent again, because its message died or came back.
//!
//! While its message is a dead letter the node keeps its copy, as far as the agent has room for it. Of a file that has arrived there is none
//! any more: the original is copied again, if it is still what it was, to the last bit.

use std::{io, sync::Arc};

use murmur_core::id::{MessageId, StreamId};
use murmur_crypto::inner::InnerMessage as Inner;
use tokio::task::JoinError;

use super::{
    offer::{check_usage, random},
    source::{self, Rules},
    spool::Spool,
};
use crate::{
    post::{Post, SendError, StreamConfig, error::QueryError},
    store::{
        StoreError, Tx,
        stream::{self, OutRow},
        transfer::TransferState,
    },
};

/// A stream that begins again, and whose file is there.
#[derive(Debug, Clone)]
pub(in crate::post) struct Again {
    row: OutRow,
    /// It has another id than before, and needs a row.
    is_new: bool,
    spool_bytes_max: u64,
}

impl Post {
    /// Makes sure of the file of a message that comes back from where its recipient is not any more; `false` when its bytes are gone. Nothing
    /// is sent of it until [`Post::restart_stream`].
    pub(in crate::post) async fn file_back(&self, row: OutRow) -> bool {
        if let Some(pump) = self.streams.outgoing(row.stream_id) {
            pump.ended();
            pump.gone().await;
        }
        let _one_at_a_time = self.streams.copying_again.lock().await;
        let (spool, config) = (self.streams.spool.clone(), self.config.streams.clone());
        let take = move || take_again(&spool, &config, &row, row.stream_id);
        tokio::task::spawn_blocking(take).await.unwrap_or(false)
    }

    /// Makes sure of the file of a message that begins again; `None` when its bytes are gone. As a new message it goes by a stream of its own.
    pub(in crate::post) async fn file_again(
        &self,
        msg_id: MessageId,
        as_new: bool,
    ) -> Result<Option<Again>, QueryError> {
        let Some(row) = self.store.read(move |tx| stream::of_message(tx, msg_id)).await? else { return Ok(None) };
        // A sweep must not meet a copy whose row is still to come.
        self.streams.loaded.cancelled().await;
        if let Some(pump) = self.streams.outgoing(row.stream_id) {
            // Its message has ended, and so does it.
            pump.gone().await;
        }
        let _one_at_a_time = self.streams.copying_again.lock().await;
        let (spool, config) = (self.streams.spool.clone(), self.config.streams.clone());
        let spool_bytes_max = config.spool_bytes_max;
        let new = OutRow {
            stream_id: StreamId::from_bytes(random().map_err(|_| QueryError::Random)?),
            nonce_prefix: random().map_err(|_| QueryError::Random)?,
            ..row.clone()
        };
        let again = Again { row: if as_new { new } else { row.clone() }, is_new: as_new, spool_bytes_max };
        let wanted = again.row.stream_id;
        let taken = tokio::task::spawn_blocking(move || take_again(&spool, &config, &row, wanted)).await;
        Ok(taken.map_err(failed)?.then_some(again))
    }

    /// Deletes the copies that are kept for dead letters: what is under way needs the room.
    pub(super) fn make_room(&self) -> impl Future<Output = Result<bool, StoreError>> + Send + use<> {
        let (store, spool) = (self.store.clone(), self.streams.spool.clone());
        async move {
            let kept = store.read(|tx| stream::kept(tx, u64::MAX)).await?;
            let delete = move || kept.into_iter().filter(|stream| spool.drop_out(*stream)).count() > 0;
            Ok(tokio::task::spawn_blocking(delete).await.unwrap_or(false))
        }
    }

    /// Sets a stream in motion that begins again, and deletes the copy that it was made from, or that was made in vain.
    pub(in crate::post) async fn restart_stream(
        self: &Arc<Self>,
        was: MessageId,
        now: MessageId,
    ) -> Result<(), StoreError> {
        let look = move |tx: Tx<'_>| Ok((stream::of_message(tx, was)?, stream::of_message(tx, now)?));
        let (was, now) = self.store.read(look).await?;
        let now = now.filter(|now| now.state.is_open());
        let is_other = |was: &OutRow| now.as_ref().is_none_or(|now| was.stream_id != now.stream_id);
        if let Some(was) = was.filter(is_other) {
            self.streams.forget_copies(vec![was.stream_id]).await;
        }
        let Some(now) = now else { return Ok(()) };
        let sender = now.sender;
        self.start_pump(now);
        self.streams.changed(sender);
        Ok(())
    }
}

impl Again {
    /// The message that goes with it, if its stream is another one now.
    pub(in crate::post) fn announce(&self, mut inner: Inner) -> Inner {
        if let Some(manifest) = &mut inner.stream {
            (manifest.stream_id, manifest.nonce_prefix) = (*self.row.stream_id.as_bytes(), self.row.nonce_prefix);
        }
        inner
    }

    /// Deletes the copy that was made for a message which did not begin again after all.
    pub(in crate::post) async fn undo(self, post: &Post) {
        if self.is_new {
            post.streams.forget_copies(vec![self.row.stream_id]).await;
        }
    }

    /// Opens the stream of a message, within the limits of the pair and of the sender. `row` says whose it is now.
    pub(in crate::post) fn open(&self, tx: Tx<'_>, row: OutTarget<'_>) -> Result<(), SendError> {
        let OutTarget { msg_id, recipient, to, now_ms } = row;
        check_usage(tx, &self.row, recipient, to, self.spool_bytes_max)?;
        if !self.is_new {
            return Ok(stream::reopen(tx, msg_id, now_ms)?);
        }
        let row = OutRow {
            msg_id,
            recipient,
            to: to.clone(),
            state: TransferState::Waiting,
            created_ms: now_ms,
            active_ms: now_ms,
            ..self.row.clone()
        };
        Ok(stream::insert_out(tx, &row)?)
    }
}

/// Whom a stream goes to that begins again.
#[derive(Clone, Copy)]
pub(in crate::post) struct OutTarget<'a> {
    pub(in crate::post) msg_id: MessageId,
    pub(in crate::post) recipient: murmur_core::id::AgentId,
    pub(in crate::post) to: &'a murmur_core::slug::Slug,
    pub(in crate::post) now_ms: u64,
}

/// Brings the bytes of a stream to where the pump of `wanted` reads them; blocks on the disk.
fn take_again(spool: &Spool, config: &StreamConfig, row: &OutRow, wanted: StreamId) -> bool {
    if spool.has_copy(wanted, row.size)
        || (spool.has_copy(row.stream_id, row.size) && spool.link(row.stream_id, wanted))
    {
        return true;
    }
    spool.drop_out(wanted);
    let rules = Rules {
        roots: &config.roots,
        data_dir: &config.data_dir,
        files_dir: &config.dir,
        // It was let go under this name before.
        allow_secret_names: true,
        bytes_max: row.size,
    };
    let Ok(opened) = source::open(&row.source_path, &rules) else { return false };
    if spool.prepare().is_err() || !spool.has_room(row.size) {
        return false;
    }
    match spool.snapshot(wanted, &opened.file, row.size) {
        Ok(taken) if taken.sha256 == row.sha256 => true,
        Ok(_) => {
            spool.drop_out(wanted);
            false
        }
        Err(error) => {
            tracing::info!(%error, path = row.source_path, "a file that is to be sent again cannot be copied");
            false
        }
    }
}

fn failed(error: JoinError) -> QueryError {
    QueryError::Send(Box::new(SendError::Spool(io::Error::other(error).to_string())))
}
