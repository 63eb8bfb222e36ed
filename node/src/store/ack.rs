//! Acknowledgements that still have to leave.

use murmur_core::{
    id::{AgentId, MessageId},
    subject::Route,
};
use rusqlite::{Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, small, uint},
};

/// One item of an acknowledgement frame, waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckRow {
    /// The row; 0 before it is stored.
    pub id: u64,
    /// The local agent that acknowledges.
    pub acker: AgentId,
    /// The agent whose message it is about.
    pub to_agent: AgentId,
    /// Where it goes, as the message said; `None`: ask the directory.
    pub route: Option<Route>,
    /// The message.
    pub msg_id: MessageId,
    /// The sealed copy.
    pub env_digest: [u8; 32],
    /// 1 DELIVERED, 2 READ, 3 FAILED.
    pub status: u32,
    /// FAILED: why, by number; else 0.
    pub code: u32,
    /// FAILED: seconds to wait before another try; 0 for no advice.
    pub retry_after_s: u32,
}

/// Adds an item and says its id.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, item: &AckRow, now_ms: u64) -> Result<u64, StoreError> {
    let AckRow { id: _, acker, to_agent, route, msg_id, env_digest, status, code, retry_after_s } = item;
    let sql =
        "INSERT INTO ack_outbox (acker, to_agent, route, msg_id, env_digest, status, code, retry_after_s, created_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    tx.conn().prepare_cached(sql)?.execute(params![
        acker.as_bytes(),
        to_agent.as_bytes(),
        route.as_ref().map(Route::to_string),
        msg_id.as_bytes(),
        env_digest,
        status,
        code,
        retry_after_s,
        int(now_ms),
    ])?;
    Ok(u64::try_from(tx.conn().last_insert_rowid()).unwrap_or(0))
}

/// Items behind an id, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn pending(tx: Tx<'_>, after: u64, limit: u32) -> Result<Vec<AckRow>, StoreError> {
    let sql = "SELECT * FROM ack_outbox WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![int(after), limit], ack_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes items that have left.
///
/// # Errors
/// [`StoreError`].
pub fn delete(tx: Tx<'_>, ids: &[u64]) -> Result<(), StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    // Most often they follow each other.
    let mut statement = tx.conn().prepare_cached("DELETE FROM ack_outbox WHERE id BETWEEN ?1 AND ?2")?;
    for run in ids.chunk_by(|id, next| next - id <= 1) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        statement.execute([int(*first), int(*last)])?;
    }
    Ok(())
}

fn ack_row(row: &Row<'_>) -> rusqlite::Result<AckRow> {
    Ok(AckRow {
        id: uint(row, "id")?,
        acker: id(row, "acker", AgentId::from_bytes)?,
        to_agent: id(row, "to_agent", AgentId::from_bytes)?,
        route: row.get::<_, Option<String>>("route")?.and_then(|text| text.parse().ok()),
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        env_digest: row.get("env_digest")?,
        status: small(row, "status")?,
        code: small(row, "code")?,
        retry_after_s: small(row, "retry_after_s")?,
    })
}
