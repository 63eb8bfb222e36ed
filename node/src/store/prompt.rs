//! Permission requests that people are asked by notification channels, and the buttons by which they answer.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{int, uint},
};

/// SHA-256 of what a button carries.
pub type ButtonHash = [u8; 32];

/// A request as a channel asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptRow {
    /// The channel's name.
    pub channel: String,
    /// The request.
    pub number: u64,
    /// The service's number of the message that asks; `None` before it was sent, and when it needs no change any more.
    pub message_id: Option<i64>,
}

/// Keeps the buttons of a request, before they are sent. Those of an earlier try are good no more.
///
/// # Errors
/// [`StoreError`].
pub fn put(tx: Tx<'_>, channel: &str, number: u64, allow: &ButtonHash, deny: &ButtonHash) -> Result<(), StoreError> {
    let sql =
        "INSERT OR REPLACE INTO permission_prompt (channel, number, allow_hash, deny_hash) VALUES (?1, ?2, ?3, ?4)";
    tx.conn().prepare_cached(sql)?.execute(params![channel, int(number), allow, deny])?;
    Ok(())
}

/// Notes which message asks.
///
/// # Errors
/// [`StoreError`].
pub fn sent(tx: Tx<'_>, channel: &str, number: u64, message_id: i64) -> Result<(), StoreError> {
    let sql = "UPDATE permission_prompt SET message_id = ?3 WHERE channel = ?1 AND number = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![channel, int(number), message_id])?;
    Ok(())
}

/// Notes that the message says what became of the request, or cannot any more: it is not to be changed again.
///
/// # Errors
/// [`StoreError`].
pub fn closed(tx: Tx<'_>, channel: &str, number: u64) -> Result<(), StoreError> {
    let sql = "UPDATE permission_prompt SET message_id = NULL WHERE channel = ?1 AND number = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![channel, int(number)])?;
    Ok(())
}

/// How a channel asks a request.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, channel: &str, number: u64) -> Result<Option<PromptRow>, StoreError> {
    let sql = "SELECT * FROM permission_prompt WHERE channel = ?1 AND number = ?2";
    Ok(tx.conn().prepare_cached(sql)?.query_row(params![channel, int(number)], read).optional()?)
}

/// What a button is for, and whether it allows.
///
/// # Errors
/// [`StoreError`].
pub fn of_button(tx: Tx<'_>, hash: &ButtonHash) -> Result<Option<(PromptRow, bool)>, StoreError> {
    let sql = "SELECT *, allow_hash = ?1 AS allows FROM permission_prompt WHERE allow_hash = ?1 OR deny_hash = ?1";
    let read = |row: &Row<'_>| Ok((read(row)?, row.get("allows")?));
    Ok(tx.conn().prepare_cached(sql)?.query_row([hash], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<PromptRow> {
    Ok(PromptRow { channel: row.get("channel")?, number: uint(row, "number")?, message_id: row.get("message_id")? })
}
