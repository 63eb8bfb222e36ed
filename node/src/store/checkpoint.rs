//! Copying the journal into the database, beside the writer.
//!
//! SQLite would do it within a commit: every few hundred messages one of them waits for thousands of pages and two fsyncs. Here a thread
//! with a connection of its own copies what there is while the writer goes on, and the writer then copies the little that came since, so
//! that the journal begins anew and does not grow.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OpenFlags};

use super::{OpenError, open};

/// Pages in the journal, beyond those that were copied, from which on they are copied: 10 MiB.
const PAGES: i64 = 2_560;
/// Rows that change between two looks at the journal; each changes a few pages.
const LOOK_EVERY: u64 = 256;

/// The thread, and what the writer knows of it.
pub(super) struct Checkpointer {
    bell: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The thread has copied what there was.
    is_copied: Arc<AtomicBool>,
    is_asked: bool,
    looked_at: u64,
}

impl Checkpointer {
    /// Opens a connection to the database.
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | open::ONE_THREAD;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let (bell, rung) = mpsc::channel();
        let is_copied = Arc::new(AtomicBool::new(false));
        let copied = Arc::clone(&is_copied);
        let run = move || {
            while let Ok(()) = rung.recv() {
                copy(&connection);
                copied.store(true, Ordering::Release);
            }
        };
        let thread = thread::Builder::new().name("store-copier".to_owned()).spawn(run);
        let thread = thread.map_err(|source| OpenError::Io { path: "store-copier".into(), source })?;
        Ok(Self { bell: Some(bell), thread: Some(thread), is_copied, is_asked: false, looked_at: 0 })
    }

    /// To be called by the writer after a commit.
    pub(super) fn committed(&mut self, writer: &Connection) {
        if self.is_copied.swap(false, Ordering::Acquire) {
            copy(writer);
            self.is_asked = false;
        }
        let changes = writer.total_changes();
        if self.is_asked || changes.saturating_sub(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = changes;
        match to_copy(writer) {
            Ok(pages) if pages < PAGES => {}
            Ok(_) => {
                self.is_asked = self.bell.as_ref().is_some_and(|bell| bell.send(()).is_ok());
            }
            Err(error) => tracing::warn!(%error, "the store's journal cannot be looked at"),
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.bell = None;
        if let Some(thread) = self.thread.take() {
            // It only fails by a panic, which was told.
            let _ = thread.join();
        }
    }
}

/// Pages of the journal that are not in the database yet.
fn to_copy(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    statement.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

/// Copies what no reader needs to find where it is. What fails is tried again with more pages.
fn copy(connection: &Connection) {
    let copied = connection
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
    if let Err(error) = copied {
        tracing::warn!(%error, "the store's journal cannot be copied into the database");
    }
}
