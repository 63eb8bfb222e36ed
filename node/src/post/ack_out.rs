//! Acknowledgements that go out: signed frames, batched while the one before is under way.
//!
//! What waits for one pair of agents leaves at once when the last frame of that pair is a while ago, and otherwise together with
//! whatever comes meanwhile, up to 64 items a frame. So an idle node answers at once and a busy one in full frames. That a message
//! was read says that it was delivered, too: of the two, the one that leaves last leaves alone while both wait.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId},
    limits::ACK_ITEMS_MAX,
    outbox::PublishAnswer,
    subject::{Destination, Route},
};
use murmur_crypto::{
    ack::{AckBody, AckItem, AckStatus},
    hash::EnvDigest,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Post, random};
use crate::{
    bus::Outgoing,
    failpoint::failpoint,
    keys::Keyring,
    store::{
        StoreError,
        ack::{self, AckRow, STATUS_DELIVERED, STATUS_READ},
    },
};

/// The shortest time from the beginning of what leaves together to the beginning of what leaves next, of one pair: what an acknowledgement waits at most while
/// nothing fails. It bounds signing, publishing and verifying to a few dozen frames a second (PROTOCOL §5.5 step 14 allows 50 ms), and the longer
/// it is, the more often READ leaves without DELIVERED.
const FRAME_INTERVAL: Duration = Duration::from_millis(45);
/// Rows loaded at a time at the start.
const LOAD_BATCH: u32 = 1_000;

/// Acknowledgements of one agent to another.
type Pair = (AgentId, AgentId);

#[derive(Default)]
struct Queue {
    rows: VecDeque<AckRow>,
    /// Messages of which waits that they were read, with the copy that was.
    read: HashSet<(MessageId, [u8; 32])>,
    busy: bool,
    /// When a frame began last for which the interval had to be over.
    began: Option<Instant>,
    /// How many rows waited then and have not left: they leave in further frames without a wait.
    due: usize,
    /// Whether something will start the next frame when the interval is over.
    is_timed: bool,
    /// The last wait after a failure, milliseconds.
    backoff_ms: u64,
}

/// What a pair hears of.
enum News {
    /// A frame has left or failed.
    Flushed(Flushed),
    /// The wait after a failure is over.
    Retry,
    /// The interval after a frame is over.
    Interval,
}

/// What leaves together.
struct Batch {
    rows: Vec<AckRow>,
    /// Rows that need not leave.
    spared: Vec<u64>,
}

impl Queue {
    fn push_back(&mut self, row: AckRow) {
        self.read.extend(name_read(&row));
        self.rows.push_back(row);
    }

    fn push_front(&mut self, row: AckRow) {
        self.read.extend(name_read(&row));
        self.rows.push_front(row);
    }

    /// Takes what is due, a frame at most, oldest first.
    fn take_frame(&mut self) -> Batch {
        let mut batch = Batch { rows: Vec::new(), spared: Vec::new() };
        while batch.rows.len() < ACK_ITEMS_MAX && self.due > 0 {
            let Some(row) = self.rows.pop_front() else { break };
            self.due -= 1;
            if row.status == STATUS_DELIVERED && self.read.contains(&(row.msg_id, row.env_digest)) {
                batch.spared.push(row.id);
                continue;
            }
            if let Some(name) = name_read(&row) {
                self.read.remove(&name);
            }
            batch.rows.push(row);
        }
        batch
    }
}

fn name_read(row: &AckRow) -> Option<(MessageId, [u8; 32])> {
    (row.status == STATUS_READ).then_some((row.msg_id, row.env_digest))
}

/// How a frame went.
enum Flushed {
    /// The broker has it, or nobody ever will.
    Done,
    /// These have to be tried again.
    Failed(Vec<AckRow>),
}

/// How saying one frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The broker has it.
    Stored,
    /// Nobody will ever hear it: its agent has no key any more, or the broker refuses it for good.
    Never,
    /// Nobody knows where to yet.
    Nowhere,
    /// The lane of its recipient's node is full.
    LaneFull,
    /// The broker did not take it.
    Failed,
}

/// Takes up what was left when the process ended.
pub(super) async fn load(post: &Arc<Post>) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let rows = post.store.read(move |tx| ack::pending(tx, after, LOAD_BATCH)).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        post.acknowledge(rows);
    }
}

/// Sends until `token` is cancelled; what has not left by then stays in the store.
pub(super) async fn run(post: Arc<Post>, mut rows: mpsc::UnboundedReceiver<AckRow>, token: CancellationToken) {
    let (done, mut results) = mpsc::unbounded_channel();
    let mut connected = post.bus.connected();
    let mut directory = post.directory.changed();
    let mut sender = Sender { post, queues: HashMap::new(), done };
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            Some(row) = rows.recv() => {
                let mut pairs = vec![sender.add(row)];
                while let Ok(row) = rows.try_recv() {
                    pairs.push(sender.add(row));
                }
                pairs.dedup();
                pairs.into_iter().for_each(|pair| sender.start(pair));
            }
            Some((pair, news)) = results.recv() => sender.heard(pair, news),
            Ok(()) = connected.changed() => {
                if *connected.borrow_and_update() {
                    sender.start_all();
                }
            }
            Ok(()) = directory.changed() => sender.start_all(),
        }
    }
}

struct Sender {
    post: Arc<Post>,
    queues: HashMap<Pair, Queue>,
    done: mpsc::UnboundedSender<(Pair, News)>,
}

impl Sender {
    fn add(&mut self, row: AckRow) -> Pair {
        let pair = (row.acker, row.to_agent);
        self.queues.entry(pair).or_default().push_back(row);
        pair
    }

    fn start_all(&mut self) {
        let pairs: Vec<Pair> = self.queues.iter().filter(|(_, queue)| !queue.busy).map(|(pair, _)| *pair).collect();
        pairs.into_iter().for_each(|pair| self.start(pair));
    }

    fn start(&mut self, pair: Pair) {
        let Some(queue) = self.queues.get_mut(&pair).filter(|queue| !queue.busy) else { return };
        let left = queue.began.map_or(Duration::ZERO, |began| FRAME_INTERVAL.saturating_sub(began.elapsed()));
        let is_due = queue.due > 0 || left.is_zero();
        if queue.rows.is_empty() && is_due && !queue.is_timed {
            self.queues.remove(&pair);
            return;
        }
        if !is_due || queue.rows.is_empty() {
            if !std::mem::replace(&mut queue.is_timed, true) {
                self.tell_after(left, pair, News::Interval);
            }
            return;
        }
        if !*self.post.bus.connected().borrow() {
            return;
        }
        queue.busy = true;
        if queue.due == 0 {
            queue.began = Some(Instant::now());
            queue.due = queue.rows.len();
        }
        let batch = queue.take_frame();
        let (post, done) = (Arc::clone(&self.post), self.done.clone());
        self.post.tasks.spawn(async move {
            let flushed = post.flush(pair, batch).await;
            let _ = done.send((pair, News::Flushed(flushed)));
        });
    }

    fn heard(&mut self, pair: Pair, news: News) {
        let Some(queue) = self.queues.get_mut(&pair) else { return };
        match news {
            News::Flushed(Flushed::Done) => (queue.backoff_ms, queue.busy) = (0, false),
            News::Flushed(Flushed::Failed(rows)) => {
                // What is due is still as much as it was.
                queue.due += rows.len();
                rows.into_iter().rev().for_each(|row| queue.push_front(row));
                queue.backoff_ms = self.post.config.outbox.transport.next(queue.backoff_ms, random::number());
                let wait = Duration::from_millis(queue.backoff_ms);
                self.tell_after(wait, pair, News::Retry);
                return;
            }
            News::Retry => queue.busy = false,
            News::Interval => queue.is_timed = false,
        }
        self.start(pair);
    }

    fn tell_after(&self, wait: Duration, pair: Pair, news: News) {
        let done = self.done.clone();
        // Nothing is written here, so nobody need wait for it at the end.
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = done.send((pair, news));
        });
    }
}

impl Post {
    /// Says one frame, and forgets what left.
    async fn flush(&self, pair: Pair, batch: Batch) -> Flushed {
        let Batch { rows, spared } = batch;
        if rows.is_empty() {
            return self.forget_acks(spared);
        }
        if !spared.is_empty() {
            // What stands for them is on disk.
            let _ = self.forget_acks(spared);
        }
        let said = self.say(pair, &rows).await;
        match said {
            Said::Stored | Said::Never => {
                if said == Said::Stored {
                    failpoint("R5");
                }
                self.forget_acks(rows.iter().map(|row| row.id).collect())
            }
            Said::Nowhere | Said::LaneFull | Said::Failed => Flushed::Failed(rows),
        }
    }

    /// Signs one frame and publishes it.
    pub(super) async fn say(&self, (acker, to_agent): Pair, rows: &[AckRow]) -> Said {
        let Some(keyring) = self.keys.keyring(acker) else {
            // A forgotten agent has no key to sign with, and its peers hear of its end otherwise.
            return Said::Never;
        };
        let Some(route) = self.ack_route(to_agent, rows) else { return Said::Nowhere };
        let bytes = match sign(&keyring, to_agent, rows, self.clock.now_ms()) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, agent.id = %acker, to = %to_agent, "acknowledgements could not be signed");
                return Said::Never;
            }
        };
        let outgoing = Outgoing {
            subject: route.subject(Destination::Ack, self.identity.node_id),
            nats_msg_id: random::nats_msg_id(),
            traceparent: None,
            bytes,
        };
        match self.bus.publish(outgoing).await {
            PublishAnswer::Stored { .. } => Said::Stored,
            PublishAnswer::Failed => Said::Failed,
            PublishAnswer::LaneFull => Said::LaneFull,
            PublishAnswer::Denied | PublishAnswer::TooLarge => {
                tracing::warn!(%route, agent.id = %acker, to = %to_agent, "the broker refuses acknowledgements for good");
                Said::Never
            }
        }
    }

    fn forget_acks(&self, ids: Vec<u64>) -> Flushed {
        // Should this be lost, they are sent twice, which does no harm.
        drop(self.store.queue_lazily::<_, StoreError, _>(move |tx| ack::delete(tx, &ids)));
        Flushed::Done
    }

    /// Where the newest message said that its acknowledgement goes, else where the directory says that its sender is.
    fn ack_route(&self, to_agent: AgentId, rows: &[AckRow]) -> Option<Route> {
        let named = rows.iter().rev().find_map(|row| row.route.clone());
        named.or_else(|| self.directory.snapshot().peer(to_agent).and_then(|peer| peer.route.clone()))
    }
}

fn sign(
    keyring: &Keyring,
    to_agent: AgentId,
    rows: &[AckRow],
    now_ms: u64,
) -> Result<bytes::Bytes, murmur_crypto::error::WireError> {
    let signer = keyring.signer();
    let body = AckBody {
        acker_agent_id: signer.agent_id,
        acker_cert_fp: signer.cert_fp,
        sender_agent_id: to_agent,
        at_ms: now_ms,
        items: rows.iter().map(|row| item(keyring, row)).collect(),
        credits: Vec::new(),
    };
    body.sign(&signer.key, Some(&signer.chain))
}

fn item(keyring: &Keyring, row: &AckRow) -> AckItem {
    let status = match (row.status, Code::from_number(row.code)) {
        (STATUS_READ, _) => AckStatus::Read,
        (_, Some(code)) => AckStatus::Failed {
            code,
            retry_after_s: Some(row.retry_after_s).filter(|seconds| *seconds > 0),
            fresh_prekey: (code == Code::KeyUnknown).then(|| keyring.fresh_prekey().clone()),
        },
        (_, None) => AckStatus::Delivered,
    };
    AckItem { msg_id: row.msg_id, env_digest: EnvDigest::from_bytes(row.env_digest), status }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, message: u8, copy: u8, status: u32) -> AckRow {
        AckRow {
            id,
            acker: AgentId::from_bytes([1; 16]),
            to_agent: AgentId::from_bytes([2; 16]),
            route: None,
            msg_id: MessageId::from_bytes([message; 16]),
            env_digest: [copy; 32],
            status,
            code: 0,
            retry_after_s: 0,
        }
    }

    fn queue(rows: impl IntoIterator<Item = AckRow>) -> Queue {
        let mut queue = Queue::default();
        rows.into_iter().for_each(|row| queue.push_back(row));
        queue.due = queue.rows.len();
        queue
    }

    fn ids(batch: &Batch) -> Vec<u64> {
        batch.rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn of_delivered_and_read_that_both_wait_read_leaves() {
        let other_copy = row(3, 8, 2, STATUS_DELIVERED);
        let mut queue = queue([
            row(1, 7, 1, STATUS_DELIVERED),
            row(2, 8, 1, STATUS_DELIVERED),
            other_copy,
            row(4, 7, 1, STATUS_READ),
            row(5, 8, 1, STATUS_READ),
        ]);
        let batch = queue.take_frame();
        assert_eq!((ids(&batch), batch.spared), (vec![3, 4, 5], vec![1, 2]));
        assert!(queue.read.is_empty() && queue.rows.is_empty());
    }

    #[test]
    fn what_failed_leaves_first_and_still_stands_for_what_was_spared() {
        let mut queue = queue([row(1, 7, 1, STATUS_READ)]);
        let failed = queue.take_frame();
        queue.push_back(row(2, 8, 1, STATUS_DELIVERED));
        failed.rows.into_iter().rev().for_each(|row| queue.push_front(row));
        queue.due = 2;
        assert!(queue.read.contains(&(MessageId::from_bytes([7; 16]), [1; 32])));
        assert_eq!(ids(&queue.take_frame()), [1, 2]);
    }

    #[test]
    fn a_frame_is_full_at_most_and_holds_nothing_that_is_not_due() {
        let mut queue = queue((0..100).map(|id| row(id, u8::try_from(id).unwrap(), 1, STATUS_DELIVERED)));
        queue.push_back(row(100, 200, 1, STATUS_DELIVERED));
        assert_eq!(queue.take_frame().rows.len(), ACK_ITEMS_MAX);
        assert_eq!(queue.take_frame().rows.len(), 100 - ACK_ITEMS_MAX);
        assert_eq!((queue.due, queue.rows.len()), (0, 1));
    }
}
