//! What happened to agents.

use murmur_core::{id::AgentId, phase::Phase};

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, number, signed, text},
};

/// Entries that are kept of an agent.
const KEPT: i64 = 1000;

/// An entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts up for each agent; not looked at when it is added.
    pub seq: u64,
    /// `murmur.v1.TimelineKind` by number.
    pub kind: i32,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// For people.
    pub text: String,
    /// For a change of phase.
    pub phase: Option<Phase>,
    /// Of the agent.
    pub incarnation: u32,
}

impl Entry {
    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        let phase = row.text("phase")?;
        Ok(Self {
            seq: number(row, "seq")?,
            kind: i32::try_from(number(row, "kind")?).map_err(corrupt("kind"))?,
            at_ms: number(row, "at_ms")?,
            text: text(row, "text")?.to_owned(),
            phase: phase.map(|phase| phase.parse().map_err(corrupt("phase"))).transpose()?,
            incarnation: u32::try_from(number(row, "incarnation")?).map_err(corrupt("incarnation"))?,
        })
    }
}

/// Adds an entry, gives it the agent's next number, and drops the oldest of too many.
///
/// # Errors
/// [`DbError`].
pub async fn append(conn: &mut Conn, agent: AgentId, entry: &Entry) -> Result<(), DbError> {
    let seq: i64 = sqlx::query_scalar(
        "UPDATE agent_run SET timeline_seq = timeline_seq + 1 WHERE agent_id = $1 RETURNING timeline_seq",
    )
    .bind(agent.to_vec())
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO timeline (agent_id, seq, kind, at_ms, text, phase, incarnation) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(agent.to_vec())
    .bind(seq)
    .bind(i64::from(entry.kind))
    .bind(signed(entry.at_ms))
    .bind(&entry.text)
    .bind(entry.phase.map(Phase::as_str))
    .bind(i64::from(entry.incarnation))
    .execute(&mut *conn)
    .await?;
    if seq > KEPT {
        sqlx::query("DELETE FROM timeline WHERE agent_id = $1 AND seq <= $2")
            .bind(agent.to_vec())
            .bind(seq - KEPT)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// The entries of an agent behind `after`, oldest first.
///
/// # Errors
/// [`DbError`].
pub async fn since(conn: &mut impl Source, agent: AgentId, after: u64) -> Result<Vec<Entry>, DbError> {
    let sql = "SELECT * FROM timeline WHERE agent_id = $1 AND seq > $2 ORDER BY seq";
    conn.rows(sql, vec![agent.to_vec().into(), signed(after).into()], Entry::from_row).await
}

/// The number of an agent's newest entry; 0 without one.
///
/// # Errors
/// [`DbError`].
pub async fn last_seq(conn: &mut Conn, agent: AgentId) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT timeline_seq FROM agent_run WHERE agent_id = $1")
        .bind(agent.to_vec())
        .fetch_one(conn)
        .await?;
    number(&row, "timeline_seq")
}
