//! Opening the database, and the transactions through which everything goes.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use super::{
    DbError, Look,
    health::{Health, doubt, is_reusable},
    look::Lookers,
    meta,
    reader::{Readers, Reading},
    schema::migrations,
};

/// Readers at once; each holds a connection for one call.
const READERS_MAX: u32 = 4;
/// Statements that a connection keeps prepared: all of this program's.
const STATEMENTS_MAX: usize = 1_000;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What queries run on.
pub type Conn = SqliteConnection;

/// A transaction; undone unless committed.
pub struct Tx(Transaction<'static, Sqlite>);

impl Tx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// [`DbError`] when they are not.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.0.commit().await?)
    }

    /// Begins a part that can be undone without the rest. One at a time.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin_part(&mut self) -> Result<(), DbError> {
        self.run("SAVEPOINT part").await
    }

    /// Makes a part as good as the rest.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn keep_part(&mut self) -> Result<(), DbError> {
        self.run("RELEASE part").await
    }

    /// Undoes a part.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn undo_part(&mut self) -> Result<(), DbError> {
        self.run("ROLLBACK TO part").await?;
        self.run("RELEASE part").await
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), DbError> {
        sqlx::query(sql).execute(&mut **self).await?;
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

/// The control plane's database.
#[derive(Clone)]
pub struct Db {
    writer: SqlitePool,
    pub(super) health: Arc<watch::Sender<Health>>,
    readers: Arc<Readers>,
    lookers: Arc<Lookers>,
}

impl Db {
    /// Opens the file, makes it when it is missing, and brings its schema up to date.
    ///
    /// `new_epoch` names the database when this call creates it.
    ///
    /// # Errors
    /// [`DbError`] when the file cannot be opened or migrated.
    pub async fn open(file: &Path, new_epoch: &str) -> Result<Self, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(STATEMENTS_MAX);
        let health = Arc::new(watch::Sender::new(Health::Writable));
        let writer = pool(&health).connect_with(options.clone()).await?;
        migrations().run(&writer).await?;
        // A file that is away with its disk comes back with it; one made in its place would be without everything.
        let options = options.create_if_missing(false);
        writer.set_connect_options(options.clone());
        let reading = options.read_only(true);
        let readers = Arc::new(Readers::new(reading, READERS_MAX));
        let lookers = Arc::new(Lookers::new(file, BUSY_TIMEOUT));
        let db = Self { writer, health, readers, lookers };
        let mut tx = db.write().await?;
        meta::set_epoch_once(&mut tx, new_epoch).await?;
        tx.commit().await?;
        Ok(db)
    }

    /// Begins a transaction that may write. There is one at a time.
    ///
    /// # Errors
    /// [`DbError`] when the database cannot be reached.
    pub async fn write(&self) -> Result<Tx, DbError> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            Ok(transaction) => Ok(Tx(transaction)),
            Err(error) => {
                let error = DbError::from(error);
                // A long line of writers, or the end, says nothing of the connection.
                if !error.is_no_turn() {
                    doubt(&self.health);
                }
                Err(error)
            }
        }
    }

    /// Begins a transaction that reads one snapshot.
    ///
    /// # Errors
    /// [`DbError`] when the database cannot be reached.
    pub async fn read(&self) -> Result<Reading, DbError> {
        self.readers.begin().await
    }

    /// For short reads of few rows by an index, on the caller's own thread. Each statement sees what was committed before it.
    ///
    /// # Errors
    /// [`DbError`] when the database cannot be reached.
    pub fn look(&self) -> Result<Look, DbError> {
        self.lookers.look()
    }

    /// Closes the file after the last transaction.
    pub async fn close(&self) {
        self.lookers.close();
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
impl Db {
    /// Makes a disk that is full, or has room again: the file may have so many pages, and as many as it has.
    pub(crate) async fn set_pages_max(&self, pages: u32) {
        let options = SqliteConnectOptions::clone(&self.writer.connect_options());
        self.writer.set_connect_options(options.pragma("max_page_count", pages.to_string()));
        let mut conn = self.writer.acquire().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(&mut *conn).await.unwrap();
    }
}

/// The connection that writes. It is asked how it is when it comes back, and not again before it is lent: nobody has it meanwhile.
fn pool(health: &Arc<watch::Sender<Health>>) -> SqlitePoolOptions {
    let health = Arc::clone(health);
    SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).after_release(move |conn, _| {
        let health = Arc::clone(&health);
        Box::pin(async move { is_reusable(conn, &health).await })
    })
}
