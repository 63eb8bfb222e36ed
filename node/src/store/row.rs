//! Small conversions between rows and the types of the other rooms. A column is found by its name, or by its place where there are many
//! rows of many columns: each name is compared with those of all columns before it.

use std::str::FromStr;

use rusqlite::{
    Row, RowIndex,
    types::{FromSqlError, Type},
};

/// SQLite's integers are signed; no time, size or count of ours comes near the limit.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads an unsigned integer.
pub(super) fn uint(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

/// Reads an unsigned integer that may be absent.
pub(super) fn uint_option(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| u64::try_from(value).unwrap_or(0)))
}

/// Reads a small unsigned integer.
pub(super) fn small(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u32> {
    row.get::<_, i64>(column).map(|value| u32::try_from(value).unwrap_or(0))
}

/// Reads an id of sixteen bytes.
pub(super) fn id<T>(row: &Row<'_>, column: impl RowIndex, wrap: impl Fn([u8; 16]) -> T) -> rusqlite::Result<T> {
    row.get::<_, [u8; 16]>(column).map(wrap)
}

/// Reads text that one of our types writes.
pub(super) fn text<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str().map_err(|error| wrong(Type::Text, error))?;
    text.parse().map_err(|error| wrong(Type::Text, error))
}

/// Reads a number that one of our enums writes.
pub(super) fn number<T>(row: &Row<'_>, column: impl RowIndex, read: impl Fn(u32) -> Option<T>) -> rusqlite::Result<T> {
    read(small(row, column)?).ok_or_else(|| wrong(Type::Integer, FromSqlError::InvalidType))
}

/// Reports a column that no version of this program writes.
pub(super) fn wrong(kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}
