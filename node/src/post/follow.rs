//! Following the delivery of a message: how it stands, then every change, until nothing more is to come.

use std::sync::Arc;

use murmur_core::{
    id::{AgentId, MessageId},
    outbox::StateName,
};
use tokio::sync::watch;

use super::{Post, error::QueryError, types::DeliveryView};

/// A delivery that is followed. Wakes are level-triggered: a state that was left before anybody looked is passed over.
pub struct Followed {
    post: Arc<Post>,
    agent: AgentId,
    msg_id: MessageId,
    until: Option<StateName>,
    changed: watch::Receiver<u64>,
    /// What was told last; empty before the first.
    told: Vec<DeliveryView>,
}

impl Post {
    /// Follows the delivery of a message that the agent sent, until it is final, or in `until` or past it.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`].
    pub async fn follow(
        self: &Arc<Self>,
        agent: AgentId,
        msg_id: MessageId,
        until: Option<StateName>,
    ) -> Result<Followed, QueryError> {
        let changed = self.hub.follow(msg_id);
        let followed = Followed { post: Arc::clone(self), agent, msg_id, until, changed, told: Vec::new() };
        self.delivery(agent, msg_id).await?;
        Ok(followed)
    }
}

impl Followed {
    /// The next state; `None` after the last.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn next(&mut self) -> Result<Option<Vec<DeliveryView>>, QueryError> {
        if !self.told.is_empty() && self.told.iter().all(|view| is_last(view.state, self.until)) {
            return Ok(None);
        }
        loop {
            // Marked as seen before the look, so that no change in between is missed.
            self.changed.borrow_and_update();
            let now = self.post.delivery(self.agent, self.msg_id).await?;
            if now != self.told {
                self.told.clone_from(&now);
                return Ok(Some(now));
            }
            if self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.post.hub.stop_following(self.msg_id);
    }
}

/// Whether nobody who waits for `until` need wait any longer.
fn is_last(state: StateName, until: Option<StateName>) -> bool {
    let way = |state| match state {
        StateName::Queued => 0,
        StateName::Sealed => 1,
        StateName::Stored => 2,
        StateName::Delivered => 3,
        StateName::Read | StateName::Expired | StateName::Dead | StateName::Cancelled => 4,
    };
    way(state) >= until.map_or(4, way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_where_it_was_asked_to_or_where_nothing_follows() {
        use StateName::{Cancelled, Dead, Delivered, Expired, Queued, Read, Stored};
        assert!(is_last(Delivered, Some(Delivered)) && !is_last(Delivered, Some(Read)) && !is_last(Delivered, None));
        assert!(is_last(Read, Some(Delivered)) && is_last(Stored, Some(Queued)));
        for end in [Read, Expired, Dead, Cancelled] {
            assert!(is_last(end, None) && is_last(end, Some(Read)) && is_last(end, Some(Delivered)));
        }
    }
}
