//! The newest revocation list of each workspace, whole, as its owner signed it (PROTOCOL §3.6).

use murmur_core::id::WorkspaceId;

use sqlx::Row as _;

use super::{
    Conn, DbError,
    row::{number, signed},
};

/// Stores a workspace's list in the place of the one before.
///
/// # Errors
/// [`DbError`].
pub async fn put(conn: &mut Conn, workspace_id: WorkspaceId, version: u64, list: &[u8]) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO revocation_list (workspace_id, version, list) VALUES ($1, $2, $3)
         ON CONFLICT (workspace_id) DO UPDATE SET version = excluded.version, list = excluded.list",
    )
    .bind(workspace_id.to_vec())
    .bind(signed(version))
    .bind(list)
    .execute(conn)
    .await?;
    Ok(())
}

/// A workspace's list and its version; `None` when nothing was ever revoked.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, workspace_id: WorkspaceId) -> Result<Option<(u64, Vec<u8>)>, DbError> {
    let row = sqlx::query("SELECT version, list FROM revocation_list WHERE workspace_id = $1")
        .bind(workspace_id.to_vec())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok((number(&row, "version")?, row.try_get("list")?))).transpose()
}
