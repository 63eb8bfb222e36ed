//! What an attached program is shown: every unread message, oldest first, then new ones as they are committed.

use std::{collections::VecDeque, sync::Arc};

use murmur_core::id::AgentId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Closed, Session};
use crate::{
    post::{InboxMessage, Post},
    store::StoreError,
};

/// Messages read from the store in one go.
const PAGE: u32 = 64;

/// One thing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// A message. It is shown by this, and read when a tool result carries it.
    Message(Box<InboxMessage>),
    /// The session is over; nothing follows.
    Closed(Closed),
    /// The node is going down; nothing follows.
    Draining,
}

/// The pushes of one session. Dropping it ends the session.
pub struct Push {
    session: Session,
    post: Arc<Post>,
    drain: CancellationToken,
    changed: watch::Receiver<u64>,
    cursor: u64,
    page: VecDeque<InboxMessage>,
    has_begun: bool,
    has_ended: bool,
}

impl Push {
    /// Pushes for a session until `drain` is cancelled.
    #[must_use]
    pub fn new(session: Session, post: Arc<Post>, drain: CancellationToken) -> Self {
        let changed = post.hub().watch(session.agent().agent_id);
        Self { session, post, drain, changed, cursor: 0, page: VecDeque::new(), has_begun: false, has_ended: false }
    }

    /// The next thing to show; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError`] when the inbox cannot be read.
    pub async fn next(&mut self) -> Result<Option<Pushed>, StoreError> {
        if self.has_ended {
            return Ok(None);
        }
        let agent = self.session.agent().agent_id;
        if !self.has_begun {
            self.post.begin_showing(agent, self.session.number()).await?;
            self.has_begun = true;
        }
        let last = tokio::select! {
            biased;
            closed = self.session.closed() => Pushed::Closed(closed),
            () = self.drain.cancelled() => Pushed::Draining,
            message = next_message(&self.post, agent, &mut self.changed, &mut self.cursor, &mut self.page) => {
                return Ok(Some(Pushed::Message(Box::new(message?))));
            }
        };
        self.has_ended = true;
        Ok(Some(last))
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.post.end_showing(self.session.agent().agent_id, self.session.number());
    }
}

/// Waits for the next message. Nothing is lost when it is dropped while it waits: the page stays with the session.
async fn next_message(
    post: &Post,
    agent: AgentId,
    changed: &mut watch::Receiver<u64>,
    cursor: &mut u64,
    page: &mut VecDeque<InboxMessage>,
) -> Result<InboxMessage, StoreError> {
    loop {
        if let Some(message) = page.pop_front() {
            return Ok(message);
        }
        // Marked as seen before the look, so that what is committed meanwhile wakes again.
        changed.borrow_and_update();
        let (found, until) = post.pushable(agent, *cursor, PAGE).await?;
        let was_at = std::mem::replace(cursor, until);
        page.extend(found);
        if page.is_empty() && until > was_at {
            continue;
        }
        if page.is_empty() && changed.changed().await.is_err() {
            // The hub lives as long as the post.
            std::future::pending::<()>().await;
        }
    }
}
