//! Items of checklists and the edges between them.

use murmur_core::{
    checklist::{Details, Edge, State, Status, Subject, TaskId},
    id::AgentId,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, flag, lines, number, parsed, signed, text},
};

/// An item as stored, with its edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What it is about.
    pub subject: Subject,
    /// What more there is to say.
    pub details: Details,
    /// How far it is.
    pub status: Status,
    /// A glob; empty for one that never was dormant.
    pub pattern: String,
    /// It waits for a changed file.
    pub dormant: bool,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
    /// Counts up from 1 with every change.
    pub rev: u64,
    /// Items that wait for this one, in order.
    pub blocks: Vec<TaskId>,
    /// Items that this one waits for, in order.
    pub blocked_by: Vec<TaskId>,
}

impl Task {
    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        Ok(Self {
            id: task_id(row, "number")?,
            subject: parsed(row, "subject")?,
            details: parsed(row, "details")?,
            status: parsed(row, "status")?,
            pattern: text(row, "pattern")?.to_owned(),
            dormant: flag(row, "dormant")?,
            created_ms: number(row, "created_ms")?,
            updated_ms: number(row, "updated_ms")?,
            rev: number(row, "rev")?,
            blocks: Vec::new(),
            blocked_by: Vec::new(),
        })
    }

    /// How it stands, as decisions need it.
    #[must_use]
    pub const fn state(&self) -> State {
        State { status: self.status, dormant: self.dormant }
    }
}

fn task_id(row: &dyn Row, column: &'static str) -> Result<TaskId, DbError> {
    let number = u32::try_from(number(row, column)?).map_err(corrupt(column))?;
    TaskId::new(number).ok_or(DbError::Corrupt { column })
}

fn column(id: TaskId) -> i64 {
    i64::from(id.get())
}

/// Adds an item; its edges come by [`add_edge`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, agent_id: AgentId, task: &Task) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO task (agent_id, number, subject, details, status, pattern, dormant, created_ms, updated_ms, rev)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(agent_id.to_vec())
    .bind(column(task.id))
    .bind(task.subject.as_str())
    .bind(task.details.as_str())
    .bind(task.status.as_str())
    .bind(&task.pattern)
    .bind(task.dormant)
    .bind(signed(task.created_ms))
    .bind(signed(task.updated_ms))
    .bind(signed(task.rev))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of an item.
///
/// # Errors
/// [`DbError`].
pub async fn update(conn: &mut Conn, agent_id: AgentId, task: &Task) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE task SET subject = $3, details = $4, status = $5, dormant = $6, updated_ms = $7, rev = $8
         WHERE agent_id = $1 AND number = $2",
    )
    .bind(agent_id.to_vec())
    .bind(column(task.id))
    .bind(task.subject.as_str())
    .bind(task.details.as_str())
    .bind(task.status.as_str())
    .bind(task.dormant)
    .bind(signed(task.updated_ms))
    .bind(signed(task.rev))
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives an item a new revision because one of its edges is new or gone.
///
/// # Errors
/// [`DbError`].
pub async fn touch(conn: &mut Conn, agent_id: AgentId, id: TaskId, now_ms: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE task SET updated_ms = $3, rev = rev + 1 WHERE agent_id = $1 AND number = $2")
        .bind(agent_id.to_vec())
        .bind(column(id))
        .bind(signed(now_ms))
        .execute(conn)
        .await?;
    Ok(())
}

/// An item with its edges, a deleted one too.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut impl Source, agent_id: AgentId, id: TaskId) -> Result<Option<Task>, DbError> {
    let sql = "SELECT *,
             (SELECT group_concat(blocked, char(10) ORDER BY blocked) FROM task_edge e
              WHERE e.agent_id = $1 AND e.blocker = $2) AS blocks,
             (SELECT group_concat(blocker, char(10) ORDER BY blocker) FROM task_edge e
              WHERE e.agent_id = $1 AND e.blocked = $2) AS blocked_by
         FROM task WHERE agent_id = $1 AND number = $2";
    let whole = |row: &dyn Row| {
        let (blocks, blocked_by) = (lines(row, "blocks")?, lines(row, "blocked_by")?);
        Ok(Task { blocks, blocked_by, ..Task::from_row(row)? })
    };
    conn.row(sql, vec![agent_id.to_vec().into(), column(id).into()], whole).await
}

/// Items behind `after` that are not deleted, in order and without their edges; `open` leaves only those that count and are not done.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut Conn,
    agent_id: AgentId,
    after: u32,
    limit: u32,
    open: bool,
) -> Result<Vec<Task>, DbError> {
    let rows = sqlx::query(
        "SELECT * FROM task
         WHERE agent_id = $1 AND number > $2 AND status <> 'deleted'
           AND (NOT $4 OR (status <> 'completed' AND NOT dormant))
         ORDER BY number LIMIT $3",
    )
    .bind(agent_id.to_vec())
    .bind(i64::from(after))
    .bind(i64::from(limit))
    .bind(open)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Task::from_row(row)).collect()
}

/// How the items stand that are not deleted.
///
/// # Errors
/// [`DbError`].
pub async fn states(conn: &mut Conn, agent_id: AgentId) -> Result<Vec<(TaskId, State)>, DbError> {
    let rows = sqlx::query("SELECT number, status, dormant FROM task WHERE agent_id = $1 AND status <> 'deleted'")
        .bind(agent_id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok((task_id(row, "number")?, State { status: parsed(row, "status")?, dormant: row.try_get("dormant")? }))
        })
        .collect()
}

/// Whether there is an item of this number, deleted or not.
///
/// # Errors
/// [`DbError`].
pub async fn exists(conn: &mut Conn, agent_id: AgentId, id: TaskId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 AS one FROM task WHERE agent_id = $1 AND number = $2")
        .bind(agent_id.to_vec())
        .bind(column(id))
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// The edges of a checklist in order.
///
/// # Errors
/// [`DbError`].
pub async fn edges(conn: &mut Conn, agent_id: AgentId) -> Result<Vec<Edge>, DbError> {
    let rows = sqlx::query("SELECT blocker, blocked FROM task_edge WHERE agent_id = $1 ORDER BY blocker, blocked")
        .bind(agent_id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter().map(edge).collect()
}

fn edge(row: &SqliteRow) -> Result<Edge, DbError> {
    Ok(Edge { blocker: task_id(row, "blocker")?, blocked: task_id(row, "blocked")? })
}

/// Adds an edge.
///
/// # Errors
/// [`DbError`].
pub async fn add_edge(conn: &mut Conn, agent_id: AgentId, edge: Edge) -> Result<(), DbError> {
    sqlx::query("INSERT INTO task_edge (agent_id, blocker, blocked) VALUES ($1, $2, $3)")
        .bind(agent_id.to_vec())
        .bind(column(edge.blocker))
        .bind(column(edge.blocked))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes an edge.
///
/// # Errors
/// [`DbError`].
pub async fn remove_edge(conn: &mut Conn, agent_id: AgentId, edge: Edge) -> Result<(), DbError> {
    sqlx::query("DELETE FROM task_edge WHERE agent_id = $1 AND blocker = $2 AND blocked = $3")
        .bind(agent_id.to_vec())
        .bind(column(edge.blocker))
        .bind(column(edge.blocked))
        .execute(conn)
        .await?;
    Ok(())
}

/// How large a checklist is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Items that are not deleted.
    pub items: usize,
    /// The number that the next item gets.
    pub next: TaskId,
}

/// How large a checklist is.
///
/// # Errors
/// [`DbError`].
pub async fn size(conn: &mut Conn, agent_id: AgentId) -> Result<Size, DbError> {
    let row = sqlx::query(
        "SELECT coalesce(max(number), 0) AS last, coalesce(sum(status <> 'deleted'), 0) AS items
         FROM task WHERE agent_id = $1",
    )
    .bind(agent_id.to_vec())
    .fetch_one(conn)
    .await?;
    let last = u32::try_from(number(&row, "last")?).map_err(corrupt("number"))?;
    let items = usize::try_from(number(&row, "items")?).map_err(corrupt("items"))?;
    Ok(Size { items, next: TaskId::new(last).map_or(TaskId::FIRST, TaskId::next) })
}

/// The dormant items with their patterns.
///
/// # Errors
/// [`DbError`].
pub async fn dormant(conn: &mut Conn, agent_id: AgentId) -> Result<Vec<(TaskId, String)>, DbError> {
    let rows = sqlx::query(
        "SELECT number, pattern FROM task WHERE agent_id = $1 AND dormant AND status <> 'deleted' ORDER BY number",
    )
    .bind(agent_id.to_vec())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((task_id(row, "number")?, row.try_get("pattern")?))).collect()
}

/// Wakes a dormant item.
///
/// # Errors
/// [`DbError`].
pub async fn wake(conn: &mut Conn, agent_id: AgentId, id: TaskId, now_ms: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE task SET dormant = FALSE, updated_ms = $3, rev = rev + 1 WHERE agent_id = $1 AND number = $2")
        .bind(agent_id.to_vec())
        .bind(column(id))
        .bind(signed(now_ms))
        .execute(conn)
        .await?;
    Ok(())
}

/// How many items count and are not done: what an agent still has to do.
///
/// # Errors
/// [`DbError`].
pub async fn count_open(conn: &mut Conn, agent_id: AgentId) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT count(*) AS open FROM task
         WHERE agent_id = $1 AND status IN ('pending', 'in_progress') AND NOT dormant",
    )
    .bind(agent_id.to_vec())
    .fetch_one(conn)
    .await?;
    number(&row, "open")
}
