//! Waking dormant items.

use murmur_core::{
    checklist::{Pattern, TaskId},
    id::AgentId,
};

use crate::db::{Conn, DbError, task};

/// Wakes the dormant items of an agent that one of the changed files fits, and says which. Paths are told from the repository's root.
///
/// # Errors
/// [`DbError`].
pub async fn files_changed(
    conn: &mut Conn,
    agent_id: AgentId,
    paths: &[&str],
    now_ms: u64,
) -> Result<Vec<TaskId>, DbError> {
    let mut woken = Vec::new();
    for (id, pattern) in task::dormant(conn, agent_id).await? {
        let pattern: Pattern = pattern.parse().map_err(|_| DbError::Corrupt { column: "pattern" })?;
        if paths.iter().any(|path| pattern.matches(path)) {
            task::wake(conn, agent_id, id, now_ms).await?;
            woken.push(id);
        }
    }
    Ok(woken)
}
