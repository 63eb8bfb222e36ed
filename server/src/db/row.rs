//! Columns as domain values. A value that no writer of ours stores is an error, never a default.

use std::str::FromStr;

use sqlx::{Row as _, sqlite::SqliteRow};

use super::DbError;

pub(super) fn corrupt<E>(column: &'static str) -> impl FnOnce(E) -> DbError {
    move |_| DbError::Corrupt { column }
}

pub(super) fn fixed<const N: usize>(row: &SqliteRow, column: &'static str) -> Result<[u8; N], DbError> {
    row.try_get::<Vec<u8>, _>(column)?.try_into().map_err(corrupt(column))
}

pub(super) fn fixed_or_null<const N: usize>(row: &SqliteRow, column: &'static str) -> Result<Option<[u8; N]>, DbError> {
    row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| bytes.try_into().map_err(corrupt(column))).transpose()
}

pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, DbError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(corrupt(column))
}

pub(super) fn number_or_null(row: &SqliteRow, column: &'static str) -> Result<Option<u64>, DbError> {
    row.try_get::<Option<i64>, _>(column)?.map(|value| u64::try_from(value).map_err(corrupt(column))).transpose()
}

pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, DbError> {
    row.try_get::<String, _>(column)?.parse().map_err(corrupt(column))
}

/// Values stored one a line.
pub(super) fn lines<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<Vec<T>, DbError> {
    row.try_get::<String, _>(column)?.lines().map(|line| line.parse().map_err(corrupt(column))).collect()
}

pub(super) fn to_lines<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// SQL has no unsigned numbers; times, counters and serials of ours fit, and what does not is held at the top.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
