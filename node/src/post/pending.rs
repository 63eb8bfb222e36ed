//! A waiter for one reply.

use std::{sync::Arc, time::Duration};

use murmur_core::{
    id::{AgentId, MessageId},
    outbox::StateName,
};
use tokio::sync::watch;

use super::{
    Post,
    types::{InboxMessage, Outcome},
};
use crate::store::{StoreError, Tx, delivery, delivery::DeliveryRow, inbox, request};

/// A reply to come. While one exists, the reply is its own; when the last one is dropped, a reply that came is pushed to the
/// agent like any other message.
pub struct PendingReply {
    post: Arc<Post>,
    agent: AgentId,
    msg_id: MessageId,
    deadline_ms: u64,
    changed: watch::Receiver<u64>,
    /// It was watched from before its commit: nothing can have come of it unseen.
    is_new: bool,
}

/// How a request stands.
struct Standing {
    delivery: Option<DeliveryRow>,
    reply: Option<InboxMessage>,
}

impl PendingReply {
    pub(super) fn new(post: &Arc<Post>, agent: AgentId, msg_id: MessageId, timeout_ms: u64, is_new: bool) -> Self {
        let deadline_ms = post.clock.now_ms().saturating_add(timeout_ms);
        Self { changed: post.hub.wait_for(msg_id), post: Arc::clone(post), agent, msg_id, deadline_ms, is_new }
    }

    /// The request.
    #[must_use]
    pub const fn msg_id(&self) -> MessageId {
        self.msg_id
    }

    /// Waits for the reply, the end of the request or the end of the time. A reply is marked as read before it is returned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait(mut self) -> Result<Outcome, StoreError> {
        if self.is_new {
            self.changed_or_over().await;
        }
        loop {
            // Marked as seen before the look, so that no change in between is missed.
            self.changed.borrow_and_update();
            let msg_id = self.msg_id;
            if let Some((reply, unread)) = self.post.hub.reply(msg_id) {
                self.post.mark_read_soon(self.agent, reply.cursor);
                // Whoever replies has the request, whether or not its acknowledgement was faster.
                let delivery = StateName::Delivered;
                let reply = Some(reply);
                return Ok(Outcome { delivery, reply, timed_out: false, failure: None, unread: Some(unread) });
            }
            let standing = self.post.store.read(move |tx| standing(tx, msg_id)).await?;
            let left_ms = self.deadline_ms.saturating_sub(self.post.clock.now_ms());
            if let Some(outcome) = outcome(standing, left_ms == 0) {
                if let Some(reply) = &outcome.reply {
                    self.post.mark_read(self.agent, vec![reply.cursor]).await?;
                }
                return Ok(outcome);
            }
            self.changed_or_over().await;
        }
    }

    async fn changed_or_over(&mut self) {
        let left_ms = self.deadline_ms.saturating_sub(self.post.clock.now_ms());
        tokio::select! {
            _ = self.changed.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.post.hub.stop_waiting(self.msg_id, self.agent);
    }
}

fn standing(tx: Tx<'_>, msg_id: MessageId) -> Result<Standing, StoreError> {
    let request = request::get(tx, msg_id)?;
    let reply = match request.and_then(|request| request.reply_cursor) {
        Some(cursor) => inbox::at(tx, cursor)?,
        None => None,
    };
    Ok(Standing { delivery: delivery::of_message(tx, msg_id)?.pop(), reply })
}

fn outcome(standing: Standing, timed_out: bool) -> Option<Outcome> {
    let Standing { delivery, reply } = standing;
    let state = delivery.as_ref().map_or(StateName::Expired, |row| row.delivery.state.name());
    let failed = matches!(state, StateName::Dead | StateName::Expired | StateName::Cancelled);
    if reply.is_some() {
        return Some(Outcome { delivery: state, reply, timed_out: false, failure: None, unread: None });
    }
    if failed {
        let code = delivery.and_then(|row| row.code).filter(|_| state == StateName::Dead);
        let failure = Some(code.unwrap_or_else(|| state.as_str().to_owned()));
        return Some(Outcome { delivery: state, reply: None, timed_out: false, failure, unread: None });
    }
    timed_out.then_some(Outcome { delivery: state, reply: None, timed_out: true, failure: None, unread: None })
}
