//! Agents. Ended ones stay as rows, so that a watcher who was away learns of the end.

use std::str::FromStr;

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    slug::Slug,
};

use super::{
    Conn, DbError, Row, Source,
    agent_key::AgentKeys,
    row::{fixed, fixed_or_null, flag, number, number_or_null, parsed, signed, text},
};

/// What keeps an agent alive (DESIGN §8 point 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session that a person or program attached by itself.
    Interactive,
    /// A process that its node started.
    Spawned,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Spawned => "spawned",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Interactive, Self::Spawned].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// An agent with what its node adds to it.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Immutable.
    pub id: AgentId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Absolute.
    pub slug: Slug,
    /// Holder of its private keys.
    pub node_id: NodeId,
    /// What keeps it alive.
    pub kind: Kind,
    /// For people and models.
    pub description: String,
    /// A label to find it by.
    pub group: String,
    /// Whether a session is attached.
    pub attached: bool,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; `None` while it lives.
    pub ended_ms: Option<u64>,
    /// Of its latest change.
    pub revision: u64,
    /// Once its node published them.
    pub keys: Option<AgentKeys>,
    /// The node's host name.
    pub host: String,
    /// Where the node takes deliveries; empty until it has a route.
    pub route: String,
    /// Whether the node is connected.
    pub node_online: bool,
    /// The node that it moved away from last, and when, Unix milliseconds.
    pub former: Option<(NodeId, u64)>,
}

impl Agent {
    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        let former_node = fixed_or_null(row, "former_node_id")?.map(NodeId::from_bytes);
        let has_keys = row.int("key_serial")?.is_some();
        Ok(Self {
            id: AgentId::from_bytes(fixed(row, "id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            slug: parsed(row, "slug")?,
            node_id: NodeId::from_bytes(fixed(row, "node_id")?),
            kind: parsed(row, "kind")?,
            description: text(row, "description")?.to_owned(),
            group: text(row, "group_name")?.to_owned(),
            attached: flag(row, "attached")?,
            created_ms: number(row, "created_ms")?,
            ended_ms: number_or_null(row, "ended_ms")?,
            revision: number(row, "revision")?,
            keys: has_keys.then(|| AgentKeys::from_row(row)).transpose()?,
            host: text(row, "host")?.to_owned(),
            route: text(row, "route")?.to_owned(),
            node_online: flag(row, "node_online")?,
            former: former_node.zip(number_or_null(row, "moved_ms")?),
        })
    }
}

/// An agent to add.
#[derive(Debug)]
pub struct NewAgent<'a> {
    /// Its id.
    pub id: AgentId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Absolute.
    pub slug: &'a Slug,
    /// Holder of its private keys.
    pub node_id: NodeId,
    /// What keeps it alive.
    pub kind: Kind,
    /// For people and models.
    pub description: &'a str,
    /// A label to find it by.
    pub group: &'a str,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Of this change.
    pub revision: u64,
}

/// Adds an agent; a slug that a live one holds is [`DbError::is_duplicate`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, agent: &NewAgent<'_>) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO agent (id, workspace_id, slug, node_id, kind, description, group_name, attached, created_ms, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, FALSE, $8, $9)",
    )
    .bind(agent.id.to_vec())
    .bind(agent.workspace_id.to_vec())
    .bind(agent.slug.to_string())
    .bind(agent.node_id.to_vec())
    .bind(agent.kind.as_str())
    .bind(agent.description)
    .bind(agent.group)
    .bind(signed(agent.created_ms))
    .bind(signed(agent.revision))
    .execute(conn)
    .await?;
    Ok(())
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT a.*, k.chain, k.prekey, k.certificate_fp, k.serial AS key_serial, k.prekey_seq,
                    n.name AS host, n.route, n.session IS NOT NULL AS node_online
             FROM agent a JOIN node n ON n.id = a.node_id LEFT JOIN agent_key k ON k.agent_id = a.id
             WHERE a.workspace_id = $1 AND ",
            $rest
        )
    };
}

/// The live agent of this id.
///
/// # Errors
/// [`DbError`].
pub async fn live(conn: &mut impl Source, workspace_id: WorkspaceId, id: AgentId) -> Result<Option<Agent>, DbError> {
    let sql = select!("a.id = $2 AND a.ended_ms IS NULL");
    conn.row(sql, vec![workspace_id.to_vec().into(), id.to_vec().into()], Agent::from_row).await
}

/// The live agent of this slug.
///
/// # Errors
/// [`DbError`].
pub async fn live_by_slug(conn: &mut Conn, workspace_id: WorkspaceId, slug: &Slug) -> Result<Option<Agent>, DbError> {
    let row = sqlx::query(select!("a.slug = $2 AND a.ended_ms IS NULL"))
        .bind(workspace_id.to_vec())
        .bind(slug.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| Agent::from_row(row)).transpose()
}

/// Live agents in order of their slugs, behind `after`.
///
/// # Errors
/// [`DbError`].
pub async fn page(conn: &mut Conn, workspace_id: WorkspaceId, after: &str, limit: u32) -> Result<Vec<Agent>, DbError> {
    let rows = sqlx::query(select!("a.slug > $2 AND a.ended_ms IS NULL ORDER BY a.slug LIMIT $3"))
        .bind(workspace_id.to_vec())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Agent::from_row(row)).collect()
}

/// Agents, ended ones too, that changed after a revision, in the order of their changes.
///
/// # Errors
/// [`DbError`].
pub async fn changed_since(conn: &mut Conn, workspace_id: WorkspaceId, revision: u64) -> Result<Vec<Agent>, DbError> {
    let rows = sqlx::query(select!("a.revision > $2 ORDER BY a.revision"))
        .bind(workspace_id.to_vec())
        .bind(signed(revision))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Agent::from_row(row)).collect()
}

/// The live agents of a node.
///
/// # Errors
/// [`DbError`].
pub async fn live_of_node(conn: &mut Conn, workspace_id: WorkspaceId, node_id: NodeId) -> Result<Vec<Agent>, DbError> {
    let rows = sqlx::query(select!("a.node_id = $2 AND a.ended_ms IS NULL"))
        .bind(workspace_id.to_vec())
        .bind(node_id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Agent::from_row(row)).collect()
}

/// Replaces description and group.
///
/// # Errors
/// [`DbError`].
pub async fn describe(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    id: AgentId,
    (description, group): (&str, &str),
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE agent SET description = $3, group_name = $4, revision = $5 WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(description)
    .bind(group)
    .bind(signed(revision))
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks whether a session is attached.
///
/// # Errors
/// [`DbError`].
pub async fn set_attached(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    id: AgentId,
    attached: bool,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query("UPDATE agent SET attached = $3, revision = $4 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(attached)
        .bind(signed(revision))
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives an agent a new revision because something beside its row changed: its keys, or its node's route.
///
/// # Errors
/// [`DbError`].
pub async fn touch(conn: &mut Conn, workspace_id: WorkspaceId, id: AgentId, revision: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE agent SET revision = $3 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(signed(revision))
        .execute(conn)
        .await?;
    Ok(())
}

/// Moves an agent to another node, where it has no session and no keys yet.
///
/// # Errors
/// [`DbError`].
pub async fn move_to(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    id: AgentId,
    (node_id, now_ms): (NodeId, u64),
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM agent_key WHERE workspace_id = $1 AND agent_id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "UPDATE agent SET former_node_id = node_id, moved_ms = $4, node_id = $3, attached = FALSE, revision = $5
         WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(node_id.to_vec())
    .bind(signed(now_ms))
    .bind(signed(revision))
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends an agent.
///
/// # Errors
/// [`DbError`].
pub async fn end(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    id: AgentId,
    now_ms: u64,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query("UPDATE agent SET ended_ms = $3, attached = FALSE, revision = $4 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(signed(now_ms))
        .bind(signed(revision))
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets an agent that ended live again under its old id; false when it never was.
///
/// # Errors
/// [`DbError`].
pub async fn revive(conn: &mut Conn, workspace_id: WorkspaceId, id: AgentId, revision: u64) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE agent SET ended_ms = NULL, revision = $3 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(signed(revision))
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// How many agents live, for the metrics.
///
/// # Errors
/// [`DbError`].
pub async fn count_live(conn: &mut Conn) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT count(*) AS live FROM agent WHERE ended_ms IS NULL").fetch_one(conn).await?;
    number(&row, "live")
}
