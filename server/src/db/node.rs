//! Nodes.

use std::str::FromStr;

use murmur_core::{
    id::{InviteId, NodeId, WorkspaceId},
    slug::{AccountName, Scope},
};

use super::{
    Conn, DbError, Row, Source,
    row::{fixed, lines, number, number_or_null, parsed, signed, text, to_lines},
};

/// How far a node's enrolment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for the owner's signature.
    Pending,
    /// Has a certificate.
    Approved,
    /// May do nothing any more.
    Revoked,
}

impl State {
    const ALL: [Self; 3] = [Self::Pending, Self::Approved, Self::Revoked];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Revoked => "revoked",
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A node as stored.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The invite it enrolled with last.
    pub invite_id: InviteId,
    /// The host's name, for people.
    pub name: String,
    /// Whose node it is.
    pub account: AccountName,
    /// How far its enrolment has come.
    pub state: State,
    /// Ed25519.
    pub public_key: [u8; 32],
    /// Its nkey.
    pub broker_public_key: String,
    /// Serialized `SignedStatement`, when approved.
    pub certificate: Option<Vec<u8>>,
    /// The certificate's serial; 0 without one.
    pub serial: u64,
    /// What it may name its agents: the invite's at first, then the certificate's.
    pub slug_scope: Vec<Scope>,
    /// Of its program.
    pub version: String,
    /// Whether it has a live session.
    pub online: bool,
    /// Where it takes deliveries; empty until it has a route.
    pub route: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub last_seen_ms: Option<u64>,
    /// Of its latest change.
    pub revision: u64,
}

impl Node {
    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        Ok(Self {
            id: NodeId::from_bytes(fixed(row, "id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            invite_id: InviteId::from_bytes(fixed(row, "invite_id")?),
            name: text(row, "name")?.to_owned(),
            account: parsed(row, "account")?,
            state: parsed(row, "state")?,
            public_key: fixed(row, "public_key")?,
            broker_public_key: text(row, "broker_public_key")?.to_owned(),
            certificate: row.bytes("certificate")?.map(<[u8]>::to_vec),
            serial: number(row, "serial")?,
            slug_scope: lines(row, "slug_scope")?,
            version: text(row, "version")?.to_owned(),
            online: row.bytes("session")?.is_some(),
            route: text(row, "route")?.to_owned(),
            created_ms: number(row, "created_ms")?,
            last_seen_ms: number_or_null(row, "last_seen_ms")?,
            revision: number(row, "revision")?,
        })
    }
}

/// Adds a node, or stores what a repeated enrolment changes.
///
/// # Errors
/// [`DbError`].
pub async fn put(conn: &mut Conn, node: &Node) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO node (id, workspace_id, invite_id, name, account, state, public_key, broker_public_key, certificate,
                           serial, slug_scope, version, route, created_ms, last_seen_ms, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         ON CONFLICT (id) DO UPDATE SET invite_id = excluded.invite_id, name = excluded.name, state = excluded.state,
             broker_public_key = excluded.broker_public_key, certificate = excluded.certificate,
             serial = excluded.serial, slug_scope = excluded.slug_scope, version = excluded.version,
             route = excluded.route, revision = excluded.revision",
    )
    .bind(node.id.to_vec())
    .bind(node.workspace_id.to_vec())
    .bind(node.invite_id.to_vec())
    .bind(&node.name)
    .bind(node.account.as_str())
    .bind(node.state.as_str())
    .bind(node.public_key.to_vec())
    .bind(&node.broker_public_key)
    .bind(&node.certificate)
    .bind(signed(node.serial))
    .bind(to_lines(&node.slug_scope))
    .bind(&node.version)
    .bind(&node.route)
    .bind(signed(node.created_ms))
    .bind(node.last_seen_ms.map(signed))
    .bind(signed(node.revision))
    .execute(conn)
    .await?;
    Ok(())
}

/// The node of this id.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut impl Source, workspace_id: WorkspaceId, id: NodeId) -> Result<Option<Node>, DbError> {
    let sql = "SELECT * FROM node WHERE workspace_id = $1 AND id = $2";
    conn.row(sql, vec![workspace_id.to_vec().into(), id.to_vec().into()], Node::from_row).await
}

/// Approved nodes of an account that have a session now, and one more of them whether it has one or not.
///
/// # Errors
/// [`DbError`].
pub async fn listening(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    account: &AccountName,
    also: Option<NodeId>,
) -> Result<Vec<NodeId>, DbError> {
    let rows = sqlx::query(
        "SELECT id FROM node WHERE workspace_id = $1 AND account = $2 AND state = 'approved' AND (session IS NOT NULL OR id = $3)
         ORDER BY id",
    )
    .bind(workspace_id.to_vec())
    .bind(account.as_str())
    .bind(also.map(NodeId::to_vec))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(NodeId::from_bytes(fixed(row, "id")?))).collect()
}

/// The node of this identity key.
///
/// # Errors
/// [`DbError`].
pub async fn by_public_key(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    public_key: &[u8; 32],
) -> Result<Option<Node>, DbError> {
    let row = sqlx::query("SELECT * FROM node WHERE workspace_id = $1 AND public_key = $2")
        .bind(workspace_id.to_vec())
        .bind(public_key.to_vec())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| Node::from_row(row)).transpose()
}

/// The workspace of a node, for the administrator, who acts in all of them.
///
/// # Errors
/// [`DbError`].
pub async fn workspace_of(conn: &mut Conn, id: NodeId) -> Result<Option<WorkspaceId>, DbError> {
    let row = sqlx::query("SELECT workspace_id FROM node WHERE id = $1").bind(id.to_vec()).fetch_optional(conn).await?;
    row.map(|row| Ok(WorkspaceId::from_bytes(fixed(&row, "workspace_id")?))).transpose()
}

/// Nodes in order of their ids, behind `after`; those of all workspaces for the administrator.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut Conn,
    workspace_id: Option<WorkspaceId>,
    after: &[u8],
    limit: u32,
) -> Result<Vec<Node>, DbError> {
    let query = match workspace_id {
        Some(id) => sqlx::query("SELECT * FROM node WHERE workspace_id = $3 AND id > $1 ORDER BY id LIMIT $2")
            .bind(after.to_vec())
            .bind(i64::from(limit))
            .bind(id.to_vec()),
        None => sqlx::query("SELECT * FROM node WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.to_vec())
            .bind(i64::from(limit)),
    };
    query.fetch_all(conn).await?.iter().map(|row| Node::from_row(row)).collect()
}

/// Nodes that changed after a revision, in the order of their changes; those of all workspaces for the administrator.
///
/// # Errors
/// [`DbError`].
pub async fn changed_since(
    conn: &mut Conn,
    workspace_id: Option<WorkspaceId>,
    revision: u64,
) -> Result<Vec<Node>, DbError> {
    let query = match workspace_id {
        Some(id) => sqlx::query("SELECT * FROM node WHERE workspace_id = $2 AND revision > $1 ORDER BY revision")
            .bind(signed(revision))
            .bind(id.to_vec()),
        None => sqlx::query("SELECT * FROM node WHERE revision > $1 ORDER BY revision").bind(signed(revision)),
    };
    query.fetch_all(conn).await?.iter().map(|row| Node::from_row(row)).collect()
}

/// Begins a session, in place of any other.
///
/// # Errors
/// [`DbError`].
pub async fn open_session(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    session: &[u8; 16],
    version: &str,
    now_ms: u64,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE node SET session = $3, version = $4, last_seen_ms = $5, offline_ms = NULL, revision = $6
         WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(session.to_vec())
    .bind(version)
    .bind(signed(now_ms))
    .bind(signed(revision))
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a session; false when another one has taken its place.
///
/// # Errors
/// [`DbError`].
pub async fn close_session(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    session: &[u8; 16],
    now_ms: u64,
    revision: u64,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE node SET session = NULL, last_seen_ms = $4, offline_ms = $4, revision = $5
         WHERE workspace_id = $1 AND id = $2 AND session = $3",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(session.to_vec())
    .bind(signed(now_ms))
    .bind(signed(revision))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a node for good. Broker credentials of up to `void_s` (Unix seconds) are to be void.
///
/// # Errors
/// [`DbError`].
pub async fn revoke(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    void_s: u64,
    now_ms: u64,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE node SET state = 'revoked', session = NULL, offline_ms = coalesce(offline_ms, $4), void_s = max(void_s, $3),
             revision = $5
         WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(signed(void_s))
    .bind(signed(now_ms))
    .bind(signed(revision))
    .execute(conn)
    .await?;
    Ok(())
}

/// Revoked nodes whose broker credentials are to be voided yet.
///
/// # Errors
/// [`DbError`].
pub async fn to_void(conn: &mut Conn) -> Result<Vec<Node>, DbError> {
    let sql = "SELECT * FROM node WHERE state = 'revoked' AND void_s > voided_s ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Node::from_row(row)).collect()
}

/// Revoked nodes of which the broker still has something: their route is kept until it has not.
///
/// # Errors
/// [`DbError`].
pub async fn to_remove(conn: &mut Conn) -> Result<Vec<Node>, DbError> {
    let sql = "SELECT * FROM node WHERE state = 'revoked' AND route <> '' ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Node::from_row(row)).collect()
}

/// Ends the sessions that a control plane left behind when it died; nobody's stream survived it.
///
/// # Errors
/// [`DbError`].
pub async fn close_all_sessions(conn: &mut Conn, now_ms: u64, revision: u64) -> Result<u64, DbError> {
    // It was the control plane that was away: the time that a node has to come back begins now.
    let done = sqlx::query("UPDATE node SET session = NULL, offline_ms = $2, revision = $1 WHERE session IS NOT NULL")
        .bind(signed(revision))
        .bind(signed(now_ms))
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// How many nodes there are: online and offline.
///
/// # Errors
/// [`DbError`].
pub async fn count(conn: &mut Conn) -> Result<(u64, u64), DbError> {
    let row = sqlx::query("SELECT count(session) AS online, count(*) - count(session) AS offline FROM node")
        .fetch_one(conn)
        .await?;
    Ok((number(&row, "online")?, number(&row, "offline")?))
}

/// Stores where a node takes deliveries.
///
/// # Errors
/// [`DbError`].
pub async fn set_route(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    route: &str,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query("UPDATE node SET route = $3, revision = $4 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(route)
        .bind(signed(revision))
        .execute(conn)
        .await?;
    Ok(())
}
