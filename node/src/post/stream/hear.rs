//! What the other end of a stream says: believed from the addressed agent alone.

use std::sync::Arc;

use futures::future::BoxFuture;
use murmur_core::{
    code::Code,
    id::{AgentId, MessageId, StreamId},
    stream::Grant,
};
use murmur_crypto::ack::{AckBody, AckStatus, Credit, CreditState};

use super::pump::Outgoing;
use crate::{
    post::Post,
    store::{
        StoreError, Tx,
        stream::{self, End},
        transfer::TransferState,
    },
};

/// Credits of one frame, and what it says about the messages that opened the streams.
pub(in crate::post) struct Heard {
    from: AgentId,
    /// The slug in the speaker's certificate: an id alone is no name.
    slug: String,
    to: AgentId,
    credits: Vec<Credit>,
    troubles: Vec<(MessageId, Code)>,
}

impl Heard {
    /// What a verified frame says about streams; `None` when that is nothing.
    pub(in crate::post) fn of(body: &AckBody, slug: &str) -> Option<Self> {
        if body.credits.is_empty() {
            return None;
        }
        let trouble = |item: &murmur_crypto::ack::AckItem| match item.status {
            AckStatus::Failed { code, .. } => Some((item.msg_id, code)),
            AckStatus::Delivered | AckStatus::Read => None,
        };
        Some(Self {
            from: body.acker_agent_id,
            slug: slug.to_owned(),
            to: body.sender_agent_id,
            credits: body.credits.clone(),
            troubles: body.items.iter().filter_map(trouble).collect(),
        })
    }
}

impl Post {
    /// Acts on what was heard. What it promises is on disk when it returns.
    pub(in crate::post) fn hear(self: &Arc<Self>, heard: Heard) -> BoxFuture<'static, Result<(), StoreError>> {
        let post = Arc::clone(self);
        Box::pin(async move {
            for credit in &heard.credits {
                let stream_id = StreamId::from_bytes(credit.stream_id);
                match post.streams.outgoing(stream_id) {
                    // Of two agents of one node each has an end of its own here.
                    Some(out) if out.row.recipient == heard.from => post.hear_credit(&out, &heard, *credit).await?,
                    _ if credit.state == CreditState::Cancel => post.hear_cancel(stream_id, &heard).await?,
                    _ => post.counters.acks_ignored.add(),
                }
            }
            Ok(())
        })
    }

    /// A recipient speaks to the sender.
    async fn hear_credit(self: &Arc<Self>, out: &Outgoing, heard: &Heard, credit: Credit) -> Result<(), StoreError> {
        let row = &out.row;
        if row.sender != heard.to || row.to.as_str() != heard.slug {
            self.counters.acks_ignored.add();
            return Ok(());
        }
        let trouble = heard.troubles.iter().find(|(msg_id, _)| *msg_id == row.msg_id).map(|(_, code)| *code);
        match credit.state {
            CreditState::Open if trouble == Some(Code::StorageFull) => {
                let (acked, limit) = out.no_room(credit.next_index, self.config.streams.stall_ms);
                let (stream_id, now_ms) = (row.stream_id, self.clock.now_ms());
                self.store.write(move |tx| stream::note_no_room(tx, stream_id, acked, limit, now_ms)).await?;
                self.streams.changed(row.sender);
                Ok(())
            }
            CreditState::Open => {
                let resume = matches!(trouble, Some(Code::StreamGap | Code::ChunkAuth));
                let grant = Grant { next_index: credit.next_index, window: credit.window };
                let (acked, limit) = out.credit(grant, resume, self.config.streams.stall_ms);
                let (stream_id, now_ms) = (row.stream_id, self.clock.now_ms());
                let noting =
                    self.store.queue_lazily(move |tx| stream::note_credit(tx, stream_id, acked, limit, now_ms));
                let (post, sender) = (Arc::clone(self), row.sender);
                // Ordinary messages do not wait for it: should it be lost, a restart begins at an earlier chunk.
                self.tasks.spawn(async move {
                    let _: Result<(), StoreError> = noting.await;
                    post.streams.changed(sender);
                });
                Ok(())
            }
            CreditState::Done => self.end_outgoing(row, TransferState::Done, "", true).await.map(drop),
            CreditState::Cancel => {
                let code = trouble.unwrap_or(Code::StreamCancelled);
                let state = match code {
                    Code::StreamCancelled => TransferState::Cancelled,
                    _ => TransferState::Failed,
                };
                self.end_outgoing(row, state, code.name(), true).await.map(drop)
            }
        }
    }

    /// A sender takes back what it was sending, or a recipient what it was told to receive by a stream that ended here already.
    async fn hear_cancel(&self, stream_id: StreamId, heard: &Heard) -> Result<(), StoreError> {
        let row = self.store.read(move |tx: Tx<'_>| stream::incoming(tx, stream_id)).await?;
        let rightly =
            row.filter(|row| row.sender == heard.from && row.recipient == heard.to && row.from.as_str() == heard.slug);
        match rightly {
            Some(row) if row.state.is_open() => {
                self.end_incoming(&row, TransferState::Cancelled, Code::StreamCancelled, true).await.map(drop)
            }
            Some(_) => self.store.write(move |tx| stream::note_told(tx, End::In, stream_id)).await,
            None => {
                self.counters.acks_ignored.add();
                Ok(())
            }
        }
    }
}
