//! Sent messages: what was said, fixed when it was accepted, and the sequence of every conversation.

use bytes::Bytes;
use murmur_core::id::{AgentId, ConversationId, MessageId};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    inbox::MessageKind,
    row::{id, int, number, small, uint},
};

/// The message `?1`: every message has a delivery, which knows its sender.
macro_rules! this_message {
    () => {
        "msg_id = ?1 AND sender_agent = (SELECT sender_agent FROM delivery WHERE delivery.msg_id = ?1 LIMIT 1)"
    };
}

/// A sent message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The message.
    pub msg_id: MessageId,
    /// Who speaks.
    pub sender: AgentId,
    /// The conversation of the two agents.
    pub conversation_id: ConversationId,
    /// The epoch of the sequence.
    pub sequence_epoch: u64,
    /// Position in the conversation, from 1.
    pub sequence: u64,
    /// What it is for.
    pub kind: MessageKind,
    /// The serialized inner message; every sealed copy carries exactly these bytes.
    pub inner: Bytes,
    /// When it was accepted.
    pub created_ms: u64,
    /// How long it is worth delivering.
    pub ttl_seconds: u32,
    /// W3C trace context of the sending call; empty when there is none.
    pub traceparent: String,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    /// The message that it made.
    pub msg_id: MessageId,
    /// Names recipient, content and kind.
    pub content_digest: [u8; 32],
}

/// The next position in a conversation; nobody else gets it, and it is free again when the transaction fails.
///
/// # Errors
/// [`StoreError`].
pub fn next_sequence(tx: Tx<'_>, sender: AgentId, conversation: ConversationId) -> Result<u64, StoreError> {
    let sql = "INSERT INTO sequence (sender_agent, conversation_id, last) VALUES (?1, ?2, 1)
        ON CONFLICT (sender_agent, conversation_id) DO UPDATE SET last = last + 1 RETURNING last";
    let key = params![sender.as_bytes(), conversation.as_bytes()];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, |row| uint(row, "last"))?)
}

/// The last position that was given out in a conversation; 0 before the first.
///
/// # Errors
/// [`StoreError`].
pub fn last_sequence(tx: Tx<'_>, sender: AgentId, conversation: ConversationId) -> Result<u64, StoreError> {
    let sql = "SELECT last FROM sequence WHERE sender_agent = ?1 AND conversation_id = ?2";
    let key = params![sender.as_bytes(), conversation.as_bytes()];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, |row| uint(row, "last")).optional()?.unwrap_or(0))
}

/// Gives out a position if it is the next one, and says whether it was. It is free again when the transaction fails.
///
/// # Errors
/// [`StoreError`].
pub fn take_sequence(
    tx: Tx<'_>,
    sender: AgentId,
    conversation: ConversationId,
    sequence: u64,
) -> Result<bool, StoreError> {
    let sql = if sequence == 1 {
        "INSERT INTO sequence (sender_agent, conversation_id, last) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE sequence SET last = ?3 WHERE sender_agent = ?1 AND conversation_id = ?2 AND last = ?3 - 1"
    };
    let values = params![sender.as_bytes(), conversation.as_bytes(), int(sequence)];
    Ok(tx.conn().prepare_cached(sql)?.execute(values)? == 1)
}

/// What the sender used an idempotency key for, if it did.
///
/// # Errors
/// [`StoreError`].
pub fn used_key(tx: Tx<'_>, sender: AgentId, client_key: &str) -> Result<Option<UsedKey>, StoreError> {
    let sql = "SELECT msg_id, content_digest FROM outbox WHERE sender_agent = ?1 AND client_key = ?2";
    let read = |row: &Row<'_>| {
        Ok(UsedKey { msg_id: id(row, "msg_id", MessageId::from_bytes)?, content_digest: row.get("content_digest")? })
    };
    Ok(tx.conn().prepare_cached(sql)?.query_row(params![sender.as_bytes(), client_key], read).optional()?)
}

/// Adds a message.
///
/// # Errors
/// [`StoreError`].
pub fn insert(
    tx: Tx<'_>,
    message: &OutboxRow,
    client_key: Option<&str>,
    content_digest: &[u8; 32],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (msg_id, sender_agent, conversation_id, sequence_epoch, sequence, kind, inner,
            created_ms, ttl_seconds, traceparent, client_key, content_digest)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    tx.conn().prepare_cached(sql)?.execute(params![
        message.msg_id.as_bytes(),
        message.sender.as_bytes(),
        message.conversation_id.as_bytes(),
        int(message.sequence_epoch),
        int(message.sequence),
        message.kind as u32,
        &message.inner[..],
        int(message.created_ms),
        message.ttl_seconds,
        message.traceparent,
        client_key,
        content_digest,
    ])?;
    Ok(())
}

/// One message.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, msg_id: MessageId) -> Result<Option<OutboxRow>, StoreError> {
    let sql = concat!("SELECT * FROM outbox WHERE ", this_message!());
    Ok(tx.conn().prepare_cached(sql)?.query_row([msg_id.as_bytes()], outbox_row).optional()?)
}

/// The newest messages that an agent sent, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn newest(tx: Tx<'_>, sender: AgentId, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = "SELECT * FROM outbox WHERE sender_agent = ?1 ORDER BY msg_id DESC LIMIT ?2";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![sender.as_bytes(), limit], outbox_row)?;
    let mut messages = rows.collect::<Result<Vec<_>, _>>()?;
    messages.reverse();
    Ok(messages)
}

/// Gives a message that is begun again another time to live.
///
/// # Errors
/// [`StoreError`].
pub fn set_ttl(tx: Tx<'_>, msg_id: MessageId, ttl_seconds: u32) -> Result<(), StoreError> {
    let sql = concat!("UPDATE outbox SET ttl_seconds = ?2 WHERE ", this_message!());
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), ttl_seconds])?;
    Ok(())
}

/// Deletes messages accepted before `before_ms` whose deliveries have all ended, with everything that hangs on them; a
/// bounded number at a time. Dead letters stay for as long as they are kept. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, before_ms: u64, limit: u32) -> Result<usize, StoreError> {
    // An id begins with the time it was made at.
    let before = MessageId::new_v7(before_ms, [0; 10]);
    let chosen = "SELECT DISTINCT msg_id FROM delivery d WHERE msg_id < ?1
        AND NOT EXISTS (SELECT 1 FROM delivery other WHERE other.msg_id = d.msg_id AND other.open = 1)
        AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE dead_letter.msg_id = d.msg_id) LIMIT ?2";
    let mut statement = tx.conn().prepare_cached(chosen)?;
    let rows = statement.query_map(params![before.as_bytes(), limit], |row| row.get::<_, [u8; 16]>(0))?;
    let ids = rows.collect::<Result<Vec<_>, _>>()?;
    for msg_id in &ids {
        for sql in [
            "DELETE FROM copy WHERE msg_id = ?1 AND id IN (SELECT copy_id FROM delivery WHERE msg_id = ?1)",
            "DELETE FROM copy WHERE msg_id = ?1 AND is_later = 1",
            concat!("DELETE FROM outbox WHERE ", this_message!()),
            "DELETE FROM delivery WHERE msg_id = ?1",
            "DELETE FROM pending_request WHERE msg_id = ?1",
        ] {
            tx.conn().prepare_cached(sql)?.execute([msg_id])?;
        }
    }
    Ok(ids.len())
}

/// Makes a message older than it is.
#[cfg(test)]
pub(crate) fn set_created_for_test(tx: Tx<'_>, msg_id: MessageId, created_ms: u64) -> Result<(), StoreError> {
    let sql = concat!("UPDATE outbox SET created_ms = ?2 WHERE ", this_message!());
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), int(created_ms)])?;
    Ok(())
}

fn outbox_row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        sender: id(row, "sender_agent", AgentId::from_bytes)?,
        conversation_id: id(row, "conversation_id", ConversationId::from_bytes)?,
        sequence_epoch: uint(row, "sequence_epoch")?,
        sequence: uint(row, "sequence")?,
        kind: number(row, "kind", MessageKind::from_number)?,
        inner: Bytes::from(row.get::<_, Vec<u8>>("inner")?),
        created_ms: uint(row, "created_ms")?,
        ttl_seconds: small(row, "ttl_seconds")?,
        traceparent: row.get("traceparent")?,
    })
}
