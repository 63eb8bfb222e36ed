//! What an attached program is shown: every unread message and every event that was not told, in the order in which they came, then new
//! ones as they are committed.

use std::{collections::VecDeque, sync::Arc};

use murmur_core::id::AgentId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Closed, Session};
use crate::{
    events::{Feed, Told},
    post::{InboxMessage, Post},
    store::StoreError,
};

/// Messages read from the store in one go.
const PAGE: u32 = 64;

/// One thing to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    /// A message. It is shown by this, and read when a tool result carries it.
    Message(Box<InboxMessage>),
    /// Something happened. It counts as told when the program says that it wrote it.
    Told(Told),
    /// The session is over; nothing follows.
    Closed(Closed),
    /// The node is going down; nothing follows.
    Draining,
}

/// The pushes of one session. Dropping it ends the session.
pub struct Push {
    session: Session,
    mail: Mail,
    feed: Feed,
    drain: CancellationToken,
    has_begun: bool,
    has_ended: bool,
}

impl Push {
    /// Pushes for a session until `drain` is cancelled.
    #[must_use]
    pub fn new(session: Session, post: Arc<Post>, feed: Feed, drain: CancellationToken) -> Self {
        let mail = Mail::new(post, session.agent().agent_id);
        Self { session, mail, feed, drain, has_begun: false, has_ended: false }
    }

    /// The next thing to show; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError`] when the inbox or the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<Pushed>, StoreError> {
        if self.has_ended {
            return Ok(None);
        }
        if !self.has_begun {
            self.mail.post.begin_showing(self.mail.agent, self.session.number()).await?;
            self.has_begun = true;
        }
        let last = tokio::select! {
            biased;
            closed = self.session.closed() => Pushed::Closed(closed),
            () = self.drain.cancelled() => Pushed::Draining,
            pushed = next(&mut self.mail, &mut self.feed) => return pushed.map(Some),
        };
        self.has_ended = true;
        Ok(Some(last))
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.mail.post.end_showing(self.mail.agent, self.session.number());
    }
}

/// Waits for the next message or event, whichever came first. Nothing is lost when it is dropped while it waits: what was read stays with
/// the session.
async fn next(mail: &mut Mail, feed: &mut Feed) -> Result<Pushed, StoreError> {
    loop {
        mail.fill().await?;
        feed.fill().await?;
        let is_mail_first = match (mail.next_ms(), feed.next_ms()) {
            (Some(message_ms), Some(event_ms)) => message_ms <= event_ms,
            (message_ms, _) => message_ms.is_some(),
        };
        if is_mail_first && let Some(message) = mail.page.pop_front() {
            return Ok(Pushed::Message(Box::new(message)));
        }
        if let Some(told) = feed.pop() {
            return Ok(Pushed::Told(told));
        }
        tokio::select! {
            () = mail.changed() => {}
            () = feed.changed() => {}
        }
    }
}

/// Unread messages of an agent.
struct Mail {
    post: Arc<Post>,
    agent: AgentId,
    changed: watch::Receiver<u64>,
    /// There may be something that was not looked at.
    is_due: bool,
    cursor: u64,
    page: VecDeque<InboxMessage>,
}

impl Mail {
    fn new(post: Arc<Post>, agent: AgentId) -> Self {
        let changed = post.hub().watch(agent);
        Self { post, agent, changed, is_due: true, cursor: 0, page: VecDeque::new() }
    }

    /// Reads on if there may be more and what was read is shown.
    async fn fill(&mut self) -> Result<(), StoreError> {
        self.is_due |= self.changed.has_changed().unwrap_or(false);
        while self.is_due && self.page.is_empty() {
            // Marked as seen before the look, so that what is committed meanwhile wakes again.
            self.changed.borrow_and_update();
            let (found, until) = self.post.pushable(self.agent, self.cursor, PAGE).await?;
            let was_at = std::mem::replace(&mut self.cursor, until);
            self.is_due = !found.is_empty() || until > was_at;
            self.page.extend(found);
        }
        Ok(())
    }

    fn next_ms(&self) -> Option<u64> {
        self.page.front().map(|message| message.received_ms)
    }

    async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The hub lives as long as the post.
            std::future::pending::<()>().await;
        }
        self.is_due = true;
    }
}
