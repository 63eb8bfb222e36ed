//! Workspaces.

use murmur_core::{id::WorkspaceId, slug::WorkspaceName};
use murmur_crypto::cert::RootCertificate;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{fixed, number, parsed, signed},
};

/// How a workspace's certificates come to be (PROTOCOL §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The owner's key signs every node.
    Owner,
}

/// A workspace as stored.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Chosen by the owner, inside the root certificate.
    pub id: WorkspaceId,
    /// Unique on this control plane.
    pub name: WorkspaceName,
    /// Who issues.
    pub mode: Mode,
    /// Serialized `SignedStatement`.
    pub root_certificate: Vec<u8>,
    /// Unix milliseconds.
    pub created_ms: u64,
}

impl Workspace {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        let mode = match row.try_get::<&str, _>("mode")? {
            "owner" => Mode::Owner,
            _ => return Err(DbError::Corrupt { column: "mode" }),
        };
        Ok(Self {
            id: WorkspaceId::from_bytes(fixed(row, "id")?),
            name: parsed(row, "name")?,
            mode,
            root_certificate: row.try_get("root_certificate")?,
            created_ms: number(row, "created_ms")?,
        })
    }
}

/// Adds a workspace; a taken id or name is [`DbError::is_duplicate`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, workspace: &Workspace) -> Result<(), DbError> {
    let Workspace { id, name, mode, root_certificate, created_ms } = workspace;
    let mode = match mode {
        Mode::Owner => "owner",
    };
    sqlx::query("INSERT INTO workspace (id, name, mode, root_certificate, created_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(id.to_vec())
        .bind(name.as_str())
        .bind(mode)
        .bind(root_certificate)
        .bind(signed(*created_ms))
        .execute(conn)
        .await?;
    Ok(())
}

/// The workspace of this id.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, id: WorkspaceId) -> Result<Option<Workspace>, DbError> {
    let row = sqlx::query("SELECT * FROM workspace WHERE id = $1").bind(id.to_vec()).fetch_optional(conn).await?;
    row.as_ref().map(Workspace::from_row).transpose()
}

/// The root of a workspace that something refers to.
///
/// # Errors
/// [`DbError::Corrupt`] when there is none, or it cannot be read.
pub async fn root(conn: &mut Conn, id: WorkspaceId) -> Result<RootCertificate, DbError> {
    let found = get(conn, id).await?.ok_or(DbError::Corrupt { column: "workspace_id" })?;
    RootCertificate::decode(found.root_certificate)
        .map_err(|_| DbError::Corrupt { column: "workspace.root_certificate" })
}

/// The workspace of this name.
///
/// # Errors
/// [`DbError`].
pub async fn by_name(conn: &mut Conn, name: &WorkspaceName) -> Result<Option<Workspace>, DbError> {
    let row = sqlx::query("SELECT * FROM workspace WHERE name = $1").bind(name.as_str()).fetch_optional(conn).await?;
    row.as_ref().map(Workspace::from_row).transpose()
}
