//! A steady flow: senders that always have sends under way, receivers that mark what they were shown as read, and a window of time in which both are counted.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::stream;
use murmur_proto::{
    client::NodeClient,
    node::v1::{SendManyRequest, send_many_response::Outcome},
};
use murmur_tests::wait;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};

use crate::{
    fresh_numbers,
    receiver::{self, Arrival, Receiver},
    stage::{Ends, Stage, draft},
    usage::Cpu,
};

/// How much flows.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    /// Pairs of agents that take turns.
    pub(crate) pairs: usize,
    /// Connections that the senders share.
    pub(crate) connections: usize,
    /// How they send.
    pub(crate) by: By,
    /// Sends under way at one time, over all connections.
    pub(crate) in_flight: usize,
    /// Bytes of a body.
    pub(crate) bytes: usize,
    /// Messages that may be accepted and not yet delivered. It bounds the senders when delivery is slower than acceptance, so that
    /// both go on in the same time.
    pub(crate) backlog: usize,
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// Counted.
    pub(crate) window: Duration,
}

/// How a program sends.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// One stream a connection.
    Stream,
    /// A call for each message.
    Calls,
}

impl Flow {
    /// One pair over one stream, 1 KiB, ten seconds.
    pub(crate) const ONE_PAIR: Self = Self {
        pairs: 1,
        connections: 1,
        by: By::Stream,
        in_flight: 256,
        bytes: crate::BODY_BYTES,
        backlog: 2_000,
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(10),
    };
}

/// What flowed in the window.
pub(crate) struct Flowed {
    /// Messages a second that the receivers had for the first time.
    pub(crate) delivered: f64,
    /// Processor seconds for 1,000 delivered messages, by process.
    pub(crate) cpu: Vec<(&'static str, f64)>,
    /// The same of the two nodes by thread, in words.
    pub(crate) threads: [String; 2],
}

/// Lets messages flow for a while, and waits until the last one has arrived.
pub(crate) async fn flow(stage: &Stage, flow: Flow) -> Flowed {
    let running = Running::start(&stage.ends(flow.pairs), flow).await;
    tokio::time::sleep(flow.warm_up).await;
    let processes = stage.processes();
    let (start, cpu, before) = (Instant::now(), Cpu::read(&processes), running.delivered());
    tokio::time::sleep(flow.window).await;
    let (took, used, delivered) = (start.elapsed(), Cpu::read(&processes), running.delivered() - before);
    running.stop().await;
    Flowed {
        delivered: delivered as f64 / took.as_secs_f64(),
        cpu: used.per(&cpu, delivered),
        threads: used.threads_per(&cpu, delivered),
    }
}

/// A flow that goes on until it is stopped.
pub(crate) struct Running {
    counts: Arc<Counts>,
    senders: JoinSet<()>,
    collecting: JoinHandle<()>,
    _receivers: Vec<Receiver>,
}

impl Running {
    /// Begins to send.
    pub(crate) async fn start(ends: &Ends<'_>, flow: Flow) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let receivers = receiver::attach_all(ends, flow.bytes, &arrived).await;
        let counts = Arc::new(Counts::new(flow.backlog));
        let collecting = collect(arrivals, counts.clone());
        let (mut senders, mut clients) = (JoinSet::new(), Vec::new());
        for _ in 0..flow.connections {
            clients.push(ends.from.client().await);
        }
        let (pairs, bytes) = (&ends.pairs, flow.bytes);
        match flow.by {
            By::Stream => {
                let in_flight = flow.in_flight.div_ceil(clients.len());
                for client in clients {
                    senders.spawn(stream_on(client, in_flight, pairs.clone(), bytes, counts.clone()));
                }
            }
            By::Calls => {
                for client in clients.iter().cycle().take(flow.in_flight) {
                    senders.spawn(send_on(client.clone(), pairs.clone(), bytes, counts.clone()));
                }
            }
        }
        Self { counts, senders, collecting, _receivers: receivers }
    }

    /// Messages that a receiver had so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts.delivered()
    }

    /// Sends no more, and waits until everything has arrived.
    pub(crate) async fn stop(mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("a send failed");
        }
        self.counts.all_delivered().await;
        self.collecting.abort();
        assert_eq!(self.counts.shown_twice.load(Ordering::Relaxed), 0, "messages were shown twice");
    }
}

/// What arrives at receivers to whom nobody sends in this process right now.
pub(crate) struct Arriving {
    counts: Arc<Counts>,
    collecting: JoinHandle<()>,
    _receivers: Vec<Receiver>,
}

impl Arriving {
    /// Attaches the receivers, which count, messages of earlier flows included.
    pub(crate) async fn start(ends: &Ends<'_>, bytes: usize) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let receivers = receiver::attach_all(ends, bytes, &arrived).await;
        let counts = Arc::new(Counts { first: 0, ..Counts::new(0) });
        let collecting = collect(arrivals, counts.clone());
        Self { counts, collecting, _receivers: receivers }
    }

    /// Messages so far.
    pub(crate) fn count(&self) -> u64 {
        self.counts.delivered()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.collecting.abort();
    }
}

/// A burst: how fast it is accepted, and how fast it is delivered when nothing holds the senders back.
pub(crate) struct Burst {
    /// Sends that returned, per second.
    pub(crate) accepted: f64,
    /// Messages per second from the first send to the last arrival.
    pub(crate) delivered: f64,
}

/// Sends so many messages of the first pair as fast as they are accepted.
pub(crate) async fn burst(stage: &Stage, count: usize) -> Burst {
    let (ends, bytes) = (stage.ends(1), Flow::ONE_PAIR.bytes);
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let _receivers = receiver::attach_all(&ends, bytes, &arrived).await;
    let counts = Arc::new(Counts::new(count));
    let collecting = collect(arrivals, counts.clone());
    let start = Instant::now();
    fill(&ends, count, bytes, &counts).await;
    let accepted = start.elapsed();
    counts.all_delivered().await;
    let delivered = start.elapsed();
    collecting.abort();
    let per_second = |took: Duration| count as f64 / took.as_secs_f64();
    Burst { accepted: per_second(accepted), delivered: per_second(delivered) }
}

/// Sends so many messages over one connection and returns when the last one is accepted.
pub(crate) async fn send_all(ends: &Ends<'_>, count: usize, bytes: usize) {
    fill(ends, count, bytes, &Arc::new(Counts::new(count))).await;
}

async fn fill(ends: &Ends<'_>, count: usize, bytes: usize, counts: &Arc<Counts>) {
    let (client, left) = (ends.from.client().await, Arc::new(Semaphore::new(count)));
    let mut senders = JoinSet::new();
    for _ in 0..Flow::ONE_PAIR.in_flight {
        let (mut client, counts, left, pairs) = (client.clone(), counts.clone(), left.clone(), ends.pairs.clone());
        senders.spawn(async move {
            while let Ok(permit) = left.try_acquire() {
                permit.forget();
                send(&mut client, &pairs, bytes, &counts).await;
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.expect("a send failed");
    }
}

struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    delivered: AtomicU64,
    shown_twice: AtomicU64,
    /// Numbers below are of earlier flows.
    first: u64,
    /// Room in the backlog.
    room: Semaphore,
}

impl Counts {
    fn new(backlog: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            shown_twice: AtomicU64::new(0),
            // More than any flow sends.
            first: fresh_numbers(1 << 32),
            room: Semaphore::new(backlog),
        }
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    fn next(&self) -> u64 {
        self.first + self.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until everything that was sent has arrived.
    async fn all_delivered(&self) {
        let mut before = self.delivered();
        while before < self.sent.load(Ordering::Relaxed) {
            before = wait::until("the rest arrives", || async {
                let delivered = self.delivered();
                (delivered > before).then_some(delivered)
            })
            .await;
        }
    }
}

/// Sends until it is told to stop, with room in the backlog.
async fn send_on(mut client: NodeClient, pairs: Vec<(String, String)>, bytes: usize, counts: Arc<Counts>) {
    loop {
        counts.room.acquire().await.unwrap().forget();
        if counts.stop.load(Ordering::Relaxed) {
            return;
        }
        send(&mut client, &pairs, bytes, &counts).await;
    }
}

/// The same over one stream, with so many that are not answered.
async fn stream_on(
    mut client: NodeClient,
    in_flight: usize,
    pairs: Vec<(String, String)>,
    bytes: usize,
    counts: Arc<Counts>,
) {
    let unanswered = Arc::new(Semaphore::new(in_flight));
    let requests = stream::unfold((counts, pairs, unanswered.clone()), move |(counts, pairs, unanswered)| async move {
        unanswered.acquire().await.unwrap().forget();
        counts.room.acquire().await.unwrap().forget();
        if counts.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = counts.next();
        let send = Some(draft(&pairs[number as usize % pairs.len()], number, bytes));
        Some((SendManyRequest { send }, (counts, pairs, unanswered)))
    });
    let mut answers = client.messages.send_many(requests).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(matches!(answer.outcome, Some(Outcome::Accepted(_))), "a send was refused: {answer:?}");
        unanswered.add_permits(1);
    }
}

async fn send(client: &mut NodeClient, pairs: &[(String, String)], bytes: usize, counts: &Counts) {
    let number = counts.next();
    let pair = &pairs[number as usize % pairs.len()];
    client.messages.send(draft(pair, number, bytes)).await.unwrap();
}

/// Counts what arrives, once.
fn collect(mut arrivals: mpsc::UnboundedReceiver<Arrival>, counts: Arc<Counts>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut seen = HashSet::new();
        while let Some(Arrival { number, .. }) = arrivals.recv().await {
            if number < counts.first {
                continue;
            }
            if seen.insert(number) {
                counts.delivered.fetch_add(1, Ordering::Relaxed);
                counts.room.add_permits(1);
            } else {
                counts.shown_twice.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}
