//! Agents' lives, as far as those need them who write about an agent: is it there, whose is it, may anything be begun.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
    queue::DequeueStrategy,
    slug::Slug,
};
use murmur_proto::v1;
use prost::Message as _;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{corrupt, fixed, fixed_or_null, number, parsed},
};

/// How an agent stands.
#[derive(Debug, Clone)]
pub struct Life {
    /// The agent.
    pub id: AgentId,
    /// Absolute.
    pub slug: Slug,
    /// Where it runs; `None` until a node is chosen.
    pub node_id: Option<NodeId>,
    /// Where its life stands.
    pub phase: Phase,
    /// Which start of it this is.
    pub incarnation: u32,
    /// How much a turn takes.
    pub dequeue: DequeueStrategy,
}

impl Life {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        let spec = v1::AgentSpec::decode(row.try_get::<&[u8], _>("spec")?).map_err(corrupt("spec"))?;
        Ok(Self {
            id: AgentId::from_bytes(fixed(row, "agent_id")?),
            slug: parsed(row, "slug")?,
            node_id: fixed_or_null(row, "node_id")?.map(NodeId::from_bytes),
            phase: parsed(row, "phase")?,
            incarnation: u32::try_from(number(row, "incarnation")?).map_err(corrupt("incarnation"))?,
            dequeue: match spec.dequeue_strategy() {
                v1::DequeueStrategy::Unspecified | v1::DequeueStrategy::Auto => DequeueStrategy::Auto,
                v1::DequeueStrategy::All => DequeueStrategy::All,
                v1::DequeueStrategy::One => DequeueStrategy::One,
                v1::DequeueStrategy::Five => DequeueStrategy::Five,
            },
        })
    }
}

/// The agent that holds a slug; with `ended`, the one that held it last and has ended.
///
/// # Errors
/// [`DbError`].
pub async fn by_slug(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    slug: &Slug,
    ended: bool,
) -> Result<Option<Life>, DbError> {
    let row = sqlx::query(
        "SELECT agent_id, slug, node_id, phase, incarnation, spec FROM agent_run
         WHERE workspace_id = $1 AND slug = $2 AND (ended_ms IS NOT NULL) = $3
         ORDER BY ended_ms DESC, created_ms DESC LIMIT 1",
    )
    .bind(workspace_id.to_vec())
    .bind(slug.to_string())
    .bind(ended)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(Life::from_row).transpose()
}

/// The agent of this id, whether it lives or not.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, workspace_id: WorkspaceId, id: AgentId) -> Result<Option<Life>, DbError> {
    let row = sqlx::query(
        "SELECT agent_id, slug, node_id, phase, incarnation, spec FROM agent_run
         WHERE workspace_id = $1 AND agent_id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(Life::from_row).transpose()
}
