//! Entries of queues and the turns that hand them out.

use murmur_core::{
    checklist::Subject,
    id::{AgentId, FollowUpId, TurnId},
    queue::{Kind, Lease, Waiting},
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{corrupt, fixed, fixed_or_null, lines, number, number_or_null, signed, to_lines},
};

/// An entry as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// Its id.
    pub id: FollowUpId,
    /// The order of the queue.
    pub position: u64,
    /// Who made it.
    pub kind: Kind,
    /// Slug of who gave it, or an account.
    pub sender: String,
    /// What is to be done.
    pub description: String,
    /// Items that joined the checklist with it.
    pub tasks: Vec<Subject>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// The turn that it was handed out with last.
    pub turn_id: Option<TurnId>,
    /// It was handed out before, as far as is stored.
    pub redelivered: bool,
}

impl FollowUp {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            id: FollowUpId::from_bytes(fixed(row, "id")?),
            position: number(row, "position")?,
            kind: row.try_get::<&str, _>("kind")?.parse().map_err(corrupt("kind"))?,
            sender: row.try_get("sender")?,
            description: row.try_get("description")?,
            tasks: lines(row, "tasks")?,
            created_ms: number(row, "created_ms")?,
            turn_id: fixed_or_null(row, "turn_id")?.map(TurnId::from_bytes),
            redelivered: row.try_get("redelivered")?,
        })
    }
}

/// An agent's latest turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// Which start of the agent claimed it.
    pub incarnation: u32,
    /// Unix milliseconds; `None` once its entries are done with.
    pub expire_ms: Option<u64>,
}

impl Turn {
    /// The lease under which it has its entries, while they are not done with.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.expire_ms.map(|expire_ms| Lease { incarnation: self.incarnation, expire_ms })
    }
}

/// Takes the next position in an agent's queue.
///
/// # Errors
/// [`DbError`].
pub async fn next_position(conn: &mut Conn, agent_id: AgentId) -> Result<u64, DbError> {
    let row = sqlx::query(
        "INSERT INTO turn (agent_id, position, incarnation) VALUES ($1, 1, 0)
         ON CONFLICT (agent_id) DO UPDATE SET position = position + 1 RETURNING position",
    )
    .bind(agent_id.to_vec())
    .fetch_one(conn)
    .await?;
    number(&row, "position")
}

/// Adds an entry.
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, agent_id: AgentId, entry: &FollowUp) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO follow_up (id, agent_id, position, kind, sender, description, tasks, created_ms, redelivered)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(entry.id.to_vec())
    .bind(agent_id.to_vec())
    .bind(signed(entry.position))
    .bind(entry.kind.as_str())
    .bind(&entry.sender)
    .bind(&entry.description)
    .bind(to_lines(&entry.tasks))
    .bind(signed(entry.created_ms))
    .bind(entry.redelivered)
    .execute(conn)
    .await?;
    Ok(())
}

/// Remembers what an entry was made from, for a newer one to take its place.
///
/// # Errors
/// [`DbError`].
pub async fn set_event_key(conn: &mut Conn, id: FollowUpId, key: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE follow_up SET event_key = $2 WHERE id = $1").bind(id.to_vec()).bind(key).execute(conn).await?;
    Ok(())
}

/// Removes the entries that were made from the same and that no turn of these holds.
///
/// # Errors
/// [`DbError`].
pub async fn remove_event(
    conn: &mut Conn,
    agent_id: AgentId,
    key: &str,
    held_by: Option<TurnId>,
) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM follow_up
         WHERE agent_id = $1 AND event_key = $2 AND ($3 IS NULL OR turn_id IS NULL OR turn_id <> $3)",
    )
    .bind(agent_id.to_vec())
    .bind(key)
    .bind(held_by.map(TurnId::to_vec))
    .execute(conn)
    .await?;
    Ok(())
}

/// How many entries events made.
///
/// # Errors
/// [`DbError`].
pub async fn count_events(conn: &mut Conn, agent_id: AgentId) -> Result<usize, DbError> {
    let row = sqlx::query("SELECT count(*) AS entries FROM follow_up WHERE agent_id = $1 AND kind = 'event'")
        .bind(agent_id.to_vec())
        .fetch_one(conn)
        .await?;
    usize::try_from(number(&row, "entries")?).map_err(corrupt("entries"))
}

/// How many entries there are that are not done with.
///
/// # Errors
/// [`DbError`].
pub async fn count(conn: &mut Conn, agent_id: AgentId) -> Result<usize, DbError> {
    let row = sqlx::query("SELECT count(*) AS entries FROM follow_up WHERE agent_id = $1")
        .bind(agent_id.to_vec())
        .fetch_one(conn)
        .await?;
    usize::try_from(number(&row, "entries")?).map_err(corrupt("entries"))
}

/// How many entries no turn of these holds: those that wait.
///
/// # Errors
/// [`DbError`].
pub async fn count_waiting(conn: &mut Conn, agent_id: AgentId, held_by: Option<TurnId>) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT count(*) AS entries FROM follow_up
         WHERE agent_id = $1 AND ($2 IS NULL OR turn_id IS NULL OR turn_id <> $2)",
    )
    .bind(agent_id.to_vec())
    .bind(held_by.map(TurnId::to_vec))
    .fetch_one(conn)
    .await?;
    number(&row, "entries")
}

/// What a turn needs to know of the entries that wait, in order.
///
/// # Errors
/// [`DbError`].
pub async fn waiting(conn: &mut Conn, agent_id: AgentId) -> Result<Vec<(u64, Waiting)>, DbError> {
    let rows = sqlx::query(
        "SELECT position, kind, length(CAST(description AS BLOB)) + length(CAST(tasks AS BLOB)) AS bytes
         FROM follow_up WHERE agent_id = $1 ORDER BY position",
    )
    .bind(agent_id.to_vec())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let kind = row.try_get::<&str, _>("kind")?.parse().map_err(corrupt("kind"))?;
            let bytes = usize::try_from(number(row, "bytes")?).map_err(corrupt("bytes"))?;
            Ok((number(row, "position")?, Waiting { kind, bytes }))
        })
        .collect()
}

/// Entries behind `after` that no turn of these holds, in order.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut Conn,
    agent_id: AgentId,
    held_by: Option<TurnId>,
    after: u64,
    limit: u32,
) -> Result<Vec<FollowUp>, DbError> {
    let rows = sqlx::query(
        "SELECT * FROM follow_up
         WHERE agent_id = $1 AND ($2 IS NULL OR turn_id IS NULL OR turn_id <> $2) AND position > $3
         ORDER BY position LIMIT $4",
    )
    .bind(agent_id.to_vec())
    .bind(held_by.map(TurnId::to_vec))
    .bind(signed(after))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(FollowUp::from_row).collect()
}

/// The entries that a turn holds, in order.
///
/// # Errors
/// [`DbError`].
pub async fn of_turn(conn: &mut Conn, agent_id: AgentId, turn_id: TurnId) -> Result<Vec<FollowUp>, DbError> {
    let rows = sqlx::query("SELECT * FROM follow_up WHERE agent_id = $1 AND turn_id = $2 ORDER BY position")
        .bind(agent_id.to_vec())
        .bind(turn_id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter().map(FollowUp::from_row).collect()
}

/// Makes all entries wait that were handed out; they are marked for good.
///
/// # Errors
/// [`DbError`].
pub async fn release(conn: &mut Conn, agent_id: AgentId) -> Result<(), DbError> {
    sqlx::query("UPDATE follow_up SET turn_id = NULL, redelivered = TRUE WHERE agent_id = $1 AND turn_id IS NOT NULL")
        .bind(agent_id.to_vec())
        .execute(conn)
        .await?;
    Ok(())
}

/// Marks the entries of a turn as handed out before.
///
/// # Errors
/// [`DbError`].
pub async fn mark_redelivered(conn: &mut Conn, agent_id: AgentId, turn_id: TurnId) -> Result<(), DbError> {
    sqlx::query("UPDATE follow_up SET redelivered = TRUE WHERE agent_id = $1 AND turn_id = $2")
        .bind(agent_id.to_vec())
        .bind(turn_id.to_vec())
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives a turn the entries up to a position.
///
/// # Errors
/// [`DbError`].
pub async fn hand_out(conn: &mut Conn, agent_id: AgentId, turn_id: TurnId, up_to: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE follow_up SET turn_id = $2 WHERE agent_id = $1 AND position <= $3")
        .bind(agent_id.to_vec())
        .bind(turn_id.to_vec())
        .bind(signed(up_to))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes the entries of a turn.
///
/// # Errors
/// [`DbError`].
pub async fn remove_turn(conn: &mut Conn, agent_id: AgentId, turn_id: TurnId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM follow_up WHERE agent_id = $1 AND turn_id = $2")
        .bind(agent_id.to_vec())
        .bind(turn_id.to_vec())
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes the entries that no turn of these holds, and says how many.
///
/// # Errors
/// [`DbError`].
pub async fn remove_waiting(conn: &mut Conn, agent_id: AgentId, held_by: Option<TurnId>) -> Result<u64, DbError> {
    let done =
        sqlx::query("DELETE FROM follow_up WHERE agent_id = $1 AND ($2 IS NULL OR turn_id IS NULL OR turn_id <> $2)")
            .bind(agent_id.to_vec())
            .bind(held_by.map(TurnId::to_vec))
            .execute(conn)
            .await?;
    Ok(done.rows_affected())
}

/// An agent's latest turn.
///
/// # Errors
/// [`DbError`].
pub async fn turn(conn: &mut Conn, agent_id: AgentId) -> Result<Option<Turn>, DbError> {
    let row = sqlx::query("SELECT id, incarnation, expire_ms FROM turn WHERE agent_id = $1 AND id IS NOT NULL")
        .bind(agent_id.to_vec())
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Turn {
            id: TurnId::from_bytes(fixed(&row, "id")?),
            incarnation: u32::try_from(number(&row, "incarnation")?).map_err(corrupt("incarnation"))?,
            expire_ms: number_or_null(&row, "expire_ms")?,
        })
    })
    .transpose()
}

/// Whether an agent has work before it: entries that are not done with, or a turn that it was given and has not begun as far as is known.
///
/// # Errors
/// [`DbError`].
pub async fn is_due(conn: &mut Conn, agent_id: AgentId) -> Result<bool, DbError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM follow_up WHERE agent_id = $1)
             OR EXISTS (SELECT 1 FROM turn WHERE agent_id = $1 AND due) AS due",
    )
    .bind(agent_id.to_vec())
    .fetch_one(conn)
    .await?;
    Ok(row.try_get("due")?)
}

/// Notes whether the agent has been given a turn that it has not begun.
///
/// # Errors
/// [`DbError`].
pub async fn set_due(conn: &mut Conn, agent_id: AgentId, due: bool) -> Result<(), DbError> {
    sqlx::query("UPDATE turn SET due = $2 WHERE agent_id = $1 AND due <> $2")
        .bind(agent_id.to_vec())
        .bind(due)
        .execute(conn)
        .await?;
    Ok(())
}

/// Replaces an agent's latest turn. An agent without a queue has none.
///
/// # Errors
/// [`DbError`].
pub async fn set_turn(conn: &mut Conn, agent_id: AgentId, turn: &Turn) -> Result<(), DbError> {
    sqlx::query("UPDATE turn SET id = $2, incarnation = $3, expire_ms = $4 WHERE agent_id = $1")
        .bind(agent_id.to_vec())
        .bind(turn.id.to_vec())
        .bind(i64::from(turn.incarnation))
        .bind(turn.expire_ms.map(signed))
        .execute(conn)
        .await?;
    Ok(())
}
