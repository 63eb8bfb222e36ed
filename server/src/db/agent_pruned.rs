//! Letting go of agents that ended long ago, and what is still told of them.

use murmur_core::{
    id::{AgentId, WorkspaceId},
    phase::Phase,
    slug::Slug,
};

use super::{
    Conn, DbError, Row, Source,
    row::{fixed, number, number_or_null, parsed, signed},
};

/// What is still told of an agent.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// Which it was.
    pub slug: Slug,
    /// As what it ended.
    pub phase: Phase,
    /// Unix milliseconds.
    pub ended_ms: u64,
    /// Unix milliseconds.
    pub pruned_ms: u64,
}

/// Rows that are only about an agent, those before others that they name.
const OWN: [&str; 12] = [
    "DELETE FROM task_edge WHERE agent_id = $1",
    "DELETE FROM task WHERE agent_id = $1",
    "DELETE FROM follow_up WHERE agent_id = $1",
    "DELETE FROM turn WHERE agent_id = $1",
    "DELETE FROM timeline WHERE agent_id = $1",
    "DELETE FROM node_order WHERE agent_id = $1",
    "DELETE FROM event WHERE agent_id = $1",
    "DELETE FROM event_log WHERE agent_id = $1",
    "DELETE FROM agent_repo WHERE agent_id = $1",
    "DELETE FROM agent_copy WHERE agent_id = $1",
    "DELETE FROM tunnel WHERE agent_id = $1",
    "DELETE FROM agent_link WHERE agent_id = $1",
];

/// Agents that ended before a time and that nothing needs any more: no agent below them has a row, and no live one begins with their
/// history.
///
/// # Errors
/// [`DbError`].
pub async fn due(conn: &mut Conn, before_ms: u64, limit: u32) -> Result<Vec<AgentId>, DbError> {
    let rows = sqlx::query(
        "SELECT r.agent_id FROM agent_run r WHERE r.ended_ms <= $1
             AND NOT EXISTS (SELECT 1 FROM agent_run c WHERE c.parent_id = r.agent_id)
             AND NOT EXISTS (SELECT 1 FROM agent_run f WHERE f.fork_from = r.agent_id AND f.ended_ms IS NULL)
         ORDER BY r.ended_ms LIMIT $2",
    )
    .bind(signed(before_ms))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(AgentId::from_bytes(fixed(row, "agent_id")?))).collect()
}

/// When the first agent ended of those that ended after a time.
///
/// # Errors
/// [`DbError`].
pub async fn first_ended(conn: &mut Conn, after_ms: u64) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT min(ended_ms) AS ended_ms FROM agent_run WHERE ended_ms > $1")
        .bind(signed(after_ms))
        .fetch_one(conn)
        .await?;
    number_or_null(&row, "ended_ms")
}

/// Lets go of an agent that has ended, with all that is only about it; its uploads have expired when this returns. A slug and two times
/// stay.
///
/// # Errors
/// [`DbError`].
pub async fn prune(conn: &mut Conn, id: AgentId, now_ms: u64) -> Result<(), DbError> {
    for delete in OWN {
        sqlx::query(delete).bind(id.to_vec()).execute(&mut *conn).await?;
    }
    sqlx::query("UPDATE upload SET expire_ms = $2 WHERE agent_id = $1 AND expire_ms > $2")
        .bind(id.to_vec())
        .bind(signed(now_ms))
        .execute(&mut *conn)
        .await?;
    // All of them were revoked with its end, and what derives from them with them.
    sqlx::query(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM token WHERE agent_id = $1 UNION SELECT t.id FROM token t JOIN tree ON t.parent_id = tree.id
         )
         DELETE FROM token WHERE id IN (SELECT id FROM tree)",
    )
    .bind(id.to_vec())
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM agent_key WHERE agent_id = $1").bind(id.to_vec()).execute(&mut *conn).await?;
    let revision: Option<i64> = sqlx::query_scalar("DELETE FROM agent WHERE id = $1 RETURNING revision")
        .bind(id.to_vec())
        .fetch_optional(&mut *conn)
        .await?;
    sqlx::query("UPDATE counter SET value = max(value, $1) WHERE name = 'directory_pruned'")
        .bind(revision.unwrap_or(0))
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "INSERT INTO agent_pruned (agent_id, workspace_id, slug, phase, ended_ms, pruned_ms)
         SELECT agent_id, workspace_id, slug, phase, ended_ms, $2 FROM agent_run WHERE agent_id = $1",
    )
    .bind(id.to_vec())
    .bind(signed(now_ms))
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM agent_run WHERE agent_id = $1").bind(id.to_vec()).execute(conn).await?;
    Ok(())
}

/// The agent that held a slug last of those that are gone.
///
/// # Errors
/// [`DbError`].
pub async fn by_slug(
    conn: &mut impl Source,
    workspace_id: WorkspaceId,
    slug: &Slug,
) -> Result<Option<Pruned>, DbError> {
    let sql = "SELECT slug, phase, ended_ms, pruned_ms FROM agent_pruned WHERE workspace_id = $1 AND slug = $2
         ORDER BY ended_ms DESC LIMIT 1";
    let pruned = |row: &dyn Row| {
        Ok(Pruned {
            slug: parsed(row, "slug")?,
            phase: parsed(row, "phase")?,
            ended_ms: number(row, "ended_ms")?,
            pruned_ms: number(row, "pruned_ms")?,
        })
    };
    conn.row(sql, vec![workspace_id.to_vec().into(), slug.to_string().into()], pruned).await
}

/// Of these agents, those that are known to be gone. One that was never here may be another database's.
///
/// # Errors
/// [`DbError`].
pub async fn gone(conn: &mut Conn, workspace_id: WorkspaceId, ids: &[AgentId]) -> Result<Vec<AgentId>, DbError> {
    let mut gone = Vec::new();
    for id in ids {
        let found = sqlx::query("SELECT 1 AS one FROM agent_pruned WHERE workspace_id = $1 AND agent_id = $2")
            .bind(workspace_id.to_vec())
            .bind(id.to_vec());
        if found.fetch_optional(&mut *conn).await?.is_some() {
            gone.push(*id);
        }
    }
    Ok(gone)
}

/// When the first of the agents that are gone was let go.
///
/// # Errors
/// [`DbError`].
pub async fn oldest(conn: &mut Conn) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT min(pruned_ms) AS pruned_ms FROM agent_pruned").fetch_one(conn).await?;
    number_or_null(&row, "pruned_ms")
}

/// Forgets what was told of agents that were let go before a time.
///
/// # Errors
/// [`DbError`].
pub async fn forget(conn: &mut Conn, before_ms: u64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM agent_pruned WHERE pruned_ms <= $1").bind(signed(before_ms)).execute(conn).await?;
    Ok(())
}

/// Live agents behind `after`, in order of their ids, that have entries of their timeline, or deleted items, from before a time.
///
/// # Errors
/// [`DbError`].
pub async fn with_old_rows(conn: &mut Conn, after: &[u8], before_ms: u64, limit: u32) -> Result<Vec<AgentId>, DbError> {
    let rows = sqlx::query(
        "SELECT r.agent_id FROM agent_run r WHERE r.ended_ms IS NULL AND r.agent_id > $1
             AND (EXISTS (SELECT 1 FROM timeline t WHERE t.agent_id = r.agent_id AND t.at_ms <= $2)
                  OR EXISTS (SELECT 1 FROM task k WHERE k.agent_id = r.agent_id AND k.status = 'deleted' AND k.updated_ms <= $2))
         ORDER BY r.agent_id LIMIT $3",
    )
    .bind(after.to_vec())
    .bind(signed(before_ms))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(AgentId::from_bytes(fixed(row, "agent_id")?))).collect()
}

/// Lets go of what an agent's timeline says of the time before, and of items that were deleted then. The newest entry and the item with the
/// highest number stay, from which the next ones are counted.
///
/// # Errors
/// [`DbError`].
pub async fn trim(conn: &mut Conn, id: AgentId, before_ms: u64) -> Result<(), DbError> {
    for delete in [
        "DELETE FROM timeline WHERE agent_id = $1 AND at_ms <= $2
             AND seq < (SELECT max(seq) FROM timeline WHERE agent_id = $1)",
        "DELETE FROM task WHERE agent_id = $1 AND status = 'deleted' AND updated_ms <= $2
             AND number < (SELECT max(number) FROM task WHERE agent_id = $1)",
    ] {
        sqlx::query(delete).bind(id.to_vec()).bind(signed(before_ms)).execute(&mut *conn).await?;
    }
    Ok(())
}
