//! Requests that wait for a reply (PROTOCOL §5.8).

use murmur_core::id::{AgentId, MessageId};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, uint, uint_option},
};

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// The request.
    pub msg_id: MessageId,
    /// Who asked.
    pub requester: AgentId,
    /// Who was asked, the only one whose reply counts.
    pub peer: AgentId,
    /// Until when the requester said it would wait.
    pub deadline_ms: u64,
    /// Where the reply stands in the requester's inbox, once it came.
    pub reply_cursor: Option<u64>,
}

/// Adds a request.
///
/// # Errors
/// [`StoreError`].
pub fn insert(
    tx: Tx<'_>,
    msg_id: MessageId,
    requester: AgentId,
    peer: AgentId,
    deadline_ms: u64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO pending_request (msg_id, requester, peer, deadline_ms) VALUES (?1, ?2, ?3, ?4)";
    let values = params![msg_id.as_bytes(), requester.as_bytes(), peer.as_bytes(), int(deadline_ms)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// How many requests of a pair are unanswered and within their time.
///
/// # Errors
/// [`StoreError`].
pub fn open(tx: Tx<'_>, requester: AgentId, peer: AgentId, now_ms: u64) -> Result<usize, StoreError> {
    let sql = "SELECT count(*) FROM pending_request
        WHERE requester = ?1 AND peer = ?2 AND reply_cursor IS NULL AND deadline_ms > ?3";
    let key = params![requester.as_bytes(), peer.as_bytes(), int(now_ms)];
    let count = tx.conn().prepare_cached(sql)?.query_row(key, |row| row.get::<_, i64>(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// One request.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, msg_id: MessageId) -> Result<Option<RequestRow>, StoreError> {
    let sql = "SELECT * FROM pending_request WHERE msg_id = ?1";
    let read = |row: &Row<'_>| {
        Ok(RequestRow {
            msg_id: id(row, "msg_id", MessageId::from_bytes)?,
            requester: id(row, "requester", AgentId::from_bytes)?,
            peer: id(row, "peer", AgentId::from_bytes)?,
            deadline_ms: uint(row, "deadline_ms")?,
            reply_cursor: uint_option(row, "reply_cursor")?,
        })
    };
    Ok(tx.conn().prepare_cached(sql)?.query_row([msg_id.as_bytes()], read).optional()?)
}

/// Completes the request that a reply answers, if the right agent answers it first. Returns whether it did.
///
/// # Errors
/// [`StoreError`].
pub fn complete(
    tx: Tx<'_>,
    request: MessageId,
    requester: AgentId,
    peer: AgentId,
    reply_cursor: u64,
) -> Result<bool, StoreError> {
    let sql = "UPDATE pending_request SET reply_cursor = ?4
        WHERE msg_id = ?1 AND requester = ?2 AND peer = ?3 AND reply_cursor IS NULL";
    let values = params![request.as_bytes(), requester.as_bytes(), peer.as_bytes(), int(reply_cursor)];
    Ok(tx.conn().prepare_cached(sql)?.execute(values)? == 1)
}
