//! The store: everything the node has promised, in one SQLite file, and the only room that names SQLite.
//!
//! One connection writes. Callers queue closures; whoever commits, a thread of its own or one of them, runs as many as are waiting inside
//! one transaction, each behind a savepoint of its own, and answers them after the commit (PROTOCOL §5.4, DESIGN §4). So durability costs
//! one fsync a batch, and a closure that fails takes nothing but itself back. A few threads read.
//!
//! The rooms outside see [`Tx`] and the functions that take one, each in the file of its table.

pub mod ack;
pub mod agents;
mod closed;
pub mod copy;
pub mod dead_letter;
pub mod delivery;
pub mod directory;
pub mod epoch;
mod error;
pub mod event;
pub mod guard;
pub mod inbox;
mod job;
pub mod listing;
mod open;
pub mod order;
pub mod outbox;
pub mod permission;
pub mod prompt;
pub mod quarantine;
mod reader;
pub mod request;
mod row;
pub mod runtime;
pub mod showing;
pub mod stream;
pub mod transfer;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use error::{OpenError, StoreError};
pub use open::StoreOptions;

use self::{
    job::Guard,
    reader::Readers,
    writer::{Urgency, Writer},
};

/// The node's database. Cheap to clone; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    readers: Readers,
    writer: Writer,
    sequence_epoch: AtomicU64,
    /// Held so that no second process opens the file (PROTOCOL §2.6).
    _lock: open::Lock,
}

/// What a closure works in: the transaction, or for readers the last commit.
#[derive(Clone, Copy)]
pub struct Tx<'a>(&'a rusqlite::Connection);

impl<'a> Tx<'a> {
    pub(in crate::store) const fn conn(self) -> &'a rusqlite::Connection {
        self.0
    }
}

impl Store {
    /// Opens the database, creating or migrating it as needed. Blocks on the disk.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used, is newer than this program, or another process has it.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        let lock = open::Lock::take(path)?;
        let connection = open::writer(path, options)?;
        let sequence_epoch = AtomicU64::new(open::sequence_epoch(&connection, options.now_ms)?);
        let readers = Readers::start(path, options.readers)?;
        let writer = Writer::start(connection)?;
        Ok(Self { inner: Arc::new(Inner { readers, writer, sequence_epoch, _lock: lock.used(path) }) })
    }

    /// When this database was made or restored: the epoch of every new sequence number in it (PROTOCOL §4.1).
    #[must_use]
    pub fn sequence_epoch(&self) -> u64 {
        self.inner.sequence_epoch.load(Ordering::SeqCst)
    }

    /// How far this database has come; see [`epoch::mark`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark(&self) -> Result<u64, StoreError> {
        self.read(epoch::mark).await
    }

    /// Begins a new epoch: this database is an old copy of one that had come to `mark`, and numbers that it would give were given already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_epoch(&self, now_ms: u64, mark: u64) -> Result<(), StoreError> {
        let epoch = now_ms.max(self.sequence_epoch().saturating_add(1));
        self.write(move |tx| epoch::begin(tx, epoch, mark)).await?;
        self.inner.sequence_epoch.store(epoch, Ordering::SeqCst);
        Ok(())
    }

    /// Runs `work` in a transaction and answers after it is on disk. When `work` fails, nothing of it remains.
    ///
    /// # Errors
    /// What `work` failed with, or that the commit did.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.transact(work).await
    }

    /// Like [`Store::write`], for work with an error of its own.
    ///
    /// # Errors
    /// What `work` failed with, or that the commit did.
    pub async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.queue(work).await
    }

    /// Hands `work` over at once, in order, and returns a future that only waits for the commit.
    pub fn queue<T, E, F>(&self, work: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue(work, Urgency::Now, Guard::Savepoint)
    }

    /// Like [`Store::queue`] for what there is much of, and of which nothing fails but the database: should it fail after it has
    /// changed something, its whole transaction is undone, and fails with [`StoreError::Undone`].
    pub fn queue_plainly<T, E, F>(&self, work: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue(work, Urgency::Now, Guard::Transaction)
    }

    /// Like [`Store::queue_plainly`] for work that is short: when little is written, the calling thread commits it before this returns,
    /// together with what is queued and nobody waits for.
    pub fn queue_here<T, E, F>(&self, work: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue(work, Urgency::Here, Guard::Transaction)
    }

    /// Like [`Store::queue_here`], but instead of waking somebody calls `then` after the commit: on the thread that commits, in the
    /// order in which the work was queued. It must only hand on what it gets. When the store is closed it is dropped without a call.
    pub fn queue_then<T, E, F, G>(&self, work: F, then: G)
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        G: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue_then(work, Urgency::Here, Guard::Transaction, then);
    }

    /// Like [`Store::queue_then`] for what nobody waits for, as [`Store::queue_lazily`] has it.
    pub fn queue_lazily_then<T, E, F, G>(&self, work: F, then: G)
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        G: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue_then(work, Urgency::Soon, Guard::Transaction, then);
    }

    /// Like [`Store::queue`] for what nobody waits for: it rides with the next commit and causes none of its own for a moment.
    pub fn queue_lazily<T, E, F>(&self, work: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.queue(work, Urgency::Soon, Guard::Savepoint)
    }

    /// Whether commits are to be few: so much is written that they wait for company, or the disk is slow.
    #[must_use]
    pub fn is_strained(&self) -> bool {
        self.inner.writer.is_strained()
    }

    /// Runs `work` on a reader: it sees the last commit and changes nothing.
    ///
    /// # Errors
    /// What `work` failed with.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.readers.run(work).await
    }
}

#[cfg(test)]
mod tests;
