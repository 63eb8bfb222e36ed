//! Ports of nodes that have a URL.

use murmur_core::id::{AgentId, NodeId, WorkspaceId};
use sqlx::sqlite::SqliteRow;

use super::{
    Conn, DbError,
    row::{corrupt, fixed, number},
};
use crate::links::LinkKey;

/// A tunnel as stored.
#[derive(Clone)]
pub struct Tunnel {
    /// Its link.
    pub key: LinkKey,
    /// Where its agent is.
    pub workspace_id: WorkspaceId,
    /// Whose host it leads to.
    pub node_id: NodeId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// Of the agent; another one has its own tunnels.
    pub incarnation: u32,
    /// On the node's loopback interface.
    pub port: u16,
}

impl Tunnel {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            key: LinkKey::from_bytes(fixed(row, "key")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            node_id: NodeId::from_bytes(fixed(row, "node_id")?),
            agent_id: AgentId::from_bytes(fixed(row, "agent_id")?),
            incarnation: u32::try_from(number(row, "incarnation")?).map_err(corrupt("incarnation"))?,
            port: u16::try_from(number(row, "port")?).map_err(corrupt("port"))?,
        })
    }
}

/// Adds a tunnel.
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, tunnel: &Tunnel) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO tunnel (key, workspace_id, node_id, agent_id, incarnation, port) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tunnel.key.as_bytes().to_vec())
    .bind(tunnel.workspace_id.to_vec())
    .bind(tunnel.node_id.to_vec())
    .bind(tunnel.agent_id.to_vec())
    .bind(i64::from(tunnel.incarnation))
    .bind(i64::from(tunnel.port))
    .execute(conn)
    .await?;
    Ok(())
}

/// The tunnels of an agent's incarnation.
///
/// # Errors
/// [`DbError`].
pub async fn of_agent(conn: &mut Conn, agent_id: AgentId, incarnation: u32) -> Result<Vec<Tunnel>, DbError> {
    let rows = sqlx::query("SELECT * FROM tunnel WHERE agent_id = $1 AND incarnation = $2")
        .bind(agent_id.to_vec())
        .bind(i64::from(incarnation))
        .fetch_all(conn)
        .await?;
    rows.iter().map(Tunnel::from_row).collect()
}

/// The tunnel of a link while its agent lives. The key is the credential, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn live(conn: &mut Conn, key: LinkKey) -> Result<Option<Tunnel>, DbError> {
    let row = sqlx::query(
        "SELECT t.* FROM tunnel t JOIN agent_run r ON r.agent_id = t.agent_id
         WHERE t.key = $1 AND r.ended_ms IS NULL AND r.incarnation = t.incarnation",
    )
    .bind(key.as_bytes().to_vec())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(Tunnel::from_row).transpose()
}

/// Forgets the tunnels of agents that have ended or were started anew; says how many.
///
/// # Errors
/// [`DbError`].
pub async fn delete_dead(conn: &mut Conn) -> Result<u64, DbError> {
    let done = sqlx::query(
        "DELETE FROM tunnel WHERE NOT EXISTS (
             SELECT 1 FROM agent_run r
             WHERE r.agent_id = tunnel.agent_id AND r.ended_ms IS NULL AND r.incarnation = tunnel.incarnation)",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Whether there are tunnels of agents that have ended or were started anew.
///
/// # Errors
/// [`DbError`].
pub async fn has_dead(conn: &mut Conn) -> Result<bool, DbError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM tunnel t LEFT JOIN agent_run r ON r.agent_id = t.agent_id AND r.incarnation = t.incarnation
         WHERE r.agent_id IS NULL OR r.ended_ms IS NOT NULL LIMIT 1",
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}
