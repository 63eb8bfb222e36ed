//! Whether the database can be written.
//!
//! Whoever finds a connection broken only says so. Then one task writes as a change would, once a second until it succeeds, and what comes of
//! that is what readiness tells: nothing is written to find out while all is well. As long as it fails, no connection is used twice, since
//! what is wrong may be the connection: SQLite opens a file for reading only while its disk is mounted so, and stays with what it opened.

use std::{fmt, time::Duration};

use sqlx::Connection as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Conn, Db, DbError, error::is_full, meta};

/// Between two tries to write.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As far as anybody knows, it can.
    Writable,
    /// A connection broke, and nobody has tried again.
    Doubtful,
    /// It cannot.
    Unwritable(Trouble),
}

/// Why it cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room.
    Full,
    /// Anything else: the log has it.
    Failed,
}

impl Health {
    /// Why it is known that nothing can be written.
    #[must_use]
    pub const fn trouble(self) -> Option<Trouble> {
        match self {
            Self::Writable | Self::Doubtful => None,
            Self::Unwritable(trouble) => Some(trouble),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the control plane's disk is full: it goes on by itself once there is room",
            Self::Failed => "the control plane's database cannot be written: its log says why",
        })
    }
}

impl Db {
    /// What is known now, and every change of it.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Finds out, whenever there is doubt, whether it can be written. Works until `stop` is cancelled.
    pub async fn keep(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch_over() => {}
        }
    }

    async fn watch_over(&self) {
        let mut health = self.health();
        // Never closed: this is the sender's.
        while health.wait_for(|health| *health != Health::Writable).await.is_ok() {
            if self.try_to_write().await != Health::Writable {
                tokio::time::sleep(TRY_EVERY).await;
            }
        }
    }

    async fn try_to_write(&self) -> Health {
        let tried = self.write_and_remove().await;
        if tried.as_ref().is_err_and(DbError::is_no_turn) {
            // Others write, or this ends: it says nothing of the database.
            return *self.health.borrow();
        }
        let now = match &tried {
            Ok(()) => Health::Writable,
            Err(error) => Health::Unwritable(if is_full(error) { Trouble::Full } else { Trouble::Failed }),
        };
        let before = self.health.send_replace(now);
        match tried {
            Err(error) if before != now => {
                tracing::error!(error = &error as &dyn std::error::Error, "the database cannot be written");
            }
            Ok(()) if before.trouble().is_some() => tracing::info!("the database can be written again"),
            _ => {}
        }
        now
    }

    /// In two transactions: what is undone in its own is never written.
    async fn write_and_remove(&self) -> Result<(), DbError> {
        let mut tx = self.write().await?;
        meta::fill(&mut tx).await?;
        tx.commit().await?;
        let mut tx = self.write().await?;
        meta::empty(&mut tx).await?;
        tx.commit().await
    }
}

/// There is doubt, unless more is known; whether that is news.
pub(super) fn doubt(health: &watch::Sender<Health>) -> bool {
    health.send_if_modified(|health| {
        let is_news = *health == Health::Writable;
        if is_news {
            *health = Health::Doubtful;
        }
        is_news
    })
}

/// Whether a connection that comes back can be used again.
///
/// On a full disk and after some other failures SQLite undoes a transaction by itself. The ROLLBACK that follows has nothing to undo and
/// fails, and sqlx counts the transaction as open for good: such a connection never begins another.
pub(super) async fn is_reusable(conn: &mut Conn, health: &watch::Sender<Health>) -> Result<bool, sqlx::Error> {
    if conn.is_in_transaction() {
        // What was not committed is being undone; this waits until it is.
        conn.ping().await?;
    }
    if conn.is_in_transaction() {
        if doubt(health) {
            tracing::warn!("a transaction could be neither committed nor undone: its connection is closed");
        }
        return Ok(false);
    }
    Ok(*health.borrow() == Health::Writable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u32 = 100_000;

    async fn open() -> (Db, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Db::open(&dir.path().join("server.db"), "epoch").await.unwrap(), dir)
    }

    async fn write(db: &Db, bytes: u32) -> Result<(), DbError> {
        let mut tx = db.write().await?;
        let sql = "INSERT INTO meta (name, value) VALUES ('test', hex(zeroblob($1 / 2)))
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sqlx::query(sql).bind(bytes).execute(&mut *tx).await?;
        tx.commit().await
    }

    #[tokio::test]
    async fn a_transaction_that_a_full_disk_ended_leaves_the_next_ones_alone() {
        let (db, _dir) = open().await;
        db.set_pages_max(1).await;
        for _ in 0..3 {
            let full = write(&db, 1_000_000).await.unwrap_err();
            assert!(is_full(&full), "{full:?}");
        }
        write(&db, 10).await.unwrap();
        db.set_pages_max(ROOM).await;
        write(&db, 1_000_000).await.unwrap();
    }

    #[tokio::test]
    async fn health_goes_with_the_room_and_comes_with_it() {
        let (db, _dir) = open().await;
        let (kept, stop) = (db.clone(), CancellationToken::new());
        let keeping = tokio::spawn({
            let stop = stop.clone();
            async move { kept.keep(&stop).await }
        });
        let mut health = db.health();
        db.set_pages_max(1).await;
        write(&db, 1_000_000).await.unwrap_err();
        health.wait_for(|health| *health == Health::Unwritable(Trouble::Full)).await.unwrap();
        // What little fits is no sign that there is room.
        write(&db, 10).await.unwrap();
        assert_eq!(health.borrow().trouble(), Some(Trouble::Full));
        db.set_pages_max(ROOM).await;
        health.wait_for(|health| *health == Health::Writable).await.unwrap();
        write(&db, 1_000_000).await.unwrap();
        stop.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_database_that_went_away_and_came_back_is_written_again() {
        let (db, dir) = open().await;
        let (here, away) = (dir.path().join("server.db"), dir.path().join("away.db"));
        std::fs::rename(&here, &away).unwrap();
        doubt(&db.health);
        // The connection that was open still has the file; those after it do not.
        let written = async { while write(&db, 10).await.is_ok() {} };
        let refused = tokio::time::timeout(Duration::from_secs(20), written).await;
        refused.expect("what was opened after the database went away is still written to");
        assert!(!here.exists(), "a database without anything was made in its place");
        std::fs::rename(&away, &here).unwrap();
        assert_eq!(db.try_to_write().await, Health::Writable);
        write(&db, 10).await.unwrap();
    }
}
