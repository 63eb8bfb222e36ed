//! The writing thread: many closures, one transaction, one fsync.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{OpenError, StoreError, Tx};

/// Closures of one transaction: enough to hide the fsync, few enough that the first does not wait long for the last.
const BATCH_MAX: usize = 256;
/// How long something that nobody waits for may stay uncommitted.
const LAZY_MAX: Duration = Duration::from_millis(50);

/// From so many urgent closures a millisecond on, a commit waits for company: each commit costs an fsync and writes the same few pages
/// again, so that above this rate the processor is what is short.
const BUSY_PER_MS: u32 = 2;
/// How long it then waits.
const COMPANY: Duration = Duration::from_micros(1_500);
/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_millis(20);

/// Whether somebody waits for the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Now,
    Soon,
}

/// What is undone when work fails that has changed something already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Itself: it runs behind a savepoint.
    Savepoint,
    /// The whole transaction. A savepoint costs a copy of every page that changes behind it.
    Transaction,
}

/// How long every closure gets a savepoint after one without took its transaction along: what it fell over may come again.
const CAREFUL: Duration = Duration::from_secs(60);

/// The thread and the way to it. The queue has no bound of its own: sends are bounded at the door, arrivals by the broker's batch,
/// and what is queued lazily follows from one of these.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<(Urgency, Box<dyn Job>)>>,
    thread: Option<JoinHandle<()>>,
}

/// A queued closure.
trait Job: Send {
    fn guard(&self) -> Guard;
    /// Runs it and says whether its changes stay.
    fn run(&mut self, tx: Tx<'_>) -> bool;
    /// Answers whoever waits.
    fn finish(self: Box<Self>, committed: &Result<(), StoreError>);
}

struct Closure<F, G, T, E> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    guard: Guard,
    then: G,
}

impl<F, G, T, E> Job for Closure<F, G, T, E>
where
    F: FnOnce(Tx<'_>) -> Result<T, E> + Send,
    G: FnOnce(Result<T, E>) + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn guard(&self) -> Guard {
        self.guard
    }

    fn run(&mut self, tx: Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A panic is a bug of one closure; it must not take the writer, and with it the node, along.
        self.result = catch_unwind(AssertUnwindSafe(|| work(tx))).ok();
        matches!(self.result, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, committed: &Result<(), StoreError>) {
        let Self { result, then, .. } = *self;
        let result = match (result, committed) {
            (Some(Ok(_)), Err(error)) => Err(E::from(error.clone())),
            (Some(result), _) => result,
            (None, _) => Err(E::from(StoreError::Corrupt("closure: it panicked"))),
        };
        then(result);
    }
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, OpenError> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&connection, &receiver))
            .map_err(|source| OpenError::Io { path: "store-writer".into(), source })?;
        Ok(Self { jobs: Some(sender), thread: Some(thread) })
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

    /// Calls `then` on the writing thread after the commit, in the order of the queue; it must not block.
    pub(super) fn queue_then<T, E, F, G>(&self, work: F, urgency: Urgency, guard: Guard, then: G)
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        G: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let job = Box::new(Closure { work: Some(work), result: None, guard, then });
        if let Some(jobs) = &self.jobs {
            // A refused job drops `then`, and with it whatever waits for its call.
            let _ = jobs.send((urgency, job));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // What is queued is committed first.
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, jobs: &mpsc::Receiver<(Urgency, Box<dyn Job>)>) {
    let (mut careful_until, mut pace): (Option<Instant>, _) = (None, Pace::new());
    while let Ok(first) = jobs.recv() {
        let mut batch = collect(first, jobs, &mut pace);
        let is_careful = careful_until.is_some_and(|until| Instant::now() < until);
        let committed = commit(connection, &mut batch, is_careful);
        if let Err(error) = &committed {
            tracing::error!(%error, "the store could not commit {} changes", batch.len());
            careful_until = Some(Instant::now() + CAREFUL);
        }
        for job in batch {
            job.finish(&committed);
        }
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
    fn came(&mut self, count: usize) {
        self.count = self.count.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_WINDOW {
            self.is_busy = u128::from(self.count) >= u128::from(BUSY_PER_MS) * elapsed.as_millis();
            (self.since, self.count) = (Instant::now(), 0);
        }
    }
}

/// Takes what is waiting; a batch that nobody waits for, or one of very many, waits a moment for company.
fn collect(
    first: (Urgency, Box<dyn Job>),
    jobs: &mpsc::Receiver<(Urgency, Box<dyn Job>)>,
    pace: &mut Pace,
) -> Vec<Box<dyn Job>> {
    let deadline = Instant::now() + LAZY_MAX;
    let (mut urgency, job) = first;
    let mut batch = vec![job];
    let (mut urgent, mut has_waited) = (0, false);
    while batch.len() < BATCH_MAX {
        urgent += usize::from(urgency == Urgency::Now);
        let next = match urgency {
            Urgency::Now => jobs.try_recv().ok().or_else(|| {
                // Asleep, not listening: nobody who queues something has to wake this thread.
                if !pace.is_busy || std::mem::replace(&mut has_waited, true) {
                    return None;
                }
                thread::sleep(COMPANY);
                jobs.try_recv().ok()
            }),
            Urgency::Soon => jobs.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        };
        let Some((next_urgency, job)) = next else { break };
        if next_urgency == Urgency::Now {
            urgency = Urgency::Now;
        }
        batch.push(job);
    }
    pace.came(urgent);
    batch
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Job>], is_careful: bool) -> Result<(), StoreError> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in &mut *batch {
        let run = if is_careful || job.guard() == Guard::Savepoint { run_guarded } else { run_plain };
        if let Err(error) = run(connection, &mut **job) {
            rollback(connection);
            return Err(error);
        }
    }
    connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).map(drop).map_err(|error| {
        rollback(connection);
        error.into()
    })
}

/// What failed before it changed anything leaves nothing to undo.
fn run_plain(connection: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    let before = connection.total_changes();
    if job.run(Tx(connection)) || connection.total_changes() == before { Ok(()) } else { Err(StoreError::Undone) }
}

fn run_guarded(connection: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    if !job.run(Tx(connection)) {
        // A full disk may have ended the whole transaction; then this fails, and with it the batch.
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    connection.prepare_cached("RELEASE job")?.execute([])?;
    Ok(())
}

fn rollback(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "the store could not roll back");
    }
}
