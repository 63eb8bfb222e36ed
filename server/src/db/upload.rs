//! Uploaded files: who may fetch what for how long. The bytes are elsewhere.

use murmur_core::id::{AgentId, WorkspaceId};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{fixed, fixed_or_null, number, number_or_null, signed},
};
use crate::links::LinkKey;

/// A file as stored.
#[derive(Clone)]
pub struct Upload {
    /// Its link.
    pub key: LinkKey,
    /// Where it is.
    pub workspace_id: WorkspaceId,
    /// Whose it is; empty for a program of nobody's.
    pub account: String,
    /// The agent that showed it; `None` for a person.
    pub agent_id: Option<AgentId>,
    /// Cleaned.
    pub filename: String,
    /// Cleaned, with its dot, or empty.
    pub extension: String,
    /// Cleaned.
    pub content_type: String,
    /// Bytes.
    pub size_bytes: u64,
    /// `None` until all of it is there.
    pub sha256: Option<[u8; 32]>,
    /// Unix milliseconds.
    pub expire_ms: u64,
}

/// What an account has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub count: u64,
    /// Of all of them.
    pub size_bytes: u64,
}

impl Upload {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            key: LinkKey::from_bytes(fixed(row, "key")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            account: row.try_get("account")?,
            agent_id: fixed_or_null(row, "agent_id")?.map(AgentId::from_bytes),
            filename: row.try_get("filename")?,
            extension: row.try_get("extension")?,
            content_type: row.try_get("content_type")?,
            size_bytes: number(row, "size_bytes")?,
            sha256: fixed_or_null(row, "sha256")?,
            expire_ms: number(row, "expire_ms")?,
        })
    }
}

/// Adds a file.
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, upload: &Upload) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO upload (key, workspace_id, account, filename, extension, content_type, size_bytes, sha256, expire_ms, agent_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(upload.key.as_bytes().to_vec())
    .bind(upload.workspace_id.to_vec())
    .bind(&upload.account)
    .bind(&upload.filename)
    .bind(&upload.extension)
    .bind(&upload.content_type)
    .bind(signed(upload.size_bytes))
    .bind(upload.sha256.map(|digest| digest.to_vec()))
    .bind(signed(upload.expire_ms))
    .bind(upload.agent_id.map(AgentId::to_vec))
    .execute(conn)
    .await?;
    Ok(())
}

/// All of a file is there; false when its row is gone.
///
/// # Errors
/// [`DbError`].
pub async fn complete(conn: &mut Conn, key: LinkKey, sha256: &[u8; 32], expire_ms: u64) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE upload SET sha256 = $2, expire_ms = $3 WHERE key = $1")
        .bind(key.as_bytes().to_vec())
        .bind(sha256.to_vec())
        .bind(signed(expire_ms))
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The file of a link. The key is the credential, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, key: LinkKey) -> Result<Option<Upload>, DbError> {
    let row =
        sqlx::query("SELECT * FROM upload WHERE key = $1").bind(key.as_bytes().to_vec()).fetch_optional(conn).await?;
    row.as_ref().map(Upload::from_row).transpose()
}

/// What an account has here, what is coming in included.
///
/// # Errors
/// [`DbError`].
pub async fn usage(conn: &mut Conn, workspace_id: WorkspaceId, account: &str) -> Result<Usage, DbError> {
    let row = sqlx::query(
        "SELECT count(*) AS count, coalesce(sum(size_bytes), 0) AS size_bytes FROM upload
         WHERE workspace_id = $1 AND account = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(account)
    .fetch_one(conn)
    .await?;
    Ok(Usage { count: number(&row, "count")?, size_bytes: number(&row, "size_bytes")? })
}

/// Files whose time is over, a page of them.
///
/// # Errors
/// [`DbError`].
pub async fn expired(conn: &mut Conn, now_ms: u64) -> Result<Vec<Upload>, DbError> {
    let rows = sqlx::query("SELECT * FROM upload WHERE expire_ms <= $1 ORDER BY expire_ms LIMIT 100")
        .bind(signed(now_ms))
        .fetch_all(conn)
        .await?;
    rows.iter().map(Upload::from_row).collect()
}

/// When the next one's time is over.
///
/// # Errors
/// [`DbError`].
pub async fn next_expiry(conn: &mut Conn) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT min(expire_ms) AS expire_ms FROM upload").fetch_one(conn).await?;
    number_or_null(&row, "expire_ms")
}

/// Forgets a file.
///
/// # Errors
/// [`DbError`].
pub async fn delete(conn: &mut Conn, key: LinkKey) -> Result<(), DbError> {
    sqlx::query("DELETE FROM upload WHERE key = $1").bind(key.as_bytes().to_vec()).execute(conn).await?;
    Ok(())
}
