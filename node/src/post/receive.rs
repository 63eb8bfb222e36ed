//! Receiving: what the broker delivers, in the protocol's normative order (PROTOCOL §5.5).
//!
//! Everything about a broker message that can be decided without keys is decided here; [`super::mail`] and
//! [`super::ack_in`] do the rest. Messages are examined one after the other, so that they are stored in the order of their
//! arrival; commits and broker acknowledgements overlap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use murmur_core::{
    code::Code,
    id::NodeId,
    limits::BROKER_MESSAGE_BYTES_MAX,
    subject::{Address, Destination, parse_subject},
};
use tokio_util::sync::CancellationToken;

use super::{Post, owed::Owed};
use crate::{
    bus::{Delivered, Pulled, Unanswered, Verdict},
    failpoint::failpoint,
    store::{StoreError, Tx, ack::AckRow, guard, quarantine, quarantine::Quarantined},
};

/// Messages whose commit or acknowledgement is under way.
const COMMITS_MAX: usize = 1_024;
/// When a source that is over its rate, or a store that fails, is tried again.
const LATER: Duration = Duration::from_secs(5);
/// On this try without completion a message counts as poison.
const TRIES_MAX: u32 = 3;
/// Messages of one source that are put off at one time although nobody vouches for them: a small part of what the broker gives this node
/// at once (`max_ack_pending`, 1,024).
const UNPROVEN_MAX: usize = 64;
/// For how long one of them is: in this time a directory that is behind has caught up.
const UNPROVEN_LONGEST: Duration = Duration::from_secs(10 * 60);
/// What was put off and has not come again for so long is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Between two lines about the quarantine: what fills it may be a flood.
const QUARANTINE_TOLD_EVERY: Duration = Duration::from_secs(1);

/// A broker message.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it was published.
    pub subject: String,
    /// The bytes.
    pub bytes: Bytes,
    /// How often the broker delivered it, from 1.
    pub deliveries: u64,
    /// Its place in the stream.
    pub stream_seq: u64,
}

impl Frame {
    /// Its place in the stream, when its tries are counted: nothing is on a first delivery.
    pub(super) fn counted(&self) -> Option<u64> {
        (self.deliveries > 1).then_some(self.stream_seq)
    }
}

/// Broker messages that this process has put off, by their place in the stream. What they are put off for may be a full disk, on which the
/// guard's count cannot be taken back either; but they have not killed this process, and are not counted as if they had.
#[derive(Default)]
pub(super) struct PutOff(Mutex<HashMap<u64, Waiting>>);

/// A message that is put off.
struct Waiting {
    since: Instant,
    /// Who sent it, when nobody vouches for what it says.
    unproven_of: Option<NodeId>,
}

impl PutOff {
    fn has(&self, stream_seq: u64) -> bool {
        self.lock().contains_key(&stream_seq)
    }

    fn add(&self, frame: &Frame) {
        self.lock().insert(frame.stream_seq, Waiting { since: Instant::now(), unproven_of: None });
    }

    /// Puts off what nobody vouches for, unless its source has as much of that as it may: a message that waits has one of the places that
    /// the broker gives this node, which are for everybody's.
    fn add_unproven(&self, frame: &Frame) -> bool {
        let mut waiting = self.lock();
        let unproven_of = Some(source_of(frame));
        let is_its = |waiting: &Waiting| waiting.unproven_of == unproven_of;
        let known = waiting.get(&frame.stream_seq);
        if !known.is_some_and(is_its) && waiting.values().filter(|other| is_its(other)).count() >= UNPROVEN_MAX {
            return false;
        }
        let since = known.map_or_else(Instant::now, |known| known.since);
        waiting.insert(frame.stream_seq, Waiting { since, unproven_of });
        since.elapsed() < UNPROVEN_LONGEST
    }

    /// Forgets what was dealt with: on a first delivery there is nothing to forget.
    fn remove(&self, frame: &Frame) {
        if let Some(stream_seq) = frame.counted() {
            self.lock().remove(&stream_seq);
        }
    }

    /// Forgets what has not come again: the broker has deleted it.
    pub(super) fn tidy(&self) {
        self.lock().retain(|_, waiting| waiting.since.elapsed() < FORGOTTEN_AFTER);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame that could not be dealt with: nobody is told, unless it was authentic.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot be believed or read: quarantined and ended, in silence.
    Quarantine(Code),
    /// It cannot be dealt with now.
    Later(Duration),
    /// It cannot be judged now, and nobody vouches for it: of each source few such messages are put off, and not for long. What is too much
    /// is quarantined under the code; a sender that is what it says sends again.
    Unproven(Duration, Code),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is left to do with a frame that was examined: the commit is queued already.
pub(super) type Completion = BoxFuture<'static, Result<After, Refusal>>;

/// What follows a commit. It is called in the order of the commits, and says what is owed then.
pub(super) type After = Box<dyn FnOnce() -> Debt + Send>;

/// What is owed for a message that was dealt with, to those who can wait until whoever was woken has gone on.
pub(super) struct Debt {
    /// To the broker.
    pub(super) verdict: Verdict,
    /// To the message's sender.
    pub(super) receipt: Option<AckRow>,
}

impl From<Verdict> for Debt {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, receipt: None }
    }
}

/// Receives until `token` is cancelled; what was examined by then is committed and acknowledged.
pub(super) async fn run(post: Arc<Post>, token: CancellationToken) {
    let pulled = Pulled::default();
    let mut pulling = Box::pin(post.bus.pull(&pulled, &token).fuse());
    // In the order of arrival, which is that of the commits: sessions hear of messages in this order.
    let mut settling: FuturesOrdered<BoxFuture<'static, Settled>> = FuturesOrdered::new();
    let mut owed = Owed::default();
    let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    let mut is_set = false;
    loop {
        if let Some(at) = owed.due_at().filter(|_| !is_set) {
            alarm.as_mut().reset(at.into());
            is_set = true;
        }
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(settled) = settling.next(), if !settling.is_empty() => owed.take(&post, settled),
            // Whoever was woken by what has settled goes first: answering wakes the broker, which would have the processor before them.
            () = tokio::task::yield_now(), if !owed.is_empty() => owed.pay(&post).await,
            delivered = pulled.next(pulling.as_mut()), if settling.len() < COMMITS_MAX && !owed.is_full() => {
                settling.push_back(settle(Arc::clone(&post), delivered).await);
            }
            () = post.schedule.due(&post.clock), if settling.len() < COMMITS_MAX => {
                settling.push_back(release(Arc::clone(&post)));
            }
            () = &mut alarm, if is_set => {
                is_set = false;
                owed.acknowledge_due(&post, Instant::now()).await;
            }
        }
    }
    // No more is asked for. What was pulled and not examined, or is still on its way, comes again.
    drop(pulling);
    while let Some(settled) = settling.next().await {
        owed.take(&post, settled);
    }
    owed.pay_all(&post).await;
}

/// Shows what is due of what is held: one of the commits, whose order sessions go by.
fn release(post: Arc<Post>) -> BoxFuture<'static, Settled> {
    let releasing = post.release_due();
    Box::pin(async move {
        let looks = releasing.await;
        let after = move || {
            match looks {
                Ok(looks) => looks.into_iter().for_each(|look| post.released(look)),
                Err(error) => tracing::error!(%error, "what is held could not be shown"),
            }
            Verdict::Ack.into()
        };
        Settled { unanswered: None, after: Box::new(after) }
    })
}

/// A delivery, or a release, whose commit is on disk.
pub(super) struct Settled {
    pub(super) unanswered: Option<Unanswered>,
    pub(super) after: After,
}

/// Examines a delivery; the future that comes back waits for its commit.
async fn settle(post: Arc<Post>, delivered: Delivered) -> BoxFuture<'static, Settled> {
    failpoint("R1");
    let Delivered { subject, bytes, deliveries, stream_seq, unanswered } = delivered;
    let frame = Frame { subject, bytes, deliveries, stream_seq };
    let examined = post.examine(&frame).await;
    Box::pin(async move {
        let after = post.complete(&frame, examined).await;
        Settled { unanswered: Some(unanswered), after }
    })
}

/// The node that the broker let write it; all zero when the subject does not even say.
fn source_of(frame: &Frame) -> NodeId {
    parse_subject(&frame.subject).map_or(NodeId::from_bytes([0; 16]), |address| address.source)
}

/// When something was told last that may come in floods, and how often it came since.
#[derive(Default)]
pub(super) struct Told(Mutex<(Option<Instant>, u64)>);

impl Told {
    /// Whether it is to be told now, and then how many were not.
    fn may_tell(&self) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_some_and(|at| at.elapsed() < QUARANTINE_TOLD_EVERY) {
            told.1 += 1;
            return None;
        }
        told.0 = Some(Instant::now());
        Some(std::mem::take(&mut told.1))
    }
}

impl Post {
    /// Deals with one broker message from beginning to end and says what to answer the broker.
    pub async fn receive(self: &Arc<Self>, frame: &Frame) -> Verdict {
        let examined = self.examine(frame).await;
        let Debt { verdict, receipt } = (self.complete(frame, examined).await)();
        self.acknowledge(receipt);
        verdict
    }

    /// Steps 1 to 11 of the pipeline; the transaction of step 12 is queued when this returns.
    pub(super) async fn examine(self: &Arc<Self>, frame: &Frame) -> Result<Completion, Refusal> {
        if frame.bytes.len() > BROKER_MESSAGE_BYTES_MAX {
            return Err(Refusal::Quarantine(Code::TooLarge));
        }
        let address = self.own_address(&frame.subject)?;
        if self.policy.may_arrive(address.source).is_err() {
            return Err(Refusal::Unproven(LATER, Code::RateLimited));
        }
        self.guard(frame).await?;
        match address.destination {
            Destination::Agent(recipient) => self.mail(frame, address.source, recipient).await,
            Destination::Ack => Ok(self.then_forget_tries(frame, self.ack(frame, address.source).await?)),
            Destination::Blocks => Ok(self.then_forget_tries(frame, self.block(frame, address.source).await?)),
            // Channels have not begun here, so nobody can be sending to them.
            Destination::Multi => Err(Refusal::Quarantine(Code::NotAMember)),
        }
    }

    /// Step 1: the subject has the right shape and is this node's.
    fn own_address(&self, subject: &str) -> Result<Address, Refusal> {
        let address = parse_subject(subject).map_err(|_| Refusal::Quarantine(Code::Malformed))?;
        let own = address.route.node == self.identity.node_id && address.route.workspace == self.identity.workspace_id;
        if own { Ok(address) } else { Err(Refusal::Quarantine(Code::NotAddressed)) }
    }

    /// Step 2: a message that came several times and was never completed may be what kills the node.
    async fn guard(&self, frame: &Frame) -> Result<(), Refusal> {
        let Some(stream_seq) = frame.counted().filter(|stream_seq| !self.put_off.has(*stream_seq)) else {
            return Ok(());
        };
        let now_ms = self.clock.now_ms();
        let tries = self.store.write(move |tx| guard::count(tx, stream_seq, now_ms)).await?;
        failpoint("R2");
        if tries >= TRIES_MAX { Err(Refusal::Quarantine(Code::TryLater)) } else { Ok(()) }
    }

    /// Takes the guard's count back: only crashes are to count. Mail does so in its own transaction.
    fn forget_tries(&self, counted: Option<u64>) {
        if counted.is_some() {
            // Left over, it is pruned a day later; until then it only makes the node more careful.
            drop(self.store.queue_lazily(move |tx| guard::clear(tx, counted)));
        }
    }

    /// The same for a frame that is done with some time after its commit.
    fn then_forget_tries(self: &Arc<Self>, frame: &Frame, completion: Completion) -> Completion {
        let (post, counted) = (Arc::clone(self), frame.counted());
        if counted.is_none() {
            return completion;
        }
        Box::pin(async move {
            let after = completion.await?;
            post.forget_tries(counted);
            Ok(after)
        })
    }

    /// Waits for the commit, or deals with a refusal.
    async fn complete(&self, frame: &Frame, examined: Result<Completion, Refusal>) -> After {
        let result = match examined {
            Ok(completion) => completion.await,
            Err(refusal) => Err(refusal),
        };
        let verdict = match result {
            Ok(after) => {
                self.put_off.remove(frame);
                return after;
            }
            Err(Refusal::Unproven(delay, _)) if self.put_off.add_unproven(frame) => self.come_again(frame, delay),
            Err(Refusal::Unproven(_, code) | Refusal::Quarantine(code)) => {
                self.put_off.remove(frame);
                self.quarantine(frame, code).await
            }
            Err(Refusal::Later(delay)) => {
                self.put_off.add(frame);
                self.come_again(frame, delay)
            }
            Err(Refusal::Store(error)) => {
                tracing::error!(%error, subject = %frame.subject, "an arrival could not be stored");
                self.put_off.add(frame);
                self.come_again(frame, LATER)
            }
        };
        Box::new(move || verdict.into())
    }

    /// The answer for a frame that is put off: this try has killed nobody.
    fn come_again(&self, frame: &Frame, delay: Duration) -> Verdict {
        self.forget_tries(frame.counted());
        Verdict::Nak(delay)
    }

    async fn quarantine(&self, frame: &Frame, code: Code) -> Verdict {
        self.counters.quarantined.add();
        if let Some(unsaid) = self.quarantine_told.may_tell() {
            let (subject, bytes) = (&frame.subject, frame.bytes.len());
            tracing::warn!(%code, %subject, bytes, unsaid, "an arrival was quarantined");
        }
        let row = Quarantined {
            source: source_of(frame),
            subject: frame.subject.clone(),
            bytes: frame.bytes.to_vec(),
            reason: code.name(),
            deliveries: u32::try_from(frame.deliveries).unwrap_or(u32::MAX),
        };
        let (now_ms, rows, bytes) = (self.clock.now_ms(), self.config.quarantine_rows, self.config.quarantine_bytes);
        let counted = frame.counted();
        let keep = move |tx: Tx<'_>| {
            quarantine::insert(tx, &row, now_ms, rows, bytes)?;
            guard::clear(tx, counted)
        };
        match self.store.write(keep).await {
            Ok(()) => Verdict::Term,
            Err(error) => {
                tracing::error!(%error, subject = %frame.subject, "an arrival could not be quarantined");
                self.come_again(frame, LATER)
            }
        }
    }
}
