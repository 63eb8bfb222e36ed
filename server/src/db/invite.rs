//! Invites, known by the hash of their secret alone.

use murmur_core::{
    id::{InviteId, WorkspaceId},
    slug::{AccountName, Scope},
};
use sqlx::sqlite::SqliteRow;

use super::{
    Conn, DbError,
    row::{fixed, lines, number, parsed, signed, to_lines},
};

/// An invite as stored.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Its id.
    pub id: InviteId,
    /// Where it leads.
    pub workspace_id: WorkspaceId,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// Whose node it makes.
    pub account: AccountName,
    /// What the node may name its agents.
    pub slug_scope: Vec<Scope>,
    /// How often it was redeemed.
    pub uses: u64,
    /// How often it may be.
    pub uses_max: u64,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub expire_ms: u64,
}

impl Invite {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            id: InviteId::from_bytes(fixed(row, "id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            secret_hash: fixed(row, "secret_hash")?,
            account: parsed(row, "account")?,
            slug_scope: lines(row, "slug_scope")?,
            uses: number(row, "uses")?,
            uses_max: number(row, "uses_max")?,
            created_ms: number(row, "created_ms")?,
            expire_ms: number(row, "expire_ms")?,
        })
    }
}

/// Adds an invite; a secret that is known already is [`DbError::is_duplicate`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, invite: &Invite) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO invite (id, workspace_id, secret_hash, account, slug_scope, uses, uses_max, created_ms, expire_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(invite.id.to_vec())
    .bind(invite.workspace_id.to_vec())
    .bind(invite.secret_hash.to_vec())
    .bind(invite.account.as_str())
    .bind(to_lines(&invite.slug_scope))
    .bind(signed(invite.uses))
    .bind(signed(invite.uses_max))
    .bind(signed(invite.created_ms))
    .bind(signed(invite.expire_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// The invite of a secret. The secret is the credential, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn by_secret_hash(conn: &mut Conn, secret_hash: &[u8; 32]) -> Result<Option<Invite>, DbError> {
    let row = sqlx::query("SELECT * FROM invite WHERE secret_hash = $1")
        .bind(secret_hash.to_vec())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(Invite::from_row).transpose()
}

/// Counts one use; false when none is left.
///
/// # Errors
/// [`DbError`].
pub async fn count_use(conn: &mut Conn, workspace_id: WorkspaceId, id: InviteId) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE invite SET uses = uses + 1 WHERE workspace_id = $1 AND id = $2 AND uses < uses_max")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
