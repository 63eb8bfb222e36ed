//! Who holds a node's lease, or held it last, and what is void since (PROTOCOL §5.9).

use murmur_core::id::{Incarnation, NodeId, WorkspaceId};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{fixed, number, signed},
};

/// A node's lease as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Who held it last; `None` before the first session.
    pub incarnation: Option<Incarnation>,
    /// How that one ended.
    pub departed: Departed,
    /// What it was handed is to be taken back.
    pub redeliver: bool,
    /// Broker tokens of up to this Unix second are void.
    pub void_s: u64,
    /// The broker has been told up to this Unix second.
    pub voided_s: u64,
    /// How far the node's store had come.
    pub store_mark: u64,
}

/// How the session of whoever held the lease last ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departed {
    /// It fell silent, or lives: it may be running.
    No,
    /// It said goodbye.
    Left,
    /// Its stream broke, as when its process is killed.
    Broke,
}

impl Lease {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        let incarnation = row.try_get::<Option<Vec<u8>>, _>("incarnation")?;
        let incarnation = incarnation.map(|_| fixed(row, "incarnation")).transpose()?.map(Incarnation::from_bytes);
        Ok(Self {
            incarnation,
            departed: match number(row, "departed")? {
                0 => Departed::No,
                1 => Departed::Left,
                2 => Departed::Broke,
                _ => return Err(DbError::Corrupt { column: "departed" }),
            },
            redeliver: number(row, "redeliver")? != 0,
            void_s: number(row, "void_s")?,
            voided_s: number(row, "voided_s")?,
            store_mark: number(row, "store_mark")?,
        })
    }
}

/// A node's lease.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut Conn, (workspace_id, id): (WorkspaceId, NodeId)) -> Result<Option<Lease>, DbError> {
    let row = sqlx::query(
        "SELECT incarnation, departed, redeliver, void_s, voided_s, store_mark FROM node WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(Lease::from_row).transpose()
}

/// Gives the lease to an incarnation. With `void_s`, the credentials of the one before it are void; with `redeliver`, what that one was
/// handed is to be taken back.
///
/// # Errors
/// [`DbError`].
pub async fn grant(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    incarnation: Incarnation,
    void_s: Option<u64>,
    redeliver: bool,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE node SET incarnation = $3, departed = 0, void_s = max(void_s, $4), redeliver = max(redeliver, $5)
         WHERE workspace_id = $1 AND id = $2",
    )
    .bind(workspace_id.to_vec())
    .bind(id.to_vec())
    .bind(incarnation.to_vec())
    .bind(signed(void_s.unwrap_or_default()))
    .bind(i64::from(redeliver))
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how an incarnation's session ended, unless another one holds the lease by now.
///
/// # Errors
/// [`DbError`].
pub async fn leave(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    incarnation: Incarnation,
    departed: Departed,
) -> Result<(), DbError> {
    sqlx::query("UPDATE node SET departed = $4 WHERE workspace_id = $1 AND id = $2 AND incarnation = $3")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(incarnation.to_vec())
        .bind(match departed {
            Departed::No => 0_i64,
            Departed::Left => 1,
            Departed::Broke => 2,
        })
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that the broker has been told.
///
/// # Errors
/// [`DbError`].
pub async fn voided(conn: &mut Conn, (workspace_id, id): (WorkspaceId, NodeId), until_s: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE node SET voided_s = max(voided_s, $3), redeliver = 0 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(signed(until_s))
        .execute(conn)
        .await?;
    Ok(())
}

/// Remembers how far a node's store has come. It never goes back by itself.
///
/// # Errors
/// [`DbError`].
pub async fn set_store_mark(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
    mark: u64,
) -> Result<(), DbError> {
    sqlx::query("UPDATE node SET store_mark = $3 WHERE workspace_id = $1 AND id = $2")
        .bind(workspace_id.to_vec())
        .bind(id.to_vec())
        .bind(signed(mark))
        .execute(conn)
        .await?;
    Ok(())
}
