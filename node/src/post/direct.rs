//! The short way of a message: sealed before it is accepted, so that one commit holds it and its copy, and it is published straight
//! from memory.
//!
//! It is open while nothing waits in the lane before it, the recipient's keys hold and the broker is there; whatever stands in the
//! way leaves the message to the driver. What the store holds at every step is what the long way would have put there, only in fewer
//! commits (PROTOCOL §5.4).
//!
//! The position in the conversation is part of what is sealed, so it is chosen before the commit, in memory, one message of a
//! conversation after the other; the commit takes it only if it is the next one. When a commit fails, those behind it are turned
//! back by that rule and choose again: positions have no holes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use moka::sync::Cache;
use murmur_core::{
    id::{AgentId, ConversationId, NodeId},
    outbox::{Config, Event},
};
use tokio::sync::oneshot;

use super::{
    Post,
    driver::Lane,
    error::SendError,
    pipeline::Abort,
    publish::Direct,
    seal::{self, Fresh, Ready},
    send::{self, Accepted, Committed},
    transition::{self, Stepped},
};
use crate::{
    directory::VerifiedPeer,
    failpoint::failpoint,
    keys::AgentSigner,
    store::{
        Tx,
        ack::AckRow,
        delivery::{self, DeliveryRow},
        outbox::{self, OutboxRow},
    },
};

/// Conversations whose last position is remembered.
const PLACES_MAX: u64 = 10_000;
/// How often a message chooses its position before it takes the long way.
const CHOICES_MAX: usize = 3;

/// Lanes in which something waits, so that nothing may overtake it.
#[derive(Default)]
pub(super) struct Gate {
    is_open: AtomicBool,
    lanes: Mutex<HashMap<Lane, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// Messages on the long way that the driver has not seen yet.
    coming: usize,
    /// The driver has something in this lane.
    is_driven: bool,
}

/// A message on its way to the driver: while this lives, nothing overtakes it.
pub(super) struct Coming {
    gate: Arc<Gate>,
    lane: Lane,
}

impl Gate {
    /// Opens the short way: what waited when the node started is known now.
    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Whether what waited when the node started is known.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Announces a message to the driver.
    pub(super) fn announce(self: &Arc<Self>, lane: Lane) -> Coming {
        self.change(lane, |waiting| waiting.coming += 1);
        Coming { gate: Arc::clone(self), lane }
    }

    /// Notes whether the driver has something in a lane.
    pub(super) fn set_driven(&self, lane: Lane, is_driven: bool) {
        self.change(lane, |waiting| waiting.is_driven = is_driven);
    }

    fn lets_pass(&self, lane: Lane) -> bool {
        self.is_open.load(Ordering::SeqCst) && !self.is_waiting(lane)
    }

    /// Whether something waits in a lane.
    pub(super) fn is_waiting(&self, lane: Lane) -> bool {
        self.lanes().contains_key(&lane)
    }

    fn change(&self, lane: Lane, change: impl FnOnce(&mut Waiting)) {
        let mut lanes = self.lanes();
        let waiting = lanes.entry(lane).or_default();
        change(waiting);
        if waiting.coming == 0 && !waiting.is_driven {
            lanes.remove(&lane);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Waiting>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.gate.change(self.lane, |waiting| waiting.coming = waiting.coming.saturating_sub(1));
    }
}

/// The last position chosen in a conversation.
#[derive(Default)]
struct Place {
    last: tokio::sync::Mutex<Option<u64>>,
    /// It is not known any more: whoever chooses next asks the store. Noting that waits for nobody.
    is_stale: AtomicBool,
}

impl Place {
    /// The right to choose, and the last position where it is known.
    async fn hold(&self) -> tokio::sync::MutexGuard<'_, Option<u64>> {
        let mut last = self.last.lock().await;
        if self.is_stale.swap(false, Ordering::Relaxed) {
            *last = None;
        }
        last
    }
}

/// The last position chosen in each conversation, where it is known.
pub(super) struct Places(Cache<(AgentId, ConversationId), Arc<Place>>);

impl Default for Places {
    fn default() -> Self {
        Self(Cache::new(PLACES_MAX))
    }
}

impl Places {
    /// Makes a position the last one that is known.
    #[cfg(test)]
    pub(super) async fn set_for_test(&self, sender: AgentId, conversation: ConversationId, last: u64) {
        *self.of(sender, conversation).hold().await = Some(last);
    }

    /// The last position is not known any more.
    pub(super) fn forget(&self, sender: AgentId, conversation: ConversationId) {
        self.of(sender, conversation).is_stale.store(true, Ordering::Relaxed);
    }

    /// Should two of them exist for one conversation after an eviction, the commit decides.
    fn of(&self, sender: AgentId, conversation: ConversationId) -> Arc<Place> {
        self.0.get_with((sender, conversation), Arc::default)
    }
}

/// What it takes to seal now.
struct Means {
    peer: Arc<VerifiedPeer>,
    signer: Arc<AgentSigner>,
}

/// What the short way commits: all rows of a message, and its copy.
struct DirectDraft {
    accepted: Arc<Accepted>,
    message: OutboxRow,
    delivery: DeliveryRow,
    fresh: Fresh,
    now_ms: u64,
}

/// How the commit of the short way went.
enum Outcome {
    New {
        ready: Option<Ready>,
        stepped: Box<Stepped>,
        sequence: u64,
        unread: u64,
        receipts: Vec<AckRow>,
    },
    Repeated(Committed),
    /// The position was not the next one.
    Displaced,
}

/// A commit in the writer's queue: `None` when the position was not the next one.
pub(super) type QueuedDirect = oneshot::Receiver<Result<Option<Committed>, SendError>>;

impl Post {
    /// Seals, commits and hands over to be published; `None` when the message has to take the long way.
    pub(super) async fn commit_direct(
        &self,
        sender: AgentId,
        accepted: &Arc<Accepted>,
    ) -> Result<Option<Committed>, SendError> {
        for _ in 0..CHOICES_MAX {
            let Some(queued) = self.queue_at_next(sender, accepted, None).await? else { return Ok(None) };
            let committed = self.await_committed(sender, accepted, queued).await?;
            if committed.is_some() {
                return Ok(committed);
            }
        }
        Ok(None)
    }

    /// Chooses the next position, seals, and queues the commit; `None` when the message has to take the long way.
    pub(super) async fn queue_at_next(
        &self,
        sender: AgentId,
        accepted: &Arc<Accepted>,
        abort: Option<&Abort>,
    ) -> Result<Option<QueuedDirect>, SendError> {
        let lane = Lane { sender, recipient: accepted.recipient };
        let Some(means) = self.means(lane) else { return Ok(None) };
        let place = self.places.of(sender, accepted.conversation_id);
        let mut last = place.hold().await;
        let sequence = match *last {
            Some(last) => last + 1,
            None => self.last_sequence(sender, accepted.conversation_id).await? + 1,
        };
        let message = send::outbox_row(sender, accepted, self.store.sequence_epoch(), sequence);
        let delivery = DeliveryRow::new(&message, accepted.recipient, accepted.to.clone());
        let now_ms = self.clock.now_ms();
        let sealed = seal::seal_one(self, &means.signer, &means.peer, 0, &message, &delivery, now_ms);
        // What cannot be sealed is accepted all the same; why not, the driver finds out.
        let Ok(fresh) = sealed else { return Ok(None) };
        *last = Some(sequence);
        let draft = DirectDraft { accepted: Arc::clone(accepted), message, delivery, fresh, now_ms };
        Ok(Some(self.queue_direct(lane, draft, abort.cloned())))
    }

    /// Waits for a queued commit; `None` when that was not the next one.
    pub(super) async fn await_committed(
        &self,
        sender: AgentId,
        accepted: &Accepted,
        queued: QueuedDirect,
    ) -> Result<Option<Committed>, SendError> {
        // The writer is gone only when the node ends.
        let committed = queued.await.unwrap_or(Err(crate::store::StoreError::Closed.into()));
        if let Ok(Some(Committed::New { .. })) = committed {
            // Who publishes goes first: the recipient waits for that, and for this answer nobody but the sender.
            tokio::task::yield_now().await;
        } else {
            self.places.forget(sender, accepted.conversation_id);
        }
        committed
    }

    fn means(&self, lane: Lane) -> Option<Means> {
        if !self.gate.lets_pass(lane) || !self.bus.is_connected() {
            return None;
        }
        let peer = self.directory.verified(lane.recipient, self.clock.now_ms()).ok()?;
        Some(Means { peer, signer: self.keys.signer(lane.sender)? })
    }

    async fn last_sequence(&self, sender: AgentId, conversation: ConversationId) -> Result<u64, SendError> {
        Ok(self.store.read(move |tx| outbox::last_sequence(tx, sender, conversation)).await?)
    }

    /// Queues the commit. After it, and in the order of the commits, the copy is handed to the task that publishes.
    fn queue_direct(&self, lane: Lane, draft: DirectDraft, abort: Option<Abort>) -> QueuedDirect {
        let (answer, committing) = oneshot::channel();
        let (config, node, directs) = (self.config.outbox.clone(), self.identity.node_id, self.directs.clone());
        let work = move |tx: Tx<'_>| {
            if abort.as_ref().is_some_and(Abort::is_set) {
                return Ok(Outcome::Displaced);
            }
            let outcome = commit(tx, node, draft, &config);
            if let (Some(abort), Ok(Outcome::Displaced)) = (&abort, &outcome) {
                abort.set();
            }
            outcome
        };
        self.store.queue_then(work, move |result: Result<Outcome, SendError>| {
            let committed = result.map(|outcome| match outcome {
                Outcome::New { ready, stepped, sequence, unread, receipts } => {
                    failpoint("S2");
                    failpoint("S3");
                    let stepped = match ready {
                        Some(ready) => {
                            // The publisher is gone only when the node ends; the rows stay.
                            let _ = directs.send(Direct { lane, ready, stepped: *stepped });
                            None
                        }
                        None => Some(stepped),
                    };
                    Some(Committed::New { stepped, coming: None, sequence, unread, receipts })
                }
                Outcome::Repeated(committed) => Some(committed),
                Outcome::Displaced => None,
            });
            // The caller may be gone; its message stands.
            let _ = answer.send(committed);
        });
        committing
    }
}

fn commit(tx: Tx<'_>, node: NodeId, draft: DirectDraft, config: &Config) -> Result<Outcome, SendError> {
    let DirectDraft { accepted, message, mut delivery, fresh, now_ms } = draft;
    if let Some(repeated) = send::check(tx, message.sender, &accepted)? {
        return Ok(Outcome::Repeated(repeated));
    }
    if !outbox::take_sequence(tx, message.sender, message.conversation_id, message.sequence)? {
        return Ok(Outcome::Displaced);
    }
    let receipts = send::insert_message(tx, &message, &accepted)?;
    let mut effects = transition::advance(tx, &mut delivery, Event::Tick, now_ms, config)?;
    let copy = seal::commit_fresh(tx, &mut delivery, fresh, now_ms, config)?;
    let mut ready = None;
    if let Some((copy, sealed)) = copy {
        let traceparent = message.traceparent.clone();
        let (begun, published) = seal::begin_publish(node, tx, &mut delivery, copy, traceparent, now_ms, config)?;
        effects = if begun.is_some() || !published.is_empty() { published } else { sealed };
        ready = begun;
    }
    delivery::insert(tx, &delivery)?;
    let unread = crate::store::agents::unread(tx, message.sender)?;
    let sequence = message.sequence;
    Ok(Outcome::New { ready, stepped: Box::new(Stepped::new(delivery, effects)), sequence, unread, receipts })
}
