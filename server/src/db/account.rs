//! Accounts: people, and programs that act as one.

use murmur_core::{id::WorkspaceId, slug::AccountName};

use super::{Conn, DbError, row::signed};

/// Makes sure that an account exists.
///
/// # Errors
/// [`DbError`].
pub async fn ensure(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    name: &AccountName,
    now_ms: u64,
) -> Result<(), DbError> {
    sqlx::query("INSERT INTO account (workspace_id, name, created_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(workspace_id.to_vec())
        .bind(name.as_str())
        .bind(signed(now_ms))
        .execute(conn)
        .await?;
    Ok(())
}
