//! The post: sends, receives and matches replies (PROTOCOL §5).
//!
//! Sending: [`Post::send`] resolves, decides and commits one outbox row, and nothing waits for the network. The driver takes it
//! from there: it seals, publishes and tries again as the pure machine of [`murmur_core::outbox`] says. Receiving: every broker
//! message goes through one pipeline in the protocol's normative order and ends in one transaction. Acknowledgements leave by a
//! task of their own, and close deliveries when they come in. Two agents of one node write to each other in just this way, too.

mod ack_again;
mod ack_in;
mod ack_out;
mod ahead;
mod dead_letter;
mod direct;
mod driver;
mod error;
mod feed;
mod follow;
mod housekeeping;
mod hub;
mod inbox;
mod lane;
mod mail;
mod moved;
mod order;
mod outbox;
mod owed;
mod page;
mod pending;
mod pipeline;
mod policy;
mod publish;
mod quarantine;
mod random;
mod receive;
mod request;
mod requested;
mod seal;
mod send;
mod showing;
mod stats;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transition;
mod types;
mod waits_for;
mod window;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

pub(crate) use self::pipeline::{Pipeline, Settled};
pub(crate) use self::stream::{content_type_of, secret_name};
pub use self::{
    dead_letter::Redriven,
    error::{QueryError, RunError, SendError},
    follow::Followed,
    hub::Hub,
    inbox::view,
    outbox::{Cancelled, Waiting},
    pending::PendingReply,
    receive::Frame,
    stats::{LatencyHook, PostStats},
    types::{
        Attachment, DeliveryView, Direction, Draft, FileDraft, FileInfo, InboxMessage, InboxPage, InboxQuery,
        LocalAgent, MessageKind, Outcome, PostConfig, Sent, StateName, StreamConfig, TailItem, Transfer, TransferState,
        Transfers,
    },
};
use self::{
    direct::{Coming, Gate, Places},
    driver::{Lane, Work},
    policy::Policy,
    publish::{Direct, Stored},
    stats::Counters,
    transition::Stepped,
    window::Windows,
};
pub use crate::store::listing::{Listed, Place, Whose};
use crate::{
    bus::Bus,
    clock::Clock,
    directory::Directory,
    identity::NodeIdentity,
    keys::Keys,
    store::{
        Store, StoreError, Tx, ack::AckRow, dead_letter as dead_letter_rows, delivery, order as order_rows,
        quarantine as quarantine_rows,
    },
    vital::Vital,
};

/// How long work that is under way may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The post of a node.
pub struct Post {
    store: Store,
    keys: Arc<Keys>,
    directory: Arc<Directory>,
    identity: Arc<NodeIdentity>,
    bus: Arc<Bus>,
    clock: Clock,
    config: PostConfig,
    policy: Policy,
    /// When to look at what is held.
    schedule: order::Schedule,
    hub: Arc<Hub>,
    streams: stream::Streams,
    counters: Counters,
    latency: OnceLock<LatencyHook>,
    /// When the broker last held nothing for this node.
    drained_ms: AtomicU64,
    /// No acknowledgement to the broker waits for company.
    acknowledges_at_once: AtomicBool,
    /// This and `acks` have no bound of their own: they hold what was committed, which the sends at the door and the broker's
    /// batches bound, and their takers never wait for anything else.
    work: mpsc::UnboundedSender<Work>,
    acks: mpsc::UnboundedSender<AckRow>,
    /// Sealed and committed, in the order of the commits.
    directs: mpsc::UnboundedSender<Direct>,
    /// How much of each lane is with the broker.
    windows: Windows,
    /// Where the short way is open.
    gate: Arc<Gate>,
    places: Places,
    ahead: ahead::Ahead,
    requested: requested::Requested,
    stored: Stored,
    put_off: receive::PutOff,
    quarantine_told: receive::Told,
    /// Agents that were shown something here and live elsewhere.
    left_behind: std::sync::Mutex<Vec<murmur_core::id::AgentId>>,
    /// What was begun and ends by itself.
    tasks: TaskTracker,
    /// The tasks' ends of the channels, until [`Post::run`] takes them.
    ends: std::sync::Mutex<Option<Ends>>,
}

struct Ends {
    work: mpsc::UnboundedReceiver<Work>,
    acks: mpsc::UnboundedReceiver<AckRow>,
    directs: mpsc::UnboundedReceiver<Direct>,
    room: mpsc::UnboundedReceiver<Lane>,
}

impl Post {
    /// Puts the post together. Nothing moves before [`Post::run`].
    #[must_use]
    pub fn new(
        store: Store,
        keys: Arc<Keys>,
        directory: Arc<Directory>,
        identity: Arc<NodeIdentity>,
        bus: Arc<Bus>,
        clock: Clock,
        config: PostConfig,
    ) -> Arc<Self> {
        let (work, work_end) = mpsc::unbounded_channel();
        let (acks, acks_end) = mpsc::unbounded_channel();
        let (directs, directs_end) = mpsc::unbounded_channel();
        let (room, room_end) = mpsc::unbounded_channel();
        Arc::new(Self {
            policy: Policy::new(&config),
            windows: Windows::new(config.lane_window, room),
            streams: stream::Streams::new(&config.streams, clock.now_ms()),
            schedule: order::Schedule::default(),
            ends: std::sync::Mutex::new(Some(Ends {
                work: work_end,
                acks: acks_end,
                directs: directs_end,
                room: room_end,
            })),
            hub: Arc::default(),
            counters: Counters::default(),
            latency: OnceLock::new(),
            drained_ms: AtomicU64::new(0),
            acknowledges_at_once: AtomicBool::new(false),
            store,
            keys,
            directory,
            identity,
            bus,
            clock,
            config,
            work,
            acks,
            directs,
            left_behind: std::sync::Mutex::default(),
            gate: Arc::default(),
            places: Places::default(),
            ahead: ahead::Ahead::default(),
            requested: requested::Requested::default(),
            stored: Stored::default(),
            put_off: receive::PutOff::default(),
            quarantine_told: receive::Told::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Drives everything until `token` is cancelled, then ends in order: what is under way is finished or left to the store.
    ///
    /// # Errors
    /// [`RunError`] when what waits cannot be loaded at the start, or a part is lost.
    pub async fn run(self: &Arc<Self>, token: CancellationToken) -> Result<(), RunError> {
        let ends = self.ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(Ends { work, acks, directs, room }) = ends else { return Ok(()) };
        self.load_shown().await?;
        driver::load(self).await?;
        ack_out::load(self).await?;
        stream::load(self).await?;
        self.load_held().await?;
        moved::give_back(Arc::clone(self)).await;
        // When one part is lost the others end in order, and then the node.
        let token = token.child_token();
        let tasks = TaskTracker::new();
        let (vital, mut losses) = Vital::new(tasks.clone(), token.clone());
        vital.spawn("outbox", driver::run(Arc::clone(self), work, token.clone()));
        vital.spawn("publishing", publish::run(Arc::clone(self), directs, room, token.clone()));
        vital.spawn("answers of the broker", publish::note_answers(Arc::clone(self), token.clone()));
        vital.spawn("pushes", showing::note_pushes(Arc::clone(self), token.clone()));
        vital.spawn("acknowledgements", ack_out::run(Arc::clone(self), acks, token.clone()));
        vital.spawn("repeated acknowledgements", ack_again::run(Arc::clone(self), token.clone()));
        vital.spawn("receiving", receive::run(Arc::clone(self), token.clone()));
        vital.spawn("files", stream::run(Arc::clone(self), token.clone()));
        vital.spawn("housekeeping", housekeeping::run(Arc::clone(self), token.clone()));
        let loss = tokio::select! { loss = losses.recv() => loss, () = token.cancelled() => None };
        token.cancel();
        tasks.close();
        tasks.wait().await;
        // Publishes that are under way get their answer noted; one that never comes is not waited for.
        self.tasks.close();
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            tracing::warn!("work that would not end is left to the store");
        }
        self.tasks.reopen();
        self.directory.saved().await;
        loss.map_or(Ok(()), |loss| Err(loss.into()))
    }

    /// Where to wait for changes.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sets who hears how long each delivery took. Only the first call counts.
    pub fn on_delivered(&self, hook: LatencyHook) {
        let _ = self.latency.set(hook);
    }

    /// What was counted, and what waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stats(&self) -> Result<PostStats, StoreError> {
        let look = |tx: Tx<'_>| {
            let put_aside = (dead_letter_rows::count(tx)?, quarantine_rows::count(tx)?);
            Ok((delivery::open_counts(tx)?, put_aside, order_rows::held_count(tx)?))
        };
        let (open, (dead_letters, in_quarantine), held) = self.store.read(look).await?;
        let counters = &self.counters;
        Ok(PostStats {
            queued: open.queued,
            sealed: open.sealed,
            stored: open.stored,
            oldest_pending_ms: open.oldest_ms.map_or(0, |oldest| self.clock.now_ms().saturating_sub(oldest)),
            sent: counters.sent.get(),
            received: counters.received.get(),
            delivered: counters.delivered.get(),
            duplicates: counters.duplicates.get(),
            published: counters.published.get(),
            retried: counters.retried.get(),
            dead: counters.dead.get(),
            expired: counters.expired.get(),
            quarantined: counters.quarantined.get(),
            in_quarantine,
            refused: counters.refused.get(),
            acks_ignored: counters.acks_ignored.get(),
            duplicate_suspects: counters.duplicate_suspects.get(),
            dead_letters,
            held,
            pair_rate_trips: self.policy.tripped.get(),
            over_rate: self.over_rate(),
        })
    }

    /// The pairs that were over their rate lately, by slug where it is known.
    fn over_rate(&self) -> Vec<(String, String)> {
        let snapshot = self.directory.snapshot();
        let name = |agent| snapshot.peer(agent).map_or_else(|| agent.to_string(), |peer| peer.slug.to_string());
        let pairs = self.policy.over_rate(self.clock.now_ms());
        pairs.into_iter().map(|(from, to)| (name(from), name(to))).collect()
    }

    /// Does something to its end, also when whoever asked for it goes away meanwhile: what follows a commit must not be left out.
    async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.tasks.spawn(work.in_current_span()).await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// Acts on a committed step: tells who waits, and hands what is to be done to the driver.
    fn follow_up(&self, stepped: Stepped) {
        self.tell(&stepped);
        // The driver is gone only when the node ends; the rows stay.
        let _ = self.work.send(Work::Stepped(stepped));
    }

    /// The same for a new message on the long way.
    fn follow_up_queued(&self, stepped: Stepped, coming: Coming) {
        self.tell(&stepped);
        let _ = self.work.send(Work::Queued(stepped, coming));
    }

    fn tell(&self, stepped: &Stepped) {
        if let Some(state) = stepped.ended() {
            match state {
                StateName::Delivered => self.note_delivered(stepped),
                // Read at once, or its DELIVERED was lost.
                StateName::Read if stepped.row.delivered_ms == stepped.row.read_ms => self.note_delivered(stepped),
                StateName::Dead => self.counters.dead.add(),
                StateName::Expired => self.counters.expired.add(),
                _ => {}
            }
            self.hub.request_changed(stepped.row.msg_id);
        }
        self.streams.stepped(stepped);
        self.hub.delivery_changed(stepped.row.msg_id);
    }

    fn note_delivered(&self, stepped: &Stepped) {
        self.counters.delivered.add();
        if let (Some(hook), Some(delivered)) = (self.latency.get(), stepped.row.delivered_ms) {
            hook(Duration::from_millis(delivered.saturating_sub(stepped.row.created_ms)));
        }
    }

    /// Hands committed acknowledgements to the task that sends them.
    fn acknowledge(&self, rows: impl IntoIterator<Item = AckRow>) {
        for row in rows {
            let _ = self.acks.send(row);
        }
    }

    fn drained_ms(&self) -> u64 {
        self.drained_ms.load(Ordering::Relaxed)
    }
}
