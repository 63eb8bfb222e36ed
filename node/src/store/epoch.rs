//! Recognising an old copy of the database, and going on with it (PROTOCOL §2.6, §3.7).

use super::{
    StoreError, Tx,
    inbox::last_cursor,
    row::{int, uint},
};

/// How far the database has come: a number that grows with every message in or out and never falls, so that an old copy has a smaller
/// one than what the control plane remembers.
///
/// # Errors
/// [`StoreError`].
pub fn mark(tx: Tx<'_>) -> Result<u64, StoreError> {
    let sql = concat!("SELECT (SELECT coalesce(sum(last), 0) FROM sequence) + ", last_cursor!(), " AS mark");
    Ok(tx.conn().prepare_cached(sql)?.query_row([], |row| uint(row, "mark"))?)
}

/// Sets the epoch of the sequence numbers that are given from now on.
///
/// # Errors
/// [`StoreError`].
pub fn begin(tx: Tx<'_>, epoch: u64) -> Result<(), StoreError> {
    tx.conn().execute("UPDATE meta SET value = ?1 WHERE key = 'sequence_epoch'", [int(epoch)])?;
    // A new epoch counts from one: recipients would wait for what they take to be missing.
    tx.conn().execute("DELETE FROM sequence", [])?;
    Ok(())
}
