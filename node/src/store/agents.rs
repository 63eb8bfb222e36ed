//! The agents that live on this node, and the digests of their tokens.

use murmur_core::{
    id::{AgentId, TokenId},
    slug::Slug,
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, text, uint, uint_option},
};

/// An agent of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug.
    pub slug: Slug,
    /// `murmur.v1.AgentKind` by number.
    pub kind: i32,
    /// What it is for, in its owner's words.
    pub description: String,
    /// The group it belongs to; empty for none.
    pub group: String,
    /// When it was registered.
    pub created_ms: u64,
    /// When it was deregistered, if it was.
    pub deregistered_ms: Option<u64>,
}

/// Adds an agent, or updates what may change of one that is known.
///
/// # Errors
/// [`StoreError`]; a live agent of the same slug is one, because the directory rules that out.
pub fn save(tx: Tx<'_>, agent: &AgentRow) -> Result<(), StoreError> {
    let AgentRow { agent_id, slug, kind, description, group, created_ms, deregistered_ms } = agent;
    let sql = "INSERT INTO local_agent (agent_id, slug, kind, description, group_name, created_ms, deregistered_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (agent_id) DO UPDATE SET slug = ?2, kind = ?3, description = ?4, group_name = ?5, deregistered_ms = ?7";
    tx.conn().prepare_cached(sql)?.execute(params![
        agent_id.as_bytes(),
        slug.as_str(),
        kind,
        description,
        group,
        int(*created_ms),
        deregistered_ms.map(int)
    ])?;
    Ok(())
}

/// Marks an agent as deregistered and revokes its tokens. Returns whether it was live.
///
/// # Errors
/// [`StoreError`].
pub fn deregister(tx: Tx<'_>, agent: AgentId, now_ms: u64) -> Result<bool, StoreError> {
    let tokens = "UPDATE agent_token SET revoked_ms = ?2 WHERE agent_id = ?1 AND revoked_ms IS NULL";
    tx.conn().prepare_cached(tokens)?.execute(params![agent.as_bytes(), int(now_ms)])?;
    let sql = "UPDATE local_agent SET deregistered_ms = ?2 WHERE agent_id = ?1 AND deregistered_ms IS NULL";
    Ok(tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), int(now_ms)])? == 1)
}

/// Every live agent of this node.
///
/// # Errors
/// [`StoreError`].
pub fn live(tx: Tx<'_>) -> Result<Vec<AgentRow>, StoreError> {
    let sql = "SELECT * FROM local_agent WHERE deregistered_ms IS NULL ORDER BY slug";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([], agent_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One agent, live or not.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, agent: AgentId) -> Result<Option<AgentRow>, StoreError> {
    let sql = "SELECT * FROM local_agent WHERE agent_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], agent_row).optional()?)
}

/// The live agent that holds a slug.
///
/// # Errors
/// [`StoreError`].
pub fn by_slug(tx: Tx<'_>, slug: &Slug) -> Result<Option<AgentRow>, StoreError> {
    let sql = "SELECT * FROM local_agent WHERE slug = ?1 AND deregistered_ms IS NULL";
    Ok(tx.conn().prepare_cached(sql)?.query_row([slug.as_str()], agent_row).optional()?)
}

/// The agent that held a slug last and has ended: its unread messages stay readable.
///
/// # Errors
/// [`StoreError`].
pub fn ended_by_slug(tx: Tx<'_>, slug: &Slug) -> Result<Option<AgentRow>, StoreError> {
    let sql = "SELECT * FROM local_agent WHERE slug = ?1 AND deregistered_ms IS NOT NULL
        ORDER BY deregistered_ms DESC LIMIT 1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([slug.as_str()], agent_row).optional()?)
}

/// Unread messages in an agent's inbox.
///
/// # Errors
/// [`StoreError`].
pub fn unread(tx: Tx<'_>, agent: AgentId) -> Result<u64, StoreError> {
    let sql = "SELECT unread FROM local_agent WHERE agent_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], |row| uint(row, "unread")).optional()?.unwrap_or(0))
}

/// Agents, live or not, with unread messages, held ones too.
///
/// # Errors
/// [`StoreError`].
pub fn with_unread(tx: Tx<'_>) -> Result<Vec<AgentId>, StoreError> {
    let mut statement = tx.conn().prepare_cached("SELECT DISTINCT recipient FROM inbox WHERE read_ms IS NULL")?;
    let rows = statement.query_map([], |row| id(row, "recipient", AgentId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Remembers a token by the digest of its secret.
///
/// # Errors
/// [`StoreError`].
pub fn save_token(tx: Tx<'_>, token: TokenId, hash: &[u8; 32], agent: AgentId, now_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO agent_token (token_id, hash, agent_id, created_ms) VALUES (?1, ?2, ?3, ?4)";
    tx.conn().prepare_cached(sql)?.execute(params![token.as_bytes(), hash, agent.as_bytes(), int(now_ms)])?;
    Ok(())
}

/// Revokes one token, and says whose it was and whether this did it; `None` when there is none, or it is of another than `of`.
///
/// # Errors
/// [`StoreError`].
pub fn revoke_token(
    tx: Tx<'_>,
    token: TokenId,
    of: Option<AgentId>,
    now_ms: u64,
) -> Result<Option<(AgentRow, bool)>, StoreError> {
    let sql = "SELECT local_agent.* FROM agent_token JOIN local_agent USING (agent_id) WHERE token_id = ?1";
    let found = tx.conn().prepare_cached(sql)?.query_row([token.as_bytes()], agent_row).optional()?;
    let Some(agent) = found.filter(|agent| of.is_none_or(|of| of == agent.agent_id)) else { return Ok(None) };
    let sql = "UPDATE agent_token SET revoked_ms = ?2 WHERE token_id = ?1 AND revoked_ms IS NULL";
    let revoked = tx.conn().prepare_cached(sql)?.execute(params![token.as_bytes(), int(now_ms)])? == 1;
    Ok(Some((agent, revoked)))
}

/// The digest and agent of a token that is neither revoked nor of a deregistered agent. The caller compares the digest.
///
/// # Errors
/// [`StoreError`].
pub fn token(tx: Tx<'_>, token: TokenId) -> Result<Option<([u8; 32], AgentRow)>, StoreError> {
    let sql = "SELECT agent_token.hash, local_agent.* FROM agent_token JOIN local_agent USING (agent_id)
        WHERE token_id = ?1 AND revoked_ms IS NULL AND deregistered_ms IS NULL";
    let read = |row: &Row<'_>| Ok((row.get("hash")?, agent_row(row)?));
    Ok(tx.conn().prepare_cached(sql)?.query_row([token.as_bytes()], read).optional()?)
}

fn agent_row(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        agent_id: id(row, "agent_id", AgentId::from_bytes)?,
        slug: text(row, "slug")?,
        kind: row.get("kind")?,
        description: row.get("description")?,
        group: row.get("group_name")?,
        created_ms: uint(row, "created_ms")?,
        deregistered_ms: uint_option(row, "deregistered_ms")?,
    })
}
