//! What the writer is handed: closures that share a transaction, and the transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use super::{StoreError, Tx};

/// What is undone when work fails that has changed something already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Itself: it runs behind a savepoint.
    Savepoint,
    /// The whole transaction. A savepoint costs a copy of every page that changes behind it.
    Transaction,
}

/// A queued closure.
pub(super) trait Job: Send {
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

/// A job of `work`, and of `then`, which is called with how it went.
pub(super) fn closure<T, E, F, G>(work: F, guard: Guard, then: G) -> Box<dyn Job>
where
    F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
    G: FnOnce(Result<T, E>) + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    Box::new(Closure { work: Some(work), result: None, guard, then })
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
            // It was not come to.
            (None, Err(error)) => Err(E::from(error.clone())),
            (None, Ok(())) => Err(E::from(StoreError::Corrupt("closure: it panicked"))),
        };
        // Nor must one that comes after it take along those behind it, which are on disk.
        if catch_unwind(AssertUnwindSafe(|| then(result))).is_err() {
            tracing::error!("what follows a commit panicked");
        }
    }
}

/// Runs a batch in one transaction, each job of it behind a savepoint when `is_careful`.
pub(super) fn commit(connection: &Connection, batch: &mut [Box<dyn Job>], is_careful: bool) -> Result<(), StoreError> {
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
    let is_done = job.run(Tx(connection));
    // A full disk ends the whole transaction, whatever was changed in it: what would come next would be committed by itself.
    let is_undone = connection.is_autocommit() || (!is_done && connection.total_changes() != before);
    if is_undone { Err(StoreError::Undone) } else { Ok(()) }
}

fn run_guarded(connection: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    if !job.run(Tx(connection)) {
        if connection.is_autocommit() {
            return Err(StoreError::Undone);
        }
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
