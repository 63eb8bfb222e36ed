//! Short reads, in place.
//!
//! Every statement of sqlx's goes to the connection's own thread and back. For a row that is in memory anyway those two changes of thread
//! cost several times what the row does, and are most of what a read by gRPC costs beside the call itself. Here the caller's thread asks:
//! for reads of few rows by an index. What may take long is for [`Db::read`](super::Db::read).

use std::{
    collections::HashMap,
    future::{Future, ready},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, params_from_iter, types};

use super::{
    DbError,
    source::{Decode, Row, Source, Value},
};

/// Prepared statements of a connection: all that are asked here.
const STATEMENTS_MAX: usize = 64;

/// Connections for it, opened as they are needed: never more than there are threads that look.
pub(super) struct Lookers {
    file: PathBuf,
    busy_timeout: Duration,
    idle: Mutex<Vec<Looker>>,
}

/// A connection, and where the columns of its statements are.
struct Looker {
    conn: Connection,
    columns: HashMap<&'static str, Arc<Columns>>,
}

type Columns = HashMap<Box<str>, usize>;

/// Reads in place. It goes back when it is dropped, so it is not kept over anything that waits.
pub struct Look {
    /// `None` once it is dropped.
    looker: Option<Looker>,
    /// All statements see one snapshot, which ends with it.
    is_begun: bool,
    /// What failed once is opened anew: what is wrong may be the connection.
    is_failed: bool,
    lookers: Arc<Lookers>,
}

impl Lookers {
    pub(super) fn new(file: &Path, busy_timeout: Duration) -> Self {
        Self { file: file.to_owned(), busy_timeout, idle: Mutex::default() }
    }

    /// One on which every statement sees what is newest.
    pub(super) fn look(self: &Arc<Self>) -> Result<Look, DbError> {
        let idle = self.idle().pop();
        let looker = match idle {
            Some(looker) => looker,
            None => self.open()?,
        };
        Ok(Look { looker: Some(looker), is_begun: false, is_failed: false, lookers: Arc::clone(self) })
    }

    fn open(&self) -> Result<Looker, DbError> {
        let conn = Connection::open_with_flags(
            &self.file,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(self.busy_timeout)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Looker { conn, columns: HashMap::new() })
    }

    /// Closes those that are back.
    pub(super) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Looker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// From here on all statements see the same snapshot.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn begin(&mut self) -> Result<(), DbError> {
        if !self.is_begun {
            self.looker().conn.execute_batch("BEGIN")?;
            self.is_begun = true;
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "nothing but its drop takes the connection")]
    fn looker(&mut self) -> &mut Looker {
        self.looker.as_mut().expect("it is not dropped")
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let Some(looker) = self.looker.take() else { return };
        if self.is_failed {
            return;
        }
        // A snapshot that is held keeps the write-ahead log from shrinking; a connection that cannot let go of it is closed.
        if !self.is_begun || looker.conn.execute_batch("ROLLBACK").is_ok() {
            self.lookers.idle().push(looker);
        }
    }
}

impl Source for Look {
    fn rows<T: Send>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> impl Future<Output = Result<Vec<T>, DbError>> + Send {
        let rows = self.looker().rows(sql, values, decode);
        self.is_failed |= rows.is_err();
        ready(rows)
    }
}

impl Looker {
    fn rows<T>(&mut self, sql: &'static str, values: Vec<Value>, decode: Decode<T>) -> Result<Vec<T>, DbError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let columns = self.columns.entry(sql).or_insert_with(|| {
            let names = statement.column_names();
            Arc::new(names.into_iter().enumerate().map(|(at, name)| (name.into(), at)).collect())
        });
        let mut rows = statement.query(params_from_iter(values))?;
        let mut decoded = Vec::new();
        while let Some(row) = rows.next()? {
            decoded.push(decode(&Here { row, columns })?);
        }
        Ok(decoded)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<types::ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(value) => types::ValueRef::Integer(*value),
            Self::Text(value) => types::ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => types::ValueRef::Blob(value),
        };
        Ok(types::ToSqlOutput::Borrowed(value))
    }
}

/// The row that a statement stands on.
struct Here<'a> {
    row: &'a rusqlite::Row<'a>,
    columns: &'a Columns,
}

impl Here<'_> {
    fn value(&self, column: &'static str) -> Result<types::ValueRef<'_>, DbError> {
        let at = self.columns.get(column).copied().ok_or(DbError::Corrupt { column })?;
        Ok(self.row.get_ref(at)?)
    }
}

impl Row for Here<'_> {
    fn int(&self, column: &'static str) -> Result<Option<i64>, DbError> {
        self.value(column)?.as_i64_or_null().map_err(|_| DbError::Corrupt { column })
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, DbError> {
        self.value(column)?.as_str_or_null().map_err(|_| DbError::Corrupt { column })
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, DbError> {
        self.value(column)?.as_blob_or_null().map_err(|_| DbError::Corrupt { column })
    }
}
