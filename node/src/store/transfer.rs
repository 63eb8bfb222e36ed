//! Files as agents see them, whichever way they go: read from both tables of streams.

use murmur_core::id::{AgentId, MessageId, StreamId};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    inbox::InboxMessage,
    row::{id, number, uint},
};

/// How a transfer stands (`murmur.node.v1.TransferState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TransferState {
    /// The recipient's node has not taken it up.
    Waiting = 1,
    /// On its way.
    Active = 2,
    /// Nothing was heard of the recipient for a while.
    Stalled = 3,
    /// Whole, and on the recipient's disk.
    Done = 4,
    /// Ended by one of the two agents.
    Cancelled = 5,
    /// Cannot be completed.
    Failed = 6,
}

impl TransferState {
    /// The state of a number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Waiting),
            2 => Some(Self::Active),
            3 => Some(Self::Stalled),
            4 => Some(Self::Done),
            5 => Some(Self::Cancelled),
            6 => Some(Self::Failed),
            _ => None,
        }
    }

    /// Whether it may still move.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Active | Self::Stalled)
    }
}

/// A file that goes with a message (`murmur.node.v1.File`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The stream that carries it.
    pub stream_id: StreamId,
    /// What it is called here.
    pub name: String,
    /// As the sender said.
    pub content_type: String,
    /// Bytes in all, where the sender said so.
    pub size: Option<u64>,
    /// Digest of all of it, where the sender said so.
    pub sha256: Option<[u8; 32]>,
    /// How it stands.
    pub state: TransferState,
    /// Bytes that are safe on the recipient's disk, as far as this node knows.
    pub done: u64,
    /// Where it is; for a recipient only once it is whole.
    pub path: Option<String>,
    /// Why it ended other than well, by the name of a code.
    pub reason: Option<String>,
}

/// A file on its way, or past it (`murmur.node.v1.Transfer`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The file.
    pub file: FileInfo,
    /// Whether it comes in.
    pub is_incoming: bool,
    /// The message that it goes with.
    pub msg_id: MessageId,
    /// The sender's slug.
    pub from: String,
    /// The recipient's slug.
    pub to: String,
    /// When it was sent or announced.
    pub created_ms: u64,
    /// When it last moved.
    pub active_ms: u64,
}

const OUT: &str =
    "SELECT stream_id, msg_id, from_slug, to_slug, name, content_type, size AS total_size, sha256, state, reason,
        CASE state WHEN 4 THEN size ELSE min(size, acked_index * chunk_size) END AS done, source_path AS path, created_ms, active_ms, 0 AS is_incoming,
        sender_agent AS agent
    FROM stream_out";
const IN: &str = "SELECT stream_id, msg_id, from_slug, to_slug, name, content_type, total_size, sha256, state, reason,
        size AS done, CASE state WHEN 4 THEN path END AS path, created_ms, active_ms, 1 AS is_incoming, recipient AS agent
    FROM stream_in";

/// Transfers of an agent in both directions, newest first; without `all` only those that may still move.
///
/// # Errors
/// [`StoreError`].
pub fn list(tx: Tx<'_>, agent: AgentId, all: bool, limit: u32) -> Result<Vec<Transfer>, StoreError> {
    let sql = format!(
        "SELECT * FROM ({OUT} WHERE sender_agent = ?1 AND (?2 OR state <= 3)
            UNION ALL {IN} WHERE recipient = ?1 AND (?2 OR state <= 3)) ORDER BY created_ms DESC, stream_id LIMIT ?3"
    );
    let mut statement = tx.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), all, limit], transfer_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One transfer of an agent. When both ends are here, the agent tells which is meant.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, agent: AgentId, stream_id: StreamId) -> Result<Option<Transfer>, StoreError> {
    let sql = format!(
        "SELECT * FROM ({OUT} WHERE stream_id = ?2 UNION ALL {IN} WHERE stream_id = ?2) WHERE agent = ?1 LIMIT 1"
    );
    let key = params![agent.as_bytes(), stream_id.as_bytes()];
    Ok(tx.conn().prepare_cached(&sql)?.query_row(key, transfer_row).optional()?)
}

/// The file that a sent message carries, if it carries one.
///
/// # Errors
/// [`StoreError`].
pub fn of_sent(tx: Tx<'_>, msg_id: MessageId) -> Result<Option<FileInfo>, StoreError> {
    let sql = format!("{OUT} WHERE msg_id = ?1");
    let found = tx.conn().prepare_cached(&sql)?.query_row([msg_id.as_bytes()], transfer_row).optional()?;
    Ok(found.map(|transfer| transfer.file))
}

/// Fills in how the files of received messages stand.
pub(super) fn describe(tx: Tx<'_>, messages: &mut [InboxMessage]) -> Result<(), StoreError> {
    for file in messages.iter_mut().filter_map(|message| message.file.as_mut()) {
        let sql = format!("{IN} WHERE stream_id = ?1");
        let mut statement = tx.conn().prepare_cached(&sql)?;
        if let Some(found) = statement.query_row([file.stream_id.as_bytes()], transfer_row).optional()? {
            **file = found.file;
        }
    }
    Ok(())
}

/// A file of which nothing is known but that it was there.
pub(super) fn forgotten(stream_id: StreamId) -> FileInfo {
    FileInfo {
        stream_id,
        name: String::new(),
        content_type: String::new(),
        size: None,
        sha256: None,
        state: TransferState::Failed,
        done: 0,
        path: None,
        reason: None,
    }
}

fn transfer_row(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    let size = row.get::<_, Option<i64>>("total_size")?.map(|size| u64::try_from(size).unwrap_or(0));
    Ok(Transfer {
        file: FileInfo {
            stream_id: id(row, "stream_id", StreamId::from_bytes)?,
            name: row.get("name")?,
            content_type: row.get("content_type")?,
            size,
            sha256: row.get("sha256")?,
            state: number(row, "state", TransferState::from_number)?,
            done: uint(row, "done")?,
            path: row.get::<_, Option<String>>("path")?.filter(|text| !text.is_empty()),
            reason: row.get::<_, Option<String>>("reason")?.filter(|text| !text.is_empty()),
        },
        is_incoming: row.get("is_incoming")?,
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        from: row.get("from_slug")?,
        to: row.get("to_slug")?,
        created_ms: uint(row, "created_ms")?,
        active_ms: uint(row, "active_ms")?,
    })
}
