//! Dead letters: deliveries that died or expired, kept with their message until a person has seen to them.

use murmur_core::id::{AgentId, MessageId};
use rusqlite::params;

use super::{StoreError, Tx, row::int};

/// Notes that a delivery was given up.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, msg_id: MessageId, recipient: AgentId, reason: &str, now_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO dead_letter (msg_id, recipient, reason, at_ms) VALUES (?1, ?2, ?3, ?4)";
    let values = params![msg_id.as_bytes(), recipient.as_bytes(), reason, int(now_ms)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Forgets one that was begun again, that nobody wants any more, or that had arrived after all. Returns whether there was one.
///
/// # Errors
/// [`StoreError`].
pub fn remove(tx: Tx<'_>, msg_id: MessageId, recipient: AgentId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM dead_letter WHERE msg_id = ?1 AND recipient = ?2";
    Ok(tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), recipient.as_bytes()])? == 1)
}

/// How many there are.
///
/// # Errors
/// [`StoreError`].
pub fn count(tx: Tx<'_>) -> Result<u64, StoreError> {
    let count = tx.conn().query_row("SELECT count(*) FROM dead_letter", [], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Forgets those that were given up before `before_ms`; their messages are then pruned like any other.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, before_ms: u64) -> Result<usize, StoreError> {
    Ok(tx.conn().prepare_cached("DELETE FROM dead_letter WHERE at_ms < ?1")?.execute([int(before_ms)])?)
}
