//! Which messages were shown, and which are held until their turn comes (PROTOCOL §5.7).
//!
//! A held message is an inbox row with a negative cursor: it is on disk, acknowledged and known as a duplicate, and nobody sees it.
//! When it is shown it gets the next cursor, so that cursors are in the order of showing.

use murmur_core::{
    id::{AgentId, ConversationId},
    order::{Held, Sequencer},
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    inbox::{Arrival, InboxMessage, cursors, described, first_since, last_cursor, message_columns, message_row},
    row::{id, int, uint},
};

/// Cursors of what is held for the agent `?1`, those of what was given back meanwhile included.
macro_rules! held {
    () => {
        cursors!("cursor < 0", "")
    };
}

/// What one sender said to one agent in one conversation, counted in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thread {
    /// The local agent.
    pub recipient: AgentId,
    /// Who speaks.
    pub sender: AgentId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The sender's sequence epoch.
    pub epoch: u64,
}

impl Thread {
    /// The thread of a message that came.
    #[must_use]
    pub const fn of(arrival: &Arrival) -> Self {
        Self {
            recipient: arrival.recipient,
            sender: arrival.message.from_agent_id,
            conversation: arrival.message.conversation_id,
            epoch: arrival.sequence_epoch,
        }
    }
}

/// Notes that a message is shown, or was refused for good, if it follows what was shown before. Returns whether it does.
///
/// # Errors
/// [`StoreError`].
pub fn follow(tx: Tx<'_>, thread: &Thread, sequence: u64) -> Result<bool, StoreError> {
    let Thread { recipient, sender, conversation, epoch } = thread;
    let update = "UPDATE shown SET last = max(last, ?5)
        WHERE recipient = ?1 AND sender_agent = ?2 AND conversation_id = ?3 AND sequence_epoch = ?4 AND last >= ?5 - 1";
    let key = params![recipient.as_bytes(), sender.as_bytes(), conversation.as_bytes(), int(*epoch), int(sequence)];
    if tx.conn().prepare_cached(update)?.execute(key)? == 1 {
        return Ok(true);
    }
    if sequence != 1 {
        return Ok(false);
    }
    let insert = "INSERT OR IGNORE INTO shown (recipient, sender_agent, conversation_id, sequence_epoch, last)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    Ok(tx.conn().prepare_cached(insert)?.execute(key)? == 1)
}

/// Whether anything is held for an agent.
///
/// # Errors
/// [`StoreError`].
pub fn is_holding(tx: Tx<'_>, recipient: AgentId) -> Result<bool, StoreError> {
    let sql = concat!("SELECT EXISTS (", held!(), ")");
    Ok(tx.conn().prepare_cached(sql)?.query_row([recipient.as_bytes()], |row| row.get(0))?)
}

/// Whether anything of a thread came at this time or later.
///
/// # Errors
/// [`StoreError`].
pub fn has_since(tx: Tx<'_>, thread: &Thread, since_ms: u64) -> Result<bool, StoreError> {
    let Thread { recipient, sender, conversation, epoch } = thread;
    let sql = concat!(
        "SELECT EXISTS (SELECT 1 FROM inbox WHERE cursor IN (",
        cursors!("cursor >= ?6", ""),
        ") AND received_ms >= ?5 AND sender_agent = ?2 AND conversation_id = ?3 AND sequence_epoch = ?4)"
    );
    let first = first_since(tx, since_ms)?;
    let key =
        params![recipient.as_bytes(), sender.as_bytes(), conversation.as_bytes(), int(*epoch), int(since_ms), first];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, |row| row.get(0))?)
}

/// How many messages are held for an agent.
///
/// # Errors
/// [`StoreError`].
pub fn held_for(tx: Tx<'_>, recipient: AgentId) -> Result<u64, StoreError> {
    let sql = concat!("SELECT count(*) AS held FROM (", held!(), ")");
    Ok(tx.conn().prepare_cached(sql)?.query_row([recipient.as_bytes()], |row| uint(row, "held"))?)
}

/// How many messages are held.
///
/// # Errors
/// [`StoreError`].
pub fn held_count(tx: Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS held FROM inbox WHERE cursor < 0";
    Ok(tx.conn().prepare_cached(sql)?.query_row([], |row| uint(row, "held"))?)
}

/// The cursor under which the next message is held.
///
/// # Errors
/// [`StoreError`].
pub fn next_held(tx: Tx<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT min(coalesce(min(cursor), 0), 0) - 1 FROM inbox";
    Ok(tx.conn().prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Every thread with something held, and for each pair of agents the latest time that any of it was given.
///
/// # Errors
/// [`StoreError`].
pub fn threads(tx: Tx<'_>) -> Result<Vec<(Thread, u64)>, StoreError> {
    let sql =
        "SELECT recipient, sender_agent, conversation_id, sequence_epoch, max(not_before_ms) AS latest_ms FROM inbox
        WHERE cursor < 0 GROUP BY +recipient, sender_agent, conversation_id, sequence_epoch";
    let read = |row: &Row<'_>| {
        let thread = Thread {
            recipient: id(row, "recipient", AgentId::from_bytes)?,
            sender: id(row, "sender_agent", AgentId::from_bytes)?,
            conversation: id(row, "conversation_id", ConversationId::from_bytes)?,
            epoch: uint(row, "sequence_epoch")?,
        };
        Ok((thread, uint(row, "latest_ms")?))
    };
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A thread as it stands.
///
/// # Errors
/// [`StoreError`].
pub fn load(tx: Tx<'_>, thread: &Thread) -> Result<Sequencer, StoreError> {
    let Thread { recipient, sender, conversation, epoch } = thread;
    let key = params![recipient.as_bytes(), sender.as_bytes(), conversation.as_bytes(), int(*epoch)];
    let last = "SELECT last FROM shown
        WHERE recipient = ?1 AND sender_agent = ?2 AND conversation_id = ?3 AND sequence_epoch = ?4";
    let last = tx.conn().prepare_cached(last)?.query_row(key, |row| uint(row, "last")).optional()?;
    let mut sequencer = Sequencer::new(last.unwrap_or(0));
    let held = concat!(
        "SELECT -cursor AS id, sequence, not_before_ms, patience_ms FROM inbox
        WHERE cursor IN (",
        held!(),
        ") AND sender_agent = ?2 AND conversation_id = ?3 AND sequence_epoch = ?4"
    );
    let mut statement = tx.conn().prepare_cached(held)?;
    let read = |row: &Row<'_>| {
        Ok(Held {
            sequence: uint(row, "sequence")?,
            id: uint(row, "id")?,
            not_before_ms: uint(row, "not_before_ms")?,
            patience_ms: uint(row, "patience_ms")?,
        })
    };
    for held in statement.query_map(key, read)? {
        sequencer.hold(held?);
    }
    Ok(sequencer)
}

/// Notes up to where a thread was shown.
///
/// # Errors
/// [`StoreError`].
pub fn save(tx: Tx<'_>, thread: &Thread, shown: u64) -> Result<(), StoreError> {
    let Thread { recipient, sender, conversation, epoch } = thread;
    let sql = "INSERT OR REPLACE INTO shown (recipient, sender_agent, conversation_id, sequence_epoch, last)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![recipient.as_bytes(), sender.as_bytes(), conversation.as_bytes(), int(*epoch), int(shown)];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Gives a held message the next place in its inbox; `None` when it is not held any more.
///
/// # Errors
/// [`StoreError`].
pub fn show(tx: Tx<'_>, held: u64, gap: bool) -> Result<Option<InboxMessage>, StoreError> {
    let next = concat!("SELECT 1 + ", last_cursor!());
    let cursor: i64 = tx.conn().prepare_cached(next)?.query_row([], |row| row.get(0))?;
    let update = concat!("UPDATE inbox SET cursor = ?2, gap = ?3 WHERE cursor = ?1 RETURNING ", message_columns!());
    let values = params![-int(held), cursor, gap];
    let shown = tx.conn().prepare_cached(update)?.query_row(values, message_row).optional()?;
    Ok(described(tx, shown.into_iter().collect())?.pop())
}
