//! Sources of webhooks and their sealed secrets.

use std::{fmt, str::FromStr};

use murmur_core::id::{WebhookId, WorkspaceId};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{corrupt, fixed, lines, number, number_or_null, parsed, signed, to_lines},
};

/// Whose webhooks they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// github.com or a server of GitHub's.
    GitHub,
    /// gitlab.com or a server of GitLab's.
    GitLab,
    /// Anybody who signs as Standard Webhooks says.
    Generic,
}

/// A word in the database that is no kind of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of webhook")]
pub struct UnknownKind;

impl Kind {
    const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::Generic];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// A source as stored.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its id, which is in its address.
    pub id: WebhookId,
    /// Whose agents hear of it.
    pub workspace_id: WorkspaceId,
    /// Unique in the workspace.
    pub name: String,
    /// Whose deliveries it takes.
    pub kind: Kind,
    /// Repositories that it lets through.
    pub repos: Vec<String>,
    /// Types that it lets through; empty: all.
    pub events: Vec<String>,
    /// Whose words it lets through; empty: the kind's default.
    pub actors: Vec<String>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; `None`: nothing came in of late.
    pub last_delivery_ms: Option<u64>,
    /// Unix milliseconds, until when the secret before the present one is good.
    pub old_secret_ms: Option<u64>,
}

impl Webhook {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            id: WebhookId::from_bytes(fixed(row, "id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            name: row.try_get("name")?,
            kind: parsed(row, "kind")?,
            repos: lines(row, "repos")?,
            events: lines(row, "events")?,
            actors: lines(row, "actors")?,
            created_ms: number(row, "created_ms")?,
            last_delivery_ms: number_or_null(row, "last_delivery_ms")?,
            old_secret_ms: number_or_null(row, "old_secret_ms")?,
        })
    }
}

/// A secret as stored.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Counts up with every rotation.
    pub number: u64,
    /// Under the key that lies elsewhere.
    pub sealed: Vec<u8>,
    /// Unix milliseconds; `None` for the present one.
    pub expire_ms: Option<u64>,
}

const COLUMNS: &str = "SELECT w.*,
    (SELECT max(received_ms) FROM webhook_delivery d WHERE d.webhook_id = w.id) AS last_delivery_ms,
    (SELECT max(expire_ms) FROM webhook_secret s WHERE s.webhook_id = w.id) AS old_secret_ms
    FROM webhook w";

/// Adds a source; a name that is taken is [`DbError::is_duplicate`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, webhook: &Webhook) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO webhook (id, workspace_id, name, kind, repos, events, actors, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(webhook.id.to_vec())
    .bind(webhook.workspace_id.to_vec())
    .bind(&webhook.name)
    .bind(webhook.kind.as_str())
    .bind(to_lines(&webhook.repos))
    .bind(to_lines(&webhook.events))
    .bind(to_lines(&webhook.actors))
    .bind(signed(webhook.created_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// Replaces what and whom a source lets through.
///
/// # Errors
/// [`DbError`].
pub async fn update(conn: &mut Conn, webhook: &Webhook) -> Result<(), DbError> {
    sqlx::query("UPDATE webhook SET repos = $3, events = $4, actors = $5 WHERE workspace_id = $1 AND id = $2")
        .bind(webhook.workspace_id.to_vec())
        .bind(webhook.id.to_vec())
        .bind(to_lines(&webhook.repos))
        .bind(to_lines(&webhook.events))
        .bind(to_lines(&webhook.actors))
        .execute(conn)
        .await?;
    Ok(())
}

/// The source of an address. Whoever posts there proves that it may by its signature, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn by_id(conn: &mut Conn, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE w.id = $1")))
        .bind(id.to_vec())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(Webhook::from_row).transpose()
}

/// The source of a name.
///
/// # Errors
/// [`DbError`].
pub async fn by_name(conn: &mut Conn, workspace_id: WorkspaceId, name: &str) -> Result<Option<Webhook>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE w.workspace_id = $1 AND w.name = $2")))
        .bind(workspace_id.to_vec())
        .bind(name)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(Webhook::from_row).transpose()
}

/// Sources by name after one of them.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    after: &str,
    limit: u32,
) -> Result<Vec<Webhook>, DbError> {
    let sql = format!("{COLUMNS} WHERE w.workspace_id = $1 AND w.name > $2 ORDER BY w.name LIMIT $3");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(workspace_id.to_vec())
        .bind(after)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(Webhook::from_row).collect()
}

/// How many sources a workspace has.
///
/// # Errors
/// [`DbError`].
pub async fn count(conn: &mut Conn, workspace_id: WorkspaceId) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT count(*) AS total FROM webhook WHERE workspace_id = $1")
        .bind(workspace_id.to_vec())
        .fetch_one(conn)
        .await?;
    number(&row, "total")
}

/// Removes a source with its secrets and what it sent.
///
/// # Errors
/// [`DbError`].
pub async fn delete(conn: &mut Conn, workspace_id: WorkspaceId, id: WebhookId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM webhook WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .execute(conn)
        .await?;
    Ok(())
}

/// Secrets that are good at a moment, the present one first.
///
/// # Errors
/// [`DbError`].
pub async fn secrets(conn: &mut Conn, id: WebhookId, now_ms: u64) -> Result<Vec<Secret>, DbError> {
    let sql = "SELECT number, sealed, expire_ms FROM webhook_secret
               WHERE webhook_id = $1 AND (expire_ms IS NULL OR expire_ms > $2) ORDER BY number DESC";
    let rows = sqlx::query(sql).bind(id.to_vec()).bind(signed(now_ms)).fetch_all(conn).await?;
    let secret = |row: &SqliteRow| {
        Ok(Secret {
            number: number(row, "number")?,
            sealed: row.try_get("sealed").map_err(|_| corrupt("sealed")(()))?,
            expire_ms: number_or_null(row, "expire_ms")?,
        })
    };
    rows.iter().map(secret).collect()
}

/// Puts a new present secret; `keep_until_ms` bounds the one before, and any older one ends.
///
/// # Errors
/// [`DbError`].
pub async fn put_secret(
    conn: &mut Conn,
    id: WebhookId,
    number: u64,
    sealed: &[u8],
    keep_until_ms: u64,
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM webhook_secret WHERE webhook_id = $1 AND expire_ms IS NOT NULL")
        .bind(id.to_vec())
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE webhook_secret SET expire_ms = $2 WHERE webhook_id = $1")
        .bind(id.to_vec())
        .bind(signed(keep_until_ms))
        .execute(&mut *conn)
        .await?;
    sqlx::query("INSERT INTO webhook_secret (webhook_id, number, sealed, expire_ms) VALUES ($1, $2, $3, NULL)")
        .bind(id.to_vec())
        .bind(signed(number))
        .bind(sealed)
        .execute(conn)
        .await?;
    Ok(())
}
