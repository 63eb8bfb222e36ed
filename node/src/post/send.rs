//! Sending: resolve, decide, commit one outbox row. Nothing here waits for the network.

use std::sync::Arc;

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, ConversationId, MessageId},
    limits,
    outbox::Event,
    slug::{Caller, Slug, resolve},
};
use murmur_crypto::{
    hash::sha256,
    inner::{CONTENT_TYPE_DEFAULT, InnerMessage as Inner, Kind, dm_conversation_id},
};
use tracing::Instrument as _;

use super::{
    Post,
    direct::{Coming, QueuedDirect},
    driver::Lane,
    error::SendError,
    pipeline::Abort,
    random,
    requested::Answered,
    stream::{Announced, asks_until},
    transition::{self, Stepped},
    types::{Attachment, Direction, Draft, InboxMessage, LocalAgent, MessageKind, Sent, StateName, TailItem},
};
use crate::{
    failpoint::failpoint,
    store::{
        StoreError, Tx,
        ack::AckRow,
        agents,
        delivery::{self, DeliveryRow},
        inbox,
        outbox::{self, OutboxRow},
        request,
    },
};

/// Longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// A draft that was found good: everything is decided but its place in the conversation.
pub(super) struct Accepted {
    pub(super) msg_id: MessageId,
    pub(super) to: Slug,
    pub(super) recipient: AgentId,
    pub(super) conversation_id: ConversationId,
    kind: MessageKind,
    inner: Bytes,
    created_ms: u64,
    ttl_seconds: u32,
    traceparent: String,
    client_key: Option<String>,
    content_digest: [u8; 32],
    deadline_ms: Option<u64>,
    /// The place in the sender's inbox of what this answers.
    answers: Option<u64>,
    file: Option<Box<Attachment>>,
}

/// Whom a draft goes to, and as what.
struct Found {
    recipient: AgentId,
    to: Slug,
    kind: MessageKind,
    answers: Option<u64>,
}

/// How the commit went.
pub(super) enum Committed {
    /// There is a new message.
    New {
        /// What is left to do; nothing when it is being published.
        stepped: Option<Box<Stepped>>,
        /// It takes the long way.
        coming: Option<Coming>,
        /// Its place in the conversation.
        sequence: u64,
        /// Unread messages of the sender.
        unread: u64,
        /// Tells the sender of the answered message that it was read.
        receipts: Vec<AckRow>,
    },
    /// The idempotency key was used for the same content before.
    Repeated {
        /// The message that it made.
        msg_id: MessageId,
        /// Unread messages of the sender.
        unread: u64,
    },
}

/// A commit in the writer's queue.
enum Queued<L> {
    Direct(QueuedDirect),
    Long(L),
}

impl Post {
    /// Accepts a message. When it returns, the message is on disk.
    ///
    /// # Errors
    /// [`SendError`]; nothing was accepted then.
    pub async fn send(self: &Arc<Self>, from: &LocalAgent, draft: Draft) -> Result<Sent, SendError> {
        let span = murmur_telemetry::hot_span!("post.send");
        async {
            let accepted = self.accept(from, draft, None).await?;
            self.commit(from, accepted).await
        }
        .instrument(span)
        .await
    }

    /// Checks a draft and decides everything about it. `timeout_ms` makes it a request.
    pub(super) async fn accept(
        &self,
        from: &LocalAgent,
        draft: Draft,
        timeout_ms: Option<u64>,
    ) -> Result<Accepted, SendError> {
        let content_type = check_draft(&draft, self.config.body_bytes_max)?;
        let Found { recipient, to, kind, answers } = self.find_recipient(from, &draft, timeout_ms.is_some()).await?;
        let now_ms = self.clock.now_ms();
        let conversation_id = dm_conversation_id(from.agent_id, recipient);
        let content_digest = digest(recipient, kind, &content_type, &draft);
        let traceparent = murmur_telemetry::current_traceparent().unwrap_or_default();
        let deadline_ms = timeout_ms.map(|timeout| now_ms.saturating_add(timeout));
        let inner = Inner {
            content_type,
            in_reply_to: draft.in_reply_to,
            deadline_ms: deadline_ms.filter(|_| draft.file.is_none()),
            attrs: deadline_ms.filter(|_| draft.file.is_some()).map(asks_until).into_iter().collect(),
            traceparent: Some(traceparent.clone()).filter(|text| !text.is_empty()),
            stream: draft.file.as_ref().map(|file| file.manifest.clone()),
            ..Inner::new(wire_kind(kind, draft.file.is_some()), conversation_id, draft.body)
        };
        let inner =
            inner.encode().map_err(|error| SendError::Field { field: error.field, rule: error.rule.into_owned() })?;
        let random = random::id_bytes().ok_or(SendError::Random)?;
        Ok(Accepted {
            msg_id: MessageId::new_v7(now_ms, random),
            recipient,
            to,
            conversation_id,
            kind,
            inner,
            created_ms: now_ms,
            ttl_seconds: ttl_seconds(draft.ttl_seconds, timeout_ms),
            traceparent,
            client_key: draft.idempotency_key,
            content_digest,
            deadline_ms,
            answers,
            file: draft.file,
        })
    }

    /// Commits what was accepted and hands it on. Who answers a message has seen it: it counts as read.
    pub(super) async fn commit(self: &Arc<Self>, from: &LocalAgent, accepted: Accepted) -> Result<Sent, SendError> {
        match self.admit(from, &accepted).await? {
            Some(before) => Ok(before),
            None => self.commit_admitted(from, Arc::new(accepted)).await,
        }
    }

    /// The same for what its pair's rate was charged for.
    pub(super) async fn commit_admitted(
        self: &Arc<Self>,
        from: &LocalAgent,
        accepted: Arc<Accepted>,
    ) -> Result<Sent, SendError> {
        // What has nothing to follow its commit but being published, which does not wait for this.
        let is_short = accepted.file.is_none() && accepted.answers.is_none();
        if is_short && let Some(committed) = self.commit_direct(from.agent_id, &accepted).await? {
            return Ok(self.committed(from, &accepted, committed));
        }
        let (post, from) = (Arc::clone(self), from.clone());
        let commit = async move {
            // The keys of a stream are kept with its row, which only the long way writes.
            let direct = match accepted.file {
                None if !is_short => post.commit_direct(from.agent_id, &accepted).await?,
                _ => None,
            };
            let committed = match direct {
                Some(committed) => committed,
                None => {
                    let committed = post.queue_long(from.agent_id, &accepted, None).await?;
                    committed.ok_or(StoreError::Corrupt("a send of no pipeline was turned back"))?
                }
            };
            Ok(post.committed(&from, &accepted, committed))
        };
        self.finish(commit).await
    }

    /// Queues the commit of what was admitted, without a file, in a pipeline. The future waits for it, hands the message on, and is to be
    /// driven to its end; `None` when it was turned back.
    pub(super) async fn queue(
        self: &Arc<Self>,
        from: &LocalAgent,
        accepted: &Arc<Accepted>,
        abort: &Abort,
    ) -> Result<impl Future<Output = Result<Option<Sent>, SendError>> + Send + use<>, SendError> {
        let queued = match self.queue_at_next(from.agent_id, accepted, Some(abort)).await? {
            Some(queued) => Queued::Direct(queued),
            None => Queued::Long(self.queue_long(from.agent_id, accepted, Some(abort))),
        };
        let (post, from, accepted) = (Arc::clone(self), from.clone(), Arc::clone(accepted));
        Ok(async move {
            let committed = match queued {
                Queued::Direct(queued) => post.await_committed(from.agent_id, &accepted, queued).await?,
                Queued::Long(queued) => queued.await?,
            };
            Ok(committed.map(|committed| post.committed(&from, &accepted, committed)))
        })
    }

    /// Refuses what comes too often; the answer to what was accepted before, which is so still.
    pub(super) async fn admit(&self, from: &LocalAgent, accepted: &Accepted) -> Result<Option<Sent>, SendError> {
        if let Err(over) = self.policy.may_send(from.agent_id, accepted.recipient, accepted.created_ms) {
            let refused = SendError::RateLimited { to: accepted.to.to_string(), retry_after_ms: over.retry_after_ms };
            let msg_id = self.repeated(from.agent_id, accepted).await?.ok_or(refused)?;
            return Ok(Some(Sent { msg_id, unread: self.unread(from.agent_id).await?, ..self.as_sent(accepted) }));
        }
        failpoint("S1");
        Ok(None)
    }

    fn as_sent(&self, accepted: &Accepted) -> Sent {
        let snapshot = self.directory.snapshot();
        Sent {
            msg_id: accepted.msg_id,
            conversation_id: accepted.conversation_id,
            to: accepted.to.clone(),
            recipient_online: snapshot.peer(accepted.recipient).is_some_and(|peer| snapshot.online(peer)),
            unread: 0,
        }
    }

    fn committed(&self, from: &LocalAgent, accepted: &Accepted, committed: Committed) -> Sent {
        let mut sent = self.as_sent(accepted);
        match committed {
            Committed::Repeated { msg_id, unread } => (sent.msg_id, sent.unread) = (msg_id, unread),
            Committed::New { stepped, coming, sequence, unread, receipts } => {
                sent.unread = unread;
                self.hub.read(from.agent_id, accepted.answers.as_slice());
                self.hub.pushed_on_disk(accepted.answers.as_slice());
                self.acknowledge(receipts);
                self.counters.sent.add();
                self.hub.show(from.agent_id, || TailItem {
                    direction: Direction::Out,
                    message: as_shown(from, accepted, sequence),
                    state: Some(StateName::Queued),
                });
                match (stepped, coming) {
                    (Some(stepped), Some(coming)) => self.follow_up_queued(*stepped, coming),
                    (Some(stepped), None) => self.follow_up(*stepped),
                    (None, _) => {}
                }
            }
        }
        sent
    }

    /// Queues at once the commit of a message that the driver seals and publishes when its turn comes; `None` when it was turned back.
    fn queue_long(
        &self,
        sender: AgentId,
        accepted: &Arc<Accepted>,
        abort: Option<&Abort>,
    ) -> impl Future<Output = Result<Option<Committed>, SendError>> + Send + use<> {
        // From now on nothing overtakes it.
        let coming = self.gate.announce(Lane { sender, recipient: accepted.recipient });
        // It takes a position that nobody has chosen. When the short way is open again, it is on disk.
        self.places.forget(sender, accepted.conversation_id);
        let config = self.config.outbox.clone();
        let epoch = self.store.sequence_epoch();
        let (accepted, abort) = (Arc::clone(accepted), abort.cloned());
        let work = move |tx: Tx<'_>| {
            if abort.is_some_and(|abort| abort.is_set()) {
                return Ok(None);
            }
            if let Some(repeated) = check(tx, sender, &accepted)? {
                return Ok(Some(repeated));
            }
            let sequence = outbox::next_sequence(tx, sender, accepted.conversation_id)?;
            let message = outbox_row(sender, &accepted, epoch, sequence);
            let receipts = insert_message(tx, &message, &accepted)?;
            let mut row = DeliveryRow::new(&message, accepted.recipient, accepted.to.clone());
            let effects = transition::advance(tx, &mut row, Event::Tick, accepted.created_ms, &config)?;
            delivery::insert(tx, &row)?;
            let unread = agents::unread(tx, sender)?;
            let stepped = Some(Box::new(Stepped::new(row, effects)));
            Ok(Some(Committed::New { stepped, coming: None, sequence, unread, receipts }))
        };
        let committing = self.store.queue(work);
        async move {
            let mut committed = committing.await;
            failpoint("S2");
            if let Ok(Some(Committed::New { coming: announced, .. })) = &mut committed {
                *announced = Some(coming);
            }
            committed
        }
    }

    /// The message that the idempotency key made before.
    async fn repeated(&self, sender: AgentId, accepted: &Accepted) -> Result<Option<MessageId>, SendError> {
        let Some(key) = accepted.client_key.clone() else { return Ok(None) };
        let used = self.store.read(move |tx| outbox::used_key(tx, sender, &key)).await?;
        same_content(used, &accepted.content_digest)
    }

    /// Whom a draft goes to, and as what.
    async fn find_recipient(&self, from: &LocalAgent, draft: &Draft, is_request: bool) -> Result<Found, SendError> {
        let answered = match draft.in_reply_to {
            Some(msg_id) => Some(self.answered(from.agent_id, msg_id).await?),
            None => None,
        };
        let (recipient, to) = match &answered {
            Some(answered) if draft.to.trim().is_empty() => self.requester(answered)?,
            _ => self.resolve(from, &draft.to)?,
        };
        if recipient == from.agent_id {
            return Err(SendError::SelfMessage);
        }
        if let Some(asked) = answered.as_ref().filter(|asked| asked.kind == MessageKind::Request && asked.from != to) {
            // Whoever waits for the answer would wait in vain, and another be told what nobody asked.
            let rule = format!("must be {}, who waits for the answer to in_reply_to, or be left out", asked.from);
            return Err(SendError::Field { field: "to", rule });
        }
        let kind = match &answered {
            _ if is_request => MessageKind::Request,
            Some(message) if message.kind == MessageKind::Request && message.from_agent_id == recipient => {
                MessageKind::Reply
            }
            _ => MessageKind::Message,
        };
        Ok(Found { recipient, to, kind, answers: answered.map(|message| message.cursor) })
    }

    async fn answered(&self, agent: AgentId, msg_id: MessageId) -> Result<Answered, SendError> {
        if let Some(request) = self.requested.get(agent, msg_id) {
            return Ok(request);
        }
        let found = self.store.read(move |tx| inbox::find(tx, agent, msg_id)).await?;
        found.as_ref().map(Answered::from).ok_or(SendError::MessageNotFound { msg_id })
    }

    fn requester(&self, answered: &Answered) -> Result<(AgentId, Slug), SendError> {
        let snapshot = self.directory.snapshot();
        let peer = snapshot.peer(answered.from_agent_id);
        let peer = peer.ok_or_else(|| SendError::Ended { slug: answered.from.to_string() })?;
        Ok((peer.agent_id, peer.slug.clone()))
    }

    fn resolve(&self, from: &LocalAgent, text: &str) -> Result<(AgentId, Slug), SendError> {
        if text.trim().is_empty() {
            let rule = "must name the recipient, or in_reply_to a message to answer".to_owned();
            return Err(SendError::Field { field: "to", rule });
        }
        let caller = Caller::Agent { id: from.agent_id, slug: from.slug.clone() };
        let resolved = resolve(text, Some(&caller), &*self.directory.snapshot())?;
        if resolved.ended {
            return Err(SendError::Ended { slug: resolved.slug.to_string() });
        }
        Ok((resolved.agent_id, resolved.slug))
    }
}

/// The rules about the draft alone. Returns the content type.
fn check_draft(draft: &Draft, body_bytes_max: usize) -> Result<String, SendError> {
    let field = |field, rule: String| Err(SendError::Field { field, rule });
    let limit = body_bytes_max.min(limits::BODY_BYTES_MAX);
    if draft.body.len() > limit {
        return Err(SendError::BodyTooLarge { bytes: draft.body.len(), limit });
    }
    let content_type = draft.content_type.as_deref().filter(|text| !text.is_empty()).unwrap_or(CONTENT_TYPE_DEFAULT);
    if content_type.len() > limits::CONTENT_TYPE_BYTES_MAX {
        return field("content_type", format!("must have at most {} bytes", limits::CONTENT_TYPE_BYTES_MAX));
    }
    if content_type.chars().any(char::is_control) {
        return field("content_type", "must hold no control characters".to_owned());
    }
    let ttl = limits::TTL_SECONDS_MIN..=limits::TTL_SECONDS_MAX;
    if draft.ttl_seconds.is_some_and(|seconds| !ttl.contains(&seconds)) {
        return field("ttl_seconds", format!("must be 1 to {}", limits::TTL_SECONDS_MAX));
    }
    let key = draft.idempotency_key.as_deref().map_or(1, str::len);
    if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key) {
        return field("idempotency_key", format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"));
    }
    Ok(content_type.to_owned())
}

/// A request must live for as long as its sender waits.
fn ttl_seconds(asked: Option<u32>, timeout_ms: Option<u64>) -> u32 {
    let wait = timeout_ms.map_or(0, |timeout| u32::try_from(timeout.div_ceil(1000)).unwrap_or(u32::MAX));
    asked.unwrap_or(limits::TTL_SECONDS_DEFAULT).max(wait).min(limits::TTL_SECONDS_MAX)
}

fn check_open_requests(tx: Tx<'_>, sender: AgentId, accepted: &Accepted) -> Result<(), SendError> {
    let limit = limits::REQUESTS_OPEN_PER_PAIR_MAX;
    if accepted.deadline_ms.is_some() && request::open(tx, sender, accepted.recipient, accepted.created_ms)? >= limit {
        return Err(SendError::RequestsOpenTooMany { to: accepted.to.to_string(), limit });
    }
    Ok(())
}

/// What can be decided only in the transaction that accepts: whether the message was accepted before.
pub(super) fn check(tx: Tx<'_>, sender: AgentId, accepted: &Accepted) -> Result<Option<Committed>, SendError> {
    if let Some(key) = &accepted.client_key {
        let used = outbox::used_key(tx, sender, key)?;
        if let Some(msg_id) = same_content(used, &accepted.content_digest)? {
            return Ok(Some(Committed::Repeated { msg_id, unread: agents::unread(tx, sender)? }));
        }
    }
    check_open_requests(tx, sender, accepted)?;
    Ok(None)
}

/// The rows of a message beside its delivery, and the mark on what it answers.
pub(super) fn insert_message(tx: Tx<'_>, row: &OutboxRow, accepted: &Accepted) -> Result<Vec<AckRow>, SendError> {
    outbox::insert(tx, row, accepted.client_key.as_deref(), &accepted.content_digest)?;
    if let Some(deadline_ms) = accepted.deadline_ms {
        request::insert(tx, accepted.msg_id, row.sender, accepted.recipient, deadline_ms)?;
    }
    if let Some(file) = &accepted.file {
        let Accepted { msg_id, recipient, ref to, created_ms, .. } = *accepted;
        file.insert(tx, &Announced { msg_id, sender: row.sender, recipient, to, created_ms })?;
    }
    Ok(super::inbox::read(tx, row.sender, accepted.answers.as_slice(), accepted.created_ms)?)
}

fn same_content(used: Option<outbox::UsedKey>, content_digest: &[u8; 32]) -> Result<Option<MessageId>, SendError> {
    match used {
        None => Ok(None),
        Some(used) if used.content_digest == *content_digest => Ok(Some(used.msg_id)),
        Some(used) => Err(SendError::IdempotencyConflict { msg_id: used.msg_id }),
    }
}

/// What an idempotency key stands for.
fn digest(recipient: AgentId, kind: MessageKind, content_type: &str, draft: &Draft) -> [u8; 32] {
    let reply = draft.in_reply_to.map(MessageId::to_vec).unwrap_or_default();
    let lengths = [content_type.len() as u64, reply.len() as u64].map(u64::to_be_bytes).concat();
    let kind = [kind as u32 as u8];
    let file = draft.file.as_ref().map(|file| file.digest()).unwrap_or_default();
    sha256(&[recipient.as_bytes(), &kind[..], &lengths, content_type.as_bytes(), &reply, &file, &draft.body].concat())
}

pub(super) fn outbox_row(sender: AgentId, accepted: &Accepted, sequence_epoch: u64, sequence: u64) -> OutboxRow {
    OutboxRow {
        msg_id: accepted.msg_id,
        sender,
        conversation_id: accepted.conversation_id,
        sequence_epoch,
        sequence,
        kind: accepted.kind,
        inner: accepted.inner.clone(),
        created_ms: accepted.created_ms,
        ttl_seconds: accepted.ttl_seconds,
        traceparent: accepted.traceparent.clone(),
    }
}

const fn wire_kind(kind: MessageKind, has_file: bool) -> Kind {
    match kind {
        // What it answers stands in the message all the same.
        _ if has_file => Kind::StreamOpen,
        MessageKind::Message => Kind::Message,
        MessageKind::Request => Kind::Request,
        MessageKind::Reply => Kind::Reply,
    }
}

fn as_shown(from: &LocalAgent, accepted: &Accepted, sequence: u64) -> InboxMessage {
    let row = outbox_row(from.agent_id, accepted, 0, sequence);
    super::inbox::sent_message(&row, from.slug.clone(), accepted.to.clone())
}
