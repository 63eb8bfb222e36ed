//! Events of local agents: one log each, in the order in which they came, without doubles, and how far its sessions have come.

use murmur_core::{
    id::AgentId,
    limits::{EVENT_LIFE_MS, EVENTS_KEPT_MAX},
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, uint, uint_option},
};

/// Where the node's position among the control plane's events is kept.
const POSITION: &str = "event_position";

/// An event to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// In whose log.
    pub agent: AgentId,
    /// Unique in that log.
    pub event_id: String,
    /// Its kind.
    pub kind: String,
    /// What it is about, where a newer one about the same takes its place.
    pub subject: Option<String>,
    /// Its agent has it from elsewhere: it is kept, and nobody is told.
    pub is_read: bool,
    /// `murmur.v1.Event`.
    pub event: Vec<u8>,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Position in this node's log.
    pub cursor: u64,
    /// In whose log.
    pub agent: AgentId,
    /// Its kind.
    pub kind: String,
    /// A newer one about the same has come.
    pub superseded: bool,
    /// When it came here, Unix milliseconds.
    pub received_ms: u64,
    /// When a tool's answer carried it.
    pub read_ms: Option<u64>,
    /// `murmur.v1.Event`.
    pub event: Vec<u8>,
}

/// How far an agent's sessions have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reader {
    /// The last event that was written to a program.
    pub told: u64,
    /// Events that were dropped before anybody was told.
    pub lost: u64,
}

/// Which of an agent's events to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Behind this cursor.
    pub after: u64,
    /// Only those that were not read.
    pub unread: bool,
    /// Those that were superseded too.
    pub superseded: bool,
    /// At most so many.
    pub limit: u32,
}

/// Stores an event, marks what it supersedes, and drops what is too much or too old. Returns whether it was new.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, new: &NewEvent, now_ms: u64) -> Result<bool, StoreError> {
    let NewEvent { agent, event_id, kind, subject, is_read, event } = new;
    let sql = "INSERT INTO event (agent_id, event_id, kind, subject, received_ms, read_ms, event)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (agent_id, event_id) DO NOTHING";
    let read_ms = is_read.then(|| int(now_ms));
    let values = params![agent.as_bytes(), event_id, kind, subject, int(now_ms), read_ms, event];
    if tx.conn().prepare_cached(sql)?.execute(values)? == 0 {
        return Ok(false);
    }
    if let Some(subject) = subject {
        supersede(tx, *agent, subject, Some(tx.conn().last_insert_rowid()))?;
    }
    trim(tx, *agent, now_ms)?;
    Ok(true)
}

/// Marks events about a subject as superseded, but for one.
fn supersede(tx: Tx<'_>, agent: AgentId, subject: &str, by: Option<i64>) -> Result<(), StoreError> {
    let sql =
        "UPDATE event SET superseded = 1 WHERE agent_id = ?1 AND subject = ?2 AND superseded = 0 AND cursor IS NOT ?3";
    tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), subject, by])?;
    Ok(())
}

/// Marks events about a subject as superseded in every log: what they tell is no longer so. Returns whose logs they stood in.
///
/// # Errors
/// [`StoreError`].
pub fn settle(tx: Tx<'_>, subject: &str) -> Result<Vec<AgentId>, StoreError> {
    // No index on the subject alone: this is done for permission requests, seldom, over a log that is short.
    let sql = "SELECT DISTINCT agent_id FROM event WHERE subject = ?1 AND superseded = 0";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let agents: Vec<AgentId> =
        statement.query_map([subject], |row| id(row, "agent_id", AgentId::from_bytes))?.collect::<Result<_, _>>()?;
    for agent in &agents {
        supersede(tx, *agent, subject, None)?;
    }
    Ok(agents)
}

/// Drops what is past its time, and the oldest of what is too much. What nobody was told of is counted.
fn trim(tx: Tx<'_>, agent: AgentId, now_ms: u64) -> Result<(), StoreError> {
    let old_ms = int(now_ms.saturating_sub(EVENT_LIFE_MS));
    let sql = "SELECT max(
            coalesce((SELECT cursor FROM event WHERE agent_id = ?1 ORDER BY cursor DESC LIMIT 1 OFFSET ?2), 0),
            coalesce((SELECT max(cursor) FROM event WHERE agent_id = ?1 AND received_ms < ?3), 0))";
    let values = params![agent.as_bytes(), int(EVENTS_KEPT_MAX), old_ms];
    let until: i64 = tx.conn().prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    if until == 0 {
        return Ok(());
    }
    let told = int(reader(tx, agent)?.told);
    let sql = "SELECT count(*) FROM event WHERE agent_id = ?1 AND cursor <= ?2 AND cursor > ?3 AND read_ms IS NULL AND superseded = 0";
    let lost: i64 =
        tx.conn().prepare_cached(sql)?.query_row(params![agent.as_bytes(), until, told], |row| row.get(0))?;
    if lost > 0 {
        let sql = "INSERT INTO event_reader (agent_id, lost) VALUES (?1, ?2) ON CONFLICT (agent_id) DO UPDATE SET lost = lost + ?2";
        tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), lost])?;
    }
    let sql = "DELETE FROM event WHERE agent_id = ?1 AND cursor <= ?2";
    tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), until])?;
    Ok(())
}

/// The position of the last event of the control plane's that is stored here.
///
/// # Errors
/// [`StoreError`].
pub fn position(tx: Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let found = tx.conn().prepare_cached(sql)?.query_row([POSITION], |row| uint(row, "value")).optional()?;
    Ok(found.unwrap_or(0))
}

/// Moves the node's position.
///
/// # Errors
/// [`StoreError`].
pub fn set_position(tx: Tx<'_>, position: u64) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    tx.conn().prepare_cached(sql)?.execute(params![POSITION, int(position)])?;
    Ok(())
}

/// How far an agent's sessions have come.
///
/// # Errors
/// [`StoreError`].
pub fn reader(tx: Tx<'_>, agent: AgentId) -> Result<Reader, StoreError> {
    let sql = "SELECT told, lost FROM event_reader WHERE agent_id = ?1";
    let read = |row: &Row<'_>| Ok(Reader { told: uint(row, "told")?, lost: uint(row, "lost")? });
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], read).optional()?.unwrap_or_default())
}

/// Notes that a session has written everything up to a cursor, and with it that something is missing. It never goes back, nor past what
/// there is.
///
/// # Errors
/// [`StoreError`].
pub fn told(tx: Tx<'_>, agent: AgentId, cursor: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_reader (agent_id, told)
        SELECT ?1, coalesce(max(cursor), 0) FROM event WHERE agent_id = ?1 AND cursor <= ?2
        ON CONFLICT (agent_id) DO UPDATE SET told = max(told, excluded.told), lost = 0";
    tx.conn().prepare_cached(sql)?.execute(params![agent.as_bytes(), int(cursor)])?;
    Ok(())
}

/// Reads an agent's events, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn page(tx: Tx<'_>, agent: AgentId, query: Query) -> Result<Vec<EventRow>, StoreError> {
    let Query { after, unread, superseded, limit } = query;
    let sql = match (unread, superseded) {
        (true, _) => {
            "SELECT * FROM event WHERE agent_id = ?1 AND cursor > ?2 AND read_ms IS NULL AND superseded = 0
            ORDER BY cursor LIMIT ?3"
        }
        (false, false) => {
            "SELECT * FROM event WHERE agent_id = ?1 AND cursor > ?2 AND superseded = 0 ORDER BY cursor LIMIT ?3"
        }
        (false, true) => "SELECT * FROM event WHERE agent_id = ?1 AND cursor > ?2 ORDER BY cursor LIMIT ?3",
    };
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), int(after), limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The cursor of an agent's newest event; 0 when there is none.
///
/// # Errors
/// [`StoreError`].
pub fn newest(tx: Tx<'_>, agent: AgentId) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(max(cursor), 0) AS newest FROM event WHERE agent_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], |row| uint(row, "newest"))?)
}

/// How many of an agent's events are unread.
///
/// # Errors
/// [`StoreError`].
pub fn unread(tx: Tx<'_>, agent: AgentId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS count FROM event WHERE agent_id = ?1 AND read_ms IS NULL AND superseded = 0";
    Ok(tx.conn().prepare_cached(sql)?.query_row([agent.as_bytes()], |row| uint(row, "count"))?)
}

/// Marks events of an agent as read.
///
/// # Errors
/// [`StoreError`].
pub fn mark_read(tx: Tx<'_>, agent: AgentId, cursors: &[u64], now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE event SET read_ms = ?3 WHERE cursor = ?2 AND agent_id = ?1 AND read_ms IS NULL";
    let mut statement = tx.conn().prepare_cached(sql)?;
    for cursor in cursors {
        statement.execute(params![agent.as_bytes(), int(*cursor), int(now_ms)])?;
    }
    Ok(())
}

/// Drops everything that is past its time, in every log.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, now_ms: u64) -> Result<(), StoreError> {
    let old_ms = int(now_ms.saturating_sub(EVENT_LIFE_MS));
    let mut statement = tx.conn().prepare_cached("SELECT DISTINCT agent_id FROM event WHERE received_ms < ?1")?;
    let agents: Vec<AgentId> =
        statement.query_map([old_ms], |row| id(row, "agent_id", AgentId::from_bytes))?.collect::<Result<_, _>>()?;
    agents.into_iter().try_for_each(|agent| trim(tx, agent, now_ms))
}

fn read(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        cursor: uint(row, "cursor")?,
        agent: id(row, "agent_id", AgentId::from_bytes)?,
        kind: row.get("kind")?,
        superseded: row.get("superseded")?,
        received_ms: uint(row, "received_ms")?,
        read_ms: uint_option(row, "read_ms")?,
        event: row.get("event")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};

    fn new(agent: u8, event_id: &str, subject: Option<&str>) -> NewEvent {
        NewEvent {
            agent: AgentId::from_bytes([agent; 16]),
            event_id: event_id.to_owned(),
            kind: "ci_result".to_owned(),
            subject: subject.map(ToOwned::to_owned),
            is_read: false,
            event: event_id.as_bytes().to_vec(),
        }
    }

    /// Runs in one transaction on a store of its own.
    async fn within<T: Send + 'static>(work: impl FnOnce(Tx<'_>) -> Result<T, StoreError> + Send + 'static) -> T {
        let home = tempfile::tempdir().unwrap();
        let options = StoreOptions { readers: 1, pages_max: None, now_ms: 0 };
        let store = Store::open(&home.path().join("store.db"), &options).unwrap();
        store.write(work).await.unwrap()
    }

    const A: AgentId = AgentId::from_bytes([1; 16]);
    const UNREAD: Query = Query { after: 0, unread: true, superseded: false, limit: 1000 };

    fn ids(rows: &[EventRow]) -> Vec<String> {
        rows.iter().map(|row| String::from_utf8(row.event.clone()).unwrap()).collect()
    }

    #[tokio::test]
    async fn an_event_stands_once_in_a_log_and_in_each_log_for_itself() {
        let (again, other, rows) = within(|tx| {
            insert(tx, &new(1, "x", None), 1)?;
            let again = insert(tx, &new(1, "x", None), 2)?;
            let other = insert(tx, &new(2, "x", None), 3)?;
            Ok((again, other, page(tx, A, UNREAD)?))
        })
        .await;
        assert!(!again && other);
        assert_eq!((ids(&rows), rows[0].received_ms), (vec!["x".to_owned()], 1));
    }

    #[tokio::test]
    async fn a_newer_event_takes_the_place_of_one_about_the_same() {
        let (unread_, all, count) = within(|tx| {
            for (id, subject) in [("a1", Some("a")), ("b1", Some("b")), ("n", None), ("a2", Some("a")), ("m", None)] {
                insert(tx, &new(1, id, subject), 1)?;
            }
            insert(tx, &new(2, "a3", Some("a")), 1)?;
            // What comes twice supersedes nothing, itself least of all.
            insert(tx, &new(1, "a2", Some("a")), 2)?;
            let all = page(tx, A, Query { unread: false, superseded: true, ..UNREAD })?;
            Ok((page(tx, A, UNREAD)?, all, unread(tx, A)?))
        })
        .await;
        assert_eq!(ids(&unread_), ["b1", "n", "a2", "m"]);
        assert_eq!(all.iter().filter(|row| row.superseded).count(), 1);
        assert_eq!((all.len(), count), (5, 4));
    }

    #[tokio::test]
    async fn a_subject_that_is_settled_is_no_news_in_any_log() {
        let (settled, left) = within(|tx| {
            insert(tx, &new(1, "p", Some("permission")), 1)?;
            insert(tx, &new(2, "p", Some("permission")), 1)?;
            insert(tx, &new(1, "q", Some("other")), 1)?;
            let mut settled = settle(tx, "permission")?;
            settled.sort();
            assert!(settle(tx, "permission")?.is_empty());
            Ok((settled, page(tx, A, UNREAD)?))
        })
        .await;
        assert_eq!(settled, [A, AgentId::from_bytes([2; 16])]);
        assert_eq!(ids(&left), ["q"]);
    }

    #[tokio::test]
    async fn a_sessions_cursor_goes_forward_only_and_not_past_the_end() {
        let readers = within(|tx| {
            insert(tx, &new(1, "x", None), 1)?;
            insert(tx, &new(1, "y", None), 1)?;
            insert(tx, &new(2, "z", None), 1)?;
            let mut readers = vec![reader(tx, A)?.told];
            for cursor in [2, 1, 99, 0] {
                told(tx, A, cursor)?;
                readers.push(reader(tx, A)?.told);
            }
            Ok(readers)
        })
        .await;
        assert_eq!(readers, [0, 2, 2, 2, 2]);
    }

    #[tokio::test]
    async fn a_log_is_bounded_and_says_how_much_nobody_saw() {
        let (rows, lost, after_told) = within(|tx| {
            for number in 0..EVENTS_KEPT_MAX + 5 {
                insert(tx, &new(1, &format!("e{number}"), None), 1)?;
                if number == 1 {
                    told(tx, A, 2)?;
                }
            }
            let (rows, lost) = (page(tx, A, Query { limit: 2000, ..UNREAD })?, reader(tx, A)?.lost);
            told(tx, A, u64::MAX)?;
            Ok((rows, lost, reader(tx, A)?.lost))
        })
        .await;
        assert_eq!(rows.len(), usize::try_from(EVENTS_KEPT_MAX).unwrap());
        assert_eq!(ids(&rows)[0], "e5");
        assert_eq!((lost, after_told), (3, 0), "two of five were told");
    }

    #[tokio::test]
    async fn what_is_past_its_time_goes() {
        let (rows, lost) = within(|tx| {
            insert(tx, &new(1, "old", None), 1)?;
            insert(tx, &new(1, "newer", None), 2)?;
            prune(tx, EVENT_LIFE_MS + 2)?;
            Ok((page(tx, A, UNREAD)?, reader(tx, A)?.lost))
        })
        .await;
        assert_eq!((ids(&rows), lost), (vec!["newer".to_owned()], 1));
    }

    #[tokio::test]
    async fn only_an_agent_reads_its_own_and_the_position_stays() {
        let (left, position_) = within(|tx| {
            insert(tx, &new(1, "x", None), 1)?;
            insert(tx, &new(2, "y", None), 1)?;
            mark_read(tx, A, &[1, 2], 5)?;
            set_position(tx, 7)?;
            set_position(tx, 9)?;
            Ok((unread(tx, AgentId::from_bytes([2; 16]))?, position(tx)?))
        })
        .await;
        assert_eq!((left, position_), (1, 9));
    }
}
