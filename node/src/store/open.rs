//! Opening: file modes, the lock, pragmas and migrations.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{OpenError, StoreError, closed, row::int};
use crate::disk;

/// Every migration, in order; the database's `user_version` says how many it has had.
pub(super) const MIGRATIONS: [&str; 16] = [
    include_str!("../../../migrations/node/0001_post.sql"),
    include_str!("../../../migrations/node/0002_directory.sql"),
    include_str!("../../../migrations/node/0003_rows.sql"),
    include_str!("../../../migrations/node/0004_stream.sql"),
    include_str!("../../../migrations/node/0005_order.sql"),
    include_str!("../../../migrations/node/0006_runtime.sql"),
    include_str!("../../../migrations/node/0007_lanes.sql"),
    include_str!("../../../migrations/node/0008_events.sql"),
    include_str!("../../../migrations/node/0009_moved.sql"),
    include_str!("../../../migrations/node/0010_prompts.sql"),
    include_str!("../../../migrations/node/0011_given_back.sql"),
    include_str!("../../../migrations/node/0012_fewer_pages.sql"),
    include_str!("../../../migrations/node/0013_every_copy.sql"),
    include_str!("../../../migrations/node/0014_unread.sql"),
    include_str!("../../../migrations/node/0015_names.sql"),
    include_str!("../../../migrations/node/0016_revocation.sql"),
];

/// Pages that the writer keeps in memory, KiB.
const CACHE_KIB: i64 = 8 * 1024;
/// Pages in the journal after which the writer copies them into the database: 16 MiB. Each time costs it two fsyncs more, and whoever
/// waits meanwhile some milliseconds.
const WAL_PAGES: i64 = 4_096;
/// Size that the journal has from the start: an fsync that need not note a new file size takes half the time.
const WAL_BYTES: u64 = 16 * 1024 * 1024;
/// Every connection is used by one thread at a time, so that SQLite need not lock it.
const ONE_THREAD: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

/// How to open the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Threads that read.
    pub readers: usize,
    /// Largest size in pages of 4 KiB; `None` means what the disk holds.
    pub pages_max: Option<u32>,
    /// The time now, for the sequence epoch of a new database.
    pub now_ms: u64,
}

/// The lock file beside the database.
pub(super) struct Lock {
    _file: Flock<File>,
    /// The database, once it is in use.
    in_use: Option<PathBuf>,
}

impl Drop for Lock {
    /// The last of the store to go: its connections are closed.
    fn drop(&mut self) {
        if let Some(database) = &self.in_use {
            closed::note(database);
        }
    }
}

impl Lock {
    pub(super) fn take(database: &Path) -> Result<Self, OpenError> {
        let path = database.with_extension("lock");
        let file = private_file(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file, in_use: None }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(OpenError::Locked { path }),
            Err((_, errno)) => Err(OpenError::Io { path, source: errno.into() }),
        }
    }

    /// To be called when everything is open.
    pub(super) fn used(mut self, database: &Path) -> Self {
        self.in_use = Some(database.to_owned());
        self
    }
}

/// Opens the writing connection and brings the schema up to date.
pub(super) fn writer(path: &Path, options: &StoreOptions) -> Result<Connection, OpenError> {
    // SQLite gives its journal the mode of the database, so this covers all three files.
    private_file(path)?;
    prepare(path, options).map_err(|error| match error {
        OpenError::Sqlite(error) if StoreError::is_damage(&error) => {
            OpenError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        error => error,
    })
}

fn prepare(path: &Path, options: &StoreOptions) -> Result<Connection, OpenError> {
    let was_closed = closed::take(path);
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | ONE_THREAD)?;
    if !was_closed {
        check(path)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Keys are in files of their own; of deleted messages nothing stays on a page that is written anyway.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if let Some(pages) = options.pages_max {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    connection.set_prepared_statement_cache_capacity(128);
    migrate(&mut connection)?;
    fill_journal(path)?;
    Ok(connection)
}

/// Reads every page after an end that was not in order, so that a file that was cut off or written over is told at the start and not by a message that is lost in it.
///
/// A connection of its own, since what it read is of no more use.
fn check(path: &Path) -> Result<(), OpenError> {
    let what: String = reader(path)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if what == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), what }) }
}

/// Fills the journal up with zeros. They are no valid frames: SQLite reads it up to the first of these, and writes over them.
fn fill_journal(database: &Path) -> Result<(), OpenError> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let path = PathBuf::from(path);
    let fill = || -> io::Result<()> {
        // Without the file there is nothing to write yet.
        let Ok(mut file) = OpenOptions::new().append(true).open(&path) else { return Ok(()) };
        let mut missing = WAL_BYTES.saturating_sub(file.metadata()?.len());
        let zeros = [0; 64 * 1024];
        while missing > 0 {
            let part = usize::try_from(missing).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all(&zeros[..part])?;
            missing -= part as u64;
        }
        file.sync_all()
    };
    match fill() {
        // It is only slower without.
        Err(error) if disk::is_full(&error) => Ok(()),
        filled => filled.map_err(|source| OpenError::Io { path, source }),
    }
}

/// Opens a connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | ONE_THREAD)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = int(MIGRATIONS.len() as u64);
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let tx = connection.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", int(index as u64 + 1))?;
        tx.commit()?;
    }
    Ok(())
}

/// The epoch of this database's sequences, set when it is new.
pub(super) fn sequence_epoch(connection: &Connection, now_ms: u64) -> Result<u64, OpenError> {
    let sql = "SELECT value FROM meta WHERE key = 'sequence_epoch'";
    if let Some(epoch) = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional()? {
        return Ok(u64::try_from(epoch).unwrap_or(0));
    }
    connection.execute("INSERT INTO meta (key, value) VALUES ('sequence_epoch', ?1)", [int(now_ms)])?;
    Ok(now_ms)
}

/// Opens a file of mode 0600 in a folder of mode 0700, making both as needed.
fn private_file(path: &Path) -> Result<File, OpenError> {
    let open = || -> io::Result<File> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(file)
    };
    open().map_err(|source| OpenError::Io { path: PathBuf::from(path), source })
}
