//! What could not be believed or read: kept for a person to look at.

use murmur_core::id::NodeId;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, small, uint},
};

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

/// How often what is too much is looked for: a source may have so many more for a moment.
const TRIM_EVERY: i64 = 64;

/// Adds a message, and now and then drops the oldest of every source beyond `rows_max` and `bytes_max` of one.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, message: &Quarantined, now_ms: u64, rows_max: u32, bytes_max: u64) -> Result<(), StoreError> {
    let Quarantined { source, subject, bytes, reason, deliveries } = message;
    let sql = "INSERT INTO quarantine (source, subject, bytes, reason, deliveries, at_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![source.as_bytes(), subject, bytes, reason, deliveries, int(now_ms)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    // Of all sources, since one alone might never be the one whose turn it is.
    if tx.conn().last_insert_rowid() % TRIM_EVERY == 0 { trim(tx, rows_max, bytes_max) } else { Ok(()) }
}

fn trim(tx: Tx<'_>, rows_max: u32, bytes_max: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM quarantine WHERE id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER newest AS place, sum(length(bytes)) OVER newest AS total
            FROM quarantine WINDOW newest AS (PARTITION BY source ORDER BY id DESC)
        ) WHERE place > ?1 OR total > ?2)";
    tx.conn().prepare_cached(sql)?.execute(params![rows_max, int(bytes_max)])?;
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

/// A broker message in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Its number.
    pub id: u64,
    /// The node that the broker let write it; all zero when the subject does not even say.
    pub source: NodeId,
    /// Where it arrived.
    pub subject: String,
    /// How long it is.
    pub size: u64,
    /// The raw bytes; empty in a list.
    pub bytes: Vec<u8>,
    /// Why, by the name of a code.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// When it was put there.
    pub at_ms: u64,
}

/// Messages in the quarantine behind a number, oldest first, without their bytes.
///
/// # Errors
/// [`StoreError`].
pub fn list(tx: Tx<'_>, after: u64, limit: u32) -> Result<Vec<QuarantineRow>, StoreError> {
    let sql = "SELECT id, source, subject, length(bytes) AS size, x'' AS bytes, reason, deliveries, at_ms
        FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![int(after), limit], quarantine_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One message of the quarantine.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, id: u64) -> Result<Option<QuarantineRow>, StoreError> {
    let sql = "SELECT id, source, subject, length(bytes) AS size, bytes, reason, deliveries, at_ms
        FROM quarantine WHERE id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([int(id)], quarantine_row).optional()?)
}

/// Deletes one. Returns whether there was one.
///
/// # Errors
/// [`StoreError`].
pub fn remove(tx: Tx<'_>, id: u64) -> Result<bool, StoreError> {
    Ok(tx.conn().prepare_cached("DELETE FROM quarantine WHERE id = ?1")?.execute([int(id)])? == 1)
}

fn quarantine_row(row: &Row<'_>) -> rusqlite::Result<QuarantineRow> {
    Ok(QuarantineRow {
        id: uint(row, "id")?,
        source: id(row, "source", NodeId::from_bytes)?,
        subject: row.get("subject")?,
        size: uint(row, "size")?,
        bytes: row.get("bytes")?,
        reason: row.get("reason")?,
        deliveries: small(row, "deliveries")?,
        at_ms: uint(row, "at_ms")?,
    })
}
