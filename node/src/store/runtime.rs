//! Agents that this node runs as processes, and the reports on them that wait to be told.

use murmur_core::id::AgentId;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, small, uint},
};

/// An agent that this node runs, or ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAgentRow {
    /// The agent.
    pub agent_id: AgentId,
    /// Its incarnation.
    pub incarnation: u32,
    /// It is looked after: it has neither ended nor gone to sleep.
    pub live: bool,
    /// `murmur.v1.StartAgent`, as ordered.
    pub start: Vec<u8>,
    /// What the runtime remembers of it, as JSON.
    pub state: String,
}

/// Reports that are told by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportBatch {
    /// The call, the same in every repeat.
    pub report_id: String,
    /// `murmur.v1.AgentReport` each, in their order.
    pub reports: Vec<Vec<u8>>,
}

/// Remembers an agent.
///
/// # Errors
/// [`StoreError`].
pub fn save(tx: Tx<'_>, agent: &RunAgentRow, now_ms: u64) -> Result<(), StoreError> {
    let RunAgentRow { agent_id, incarnation, live, start, state } = agent;
    let sql = "INSERT INTO runtime_agent (agent_id, incarnation, live, start, state, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (agent_id) DO UPDATE SET incarnation = ?2, live = ?3, start = ?4, state = ?5, updated_ms = ?6";
    tx.conn().prepare_cached(sql)?.execute(params![
        agent_id.as_bytes(),
        incarnation,
        live,
        start,
        state,
        int(now_ms)
    ])?;
    Ok(())
}

/// One agent, whether it lives or not.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, agent: AgentId) -> Result<Option<RunAgentRow>, StoreError> {
    let sql = "SELECT * FROM runtime_agent WHERE agent_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], read).optional()?)
}

/// Every agent that is looked after.
///
/// # Errors
/// [`StoreError`].
pub fn live(tx: Tx<'_>) -> Result<Vec<RunAgentRow>, StoreError> {
    let mut statement = tx.conn().prepare_cached("SELECT * FROM runtime_agent WHERE live ORDER BY agent_id")?;
    Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
}

/// An agent that is not looked after: it sleeps, or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    /// The agent.
    pub agent_id: AgentId,
    /// `murmur.v1.Phase` as told last.
    pub phase: i32,
    /// Since when, Unix milliseconds.
    pub updated_ms: u64,
}

/// Every agent that is not looked after, the longest first.
///
/// # Errors
/// [`StoreError`].
pub fn resting(tx: Tx<'_>) -> Result<Vec<Resting>, StoreError> {
    let sql = "SELECT agent_id, updated_ms, json_extract(state, '$.phase') AS phase FROM runtime_agent
        WHERE NOT live ORDER BY updated_ms";
    let mut statement = tx.conn().prepare_cached(sql)?;
    Ok(statement.query_map([], read_resting)?.collect::<Result<_, _>>()?)
}

/// As [`resting`], of one agent.
///
/// # Errors
/// [`StoreError`].
pub fn resting_one(tx: Tx<'_>, agent: AgentId) -> Result<Option<Resting>, StoreError> {
    let sql = "SELECT agent_id, updated_ms, json_extract(state, '$.phase') AS phase FROM runtime_agent
        WHERE agent_id = ?1 AND NOT live";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], read_resting).optional()?)
}

/// Forgets an agent.
///
/// # Errors
/// [`StoreError`].
pub fn forget(tx: Tx<'_>, agent: AgentId) -> Result<(), StoreError> {
    tx.conn()
        .prepare_cached("DELETE FROM runtime_agent WHERE agent_id = ?1 AND NOT live")?
        .execute([agent.as_bytes()])?;
    Ok(())
}

/// Queues a report behind all others.
///
/// # Errors
/// [`StoreError`].
pub fn queue_report(tx: Tx<'_>, report: &[u8]) -> Result<(), StoreError> {
    tx.conn().prepare_cached("INSERT INTO runtime_report (report) VALUES (?1)")?.execute([report])?;
    Ok(())
}

/// The oldest reports as one call: the one that was tried before, or up to `reports_max` under a new id.
///
/// # Errors
/// [`StoreError`].
pub fn next_reports(tx: Tx<'_>, new_id: &str, reports_max: u32) -> Result<Option<ReportBatch>, StoreError> {
    let sql = "SELECT report_id FROM runtime_report ORDER BY seq LIMIT 1";
    let Some(tried) = tx.conn().prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<String>>(0)).optional()?
    else {
        return Ok(None);
    };
    let report_id = match tried {
        Some(report_id) => report_id,
        None => {
            let sql = "UPDATE runtime_report SET report_id = ?1
                WHERE seq IN (SELECT seq FROM runtime_report ORDER BY seq LIMIT ?2)";
            tx.conn().prepare_cached(sql)?.execute(params![new_id, reports_max])?;
            new_id.to_owned()
        }
    };
    let mut statement =
        tx.conn().prepare_cached("SELECT report FROM runtime_report WHERE report_id = ?1 ORDER BY seq")?;
    let reports = statement.query_map([&report_id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Some(ReportBatch { report_id, reports }))
}

/// Takes a call apart that is not to be tried again as it is: its reports are the next, each for itself.
///
/// # Errors
/// [`StoreError`].
pub fn take_apart(tx: Tx<'_>, report_id: &str) -> Result<(), StoreError> {
    let sql = "UPDATE runtime_report SET report_id = NULL WHERE report_id = ?1";
    tx.conn().prepare_cached(sql)?.execute([report_id])?;
    Ok(())
}

/// Forgets the reports of a call: the control plane has them.
///
/// # Errors
/// [`StoreError`].
pub fn reported(tx: Tx<'_>, report_id: &str) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM runtime_report WHERE report_id = ?1")?.execute([report_id])?;
    Ok(())
}

/// Revokes every token that speaks for an agent.
///
/// # Errors
/// [`StoreError`].
pub fn revoke_tokens(tx: Tx<'_>, agent: AgentId, now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE agent_token SET revoked_ms = ?2 WHERE agent_id = ?1 AND revoked_ms IS NULL";
    tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), int(now_ms)])?;
    Ok(())
}

fn read_resting(row: &Row<'_>) -> rusqlite::Result<Resting> {
    Ok(Resting {
        agent_id: id(row, "agent_id", AgentId::from_bytes)?,
        phase: row.get("phase")?,
        updated_ms: uint(row, "updated_ms")?,
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<RunAgentRow> {
    Ok(RunAgentRow {
        agent_id: id(row, "agent_id", AgentId::from_bytes)?,
        incarnation: small(row, "incarnation")?,
        live: row.get("live")?,
        start: row.get("start")?,
        state: row.get("state")?,
    })
}
