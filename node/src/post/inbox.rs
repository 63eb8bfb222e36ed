//! What agents read: their inbox, how their messages stand, and what goes by.

use std::sync::{Arc, atomic::AtomicBool};

use murmur_core::{
    id::{AgentId, MessageId},
    limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX},
    slug::{Caller, Slug, resolve},
    tier::Tier,
};
use murmur_crypto::inner::InnerMessage as Inner;
use tokio::sync::broadcast;

use super::{
    Post,
    error::QueryError,
    stream::{announced, deadline},
    types::{DeliveryView, Direction, InboxMessage, InboxPage, InboxQuery, LocalAgent, TailItem},
};
use crate::{
    failpoint::failpoint,
    store::{
        StoreError, Tx,
        ack::{self, AckRow, STATUS_READ},
        agents,
        delivery::{self, DeliveryRow},
        inbox::{self, Filter, ReadRow},
        outbox::{self, OutboxRow},
        transfer,
    },
};

/// Messages that one commit marks as read while little else is written: half a millisecond of its time.
const MARKS_TOGETHER: usize = 16;

/// Bytes of the messages of one page, some below what every gRPC client takes in one answer by itself (4 MiB).
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What a message takes beside its body, at most.
const AROUND_BODY_BYTES: usize = 2 * 1024;

/// How many of the first messages are a page of at most `limit`: an answer that is too long is refused by who asked, who would never see
/// what it says. One message always fits.
fn whole_page(messages: &[InboxMessage], limit: usize) -> usize {
    let mut bytes = 0;
    let fits = |message: &&InboxMessage| {
        bytes += message.body.len() + AROUND_BODY_BYTES;
        bytes <= PAGE_BYTES_MAX
    };
    messages.iter().take(limit).take_while(fits).count().max(messages.len().min(1))
}

impl Post {
    /// Reads a page of an agent's inbox: as many messages as asked for, or fewer when they are long. Unless it only peeks, what it returns is
    /// marked as read, and the senders are told.
    ///
    /// # Errors
    /// [`QueryError::Resolve`] when the slug to filter by means nobody, or the store failed.
    pub async fn inbox(self: &Arc<Self>, agent: &LocalAgent, query: InboxQuery) -> Result<InboxPage, QueryError> {
        let InboxQuery { after, limit, peek, all, from } = query;
        let from = from.filter(|text| !text.is_empty()).map(|text| self.sender(agent, &text)).transpose()?;
        let limit = if limit == 0 { PAGE_SIZE_DEFAULT } else { limit.min(PAGE_SIZE_MAX) };
        let filter = Filter { after, unread: after == 0 && !all, from };
        let id = agent.agent_id;
        // One more than asked for tells whether there is a next page.
        self.await_marks(id).await?;
        let in_push = self.hub.in_push();
        let mut messages = self.store.read(move |tx| inbox::list(tx, id, &filter, limit + 1)).await?;
        for message in &mut messages {
            message.redelivered |= in_push.contains(&message.cursor);
        }
        let places = whole_page(&messages, limit as usize);
        let more = messages.len() > places;
        messages.truncate(places);
        let next_after = messages.last().filter(|_| more).map_or(0, |last| last.cursor);
        if peek {
            let shown: Vec<u64> = messages.iter().map(|message| message.cursor).collect();
            let count = move |tx: Tx<'_>| Ok((agents::unread(tx, id)?, inbox::readable(tx, id, &shown)?.len() as u64));
            let (unread, here) = self.store.read(count).await?;
            return Ok(InboxPage { messages, next_after, unread, unread_behind: unread.saturating_sub(here) });
        }
        // A message whose file is still coming is not read before the file can be.
        let whole = messages.iter().filter(|message| !message.has_file_to_come());
        let unread = self.mark_to_the_end(id, whole.map(|message| message.cursor).collect()).await?;
        Ok(InboxPage { messages, next_after, unread, unread_behind: unread })
    }

    /// Marks messages of an agent's inbox as read that it was shown. What is not its own is passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_shown(self: &Arc<Self>, agent: AgentId, mut cursors: Vec<u64>) -> Result<u64, StoreError> {
        cursors.sort_unstable();
        cursors.dedup();
        let cursors = self.store.read(move |tx| inbox::readable(tx, agent, &cursors)).await?;
        self.mark_to_the_end(agent, cursors).await
    }

    /// Marks rows as read, and says how many are left unread. Who was shown them may go away meanwhile: their senders are told all the same.
    async fn mark_to_the_end(self: &Arc<Self>, agent: AgentId, cursors: Vec<u64>) -> Result<u64, StoreError> {
        let post = Arc::clone(self);
        let marking = async move {
            post.mark_read(agent, cursors).await?;
            post.unread(agent).await
        };
        self.finish(marking).await
    }

    /// Waits for marks that are in the writer's queue: who was shown a reply must not find it unread.
    async fn await_marks(&self, agent: AgentId) -> Result<(), StoreError> {
        if self.hub.is_marking(agent) { self.store.write(|_| Ok(())).await } else { Ok(()) }
    }

    /// Unread messages of an agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unread(&self, agent: AgentId) -> Result<u64, StoreError> {
        self.await_marks(agent).await?;
        self.store.read(move |tx| agents::unread(tx, agent)).await
    }

    /// How the deliveries of a message stand that the agent sent.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`].
    pub async fn delivery(&self, agent: AgentId, msg_id: MessageId) -> Result<Vec<DeliveryView>, QueryError> {
        let rows = self.store.read(move |tx| delivery::of_message(tx, msg_id)).await?;
        let own: Vec<_> = rows.into_iter().filter(|row| row.sender == agent).map(view).collect();
        if own.is_empty() { Err(QueryError::MessageNotFound { msg_id }) } else { Ok(own) }
    }

    /// Every message that goes by while it is `wanted`, of every agent; one between two agents of this node goes by twice. The
    /// first to ask says what decides.
    #[must_use]
    pub fn seen(&self, wanted: Arc<AtomicBool>) -> broadcast::Receiver<TailItem> {
        self.hub.seen(wanted)
    }

    /// The agent's last messages in both directions, oldest first, and everything that goes by from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tail(
        &self,
        agent: &LocalAgent,
        backlog: u32,
    ) -> Result<(Vec<TailItem>, broadcast::Receiver<TailItem>), StoreError> {
        let receiver = self.hub.tail(agent.agent_id);
        let agent = agent.clone();
        let items = self.store.read(move |tx| backlog_of(tx, &agent, backlog.min(PAGE_SIZE_MAX))).await?;
        Ok((items, receiver))
    }

    /// What a session at position `after` is to be shown: unread messages behind it, and earlier ones that were never shown,
    /// but for replies that somebody waits for. What it returns counts as pushed. Also returns where the session goes on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pushable(
        &self,
        agent: AgentId,
        after: u64,
        limit: u32,
    ) -> Result<(Vec<InboxMessage>, u64), StoreError> {
        let freed = self.hub.take_freed(agent);
        let mut messages = Vec::new();
        if !freed.is_empty() {
            let look = move |tx: Tx<'_>| freed.into_iter().map(|cursor| inbox::unread_at(tx, cursor)).collect();
            let found: Vec<Option<InboxMessage>> = self.store.read(look).await?;
            messages.extend(found.into_iter().flatten());
        }
        let until = match self.hub.take_behind(agent, after) {
            Some(newest) => {
                let until = newest.last().map_or(after, |last| last.cursor);
                messages.extend(newest);
                until
            }
            None => self.unread_page(agent, after, limit.clamp(1, PAGE_SIZE_MAX), &mut messages).await?,
        };
        for message in &mut messages {
            message.redelivered |= self.hub.is_pushing(message.cursor);
        }
        let cursors: Vec<u64> =
            messages.iter().filter(|message| !message.redelivered).map(|message| message.cursor).collect();
        self.hub.pushing(&cursors);
        Ok((messages, until))
    }

    /// Reads unread rows behind a position from the store, and says up to where it has read.
    async fn unread_page(
        &self,
        agent: AgentId,
        after: u64,
        limit: u32,
        messages: &mut Vec<InboxMessage>,
    ) -> Result<u64, StoreError> {
        let feed_begins = self.hub.begin_look(agent);
        let found = self.store.read(move |tx| inbox::unread_after(tx, agent, after, limit)).await?;
        let last = found.last().map_or(after, |last| last.cursor);
        let is_whole = found.len() < limit as usize;
        messages.extend(self.hub.end_look(agent, found));
        Ok(if is_whole { last.max(feed_begins) } else { last })
    }

    /// Marks rows of an agent as read and tells their senders.
    pub(super) async fn mark_read(&self, agent: AgentId, cursors: Vec<u64>) -> Result<(), StoreError> {
        if cursors.is_empty() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        failpoint("R6");
        // What arrives meanwhile waits for a few marks only, unless each commit counts.
        let together = if self.store.is_strained() { cursors.len() } else { MARKS_TOGETHER };
        for (at, marked) in cursors.chunks(together).enumerate() {
            let of_commit = marked.to_vec();
            self.hub.read(agent, marked);
            let marking = self.store.queue_plainly(move |tx| read(tx, agent, &of_commit, now_ms));
            let receipts: Result<_, StoreError> = marking.await;
            let receipts = match receipts {
                Ok(receipts) => receipts,
                Err(error) if at == 0 => return Err(error),
                // What is marked already is shown now or never; the rest is shown again.
                Err(error) => {
                    tracing::warn!(%error, agent.id = %agent, "some of what is shown could not be marked as read");
                    return Ok(());
                }
            };
            self.hub.pushed_on_disk(marked);
            self.acknowledge(receipts);
        }
        Ok(())
    }

    /// Like [`Post::mark_read`] for one row that its agent is being shown: not waited for. Should the mark be lost, the row is shown
    /// again, and says so.
    pub(super) fn mark_read_soon(self: &Arc<Self>, agent: AgentId, cursor: u64) {
        let now_ms = self.clock.now_ms();
        // In this order: a session that begins to read the store in between would find it unread.
        self.hub.marking(agent, cursor);
        self.hub.read(agent, &[cursor]);
        failpoint("R6");
        let post = Arc::clone(self);
        // Most often its agent's next message is on the way, and takes it along.
        self.store.queue_lazily_then(
            move |tx| read(tx, agent, &[cursor], now_ms),
            move |receipts: Result<_, StoreError>| {
                post.hub.marked(agent, cursor);
                match receipts {
                    Ok(receipts) => {
                        post.hub.pushed_on_disk(&[cursor]);
                        post.acknowledge(receipts);
                    }
                    Err(error) => {
                        tracing::warn!(%error, agent.id = %agent, cursor, "a reply could not be marked as read");
                    }
                }
            },
        );
    }

    fn sender(&self, agent: &LocalAgent, text: &str) -> Result<AgentId, QueryError> {
        let caller = Caller::Agent { id: agent.agent_id, slug: agent.slug.clone() };
        Ok(resolve(text, Some(&caller), &*self.directory.snapshot())?.agent_id)
    }
}

/// Marks rows as read; the receipts are stored with the marks.
pub(super) fn read(tx: Tx<'_>, agent: AgentId, cursors: &[u64], now_ms: u64) -> Result<Vec<AckRow>, StoreError> {
    let read = inbox::mark_read(tx, cursors, now_ms)?;
    read.into_iter().map(|row| receipt(tx, agent, row, now_ms)).collect()
}

fn receipt(tx: Tx<'_>, agent: AgentId, read: ReadRow, now_ms: u64) -> Result<AckRow, StoreError> {
    let mut row = receipt_of(agent, read);
    row.id = ack::insert(tx, &row, now_ms)?;
    Ok(row)
}

/// That an agent has read a message.
pub(super) fn receipt_of(agent: AgentId, read: ReadRow) -> AckRow {
    AckRow {
        id: 0,
        acker: agent,
        to_agent: read.sender,
        route: read.reply_route,
        msg_id: read.msg_id,
        env_digest: read.env_digest,
        status: STATUS_READ,
        code: 0,
        retry_after_s: 0,
    }
}

/// A delivery as its sender sees it.
pub fn view(row: DeliveryRow) -> DeliveryView {
    DeliveryView {
        to: row.to_slug,
        to_agent_id: row.recipient,
        state: row.delivery.state.name(),
        code: row.code,
        publish_tries: row.published,
        created_ms: row.created_ms,
        delivered_ms: row.delivered_ms,
        read_ms: row.read_ms,
        expires_ms: row.delivery.expires_ms,
        stale_prekey: row.stale_prekey,
    }
}

fn backlog_of(tx: Tx<'_>, agent: &LocalAgent, limit: u32) -> Result<Vec<TailItem>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let received = inbox::newest(tx, agent.agent_id, limit)?.into_iter();
    let mut items: Vec<(u64, TailItem)> = received
        .map(|message| (message.received_ms, TailItem { direction: Direction::In, message, state: None }))
        .collect();
    for row in outbox::newest(tx, agent.agent_id, limit)? {
        for delivery in delivery::of_message(tx, row.msg_id)? {
            let mut message = sent_message(&row, agent.slug.clone(), delivery.to_slug);
            if message.file.is_some() {
                message.file = transfer::of_sent(tx, row.msg_id)?.map(Box::new);
            }
            let state = Some(delivery.delivery.state.name());
            items.push((row.created_ms, TailItem { direction: Direction::Out, message, state }));
        }
    }
    items.sort_by_key(|(at, _)| *at);
    let surplus = items.len().saturating_sub(limit as usize);
    Ok(items.drain(surplus..).map(|(_, item)| item).collect())
}

/// A sent message as its sender sees it.
pub(super) fn sent_message(row: &OutboxRow, from: Slug, to: Slug) -> InboxMessage {
    let inner = Inner::decode(row.inner.clone()).ok();
    let said = inner.as_ref();
    InboxMessage {
        msg_id: row.msg_id,
        conversation_id: row.conversation_id,
        kind: row.kind,
        from,
        from_agent_id: row.sender,
        to,
        tier: Tier::Verified,
        content_type: said.map(|inner| inner.content_type.clone()).unwrap_or_default(),
        body: said.map(|inner| inner.body.clone()).unwrap_or_default(),
        in_reply_to: said.and_then(|inner| inner.in_reply_to),
        created_ms: row.created_ms,
        received_ms: row.created_ms,
        sequence: row.sequence,
        cursor: 0,
        redelivered: false,
        traceparent: row.traceparent.clone(),
        deadline_ms: said.and_then(deadline),
        file: said.and_then(|inner| inner.stream.as_ref()).map(|manifest| Box::new(announced(manifest))),
        gap: false,
    }
}
