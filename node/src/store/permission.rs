//! Tool calls that wait for somebody's approval, and how they were answered.

use murmur_core::{
    id::{AgentId, MessageId},
    slug::Slug,
};
use rusqlite::{Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, text, uint, uint_option},
};
use crate::events::Answer;

/// How long an answered or forgotten request is kept.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;

/// A request to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPermission {
    /// Five letters.
    pub request_id: String,
    /// Who asks.
    pub agent: AgentId,
    /// Its slug.
    pub slug: Slug,
    /// Which run of the agent's program asks.
    pub instance: String,
    /// The tool.
    pub tool_name: String,
    /// What the call is to do.
    pub description: String,
    /// Its arguments.
    pub input_preview: String,
    /// How long it is open, milliseconds.
    pub life_ms: u64,
}

/// A request as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionRow {
    /// Names it on this node.
    pub number: u64,
    /// Five letters.
    pub request_id: String,
    /// Who asks.
    pub agent: AgentId,
    /// Its slug.
    pub slug: Slug,
    /// The tool.
    pub tool_name: String,
    /// What the call is to do.
    pub description: String,
    /// Its arguments.
    pub input_preview: String,
    /// When it was asked, Unix milliseconds.
    pub asked_ms: u64,
    /// Until when it is open.
    pub expires_ms: u64,
    /// The answer.
    pub allowed: Option<bool>,
    /// Who gave it.
    pub answered_by: String,
    /// When.
    pub answered_ms: Option<u64>,
    /// When the program that asked was found to be gone.
    pub withdrawn_ms: Option<u64>,
}

impl PermissionRow {
    /// Whether an answer would count.
    #[must_use]
    pub const fn is_open(&self, now_ms: u64) -> bool {
        self.allowed.is_none() && self.withdrawn_ms.is_none() && now_ms < self.expires_ms
    }
}

/// Stores a request and forgets old ones. Returns it, and whether it was new.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, new: &NewPermission, now_ms: u64) -> Result<(PermissionRow, bool), StoreError> {
    let NewPermission { request_id, agent, slug, instance, tool_name, description, input_preview, life_ms } = new;
    let sql = "DELETE FROM permission WHERE asked_ms < ?1";
    tx.conn().prepare_cached(sql)?.execute([int(now_ms.saturating_sub(KEPT_MS))])?;
    let sql = "INSERT INTO permission
        (request_id, agent_id, slug, instance, tool_name, description, input_preview, asked_ms, expires_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";
    let expires_ms = int(now_ms.saturating_add(*life_ms));
    let values = params![
        request_id,
        agent.as_bytes(),
        slug.as_str(),
        instance,
        tool_name,
        description,
        input_preview,
        int(now_ms),
        expires_ms
    ];
    let is_new = tx.conn().prepare_cached(sql)?.execute(values)? == 1;
    let sql = "SELECT * FROM permission WHERE agent_id = ?1 AND instance = ?2 AND request_id = ?3";
    let row = tx.conn().prepare_cached(sql)?.query_row(params![agent.as_bytes(), instance, request_id], read)?;
    Ok((row, is_new))
}

/// Every request of an id that is kept, the newest first.
///
/// # Errors
/// [`StoreError`].
pub fn named(tx: Tx<'_>, request_id: &str) -> Result<Vec<PermissionRow>, StoreError> {
    let sql = "SELECT * FROM permission WHERE request_id = ?1 ORDER BY number DESC";
    let mut statement = tx.conn().prepare_cached(sql)?;
    Ok(statement.query_map([request_id], read)?.collect::<Result<_, _>>()?)
}

/// One request.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, number: u64) -> Result<PermissionRow, StoreError> {
    let sql = "SELECT * FROM permission WHERE number = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([int(number)], read)?)
}

/// Requests that are kept, oldest first: open ones, or all.
///
/// # Errors
/// [`StoreError`].
pub fn list(tx: Tx<'_>, all: bool, now_ms: u64) -> Result<Vec<PermissionRow>, StoreError> {
    let mut statement = tx.conn().prepare_cached("SELECT * FROM permission ORDER BY number")?;
    let rows: Vec<PermissionRow> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| all || row.is_open(now_ms)).collect())
}

/// Answers a request that is open. Returns whether this answer is the one that counts.
///
/// # Errors
/// [`StoreError`].
pub fn answer(tx: Tx<'_>, number: u64, allowed: bool, by: &str, now_ms: u64) -> Result<bool, StoreError> {
    let sql = "UPDATE permission SET allowed = ?2, answered_by = ?3, answered_ms = ?4
        WHERE number = ?1 AND answered_ms IS NULL AND withdrawn_ms IS NULL AND expires_ms > ?4";
    Ok(tx.conn().prepare_cached(sql)?.execute(params![int(number), allowed, by, int(now_ms)])? == 1)
}

/// Requests that nobody answered and whose time passed after one moment and not after another, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn expired(tx: Tx<'_>, after_ms: u64, until_ms: u64) -> Result<Vec<PermissionRow>, StoreError> {
    let sql = "SELECT * FROM permission WHERE expires_ms > ?1 AND expires_ms <= ?2 AND answered_ms IS NULL AND withdrawn_ms IS NULL
        ORDER BY expires_ms";
    let mut statement = tx.conn().prepare_cached(sql)?;
    Ok(statement.query_map(params![int(after_ms), int(until_ms)], read)?.collect::<Result<_, _>>()?)
}

/// When the time of an open request passes next; `None` while there is none.
///
/// # Errors
/// [`StoreError`].
pub fn next_expiry(tx: Tx<'_>, after_ms: u64) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT min(expires_ms) AS at_ms FROM permission WHERE expires_ms > ?1 AND answered_ms IS NULL AND withdrawn_ms IS NULL";
    Ok(tx.conn().prepare_cached(sql)?.query_row([int(after_ms)], |row| uint_option(row, "at_ms"))?)
}

/// Requests that take no answer any more, and stand with buttons in some message all the same.
///
/// # Errors
/// [`StoreError`].
pub fn unclosed(tx: Tx<'_>, now_ms: u64) -> Result<Vec<PermissionRow>, StoreError> {
    let sql =
        "SELECT * FROM permission WHERE number IN (SELECT number FROM permission_prompt WHERE message_id IS NOT NULL)
        ORDER BY number";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows: Vec<PermissionRow> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| !row.is_open(now_ms)).collect())
}

/// Withdraws what another run of an agent's program asked. Returns what was open.
///
/// # Errors
/// [`StoreError`].
pub fn withdraw_others(
    tx: Tx<'_>,
    agent: AgentId,
    instance: &str,
    now_ms: u64,
) -> Result<Vec<PermissionRow>, StoreError> {
    let sql = "UPDATE permission SET withdrawn_ms = ?3
        WHERE agent_id = ?1 AND instance != ?2 AND answered_ms IS NULL AND withdrawn_ms IS NULL RETURNING *";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), instance, int(now_ms)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Answers that were not yet written to the program that asked.
///
/// # Errors
/// [`StoreError`].
pub fn untold(tx: Tx<'_>, agent: AgentId, instance: &str) -> Result<Vec<(u64, Answer)>, StoreError> {
    let sql = "SELECT * FROM permission
        WHERE agent_id = ?1 AND instance = ?2 AND answered_ms IS NOT NULL AND told_ms IS NULL ORDER BY answered_ms";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), instance], read)?;
    let told = |row: PermissionRow| {
        let answer = Answer { request_id: row.request_id, allow: row.allowed == Some(true), by: row.answered_by };
        (row.number, answer)
    };
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().map(told).collect())
}

/// Notes that answers were written to the program.
///
/// # Errors
/// [`StoreError`].
pub fn told(tx: Tx<'_>, agent: AgentId, request_ids: &[String], now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE permission SET told_ms = ?3
        WHERE agent_id = ?1 AND request_id = ?2 AND answered_ms IS NOT NULL AND told_ms IS NULL";
    let mut statement = tx.conn().prepare_cached(sql)?;
    for request_id in request_ids {
        statement.execute(params![agent.as_bytes(), request_id, int(now_ms)])?;
    }
    Ok(())
}

/// Notes that an agent of another host was asked by a message.
///
/// # Errors
/// [`StoreError`].
pub fn relayed(tx: Tx<'_>, number: u64, msg_id: MessageId) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO permission_relay (msg_id, number) VALUES (?1, ?2)";
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), int(number)])?;
    Ok(())
}

/// Open requests that were asked by messages, with the messages.
///
/// # Errors
/// [`StoreError`].
pub fn open_relays(tx: Tx<'_>, now_ms: u64) -> Result<Vec<(PermissionRow, MessageId)>, StoreError> {
    let sql = "SELECT permission.*, permission_relay.msg_id FROM permission JOIN permission_relay USING (number)";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((read(row)?, id(row, "msg_id", MessageId::from_bytes)?)))?;
    let rows: Vec<(PermissionRow, MessageId)> = rows.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|(row, _)| row.is_open(now_ms)).collect())
}

fn read(row: &Row<'_>) -> rusqlite::Result<PermissionRow> {
    Ok(PermissionRow {
        number: uint(row, "number")?,
        request_id: row.get("request_id")?,
        agent: id(row, "agent_id", AgentId::from_bytes)?,
        slug: text(row, "slug")?,
        tool_name: row.get("tool_name")?,
        description: row.get("description")?,
        input_preview: row.get("input_preview")?,
        asked_ms: uint(row, "asked_ms")?,
        expires_ms: uint(row, "expires_ms")?,
        allowed: row.get("allowed")?,
        answered_by: row.get::<_, Option<String>>("answered_by")?.unwrap_or_default(),
        answered_ms: uint_option(row, "answered_ms")?,
        withdrawn_ms: uint_option(row, "withdrawn_ms")?,
    })
}
