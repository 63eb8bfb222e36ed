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

/// How far a database may be said to have come: from there it can still count for longer than anybody sends, and every client that reads
/// JSON reads its cursors rightly.
const MARK_MAX: u64 = 1 << 52;

/// Sets the epoch of the sequence numbers that are given from now on, of a database that had come to `mark` before: no cursor up to there
/// is given again.
///
/// # Errors
/// [`StoreError`].
pub fn begin(tx: Tx<'_>, epoch: u64, mark: u64) -> Result<(), StoreError> {
    tx.conn().execute("UPDATE meta SET value = ?1 WHERE key = 'sequence_epoch'", [int(epoch)])?;
    // A new epoch counts from one: recipients would wait for what they take to be missing.
    tx.conn().execute("DELETE FROM sequence", [])?;
    let last = "INSERT INTO meta (key, value) VALUES ('inbox_last', ?1) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";
    tx.conn().execute(last, [int(mark.min(MARK_MAX))])?;
    Ok(())
}
