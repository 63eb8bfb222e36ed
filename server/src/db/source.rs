//! Reading from whatever connection there is: one of sqlx's, which asks a thread of its own and is awaited, or a [`Look`], which is asked
//! in place.
//!
//! [`Look`]: super::Look

use std::{future::Future, ops::DerefMut};

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Conn, DbError, Reading, Tx};

/// What a statement is given.
#[derive(Debug, Clone)]
pub enum Value {
    /// Also a flag, as 0 or 1.
    Int(i64),
    /// UTF-8.
    Text(String),
    /// As they are.
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// A row. A column that is missing or of another type is an error, and `None` is NULL.
pub trait Row {
    /// A number, or a flag as 0 or 1.
    ///
    /// # Errors
    /// [`DbError`].
    fn int(&self, column: &'static str) -> Result<Option<i64>, DbError>;

    /// A text.
    ///
    /// # Errors
    /// [`DbError`].
    fn text(&self, column: &'static str) -> Result<Option<&str>, DbError>;

    /// Bytes.
    ///
    /// # Errors
    /// [`DbError`].
    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, DbError>;
}

impl Row for SqliteRow {
    fn int(&self, column: &'static str) -> Result<Option<i64>, DbError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, DbError> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, DbError> {
        Ok(self.try_get(column)?)
    }
}

/// What makes a value of a row.
pub type Decode<T> = fn(&dyn Row) -> Result<T, DbError>;

/// Something that can be read from.
pub trait Source: Send {
    /// All rows of a statement.
    ///
    /// # Errors
    /// [`DbError`].
    fn rows<T: Send>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> impl Future<Output = Result<Vec<T>, DbError>> + Send;

    /// The row of a statement that has one at most.
    ///
    /// # Errors
    /// [`DbError`].
    fn row<T: Send>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> impl Future<Output = Result<Option<T>, DbError>> + Send {
        let rows = self.rows(sql, values, decode);
        async { Ok(rows.await?.pop()) }
    }
}

impl Source for Conn {
    async fn rows<T: Send>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> Result<Vec<T>, DbError> {
        let given = values.into_iter().fold(sqlx::query(sql), |query, value| match value {
            Value::Int(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        });
        given.fetch_all(self).await?.iter().map(|row| decode(row)).collect()
    }
}

/// Holds a connection of sqlx's, and is read from as that.
pub trait Holder: DerefMut<Target = Conn> + Send {}

impl Holder for Reading {}
impl Holder for Tx {}

impl<H: Holder> Source for H {
    fn rows<T: Send>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> impl Future<Output = Result<Vec<T>, DbError>> + Send {
        (**self).rows(sql, values, decode)
    }
}
