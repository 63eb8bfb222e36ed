//! What nodes can run.

use murmur_core::{
    id::{NodeId, WorkspaceId},
    slug::{AccountName, Scope},
};
use murmur_proto::v1;
use prost::Message as _;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{corrupt, fixed, lines, number},
};

/// A node that may come into question for an agent.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it has a session.
    pub online: bool,
    /// What it may name its agents.
    pub slug_scope: Vec<Scope>,
    /// What it said last; `None` before the first time.
    pub facts: Option<v1::ReportNodeRequest>,
    /// Agents that have a process there, or are to have one.
    pub running: u32,
}

impl Candidate {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        let facts = row.try_get::<Option<&[u8]>, _>("facts")?.filter(|facts| !facts.is_empty());
        Ok(Self {
            node_id: NodeId::from_bytes(fixed(row, "id")?),
            name: row.try_get("name")?,
            online: row.try_get("online")?,
            slug_scope: lines(row, "slug_scope")?,
            facts: facts.map(v1::ReportNodeRequest::decode).transpose().map_err(corrupt("facts"))?,
            running: u32::try_from(number(row, "running")?).map_err(corrupt("running"))?,
        })
    }
}

/// The approved nodes of an account.
///
/// # Errors
/// [`DbError`].
pub async fn candidates(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    account: &AccountName,
) -> Result<Vec<Candidate>, DbError> {
    let rows = sqlx::query(
        "SELECT n.id, n.name, n.slug_scope, n.session IS NOT NULL AS online, t.facts,
                (SELECT count(*) FROM agent_run r WHERE r.node_id = n.id AND r.ended_ms IS NULL AND r.interactive = FALSE
                    AND r.placed = TRUE AND r.phase <> 'sleeping') AS running
         FROM node n LEFT JOIN node_runtime t ON t.node_id = n.id
         WHERE n.workspace_id = $1 AND n.account = $2 AND n.state = 'approved' ORDER BY n.id",
    )
    .bind(workspace_id.to_vec())
    .bind(account.as_str())
    .fetch_all(conn)
    .await?;
    rows.iter().map(Candidate::from_row).collect()
}

/// What a node said last; `None` before the first time.
///
/// # Errors
/// [`DbError`].
pub async fn facts(conn: &mut Conn, node_id: NodeId) -> Result<Option<v1::ReportNodeRequest>, DbError> {
    let row = sqlx::query("SELECT facts FROM node_runtime WHERE node_id = $1")
        .bind(node_id.to_vec())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    v1::ReportNodeRequest::decode(row.try_get::<&[u8], _>("facts")?).map(Some).map_err(corrupt("facts"))
}

/// Remembers what a node can run.
///
/// # Errors
/// [`DbError`].
pub async fn report(conn: &mut Conn, node_id: NodeId, facts: &v1::ReportNodeRequest) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO node_runtime (node_id, facts, order_last) VALUES ($1, $2, 0)
         ON CONFLICT (node_id) DO UPDATE SET facts = excluded.facts",
    )
    .bind(node_id.to_vec())
    .bind(facts.encode_to_vec())
    .execute(conn)
    .await?;
    Ok(())
}
