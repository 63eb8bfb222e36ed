//! Events for the people of an account, told by its nodes and standing in no agent's log.

use murmur_core::{
    event::{Draft, Origin},
    id::{AgentId, NodeId, WorkspaceId},
    slug::Slug,
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    event::{About, Event, next_position},
    row::{corrupt, fixed, number, signed},
};

/// Of whom an event tells.
#[derive(Debug, Clone, Copy)]
pub struct Whom<'a> {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug.
    pub slug: &'a Slug,
}

/// Puts an event of the control plane's own at the end of a node's order.
///
/// # Errors
/// [`DbError`].
pub async fn append(conn: &mut Conn, node_id: NodeId, whom: Whom<'_>, draft: &Draft) -> Result<(), DbError> {
    let position = next_position(conn).await?;
    sqlx::query(
        "INSERT INTO node_event (node_id, node_position, workspace_id, agent_id, slug, event_id, kind, time_ms, attributes, text)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(node_id.to_vec())
    .bind(position)
    .bind(whom.workspace_id.to_vec())
    .bind(whom.agent_id.to_vec())
    .bind(whom.slug.to_string())
    .bind(&draft.event_id)
    .bind(draft.kind.as_str())
    .bind(signed(draft.time_ms))
    .bind(serde_json::to_string(&draft.attributes).map_err(corrupt("attributes"))?)
    .bind(&draft.text)
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops what happened before a moment.
///
/// # Errors
/// [`DbError`].
pub async fn forget(conn: &mut Conn, before_ms: u64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM node_event WHERE time_ms < $1").bind(signed(before_ms)).execute(conn).await?;
    Ok(())
}

/// What a node is to be told behind a position, in order.
///
/// # Errors
/// [`DbError`].
pub async fn of_node(conn: &mut Conn, node_id: NodeId, after: u64, limit: u32) -> Result<Vec<Event>, DbError> {
    let rows = sqlx::query(
        "SELECT * FROM node_event WHERE node_id = $1 AND node_position > $2 ORDER BY node_position LIMIT $3",
    )
    .bind(node_id.to_vec())
    .bind(signed(after))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &SqliteRow) -> Result<Event, DbError> {
    let attributes = row.try_get::<&str, _>("attributes")?;
    let (position, time_ms) = (number(row, "node_position")?, number(row, "time_ms")?);
    Ok(Event {
        agent_id: AgentId::from_bytes(fixed(row, "agent_id")?),
        workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
        slug: row.try_get("slug")?,
        seq: 0,
        position,
        node_position: Some(position),
        event_id: row.try_get("event_id")?,
        kind: row.try_get::<&str, _>("kind")?.parse().map_err(corrupt("kind"))?,
        time_ms,
        receive_ms: time_ms,
        origin: Origin::Murmur.to_string(),
        untrusted: false,
        attributes: serde_json::from_str(attributes).map_err(corrupt("attributes"))?,
        text: row.try_get("text")?,
        about: About::default(),
        superseded: false,
        withheld: false,
        queued: false,
    })
}
