//! What nodes have still to do.

use murmur_core::id::{AgentId, NodeId};
use murmur_proto::v1;
use prost::Message as _;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{corrupt, signed},
};

/// What an order is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Start a process.
    Start,
    /// End it.
    Stop,
    /// Stop the turn.
    Interrupt,
    /// Claim a turn.
    Drain,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Interrupt => "interrupt",
            Self::Drain => "drain",
        }
    }
}

/// Gives an order the node's next number and stores it.
///
/// # Errors
/// [`DbError`].
pub async fn insert(
    conn: &mut Conn,
    (node_id, agent_id): (NodeId, AgentId),
    kind: Kind,
    order: v1::Order,
    now_ms: u64,
) -> Result<(), DbError> {
    let last: i64 = sqlx::query_scalar(
        "INSERT INTO node_runtime (node_id, facts, order_last) VALUES ($1, x'', 1)
         ON CONFLICT (node_id) DO UPDATE SET order_last = order_last + 1 RETURNING order_last",
    )
    .bind(node_id.to_vec())
    .fetch_one(&mut *conn)
    .await?;
    let order_id = u64::try_from(last).map_err(corrupt("order_last"))?;
    let incarnation = order.incarnation;
    let body = v1::Order { order_id, ..order }.encode_to_vec();
    sqlx::query(
        "INSERT INTO node_order (node_id, order_id, agent_id, incarnation, kind, body, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(node_id.to_vec())
    .bind(last)
    .bind(agent_id.to_vec())
    .bind(i64::from(incarnation))
    .bind(kind.as_str())
    .bind(body)
    .bind(signed(now_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// Open orders of a node behind `after`, oldest first.
///
/// # Errors
/// [`DbError`].
pub async fn open(conn: &mut Conn, node_id: NodeId, after: u64, limit: u32) -> Result<Vec<v1::Order>, DbError> {
    let rows =
        sqlx::query("SELECT body FROM node_order WHERE node_id = $1 AND order_id > $2 ORDER BY order_id LIMIT $3")
            .bind(node_id.to_vec())
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?;
    rows.iter().map(decoded).collect()
}

fn decoded(row: &SqliteRow) -> Result<v1::Order, DbError> {
    v1::Order::decode(row.try_get::<&[u8], _>("body")?).map_err(corrupt("body"))
}

/// Whether an order of this kind is open for an agent.
///
/// # Errors
/// [`DbError`].
pub async fn is_open(conn: &mut Conn, agent_id: AgentId, kind: Kind) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 AS one FROM node_order WHERE agent_id = $1 AND kind = $2 LIMIT 1")
        .bind(agent_id.to_vec())
        .bind(kind.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Forgets what a node reports as done; an order of another node's or agent's stays.
///
/// # Errors
/// [`DbError`].
pub async fn finish(conn: &mut Conn, (node_id, agent_id): (NodeId, AgentId), order_id: u64) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM node_order WHERE node_id = $1 AND agent_id = $2 AND order_id = $3")
        .bind(node_id.to_vec())
        .bind(agent_id.to_vec())
        .bind(signed(order_id))
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets the orders of one kind for an agent; says whether there were any.
///
/// # Errors
/// [`DbError`].
pub async fn withdraw(conn: &mut Conn, agent_id: AgentId, kind: Kind) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM node_order WHERE agent_id = $1 AND kind = $2")
        .bind(agent_id.to_vec())
        .bind(kind.as_str())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets every order for an agent.
///
/// # Errors
/// [`DbError`].
pub async fn withdraw_all(conn: &mut Conn, agent_id: AgentId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM node_order WHERE agent_id = $1").bind(agent_id.to_vec()).execute(conn).await?;
    Ok(())
}
