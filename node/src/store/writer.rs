//! Writing: many closures, one transaction, one fsync.
//!
//! Whoever commits takes all that is queued. Most often that is the writing thread. When little is written, whoever waits for a short piece
//! of work commits it, with what nobody waits for, and is spared the way to the thread and back.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    OpenError, StoreError, Tx,
    job::{self, Guard, Job},
};

/// Closures of one transaction: enough to hide the fsync, few enough that the first does not wait long for the last.
const BATCH_MAX: usize = 256;
/// How long something that nobody waits for may stay uncommitted.
pub(super) const LAZY_MAX: Duration = Duration::from_millis(50);

/// From so many urgent closures a millisecond on, a commit waits for company: each commit costs an fsync and writes the same few pages
/// again, so that above this rate the processor is what is short.
const BUSY_PER_MS: u32 = 2;
/// How long it then waits.
const COMPANY: Duration = Duration::from_micros(1_500);
/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_millis(20);

/// A disk whose commits take longer than this, on the average of the last few, is written to by the thread alone: who waits for it must not keep others
/// from running.
const HERE_MAX: Duration = Duration::from_millis(2);

/// What nobody waits for and a caller commits along with its own, at most.
const HERE_JOBS_MAX: usize = 32;

/// How long every closure gets a savepoint after one without took its transaction along: what it fell over may come again.
const CAREFUL: Duration = Duration::from_secs(60);

/// Whether somebody waits for the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The caller, who may commit it: it is short.
    Here,
    /// Somebody, who does not.
    Now,
    /// Nobody.
    Soon,
}

/// The queue, the thread and the connection. The queue has no bound of its own: sends are bounded at the door, arrivals by the broker's
/// batch, and what is queued lazily follows from one of these.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the thread alone: there may be something for it to do.
    wake: Condvar,
    /// Whoever has the turn has this.
    connection: Mutex<Connection>,
    /// There are other processors for what whoever commits keeps from running.
    may_commit_here: bool,
}

struct Queue {
    jobs: VecDeque<(Urgency, Box<dyn Job>)>,
    /// Of these somebody waits for.
    urgent: u32,
    /// When the first came of what nobody waits for.
    lazy_since: Option<Instant>,
    /// Somebody has the turn to commit.
    is_taken: bool,
    is_closed: bool,
    pace: Pace,
    /// Of the last few commits, on average.
    commit_time: Duration,
    careful_until: Option<Instant>,
}

impl Queue {
    fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            urgent: 0,
            lazy_since: None,
            is_taken: false,
            is_closed: false,
            pace: Pace::new(),
            commit_time: Duration::ZERO,
            careful_until: None,
        }
    }

    fn push(&mut self, urgency: Urgency, job: Box<dyn Job>) {
        self.jobs.push_back((urgency, job));
        if urgency == Urgency::Soon {
            self.lazy_since.get_or_insert_with(Instant::now);
        } else {
            self.urgent += 1;
        }
    }

    /// The first of what is queued.
    fn take(&mut self) -> Vec<Box<dyn Job>> {
        let (before, count) = (self.urgent, self.jobs.len().min(BATCH_MAX));
        let mut batch = Vec::with_capacity(count);
        for (urgency, job) in self.jobs.drain(..count) {
            self.urgent -= u32::from(urgency != Urgency::Soon);
            batch.push(job);
        }
        self.pace.came(before - self.urgent);
        self.lazy_since = (!self.jobs.is_empty()).then(Instant::now);
        batch
    }

    /// Whether a caller may commit what it is about to queue: what others wait for, which may take long, is the thread's, and so is
    /// much of what nobody waits for.
    fn may_commit_here(&self) -> bool {
        !self.is_taken && self.urgent == 0 && self.jobs.len() < HERE_JOBS_MAX && !self.is_strained()
    }

    fn is_strained(&self) -> bool {
        self.pace.is_busy || self.commit_time > HERE_MAX
    }
}

/// How many urgent closures come.
struct Pace {
    since: Instant,
    count: u32,
    is_busy: bool,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), count: 0, is_busy: false }
    }

    /// Counts those of a batch.
    fn came(&mut self, count: u32) {
        self.count = self.count.saturating_add(count);
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_WINDOW {
            self.is_busy = u128::from(self.count) >= u128::from(BUSY_PER_MS) * elapsed.as_millis();
            (self.since, self.count) = (Instant::now(), 0);
        }
    }
}

/// The right to commit, of one at a time.
struct Turn<'a> {
    shared: &'a Shared,
    batch: Vec<Box<dyn Job>>,
    is_careful: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn<'a>(&'a self, queue: &mut Queue) -> Turn<'a> {
        queue.is_taken = true;
        let is_careful = queue.careful_until.is_some_and(|until| Instant::now() < until);
        Turn { shared: self, batch: queue.take(), is_careful }
    }
}

impl Turn<'_> {
    fn commit(mut self) {
        let began = Instant::now();
        let connection = self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = job::commit(&connection, &mut self.batch, self.is_careful);
        drop(connection);
        let took = began.elapsed();
        {
            let mut queue = self.shared.queue();
            queue.commit_time = (queue.commit_time * 7 + took) / 8;
            if committed.is_err() {
                queue.careful_until = Some(Instant::now() + CAREFUL);
            }
        }
        if let Err(error) = &committed {
            tracing::error!(%error, "the store could not commit {} changes", self.batch.len());
        }
        for job in self.batch.drain(..) {
            job.finish(&committed);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_taken = false;
        // What came meanwhile has woken nobody.
        if !queue.jobs.is_empty() || queue.is_closed {
            self.shared.wake.notify_one();
        }
    }
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, OpenError> {
        let may_commit_here = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        let (queue, connection) = (Mutex::new(Queue::new()), Mutex::new(connection));
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), connection, may_commit_here });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&of_thread))
            .map_err(|source| OpenError::Io { path: "store-writer".into(), source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn is_strained(&self) -> bool {
        self.shared.queue().is_strained()
    }

    pub(super) fn queue<T, E, F>(
        &self,
        work: F,
        urgency: Urgency,
        guard: Guard,
    ) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.queue_then(work, urgency, guard, move |result| {
            // Nobody listening is fine: the caller gave up, the work stands.
            let _ = answer.send(result);
        });
        async move { result.await.unwrap_or_else(|_| Err(E::from(StoreError::Closed))) }
    }

    /// Calls `then` after the commit, in the order of the queue, on the thread that commits; it must not block.
    pub(super) fn queue_then<T, E, F, G>(&self, work: F, urgency: Urgency, guard: Guard, then: G)
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        G: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let shared = &*self.shared;
        let mut queue = shared.queue();
        let is_own = urgency == Urgency::Here && shared.may_commit_here && queue.may_commit_here();
        queue.push(urgency, job::closure(work, guard, then));
        if is_own {
            let turn = shared.turn(&mut queue);
            drop(queue);
            turn.commit();
        } else if !queue.is_taken && (urgency != Urgency::Soon || queue.jobs.len() == 1) {
            // Of what is lazy the first is told of, that the thread knows how long to sleep.
            shared.wake.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // What is queued is committed first.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    while let Some(turn) = next(shared) {
        turn.commit();
    }
}

/// Waits until there is something for the thread to commit; `None` when there never will be.
fn next(shared: &Shared) -> Option<Turn<'_>> {
    let mut queue = shared.queue();
    loop {
        let lazy_for = queue.lazy_since.map(|since| since.elapsed());
        let is_due = queue.urgent > 0 || queue.is_closed || lazy_for.is_some_and(|lazy_for| lazy_for >= LAZY_MAX);
        queue = match lazy_for {
            _ if queue.is_taken => wait(shared, queue, None),
            _ if queue.is_closed && queue.jobs.is_empty() => return None,
            _ if is_due && !queue.jobs.is_empty() => break,
            Some(lazy_for) => wait(shared, queue, Some(LAZY_MAX.saturating_sub(lazy_for))),
            None => wait(shared, queue, None),
        };
    }
    if queue.pace.is_busy && queue.jobs.len() < BATCH_MAX {
        queue.is_taken = true;
        drop(queue);
        // Asleep, not listening: nobody who queues something has to wake this thread.
        thread::sleep(COMPANY);
        queue = shared.queue();
    }
    Some(shared.turn(&mut queue))
}

fn wait<'a>(shared: &'a Shared, queue: MutexGuard<'a, Queue>, at_most: Option<Duration>) -> MutexGuard<'a, Queue> {
    match at_most {
        Some(at_most) => shared.wake.wait_timeout(queue, at_most).unwrap_or_else(PoisonError::into_inner).0,
        None => shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
    }
}
