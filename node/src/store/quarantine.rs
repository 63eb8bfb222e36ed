//! What could not be believed or read, and what could not be delivered: kept for a person to look at.

use murmur_core::id::{AgentId, MessageId, NodeId};
use rusqlite::params;

use super::{StoreError, Tx, row::int};

/// A broker message that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The node that the broker let write it; all zero when the subject does not even say.
    pub source: NodeId,
    /// Where it arrived.
    pub subject: String,
    /// The raw bytes.
    pub bytes: Vec<u8>,
    /// Why, by the name of a code.
    pub reason: &'static str,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// Adds a message and drops the oldest of the same source beyond `rows_max` and `bytes_max`.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, message: &Quarantined, now_ms: u64, rows_max: u32, bytes_max: u64) -> Result<(), StoreError> {
    let Quarantined { source, subject, bytes, reason, deliveries } = message;
    let sql = "INSERT INTO quarantine (source, subject, bytes, reason, deliveries, at_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![source.as_bytes(), subject, bytes, reason, deliveries, int(now_ms)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    let trim = "DELETE FROM quarantine WHERE id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER (ORDER BY id DESC) AS place, sum(length(bytes)) OVER (ORDER BY id DESC) AS total
            FROM quarantine WHERE source = ?1
        ) WHERE place > ?2 OR total > ?3)";
    tx.conn().prepare_cached(trim)?.execute(params![source.as_bytes(), rows_max, int(bytes_max)])?;
    Ok(())
}

/// Messages in the quarantine.
///
/// # Errors
/// [`StoreError`].
pub fn count(tx: Tx<'_>) -> Result<u64, StoreError> {
    let count = tx.conn().query_row("SELECT count(*) FROM quarantine", [], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Notes that a delivery ended as dead.
///
/// # Errors
/// [`StoreError`].
pub fn dead_letter(
    tx: Tx<'_>,
    msg_id: MessageId,
    recipient: AgentId,
    reason: &str,
    now_ms: u64,
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO dead_letter (msg_id, recipient, reason, at_ms) VALUES (?1, ?2, ?3, ?4)";
    let values = params![msg_id.as_bytes(), recipient.as_bytes(), reason, int(now_ms)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}
