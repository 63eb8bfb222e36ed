//! A message for an agent of this node: steps 3 to 15 of the pipeline.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use murmur_core::{
    code::{Code, Reaction},
    id::{AgentId, NodeId},
    slug::Slug,
    subject::Route,
};
use murmur_crypto::{
    chain::VerifiedChain,
    envelope::{Envelope, VerifiedEnvelope},
    header::Header,
    inner::{InnerMessage as Inner, Kind, check_inner, dm_conversation_id},
};
use tracing::Span;

use super::{
    Post,
    order::{self as turns, Look, Released},
    policy::OverRate,
    receive::{After, Completion, Debt, Frame, Refusal},
    stream::{Opening, Refusing, deadline},
    types::{Direction, InboxMessage, MessageKind, TailItem},
};
use crate::{
    bus::Verdict,
    failpoint::failpoint,
    keys::Keyring,
    store::{
        StoreError, Tx,
        ack::{self, AckRow, STATUS_DELIVERED, STATUS_FAILED, STATUS_READ},
        agents, guard,
        inbox::{self, Arrival, Hold, Known},
        order::{self, Thread},
        stream::InRow,
    },
};

/// When a message whose keys are not known here yet is looked at again.
const KEYS_LATER: Duration = Duration::from_secs(5);
/// How long earlier messages are waited for that may have been shown where the agent lived before.
const MOVED_GAP_WAIT_MS: u64 = 3_000;

/// An authentic message that is refused all the same; its sender is told.
#[derive(Debug, Clone, Copy)]
struct Refused {
    code: Code,
    retry_after_s: u32,
}

impl From<OverRate> for Refused {
    fn from(over: OverRate) -> Self {
        let retry_after_s = u32::try_from(over.retry_after_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        Self { code: Code::RateLimited, retry_after_s }
    }
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self { code, retry_after_s: 0 }
    }
}

/// The local agent that a message is for.
struct Recipient {
    agent_id: AgentId,
    slug: Slug,
    /// It was deregistered.
    has_ended: bool,
}

/// Who an authentic message is from, and everything about it that the sender signed.
struct Authentic {
    envelope: VerifiedEnvelope,
    chain: Arc<VerifiedChain>,
    recipient: Recipient,
    /// What the store knows of the message, if it was asked.
    known: Lookup,
}

/// What the store knows of a message.
enum Lookup {
    NotAsked,
    Unknown,
    Known(Known),
}

impl From<Option<Known>> for Lookup {
    fn from(known: Option<Known>) -> Self {
        known.map_or(Self::Unknown, Self::Known)
    }
}

/// A message to store, and the stream that it opens.
struct Arrived {
    arrival: Arrival,
    opening: Option<Opening>,
}

impl From<Refusing> for Refused {
    fn from(Refusing { code, retry_after_s }: Refusing) -> Self {
        Self { code, retry_after_s }
    }
}

/// How the transaction went.
enum Committed {
    /// It is in the inbox, and perhaps what waited for it.
    New { released: Released, row: AckRow, look: Option<Look>, stream: Option<Box<InRow>> },
    /// It is on disk and waits for its turn; what it was waited for is in the inbox now.
    Held { row: AckRow, look: Look, stream: Option<Box<InRow>> },
    /// It was there before, or is refused.
    Known(AckRow),
}

/// What a transaction that stores a message goes by.
#[derive(Clone, Copy)]
struct Terms {
    now_ms: u64,
    /// It is not shown before this.
    not_before_ms: u64,
    gap_wait_ms: u64,
    /// When the agent moved here; 0 when it has always been here.
    moved_ms: u64,
    inbox_max: u64,
    full_retry_s: u32,
}

impl Post {
    /// Steps 3 to 11; step 12 is queued when this returns.
    pub(super) async fn mail(
        self: &Arc<Self>,
        frame: &Frame,
        source: NodeId,
        recipient: AgentId,
    ) -> Result<Completion, Refusal> {
        let envelope = Envelope::decode(frame.bytes.clone()).map_err(|error| Refusal::Quarantine(error.code))?;
        let header = envelope.header().clone();
        if header.sender_node_id != source {
            return Err(Refusal::Quarantine(Code::SenderMismatch));
        }
        if !header.recipients.contains(&recipient) {
            return Err(Refusal::Quarantine(Code::NotAddressed));
        }
        let now_ms = self.clock.now_ms();
        // Remembered, and answered only when the sender is known to be who it says.
        let in_time = header.check_time(now_ms);
        let digest = *envelope.env_digest().as_bytes();
        let (recipient, known) = match self.expected(frame, recipient) {
            Some(recipient) => (recipient, Lookup::NotAsked),
            None => {
                let (row, known) = self.look_up(&header, recipient).await?;
                (row.ok_or(Refusal::Quarantine(Code::NotAddressed))?, known.into())
            }
        };
        if let Some(known) = copy_of(&known, &digest) {
            return Ok(self.acknowledge_again(frame, &header, recipient.agent_id, digest, known));
        }
        let chain = self.sender_chain(&envelope, &header)?;
        let envelope = envelope.verify_sender(&chain).map_err(|error| Refusal::Quarantine(error.code()))?;
        let mut authentic = Authentic { envelope, chain, recipient, known };
        let mut not_before_ms = now_ms;
        if !self.may_show(&authentic, now_ms) {
            let agent_id = authentic.recipient.agent_id;
            if matches!(authentic.known, Lookup::NotAsked) {
                authentic.known = self.look_up(&header, agent_id).await?.1.into();
            }
            if let Some(known) = copy_of(&authentic.known, &digest) {
                return Ok(self.acknowledge_again(frame, &header, agent_id, digest, known));
            }
            // Another copy of a message that was let in is let in as well.
            if !matches!(authentic.known, Lookup::Known(_)) {
                match self.policy.hold(header.sender_agent_id, agent_id, now_ms) {
                    Ok(at_ms) => not_before_ms = at_ms,
                    Err(over) => return Ok(self.refuse(frame, &authentic, over.into())),
                }
            }
        }
        // Entered only when it has its parent, which is inside the message.
        let span = murmur_telemetry::hot_span!("post.receive");
        match in_time.map_err(Refused::from).and_then(|()| self.open(&authentic, now_ms, &span)) {
            Ok(Some(arrival)) => {
                let terms = self.terms(&authentic, now_ms, not_before_ms);
                Ok(self.store_arrival(frame, arrival, terms, span.clone()))
            }
            Ok(None) => Err(Refusal::Quarantine(Code::Malformed)),
            Err(refused) => Ok(self.refuse(frame, &authentic, refused)),
        }
    }

    /// The recipient, when the broker delivers for the first time and the agent has its keys in memory: most likely the message is
    /// new, and the transaction that stores it finds out whether it is. So the store is not read before.
    fn expected(&self, frame: &Frame, recipient: AgentId) -> Option<Recipient> {
        let keyring = self.keys.keyring(recipient).filter(|_| frame.deliveries <= 1)?;
        // One that has ended or moved may have left its keys here.
        self.directory.snapshot().peer(recipient)?;
        Some(Recipient { agent_id: recipient, slug: keyring.signer().slug.clone(), has_ended: false })
    }

    /// Step 6: whether the recipient lives here, and whether it has the message.
    async fn look_up(
        &self,
        header: &Header,
        recipient: AgentId,
    ) -> Result<(Option<Recipient>, Option<Known>), StoreError> {
        let (sender, msg_id) = (header.sender_agent_id, header.msg_id);
        let look = move |tx: Tx<'_>| Ok((agents::get(tx, recipient)?, inbox::known(tx, sender, msg_id, recipient)?));
        let (row, known) = self.store.read(look).await?;
        let recipient = row.map(|row| Recipient {
            agent_id: row.agent_id,
            has_ended: row.deregistered_ms.is_some(),
            slug: row.slug,
        });
        Ok((recipient, known))
    }

    /// Step 7: the chain that came along, or the one that the directory has.
    fn sender_chain(&self, envelope: &Envelope, header: &Header) -> Result<Arc<VerifiedChain>, Refusal> {
        let carried = envelope.chain_bytes();
        if !carried.is_empty() {
            return self.directory.verify_carried(carried, header.created_at_ms).map_err(Refusal::Quarantine);
        }
        let snapshot = self.directory.snapshot();
        let keys = snapshot.peer(header.sender_agent_id).and_then(|peer| peer.keys.as_ref());
        let known: Option<&Bytes> = keys.map(|keys| &keys.chain);
        let chain = known.map(|bytes| self.directory.verify_chain(bytes, header.created_at_ms));
        match chain {
            Some(Ok(chain)) if chain.agent().fp() == header.sender_cert_fp => Ok(chain),
            _ => Err(Refusal::Unproven(KEYS_LATER, Code::ChainInvalid)),
        }
    }

    /// Steps 9 to 11. `None` when what was inside cannot be read, which the protocol keeps silent about.
    fn open(&self, authentic: &Authentic, now_ms: u64, span: &Span) -> Result<Option<Arrived>, Refused> {
        let Authentic { envelope, chain, recipient, known: _ } = authentic;
        if self.directory.snapshot().lives_elsewhere(recipient.agent_id) {
            return Err(Code::AgentMoved.into());
        }
        if recipient.has_ended {
            return Err(Code::AgentGone.into());
        }
        let keyring = self.keys.keyring(recipient.agent_id).ok_or(Code::TryLater)?;
        let opened = open_for(envelope, &keyring, recipient.agent_id)?;
        let digest = opened.inner_digest();
        let Ok(inner) = Inner::decode(opened.inner) else { return Ok(None) };
        check_inner(envelope.header(), &inner).map_err(|error| error.code())?;
        let kind = kind(&inner).ok_or(Code::TypeRefused)?;
        let manifest = inner.stream.clone();
        if inner.body.len() > self.config.body_bytes_max || inner.channel_epoch > 0 {
            return Err(Code::PolicyDenied.into());
        }
        if let Some(traceparent) = &inner.traceparent {
            murmur_telemetry::set_parent(span, traceparent);
        }
        let from: Slug = chain.slug().parse().map_err(|_| Code::TypeRefused)?;
        let message = InboxMessage {
            tier: self.directory.tier(chain),
            traceparent: murmur_telemetry::context::traceparent_of(span)
                .or(inner.traceparent.clone())
                .unwrap_or_default(),
            received_ms: now_ms,
            ..as_message(envelope.header(), inner, kind, from, recipient.slug.clone())
        };
        let mut arrival = arrival(envelope, message, recipient.agent_id, digest);
        if let Some(manifest) = manifest {
            let opening = self.opening(envelope.header(), &arrival.message, &manifest, &opened.stream_key)?;
            arrival.message.file = Some(Box::new(opening.file()));
            return Ok(Some(Arrived { arrival, opening: Some(opening) }));
        }
        Ok(Some(Arrived { arrival, opening: None }))
    }

    /// Step 9: whether the two agents keep to their pace. A message that is known already costs nothing.
    fn may_show(&self, authentic: &Authentic, now_ms: u64) -> bool {
        if matches!(authentic.known, Lookup::Known(_)) || authentic.recipient.has_ended {
            return true;
        }
        let (from, to) = (authentic.envelope.header().sender_agent_id, authentic.recipient.agent_id);
        self.policy.may_show(from, to, now_ms)
    }

    fn terms(&self, authentic: &Authentic, now_ms: u64, not_before_ms: u64) -> Terms {
        let snapshot = self.directory.snapshot();
        let moved = snapshot.peer(authentic.recipient.agent_id).and_then(|peer| peer.former);
        Terms {
            moved_ms: moved.map_or(0, |(_, moved_ms)| moved_ms),
            now_ms,
            not_before_ms,
            gap_wait_ms: self.config.gap_wait_ms,
            inbox_max: self.config.inbox_unread_max,
            full_retry_s: u32::try_from(self.config.inbox_full_retry_ms.div_ceil(1000)).unwrap_or(u32::MAX),
        }
    }

    /// Step 12, queued, and what follows it.
    fn store_arrival(self: &Arc<Self>, frame: &Frame, arrival: Arrived, terms: Terms, span: Span) -> Completion {
        let counted = frame.counted();
        let committing = self.store.queue_here(move |tx| {
            let committed = commit(tx, arrival, terms)?;
            // With what it was counted for: the message behind this one may be the one that kills the node.
            guard::clear(tx, counted)?;
            Ok(committed)
        });
        let post = Arc::clone(self);
        Box::pin(async move {
            let committed: Result<Committed, StoreError> = committing.await;
            let committed = committed?;
            let after = move || span.in_scope(|| post.settled(committed));
            Ok(Box::new(after) as After)
        })
    }

    /// What follows the transaction, in the order of the transactions.
    fn settled(self: &Arc<Self>, committed: Committed) -> Debt {
        let row = match committed {
            Committed::New { released, row, look, stream } => {
                // From here on its sender may send more than the first few chunks.
                stream.into_iter().for_each(|stream| self.take_up(*stream));
                self.counters.received.add();
                self.show_arrival(released);
                look.into_iter().for_each(|look| self.released(look));
                row
            }
            Committed::Held { row, look, stream } => {
                stream.into_iter().for_each(|stream| self.take_up(*stream));
                self.counters.received.add();
                self.released(look);
                row
            }
            Committed::Known(row) => {
                if row.status == STATUS_FAILED {
                    self.counters.refused.add();
                } else {
                    self.counters.duplicates.add();
                }
                row
            }
        };
        Debt { verdict: Verdict::Ack, receipt: Some(row) }
    }

    /// Step 15: whoever waits is woken.
    pub(super) fn show_arrival(&self, released: Released) {
        let Released { recipient, message, completes, unread } = released;
        self.requested.note(recipient, &message);
        self.hub.show(recipient, || TailItem { direction: Direction::In, message: (*message).clone(), state: None });
        let reply = message.in_reply_to.filter(|_| completes).map(|request| (request, (*message).clone()));
        self.hub.arrived(recipient, message);
        // Only now: a waiter that is quick would be gone, and its reply be taken for nobody's.
        if let Some((request, reply)) = reply {
            self.hub.replied(request, reply, unread);
        }
        if self.directory.snapshot().lives_elsewhere(recipient) {
            // Its agent moved while it was on its way here, or was held.
            self.left_behind().push(recipient);
        }
    }

    /// Agents that were shown something and live elsewhere, since this was last asked.
    pub(super) fn take_left_behind(&self) -> Vec<AgentId> {
        std::mem::take(&mut *self.left_behind())
    }

    fn left_behind(&self) -> MutexGuard<'_, Vec<AgentId>> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same copy again: its acknowledgement was lost on the way.
    fn acknowledge_again(
        self: &Arc<Self>,
        frame: &Frame,
        header: &Header,
        recipient: AgentId,
        env_digest: [u8; 32],
        known: &Known,
    ) -> Completion {
        self.counters.duplicates.add();
        let row = ack_row(header, recipient, env_digest, status_of(known));
        self.answer(frame, row, None)
    }

    /// An authentic message that is not let in.
    fn refuse(self: &Arc<Self>, frame: &Frame, authentic: &Authentic, refused: Refused) -> Completion {
        let Refused { code, retry_after_s } = refused;
        let header = authentic.envelope.header();
        let (sender, recipient) = (header.sender_agent_id, authentic.recipient.agent_id);
        tracing::info!(%code, %sender, %recipient, msg_id = %header.msg_id, "an authentic message is refused");
        self.counters.refused.add();
        let digest = *authentic.envelope.env_digest().as_bytes();
        let row = ack_row(header, authentic.recipient.agent_id, digest, STATUS_FAILED);
        let for_good = matches!(code.reaction(), Reaction::Dead | Reaction::Expire);
        let passed_over = passed_over(header, authentic.recipient.agent_id).filter(|_| for_good);
        self.answer(frame, AckRow { code: code.number(), retry_after_s, ..row }, passed_over)
    }

    /// Answers; with `passed_over`, what comes behind that message need not wait for it.
    fn answer(self: &Arc<Self>, frame: &Frame, mut row: AckRow, passed_over: Option<(Thread, u64)>) -> Completion {
        let (now_ms, counted) = (self.clock.now_ms(), frame.counted());
        let committing = self.store.queue(move |tx| {
            row.id = ack::insert(tx, &row, now_ms)?;
            guard::clear(tx, counted)?;
            let look = match passed_over {
                Some((thread, sequence)) if order::follow(tx, &thread, sequence)? => look(tx, thread, now_ms)?,
                _ => None,
            };
            Ok((row, look))
        });
        let post = Arc::clone(self);
        Box::pin(async move {
            let answered: Result<(AckRow, Option<Look>), StoreError> = committing.await;
            let (row, look) = answered?;
            let after = move || {
                look.into_iter().for_each(|look| post.released(look));
                Debt { verdict: Verdict::Ack, receipt: Some(row) }
            };
            Ok(Box::new(after) as After)
        })
    }
}

/// Step 12: inbox row, completed request and acknowledgement, or the acknowledgement of what is there already.
fn commit(tx: Tx<'_>, arrived: Arrived, terms: Terms) -> Result<Committed, StoreError> {
    let Arrived { mut arrival, mut opening } = arrived;
    let Terms { now_ms, not_before_ms, gap_wait_ms, moved_ms, inbox_max, full_retry_s } = terms;
    let message = &arrival.message;
    let (sender, recipient) = (message.from_agent_id, arrival.recipient);
    let mut known = inbox::known(tx, sender, message.msg_id, recipient)?;
    // A file comes only with another copy than it came with before.
    let is_to_come = |known: &Known| opening.is_none() || known.env_digest != arrival.env_digest;
    let comes_again =
        |known: &Known| known.given_back && known.inner_digest == arrival.inner_digest && is_to_come(known);
    if known.take_if(|known| comes_again(known)).is_some() {
        inbox::forget(tx, sender, message.msg_id, recipient)?;
    }
    let mut row = AckRow {
        id: 0,
        acker: recipient,
        to_agent: sender,
        route: arrival.reply_route.clone(),
        msg_id: message.msg_id,
        env_digest: arrival.env_digest,
        status: STATUS_DELIVERED,
        code: 0,
        retry_after_s: 0,
    };
    let unread = agents::unread(tx, recipient)?;
    match &known {
        Some(known) if known.inner_digest == arrival.inner_digest => {
            row.status = status_of(known);
            if known.env_digest != arrival.env_digest {
                inbox::add_name(tx, &arrival)?;
            }
            if let Some(opening) = &opening {
                opening.save_key(tx, arrival.env_digest)?;
            }
        }
        Some(_) => {
            tracing::warn!(%sender, %recipient, msg_id = %message.msg_id, "a message id came twice with different content");
            (row.status, row.code) = (STATUS_FAILED, Code::MsgIdConflict.number());
        }
        None => {
            let (thread, sequence) = (Thread::of(&arrival), message.sequence);
            let follows = unread < inbox_max && not_before_ms <= now_ms && order::follow(tx, &thread, sequence)?;
            // What is held counts, but never keeps out the one that it waits for.
            let has_room = follows || unread.saturating_add(order::held_for(tx, recipient)?) < inbox_max;
            let opened = match &mut opening {
                Some(opening) if has_room => opening.insert(tx, arrival.env_digest)?,
                _ => Ok(()),
            };
            let stream = || opening.as_ref().map(|opening| Box::new(opening.row().clone()));
            match opened {
                Err(refusing) => {
                    (row.status, row.code) = (STATUS_FAILED, refusing.code.number());
                    row.retry_after_s = refusing.retry_after_s;
                }
                Ok(()) if follows => {
                    arrival.message.cursor = inbox::insert(tx, &arrival, None)?;
                    let completes = turns::completes(tx, recipient, &arrival.message)?;
                    row.id = ack::insert(tx, &row, now_ms)?;
                    failpoint("R2");
                    let look = look(tx, thread, now_ms)?;
                    let stream = stream();
                    let released = Released { recipient, message: Box::new(arrival.message), completes, unread };
                    return Ok(Committed::New { released, row, look, stream });
                }
                Ok(()) if has_room => {
                    let is_first = moved_ms > 0 && !order::has_since(tx, &thread, moved_ms)?;
                    let wait_ms = if is_first { gap_wait_ms.min(MOVED_GAP_WAIT_MS) } else { gap_wait_ms };
                    let patience_ms = now_ms.saturating_add(wait_ms).max(not_before_ms);
                    let hold = Hold { cursor: order::next_held(tx)?, not_before_ms, patience_ms };
                    inbox::insert(tx, &arrival, Some(hold))?;
                    row.id = ack::insert(tx, &row, now_ms)?;
                    failpoint("R2");
                    let look = turns::release(tx, thread, now_ms)?;
                    return Ok(Committed::Held { row, look, stream: stream() });
                }
                Ok(()) => {
                    (row.status, row.code) = (STATUS_FAILED, Code::InboxFull.number());
                    row.retry_after_s = full_retry_s;
                }
            }
        }
    }
    row.id = ack::insert(tx, &row, now_ms)?;
    Ok(Committed::Known(row))
}

/// What is known of a message, if the very same copy of it came before. One that was given back is judged like a new one.
fn copy_of<'a>(known: &'a Lookup, env_digest: &[u8; 32]) -> Option<&'a Known> {
    match known {
        Lookup::Known(known) if known.env_digest == *env_digest && !known.given_back => Some(known),
        _ => None,
    }
}

/// Looks at a thread that moved on, if anything may wait in it.
fn look(tx: Tx<'_>, thread: Thread, now_ms: u64) -> Result<Option<Look>, StoreError> {
    if order::is_holding(tx, thread.recipient)? { turns::release(tx, thread, now_ms).map(Some) } else { Ok(None) }
}

/// The place of a refused message among those of its sender, when its header tells the conversation of the two.
fn passed_over(header: &Header, recipient: AgentId) -> Option<(Thread, u64)> {
    let (sender, conversation) = (header.sender_agent_id, header.conversation_id);
    let thread = Thread { recipient, sender, conversation, epoch: header.sequence_epoch };
    (conversation == dm_conversation_id(sender, recipient)).then_some((thread, header.sequence))
}

fn open_for(
    envelope: &VerifiedEnvelope,
    keyring: &Keyring,
    recipient: AgentId,
) -> Result<murmur_crypto::envelope::Opened, Refused> {
    envelope.open(recipient, |id| keyring.secret(id)).map_err(|error| error.code().into())
}

fn arrival(envelope: &VerifiedEnvelope, message: InboxMessage, recipient: AgentId, inner_digest: [u8; 32]) -> Arrival {
    let header = envelope.header();
    Arrival {
        message,
        recipient,
        env_digest: *envelope.env_digest().as_bytes(),
        inner_digest,
        sequence_epoch: header.sequence_epoch,
        reply_route: reply_route(header),
    }
}

/// The header's route was checked to end in the sender's own node, which the signature vouches for.
fn reply_route(header: &Header) -> Option<Route> {
    header.reply_route.as_deref().and_then(|text| text.parse().ok())
}

fn as_message(header: &Header, inner: Inner, kind: MessageKind, from: Slug, to: Slug) -> InboxMessage {
    InboxMessage {
        deadline_ms: deadline(&inner),
        msg_id: header.msg_id,
        conversation_id: header.conversation_id,
        kind,
        from,
        from_agent_id: header.sender_agent_id,
        to,
        tier: murmur_core::tier::Tier::Untrusted,
        content_type: inner.content_type,
        body: inner.body,
        in_reply_to: inner.in_reply_to,
        created_ms: header.created_at_ms,
        received_ms: 0,
        sequence: header.sequence,
        cursor: 0,
        redelivered: false,
        traceparent: String::new(),
        file: None,
        gap: false,
    }
}

fn kind(inner: &Inner) -> Option<MessageKind> {
    match inner.kind {
        Kind::Message => Some(MessageKind::Message),
        Kind::Request => Some(MessageKind::Request),
        Kind::Reply => Some(MessageKind::Reply),
        // A file may come with a request, and may answer one as well.
        Kind::StreamOpen if deadline(inner).is_some() => Some(MessageKind::Request),
        Kind::StreamOpen if inner.in_reply_to.is_some() => Some(MessageKind::Reply),
        Kind::StreamOpen => Some(MessageKind::Message),
        Kind::Control => None,
    }
}

const fn status_of(known: &Known) -> u32 {
    if known.read_ms.is_some() { STATUS_READ } else { STATUS_DELIVERED }
}

fn ack_row(header: &Header, recipient: AgentId, env_digest: [u8; 32], status: u32) -> AckRow {
    AckRow {
        id: 0,
        acker: recipient,
        to_agent: header.sender_agent_id,
        route: reply_route(header),
        msg_id: header.msg_id,
        env_digest,
        status,
        code: 0,
        retry_after_s: 0,
    }
}
