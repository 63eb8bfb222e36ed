//! Acknowledgements that still have to leave.

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId},
    subject::Route,
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    inbox::{self, first_since},
    row::{id, int, small, uint},
};

/// `AckRow.status` of a message that is on disk.
pub const STATUS_DELIVERED: u32 = 1;
/// `AckRow.status` of a message that its agent has read.
pub const STATUS_READ: u32 = 2;
/// `AckRow.status` of a message that was refused.
pub const STATUS_FAILED: u32 = 3;

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
    /// [`STATUS_DELIVERED`], [`STATUS_READ`] or [`STATUS_FAILED`].
    pub status: u32,
    /// FAILED: why, by number; else 0.
    pub code: u32,
    /// FAILED: seconds to wait before another try; 0 for no advice.
    pub retry_after_s: u32,
}

/// A place among received messages, for a reader who goes back in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// When the message there came, Unix milliseconds.
    pub received_ms: u64,
    /// Its place in the store; what is held is behind everything else.
    cursor: i64,
}

/// What is to be said of received messages as they stand, of those that came from the first of these times up to the second and are behind
/// a mark, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_inbox(
    tx: Tx<'_>,
    (since_ms, until_ms): (u64, u64),
    behind: Option<Mark>,
    limit: u32,
) -> Result<Vec<(Mark, AckRow)>, StoreError> {
    let sql = "SELECT received_ms, cursor, recipient, sender_agent, reply_route, msg_id, env_digest, read_ms IS NOT NULL AS is_read,
            stream_id IS NOT NULL AS has_file, given_back
        FROM inbox WHERE cursor IN (
            SELECT cursor FROM (SELECT cursor FROM inbox WHERE cursor >= ?5 AND cursor < ?3 AND received_ms BETWEEN ?1 AND ?2
                ORDER BY cursor DESC LIMIT ?4)
            UNION ALL
            SELECT cursor FROM (SELECT cursor FROM inbox WHERE cursor < min(?3, 0) AND received_ms BETWEEN ?1 AND ?2
                ORDER BY cursor DESC LIMIT ?4))
        ORDER BY cursor DESC LIMIT ?4";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let (before, first) = (behind.map_or(i64::MAX, |mark| mark.cursor), first_since(tx, since_ms)?);
    let bounds = params![int(since_ms), int(until_ms), before, limit, first];
    let rows = statement.query_map(bounds, |row| {
        let mark = Mark { received_ms: uint(row, "received_ms")?, cursor: row.get("cursor")? };
        let is_file_read = row.get("is_read")? && row.get("has_file")?;
        let (status, code) = match (row.get::<_, bool>("given_back")? && !is_file_read, row.get("is_read")?) {
            (true, _) => (STATUS_FAILED, Code::AgentMoved.number()),
            (false, true) => (STATUS_READ, 0),
            (false, false) => (STATUS_DELIVERED, 0),
        };
        let item = AckRow {
            id: 0,
            acker: id(row, "recipient", AgentId::from_bytes)?,
            to_agent: id(row, "sender_agent", AgentId::from_bytes)?,
            route: row.get::<_, Option<String>>("reply_route")?.and_then(|text| text.parse().ok()),
            msg_id: id(row, "msg_id", MessageId::from_bytes)?,
            env_digest: row.get("env_digest")?,
            status,
            code,
            retry_after_s: 0,
        };
        Ok((mark, item))
    })?;
    let mut said = Vec::new();
    for row in rows {
        let (mark, row): (Mark, AckRow) = row?;
        match row.status {
            STATUS_FAILED => said.extend(under_every_name(tx, row)?.into_iter().map(|row| (mark, row))),
            _ => said.push((mark, row)),
        }
    }
    Ok(said)
}

/// What takes back that a message was acknowledged, under every name under which it was: its sender goes by the one it has heard of.
///
/// # Errors
/// [`StoreError`].
pub fn under_every_name(tx: Tx<'_>, row: AckRow) -> Result<Vec<AckRow>, StoreError> {
    let names = inbox::names(tx, row.to_agent, row.msg_id, row.acker)?;
    let mut rows: Vec<_> = names.into_iter().map(|env_digest| AckRow { env_digest, ..row.clone() }).collect();
    rows.push(row);
    Ok(rows)
}

/// The key in `meta` under which stands what is still to be said again.
const OWED: &str = "acks_owed_ms";

/// Up to when what came is to be acknowledged again, Unix milliseconds.
///
/// # Errors
/// [`StoreError`].
pub fn owed(tx: Tx<'_>) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([OWED], |row| uint(row, "value")).optional()?)
}

/// Notes that what came up to this time is to be acknowledged again.
///
/// # Errors
/// [`StoreError`].
pub fn set_owed(tx: Tx<'_>, owed_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    tx.conn().prepare_cached(sql)?.execute(params![OWED, int(owed_ms)])?;
    Ok(())
}

/// Notes that everything was said again.
///
/// # Errors
/// [`StoreError`].
pub fn clear_owed(tx: Tx<'_>) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([OWED])?;
    Ok(())
}

/// Adds an item and says its id.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, item: &AckRow, now_ms: u64) -> Result<u64, StoreError> {
    let AckRow { id: _, acker, to_agent, route, msg_id, env_digest, status, code, retry_after_s } = item;
    // Its id is not that of one that has just left: what is deleted twice takes no other along.
    let sql =
        "INSERT INTO ack_outbox (acker, to_agent, route, msg_id, env_digest, status, code, retry_after_s, created_ms, id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, max(coalesce((SELECT max(id) FROM ack_outbox), 0) + 1, 1000 * ?9))";
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
