//! Columns as domain values. A value that no writer of ours stores is an error, never a default.

use std::str::FromStr;

use super::{DbError, source::Row};

pub(super) fn corrupt<E>(column: &'static str) -> impl FnOnce(E) -> DbError {
    move |_| DbError::Corrupt { column }
}

fn there<T>(value: Option<T>, column: &'static str) -> Result<T, DbError> {
    value.ok_or(DbError::Corrupt { column })
}

pub(super) fn fixed<const N: usize>(row: &dyn Row, column: &'static str) -> Result<[u8; N], DbError> {
    there(fixed_or_null(row, column)?, column)
}

pub(super) fn fixed_or_null<const N: usize>(row: &dyn Row, column: &'static str) -> Result<Option<[u8; N]>, DbError> {
    row.bytes(column)?.map(|bytes| bytes.try_into().map_err(corrupt(column))).transpose()
}

pub(super) fn number(row: &dyn Row, column: &'static str) -> Result<u64, DbError> {
    there(number_or_null(row, column)?, column)
}

pub(super) fn number_or_null(row: &dyn Row, column: &'static str) -> Result<Option<u64>, DbError> {
    row.int(column)?.map(|value| u64::try_from(value).map_err(corrupt(column))).transpose()
}

pub(super) fn flag(row: &dyn Row, column: &'static str) -> Result<bool, DbError> {
    Ok(there(row.int(column)?, column)? != 0)
}

pub(super) fn text<'a>(row: &'a dyn Row, column: &'static str) -> Result<&'a str, DbError> {
    there(row.text(column)?, column)
}

pub(super) fn bytes(row: &dyn Row, column: &'static str) -> Result<Vec<u8>, DbError> {
    Ok(there(row.bytes(column)?, column)?.to_vec())
}

pub(super) fn parsed<T: FromStr>(row: &dyn Row, column: &'static str) -> Result<T, DbError> {
    text(row, column)?.parse().map_err(corrupt(column))
}

/// Values stored one a line; NULL is none.
pub(super) fn lines<T: FromStr>(row: &dyn Row, column: &'static str) -> Result<Vec<T>, DbError> {
    row.text(column)?.unwrap_or_default().lines().map(|line| line.parse().map_err(corrupt(column))).collect()
}

pub(super) fn to_lines<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// SQL has no unsigned numbers; times, counters and serials of ours fit, and what does not is held at the top.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
