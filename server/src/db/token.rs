//! Bearer tokens: everything but their secrets.

use murmur_core::{
    id::{AgentId, NodeId, TokenId, WorkspaceId},
    slug::{AccountName, Scope as SlugScope},
    token::TokenKind,
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, fixed, fixed_or_null, number, number_or_null, signed},
};
use crate::tokens::ScopeSet;

/// A token as stored.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its public half.
    pub id: TokenId,
    /// Where it is valid; `None` for an administrator of all workspaces.
    pub workspace_id: Option<WorkspaceId>,
    /// Whom it speaks for.
    pub kind: TokenKind,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// Whose it is, if anybody's.
    pub account: Option<AccountName>,
    /// Set for a node's.
    pub node_id: Option<NodeId>,
    /// Set for an agent's.
    pub agent_id: Option<AgentId>,
    /// What it may do.
    pub scopes: ScopeSet,
    /// Where it may do it; `None`: everywhere.
    pub slug_prefix: Option<SlugScope>,
    /// The token it was derived from, which takes it along when it is revoked.
    pub parent_id: Option<TokenId>,
    /// For people: what it is for.
    pub label: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; `None`: never.
    pub expire_ms: Option<u64>,
    /// Unix milliseconds.
    pub revoked_ms: Option<u64>,
}

impl Token {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            id: TokenId::from_bytes(fixed(row, "id")?),
            workspace_id: fixed_or_null(row, "workspace_id")?.map(WorkspaceId::from_bytes),
            kind: row.try_get::<&str, _>("kind")?.parse().map_err(corrupt("kind"))?,
            secret_hash: fixed(row, "secret_hash")?,
            account: parsed_or_empty(row, "account")?,
            node_id: fixed_or_null(row, "node_id")?.map(NodeId::from_bytes),
            agent_id: fixed_or_null(row, "agent_id")?.map(AgentId::from_bytes),
            scopes: row.try_get::<&str, _>("scopes")?.parse().map_err(corrupt("scopes"))?,
            slug_prefix: parsed_or_empty(row, "slug_prefix")?,
            parent_id: fixed_or_null(row, "parent_id")?.map(TokenId::from_bytes),
            label: row.try_get("label")?,
            created_ms: number(row, "created_ms")?,
            expire_ms: number_or_null(row, "expire_ms")?,
            revoked_ms: number_or_null(row, "revoked_ms")?,
        })
    }
}

fn parsed_or_empty<T: std::str::FromStr>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, DbError> {
    let text: &str = row.try_get(column)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(corrupt(column)) }
}

/// Adds a token.
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, token: &Token) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO token (id, workspace_id, kind, secret_hash, account, node_id, agent_id, scopes, slug_prefix,
                            parent_id, label, created_ms, expire_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(token.id.to_vec())
    .bind(token.workspace_id.map(WorkspaceId::to_vec))
    .bind(token.kind.as_str())
    .bind(token.secret_hash.to_vec())
    .bind(token.account.as_ref().map_or("", AccountName::as_str))
    .bind(token.node_id.map(NodeId::to_vec))
    .bind(token.agent_id.map(AgentId::to_vec))
    .bind(token.scopes.to_string())
    .bind(token.slug_prefix.as_ref().map_or("", SlugScope::as_str))
    .bind(token.parent_id.map(TokenId::to_vec))
    .bind(&token.label)
    .bind(signed(token.created_ms))
    .bind(token.expire_ms.map(signed))
    .execute(conn)
    .await?;
    Ok(())
}

/// The token of this id. The caller proves by the secret that it is theirs, so no workspace bounds the query.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, id: TokenId) -> Result<Option<Token>, DbError> {
    let row = sqlx::query("SELECT * FROM token WHERE id = $1").bind(id.to_vec()).fetch_optional(conn).await?;
    row.as_ref().map(Token::from_row).transpose()
}

/// Until when a token holds.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Unix milliseconds; `None`: never.
    pub expire_ms: Option<u64>,
    /// It holds no more.
    pub revoked: bool,
}

/// As [`get`], of what may change alone.
///
/// # Errors
/// [`DbError`].
pub async fn standing(conn: &mut impl Source, id: TokenId) -> Result<Option<Standing>, DbError> {
    let standing = |row: &dyn Row| {
        let revoked = number_or_null(row, "revoked_ms")?.is_some();
        Ok(Standing { expire_ms: number_or_null(row, "expire_ms")?, revoked })
    };
    conn.row("SELECT expire_ms, revoked_ms FROM token WHERE id = $1", vec![id.to_vec().into()], standing).await
}

/// Whether this database ever had an administrator's token that still holds.
///
/// # Errors
/// [`DbError`].
pub async fn has_administrator(conn: &mut Conn) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT count(*) AS admins FROM token WHERE kind = 'admin' AND revoked_ms IS NULL")
        .fetch_one(conn)
        .await?;
    Ok(number(&row, "admins")? > 0)
}

/// Tokens of a workspace in order of their ids, behind `after`; the administrator's own without one.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut Conn,
    workspace_id: Option<WorkspaceId>,
    after: &[u8],
    limit: u32,
) -> Result<Vec<Token>, DbError> {
    let query = match workspace_id {
        Some(id) => sqlx::query("SELECT * FROM token WHERE workspace_id = $3 AND id > $1 ORDER BY id LIMIT $2")
            .bind(after.to_vec())
            .bind(i64::from(limit))
            .bind(id.to_vec()),
        None => sqlx::query("SELECT * FROM token WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.to_vec())
            .bind(i64::from(limit)),
    };
    query.fetch_all(conn).await?.iter().map(Token::from_row).collect()
}

/// Revokes a token and all that derive from it; says which ones this call ended.
///
/// # Errors
/// [`DbError`].
pub async fn revoke_tree(conn: &mut Conn, id: TokenId, now_ms: u64) -> Result<Vec<TokenId>, DbError> {
    let rows = sqlx::query(
        "WITH RECURSIVE tree (id) AS (
             SELECT id FROM token WHERE id = $1 UNION SELECT t.id FROM token t JOIN tree ON t.parent_id = tree.id
         )
         UPDATE token SET revoked_ms = $2 WHERE id IN (SELECT id FROM tree) AND revoked_ms IS NULL RETURNING id",
    )
    .bind(id.to_vec())
    .bind(signed(now_ms))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(TokenId::from_bytes(fixed(row, "id")?))).collect()
}

/// Lets a token end no later than this.
///
/// # Errors
/// [`DbError`].
pub async fn shorten(conn: &mut Conn, id: TokenId, expire_ms: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE token SET expire_ms = $2 WHERE id = $1 AND (expire_ms IS NULL OR expire_ms > $2)")
        .bind(id.to_vec())
        .bind(signed(expire_ms))
        .execute(conn)
        .await?;
    Ok(())
}

/// The unrevoked tokens that a node calls with; those of its agents are not among them.
///
/// # Errors
/// [`DbError`].
pub async fn live_of_node(conn: &mut Conn, workspace_id: WorkspaceId, id: NodeId) -> Result<Vec<TokenId>, DbError> {
    let rows = sqlx::query(
        "SELECT id FROM token WHERE workspace_id = $1 AND node_id = $2 AND kind = 'node' AND revoked_ms IS NULL",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(TokenId::from_bytes(fixed(row, "id")?))).collect()
}

/// The unrevoked tokens of an agent.
///
/// # Errors
/// [`DbError`].
pub async fn live_of_agent(conn: &mut Conn, workspace_id: WorkspaceId, id: AgentId) -> Result<Vec<TokenId>, DbError> {
    let rows = sqlx::query("SELECT id FROM token WHERE workspace_id = $1 AND agent_id = $2 AND revoked_ms IS NULL")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok(TokenId::from_bytes(fixed(row, "id")?))).collect()
}
