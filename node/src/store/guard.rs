//! The guard against messages that crash the node: only redeliveries are counted (DESIGN §8.16).

use rusqlite::params;

use super::{
    StoreError, Tx,
    row::{int, small},
};

/// Counts one more try of a redelivered broker message and says which try it is, from 1.
///
/// # Errors
/// [`StoreError`].
pub fn count(tx: Tx<'_>, stream_seq: u64, now_ms: u64) -> Result<u32, StoreError> {
    let sql = "INSERT INTO attempt_guard (stream_seq, tries, last_ms) VALUES (?1, 1, ?2)
        ON CONFLICT (stream_seq) DO UPDATE SET tries = tries + 1, last_ms = ?2 RETURNING tries";
    Ok(tx.conn().prepare_cached(sql)?.query_row(params![int(stream_seq), int(now_ms)], |row| small(row, "tries"))?)
}

/// Forgets a message that was dealt with, or deliberately put off; `None` is one that was never counted.
///
/// # Errors
/// [`StoreError`].
pub fn clear(tx: Tx<'_>, counted: Option<u64>) -> Result<(), StoreError> {
    let Some(stream_seq) = counted else { return Ok(()) };
    tx.conn().prepare_cached("DELETE FROM attempt_guard WHERE stream_seq = ?1")?.execute([int(stream_seq)])?;
    Ok(())
}

/// Forgets guards that nothing touched since `before_ms`.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, before_ms: u64) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM attempt_guard WHERE last_ms < ?1")?.execute([int(before_ms)])?;
    Ok(())
}

/// How many messages are counted.
#[cfg(test)]
pub(crate) fn counted_for_test(tx: Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.conn().query_row("SELECT count(*) FROM attempt_guard", [], |row| super::row::uint(row, 0))?)
}
