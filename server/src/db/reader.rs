//! Connections that read.
//!
//! No pool of sqlx's: that asks every connection how it is before and after each use, which costs more than most reads do, and a file does
//! not go away.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{Conn, DbError};

/// Connections that are lent out one at a time, and opened as they are needed.
pub(super) struct Readers {
    options: SqliteConnectOptions,
    count: u32,
    permits: Arc<Semaphore>,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle(Mutex<Vec<SqliteConnection>>);

/// A connection that sees one snapshot, which ends when it is dropped and goes back.
pub struct Reading {
    /// `None` once it is dropped.
    conn: Option<SqliteConnection>,
    idle: Arc<Idle>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Readers {
    /// At most `count` at once.
    pub(super) fn new(options: SqliteConnectOptions, count: u32) -> Self {
        let permits = Arc::new(Semaphore::new(count as usize));
        Self { options, count, permits, idle: Arc::default() }
    }

    /// One on which all statements see the same snapshot.
    pub(super) async fn begin(&self) -> Result<Reading, DbError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle.lock().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.options.connect().await?,
        };
        // Before it has begun: a caller who leaves in the middle must not hold a snapshot.
        let mut reading = Reading { conn: Some(conn), idle: Arc::clone(&self.idle), permit: Some(permit) };
        sqlx::query("BEGIN").execute(&mut *reading).await?;
        Ok(reading)
    }

    /// Closes all of them, once they are back.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(self.count).await;
        self.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock());
        for conn in idle {
            if let Err(error) = conn.close().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection to the database is not closed");
            }
        }
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Reading {
    type Target = Conn;

    #[expect(clippy::expect_used, reason = "nothing but its drop takes the connection")]
    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("it is not dropped")
    }
}

impl DerefMut for Reading {
    #[expect(clippy::expect_used, reason = "nothing but its drop takes the connection")]
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("it is not dropped")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let (Some(mut conn), permit) = (self.conn.take(), self.permit.take()) else { return };
        let idle = Arc::clone(&self.idle);
        // A snapshot that is held keeps the write-ahead log from shrinking. Without a runtime the connection is closed instead.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            if sqlx::query("ROLLBACK").execute(&mut conn).await.is_ok() {
                idle.lock().push(conn);
            }
            drop(permit);
        });
    }
}
