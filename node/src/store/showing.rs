//! Whose messages are being pushed to a program. A push is noted a moment after it was made (DESIGN §8 point 9); when the process
//! dies in between, what was unread then may have been shown, and is marked as if it had been: a repeat says that it is one.

use murmur_core::id::AgentId;
use rusqlite::params;

use super::{StoreError, Tx, row::int};

/// Notes that a session of an agent is about to be shown messages.
///
/// # Errors
/// [`StoreError`].
pub fn begin(tx: Tx<'_>, agent: AgentId, session: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    tx.conn().prepare_cached(sql)?.execute(params![key(agent, session), agent.as_bytes()])?;
    Ok(())
}

/// Notes that the session is over, and so are its pushes.
///
/// # Errors
/// [`StoreError`].
pub fn end(tx: Tx<'_>, agent: AgentId, session: u64) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key(agent, session)])?;
    Ok(())
}

/// Marks as pushed what sessions of a process that died may have shown.
///
/// # Errors
/// [`StoreError`].
pub fn died(tx: Tx<'_>, now_ms: u64) -> Result<(), StoreError> {
    let mark = "UPDATE inbox SET pushed_ms = ?1 WHERE read_ms IS NULL AND pushed_ms IS NULL AND cursor > 0
        AND recipient IN (SELECT value FROM meta WHERE key GLOB 'showing:*')";
    tx.conn().execute(mark, [int(now_ms)])?;
    tx.conn().execute("DELETE FROM meta WHERE key GLOB 'showing:*'", [])?;
    Ok(())
}

fn key(agent: AgentId, session: u64) -> String {
    format!("showing:{}:{session}", agent.hex())
}
