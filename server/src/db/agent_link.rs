//! Links to pages about agents.

use murmur_core::id::{AgentId, WorkspaceId};
use sqlx::Row as _;

use super::{
    Conn, DbError,
    row::{corrupt, signed},
};
use crate::links::LinkKey;

/// Adds a link, and forgets those that have expired.
///
/// # Errors
/// [`DbError`].
pub async fn insert(
    conn: &mut Conn,
    key: LinkKey,
    (workspace_id, agent_id): (WorkspaceId, AgentId),
    (now_ms, expire_ms): (u64, u64),
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM agent_link WHERE expire_ms <= $1").bind(signed(now_ms)).execute(&mut *conn).await?;
    sqlx::query("INSERT INTO agent_link (key, workspace_id, agent_id, expire_ms) VALUES ($1, $2, $3, $4)")
        .bind(key.as_bytes().to_vec())
        .bind(workspace_id.to_vec())
        .bind(agent_id.to_vec())
        .bind(signed(expire_ms))
        .execute(conn)
        .await?;
    Ok(())
}

/// Which agent a link shows; `None` once it has expired. The key is the credential, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn find(conn: &mut Conn, key: LinkKey, now_ms: u64) -> Result<Option<(WorkspaceId, AgentId)>, DbError> {
    let row = sqlx::query("SELECT workspace_id, agent_id FROM agent_link WHERE key = $1 AND expire_ms > $2")
        .bind(key.as_bytes().to_vec())
        .bind(signed(now_ms))
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id = |column: &'static str| -> Result<[u8; 16], DbError> {
        row.try_get::<Vec<u8>, _>(column)?.try_into().map_err(corrupt(column))
    };
    Ok(Some((WorkspaceId::from_bytes(id("workspace_id")?), AgentId::from_bytes(id("agent_id")?))))
}
