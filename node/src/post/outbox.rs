//! What a person sees of messages that are on their way, and taking one back.

use std::sync::Arc;

use murmur_core::{
    id::MessageId,
    limits::PAGE_SIZE_MAX,
    outbox::{Event, StateName},
};

use super::{
    Post,
    error::QueryError,
    transition::{self, Key},
    waits_for::{World, waits_for},
};
use crate::{
    directory::PeerTrouble,
    store::{
        Tx,
        listing::{self, Listed, Place, Whose},
    },
};

/// A delivery on a list, with what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The delivery.
    pub listed: Listed,
    /// What it waits for, as a sentence; empty when it waits for nothing any more.
    pub waits_for: String,
}

/// A message that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// The delivery.
    pub listed: Listed,
    /// It had left this node, and may arrive all the same.
    pub may_arrive: bool,
}

impl Post {
    /// Open deliveries behind a place, in the order in which the messages were accepted. At most `limit`.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub async fn list_outbox(
        &self,
        whose: Whose,
        state: Option<StateName>,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Waiting>, QueryError> {
        let limit = limit.min(PAGE_SIZE_MAX + 1);
        let listed = self.store.read(move |tx| listing::open(tx, whose, state, after, limit)).await?;
        Ok(self.waiting(listed))
    }

    /// Every delivery of a message, open or closed.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`].
    pub async fn sent_message(&self, whose: Whose, msg_id: MessageId) -> Result<Vec<Waiting>, QueryError> {
        let listed = self.store.read(move |tx| listing::of_message(tx, whose, msg_id)).await?;
        if listed.is_empty() { Err(QueryError::MessageNotFound { msg_id }) } else { Ok(self.waiting(listed)) }
    }

    /// Takes a message back that is not delivered yet, from everybody it was for. What has ended by itself stays as it is.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`], or [`QueryError::Ended`] when there is nothing to take back any more.
    pub async fn cancel(self: &Arc<Self>, whose: Whose, msg_id: MessageId) -> Result<Vec<Cancelled>, QueryError> {
        let post = Arc::clone(self);
        self.finish(async move { post.cancel_all(whose, msg_id).await }).await
    }

    async fn cancel_all(&self, whose: Whose, msg_id: MessageId) -> Result<Vec<Cancelled>, QueryError> {
        let (now_ms, config) = (self.clock.now_ms(), self.config.outbox.clone());
        let work = move |tx: Tx<'_>| -> Result<_, QueryError> {
            let before = listing::of_message(tx, whose, msg_id)?;
            let ended = before.first().ok_or(QueryError::MessageNotFound { msg_id })?.row.delivery.state.name();
            let mut cancelled = Vec::new();
            for mut listed in before.into_iter().filter(|listed| listed.row.delivery.state.name().is_open()) {
                let may_arrive = listed.row.published > 0;
                let key = Key { msg_id, recipient: listed.row.recipient };
                let Some(stepped) = transition::step(tx, key, Event::Cancel, now_ms, &config)? else { continue };
                listed.row = stepped.row.clone();
                cancelled.push((stepped, Cancelled { listed, may_arrive }));
            }
            if cancelled.is_empty() { Err(QueryError::Ended { msg_id, state: ended }) } else { Ok(cancelled) }
        };
        let (steps, cancelled): (Vec<_>, Vec<_>) = self.store.transact(work).await?.into_iter().unzip();
        steps.into_iter().for_each(|stepped| self.follow_up(stepped));
        Ok(cancelled)
    }

    fn waiting(&self, listed: Vec<Listed>) -> Vec<Waiting> {
        let (snapshot, now_ms, broker) = (self.directory.snapshot(), self.clock.now_ms(), self.bus.taking());
        let sentence = |listed: &Listed| {
            let peer = snapshot.peer(listed.row.recipient);
            let trouble = match peer {
                None => Some(PeerTrouble::Gone),
                Some(peer) if snapshot.has_left(peer) => Some(PeerTrouble::Left),
                Some(peer) => self.directory.verified_peer(peer, now_ms).err(),
            };
            let node_online = peer.is_some_and(|peer| snapshot.node_online(peer.node_id));
            waits_for(&listed.row, &World { trouble, node_online, broker: broker.clone() })
        };
        listed.into_iter().map(|listed| Waiting { waits_for: sentence(&listed), listed }).collect()
    }
}
