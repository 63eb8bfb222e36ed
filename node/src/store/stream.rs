//! Chunk streams: what of them outlives a restart (PROTOCOL §4.6).

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId, NodeId, StreamId},
    slug::Slug,
    subject::Route,
};
use rusqlite::{OptionalExtension as _, Row, params};
use zeroize::Zeroizing;

use super::{
    StoreError, Tx,
    row::{id, int, number, small, text, uint, uint_option},
    transfer::TransferState,
};

/// Which end of a stream this node has. A stream between two agents of one node has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It receives.
    In,
    /// It sends.
    Out,
}

impl End {
    const fn number(self) -> u32 {
        match self {
            Self::In => 1,
            Self::Out => 2,
        }
    }

    const fn table(self) -> &'static str {
        match self {
            Self::In => "stream_in",
            Self::Out => "stream_out",
        }
    }
}

/// A stream that is sent from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRow {
    /// The stream.
    pub stream_id: StreamId,
    /// The message that opens it.
    pub msg_id: MessageId,
    /// Who sends.
    pub sender: AgentId,
    /// Who receives.
    pub recipient: AgentId,
    /// The sender's slug.
    pub from: Slug,
    /// The recipient's slug when it was sent.
    pub to: Slug,
    /// What the file is called.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// Of the nonces of its chunks.
    pub nonce_prefix: [u8; 19],
    /// Bytes of every chunk but the last.
    pub chunk_size: u32,
    /// Bytes in all.
    pub size: u64,
    /// Digest of all of it.
    pub sha256: [u8; 32],
    /// Where it was when it was sent.
    pub source_path: String,
    /// How it stands.
    pub state: TransferState,
    /// Why it ended other than well.
    pub reason: String,
    /// Chunks that the recipient is known to have.
    pub acked_index: u32,
    /// The first chunk that it has not allowed.
    pub limit_index: u32,
    /// When it was accepted.
    pub created_ms: u64,
    /// When something was last heard of it.
    pub active_ms: u64,
}

/// A stream that is received here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRow {
    /// The stream.
    pub stream_id: StreamId,
    /// The message that opened it.
    pub msg_id: MessageId,
    /// Who sends.
    pub sender: AgentId,
    /// Who receives.
    pub recipient: AgentId,
    /// The verified sender's slug.
    pub from: Slug,
    /// The recipient's slug.
    pub to: Slug,
    /// The only node whose chunks are looked at.
    pub source_node: NodeId,
    /// Where credit goes, as the sender said.
    pub reply_route: Option<Route>,
    /// What the file is called here.
    pub name: String,
    /// As the sender said.
    pub content_type: String,
    /// Of the nonces of its chunks.
    pub nonce_prefix: [u8; 19],
    /// Bytes of every chunk but the last.
    pub chunk_size: u32,
    /// Bytes in all, where the sender knew.
    pub total_size: Option<u64>,
    /// Digest of all of it, where the sender knew.
    pub sha256: Option<[u8; 32]>,
    /// Where the file is to be.
    pub path: String,
    /// How it stands.
    pub state: TransferState,
    /// Why it ended other than well.
    pub reason: String,
    /// Chunks that are safe on the disk.
    pub synced_index: u32,
    /// Bytes that are safe on the disk.
    pub size: u64,
    /// When it was announced.
    pub created_ms: u64,
    /// When it last moved.
    pub active_ms: u64,
}

/// Open streams that count against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Between the two agents.
    pub pair: u64,
    /// Bytes of all open ones of the local agent.
    pub bytes: u64,
}

/// The stream key of one sealed copy.
pub struct KeyRow {
    /// The copy.
    pub env_digest: [u8; 32],
    /// `StreamKey::to_bytes`.
    pub key: Zeroizing<[u8; 64]>,
    /// Where the copy went, for the end that sends: its row goes when it is acknowledged.
    pub route: Option<Route>,
}

/// What is open from one agent to another, and of the sending one in all.
///
/// # Errors
/// [`StoreError`].
pub fn usage_out(tx: Tx<'_>, sender: AgentId, recipient: AgentId) -> Result<Usage, StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE recipient = ?2) AS pair, coalesce(sum(size), 0) AS bytes
        FROM stream_out WHERE sender_agent = ?1 AND state <= 3";
    usage(tx, sql, sender, recipient)
}

/// What is open from one agent to another, and of the receiving one in all.
///
/// # Errors
/// [`StoreError`].
pub fn usage_in(tx: Tx<'_>, recipient: AgentId, sender: AgentId) -> Result<Usage, StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE sender_agent = ?2) AS pair, coalesce(sum(coalesce(total_size, size)), 0) AS bytes
        FROM stream_in WHERE recipient = ?1 AND state <= 3";
    usage(tx, sql, recipient, sender)
}

fn usage(tx: Tx<'_>, sql: &str, own: AgentId, other: AgentId) -> Result<Usage, StoreError> {
    let read = |row: &Row<'_>| Ok(Usage { pair: uint(row, "pair")?, bytes: uint(row, "bytes")? });
    Ok(tx.conn().prepare_cached(sql)?.query_row(params![own.as_bytes(), other.as_bytes()], read)?)
}

/// Adds a stream that is sent.
///
/// # Errors
/// [`StoreError`].
pub fn insert_out(tx: Tx<'_>, row: &OutRow) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO stream_out (stream_id, msg_id, sender_agent, recipient, from_slug, to_slug, name, content_type,
            nonce_prefix, chunk_size, size, sha256, source_path, state, created_ms, active_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    tx.conn().prepare_cached(sql)?.execute(params![
        row.stream_id.as_bytes(),
        row.msg_id.as_bytes(),
        row.sender.as_bytes(),
        row.recipient.as_bytes(),
        row.from.as_str(),
        row.to.as_str(),
        row.name,
        row.content_type,
        row.nonce_prefix,
        row.chunk_size,
        int(row.size),
        row.sha256,
        row.source_path,
        row.state as u32,
        int(row.created_ms),
        int(row.active_ms),
    ])?;
    Ok(())
}

/// Adds a stream that is received; `false` when there is one of this id already. Another stream of a message of the same id gets
/// a folder of its own: message ids are unique for each sender only.
///
/// # Errors
/// [`StoreError`].
pub fn insert_in(tx: Tx<'_>, row: &InRow) -> Result<bool, StoreError> {
    let sql = "INSERT OR IGNORE INTO stream_in (stream_id, msg_id, sender_agent, recipient, from_slug, to_slug, source_node,
            reply_route, name, content_type, nonce_prefix, chunk_size, total_size, sha256, path, state, created_ms, active_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
    let inserted = tx.conn().prepare_cached(sql)?.execute(params![
        row.stream_id.as_bytes(),
        row.msg_id.as_bytes(),
        row.sender.as_bytes(),
        row.recipient.as_bytes(),
        row.from.as_str(),
        row.to.as_str(),
        row.source_node.as_bytes(),
        row.reply_route.as_ref().map(Route::to_string),
        row.name,
        row.content_type,
        row.nonce_prefix,
        row.chunk_size,
        row.total_size.map(int),
        row.sha256,
        row.path,
        row.state as u32,
        int(row.created_ms),
        int(row.active_ms),
    ])?;
    Ok(inserted == 1)
}

/// Whether another stream's message has this id.
///
/// # Errors
/// [`StoreError`].
pub fn is_message_known(tx: Tx<'_>, msg_id: MessageId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM stream_in WHERE msg_id = ?1)";
    Ok(tx.conn().prepare_cached(sql)?.query_row([msg_id.as_bytes()], |row| row.get(0))?)
}

/// Keeps the stream key of a sealed copy.
///
/// # Errors
/// [`StoreError`].
pub fn save_key(tx: Tx<'_>, end: End, stream_id: StreamId, row: &KeyRow) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO stream_key (direction, stream_id, env_digest, key, route)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        end.number(),
        stream_id.as_bytes(),
        row.env_digest,
        &row.key[..],
        row.route.as_ref().map(Route::to_string)
    ];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Keeps the stream key of a copy of a message that was sealed here.
///
/// # Errors
/// [`StoreError`].
pub fn save_sealed_key(tx: Tx<'_>, msg_id: MessageId, row: &KeyRow) -> Result<(), StoreError> {
    let sql = "SELECT stream_id FROM stream_out WHERE msg_id = ?1 AND state <= 3";
    let read = |row: &Row<'_>| id(row, "stream_id", StreamId::from_bytes);
    match tx.conn().prepare_cached(sql)?.query_row([msg_id.as_bytes()], read).optional()? {
        Some(stream_id) => save_key(tx, End::Out, stream_id, row),
        None => Ok(()),
    }
}

/// Every stream key of a stream.
///
/// # Errors
/// [`StoreError`].
pub fn keys(tx: Tx<'_>, end: End, stream_id: StreamId) -> Result<Vec<KeyRow>, StoreError> {
    let sql = "SELECT env_digest, key, route FROM stream_key WHERE direction = ?1 AND stream_id = ?2";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let read = |row: &Row<'_>| {
        let route = row.get::<_, Option<String>>(2)?.and_then(|text| text.parse().ok());
        Ok(KeyRow { env_digest: row.get(0)?, key: Zeroizing::new(row.get(1)?), route })
    };
    let rows = statement.query_map(params![end.number(), stream_id.as_bytes()], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A stream that is sent.
///
/// # Errors
/// [`StoreError`].
pub fn outgoing(tx: Tx<'_>, stream_id: StreamId) -> Result<Option<OutRow>, StoreError> {
    let sql = "SELECT * FROM stream_out WHERE stream_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([stream_id.as_bytes()], out_row).optional()?)
}

/// A stream that is received.
///
/// # Errors
/// [`StoreError`].
pub fn incoming(tx: Tx<'_>, stream_id: StreamId) -> Result<Option<InRow>, StoreError> {
    let sql = "SELECT * FROM stream_in WHERE stream_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([stream_id.as_bytes()], in_row).optional()?)
}

/// The stream of a sent message.
///
/// # Errors
/// [`StoreError`].
pub fn of_message(tx: Tx<'_>, msg_id: MessageId) -> Result<Option<OutRow>, StoreError> {
    let sql = "SELECT * FROM stream_out WHERE msg_id = ?1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([msg_id.as_bytes()], out_row).optional()?)
}

/// Begins the stream of a sent message again, from its first chunk on.
///
/// # Errors
/// [`StoreError`].
pub fn reopen(tx: Tx<'_>, msg_id: MessageId, now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE stream_out SET state = 1, reason = '', acked_index = 0, limit_index = 0, told = 0, active_ms = ?2
        WHERE msg_id = ?1";
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), int(now_ms)])?;
    Ok(())
}

/// Whether the copy of a stream that has ended is kept: its message is a dead letter, and such copies of its sender have no more than
/// `bytes_max` bytes.
///
/// # Errors
/// [`StoreError`].
pub fn is_kept(tx: Tx<'_>, stream_id: StreamId, bytes_max: u64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM dead_letter d WHERE d.msg_id = s.msg_id)
            AND (SELECT coalesce(sum(o.size), 0) FROM stream_out o WHERE o.sender_agent = s.sender_agent AND o.state > 3
                AND EXISTS (SELECT 1 FROM dead_letter d WHERE d.msg_id = o.msg_id)) <= ?2
        FROM stream_out s WHERE s.stream_id = ?1 AND s.state > 3";
    let key = params![stream_id.as_bytes(), int(bytes_max)];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?.unwrap_or(false))
}

/// Streams whose copy may be kept, of messages that were given up before this time.
///
/// # Errors
/// [`StoreError`].
pub fn kept(tx: Tx<'_>, before_ms: u64) -> Result<Vec<StreamId>, StoreError> {
    let sql = "SELECT s.stream_id FROM dead_letter d JOIN stream_out s ON s.msg_id = d.msg_id
        WHERE s.state > 3 AND d.at_ms < ?1";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([int(before_ms)], |row| id(row, 0, StreamId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Streams that are sent and have not ended, or whose end the other side may not know.
///
/// # Errors
/// [`StoreError`].
pub fn live_out(tx: Tx<'_>) -> Result<Vec<OutRow>, StoreError> {
    let mut statement = tx.conn().prepare_cached("SELECT * FROM stream_out WHERE state <= 3 OR told = 0")?;
    let rows = statement.query_map([], out_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Streams that are received and have not ended, or whose end the other side may not know.
///
/// # Errors
/// [`StoreError`].
pub fn live_in(tx: Tx<'_>) -> Result<Vec<InRow>, StoreError> {
    let mut statement = tx.conn().prepare_cached("SELECT * FROM stream_in WHERE state <= 3 OR told = 0")?;
    let rows = statement.query_map([], in_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notes what the recipient has and allows.
///
/// # Errors
/// [`StoreError`].
pub fn note_credit(tx: Tx<'_>, stream_id: StreamId, acked: u32, limit: u32, now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE stream_out SET acked_index = ?2, limit_index = ?3, active_ms = ?4, state = 2, reason = ''
        WHERE stream_id = ?1 AND state <= 3";
    tx.conn().prepare_cached(sql)?.execute(params![stream_id.as_bytes(), acked, limit, int(now_ms)])?;
    Ok(())
}

/// Notes that the recipient has no room for more.
///
/// # Errors
/// [`StoreError`].
pub fn note_no_room(tx: Tx<'_>, stream_id: StreamId, acked: u32, limit: u32, now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE stream_out SET acked_index = ?2, limit_index = ?3, active_ms = ?4, state = 3, reason = ?5
        WHERE stream_id = ?1 AND state <= 3";
    let values = params![stream_id.as_bytes(), acked, limit, int(now_ms), Code::StorageFull.name()];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Received files that came whole before this time and whose message was read or is gone, a bounded number. From then on the message
/// says of none where it is.
///
/// # Errors
/// [`StoreError`].
pub fn take_old_files(tx: Tx<'_>, before_ms: u64, limit: u32) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT s.stream_id, s.path FROM stream_in s WHERE s.state = 4 AND s.active_ms < ?1 AND s.path <> ''
        AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.recipient = s.recipient AND i.msg_id = s.msg_id
            AND i.sender_agent = s.sender_agent AND i.read_ms IS NULL) LIMIT ?2";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?));
    let found: Vec<([u8; 16], String)> =
        statement.query_map(params![int(before_ms), limit], read)?.collect::<Result<_, _>>()?;
    for (stream_id, _) in &found {
        tx.conn().prepare_cached("UPDATE stream_in SET path = '' WHERE stream_id = ?1")?.execute([stream_id])?;
    }
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Notes that nothing is heard of the recipient.
///
/// # Errors
/// [`StoreError`].
pub fn note_stalled(tx: Tx<'_>, stream_id: StreamId) -> Result<(), StoreError> {
    let sql = "UPDATE stream_out SET state = 3 WHERE stream_id = ?1 AND state <= 3";
    tx.conn().prepare_cached(sql)?.execute([stream_id.as_bytes()])?;
    Ok(())
}

/// Notes what is safe on the disk.
///
/// # Errors
/// [`StoreError`].
pub fn note_synced(tx: Tx<'_>, stream_id: StreamId, index: u32, size: u64, now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE stream_in SET synced_index = ?2, size = ?3, active_ms = ?4, state = 2
        WHERE stream_id = ?1 AND state <= 3";
    tx.conn().prepare_cached(sql)?.execute(params![stream_id.as_bytes(), index, int(size), int(now_ms)])?;
    Ok(())
}

/// Ends a stream and forgets its keys; `false` when it had ended before. `told` says that the other side knows.
///
/// # Errors
/// [`StoreError`].
pub fn end(
    tx: Tx<'_>,
    end: End,
    stream_id: StreamId,
    state: TransferState,
    reason: &str,
    told: bool,
    now_ms: u64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE {} SET state = ?2, reason = ?3, told = ?4, active_ms = ?5 WHERE stream_id = ?1 AND state <= 3",
        end.table()
    );
    let values = params![stream_id.as_bytes(), state as u32, reason, told, int(now_ms)];
    let ended = tx.conn().prepare_cached(&sql)?.execute(values)? == 1;
    let keys = "DELETE FROM stream_key WHERE direction = ?1 AND stream_id = ?2";
    tx.conn().prepare_cached(keys)?.execute(params![end.number(), stream_id.as_bytes()])?;
    Ok(ended)
}

/// Notes that the other side knows of a stream's end.
///
/// # Errors
/// [`StoreError`].
pub fn note_told(tx: Tx<'_>, end: End, stream_id: StreamId) -> Result<(), StoreError> {
    let sql = format!("UPDATE {} SET told = 1 WHERE stream_id = ?1 AND state > 3", end.table());
    tx.conn().prepare_cached(&sql)?.execute([stream_id.as_bytes()])?;
    Ok(())
}

/// Forgets streams that ended before `before_ms`, a bounded number at a time. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, before_ms: u64, limit: u32) -> Result<usize, StoreError> {
    let mut pruned = 0;
    for table in [End::In.table(), End::Out.table()] {
        let sql = format!(
            "DELETE FROM {table} WHERE stream_id IN
                (SELECT stream_id FROM {table} WHERE state > 3 AND active_ms < ?1 LIMIT ?2)"
        );
        pruned += tx.conn().prepare_cached(&sql)?.execute(params![int(before_ms), limit])?;
    }
    Ok(pruned)
}

fn out_row(row: &Row<'_>) -> rusqlite::Result<OutRow> {
    Ok(OutRow {
        stream_id: id(row, "stream_id", StreamId::from_bytes)?,
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        sender: id(row, "sender_agent", AgentId::from_bytes)?,
        recipient: id(row, "recipient", AgentId::from_bytes)?,
        from: text(row, "from_slug")?,
        to: text(row, "to_slug")?,
        name: row.get("name")?,
        content_type: row.get("content_type")?,
        nonce_prefix: row.get("nonce_prefix")?,
        chunk_size: small(row, "chunk_size")?,
        size: uint(row, "size")?,
        sha256: row.get("sha256")?,
        source_path: row.get("source_path")?,
        state: number(row, "state", TransferState::from_number)?,
        reason: row.get("reason")?,
        acked_index: small(row, "acked_index")?,
        limit_index: small(row, "limit_index")?,
        created_ms: uint(row, "created_ms")?,
        active_ms: uint(row, "active_ms")?,
    })
}

fn in_row(row: &Row<'_>) -> rusqlite::Result<InRow> {
    Ok(InRow {
        stream_id: id(row, "stream_id", StreamId::from_bytes)?,
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        sender: id(row, "sender_agent", AgentId::from_bytes)?,
        recipient: id(row, "recipient", AgentId::from_bytes)?,
        from: text(row, "from_slug")?,
        to: text(row, "to_slug")?,
        source_node: id(row, "source_node", NodeId::from_bytes)?,
        reply_route: row.get::<_, Option<String>>("reply_route")?.and_then(|text| text.parse().ok()),
        name: row.get("name")?,
        content_type: row.get("content_type")?,
        nonce_prefix: row.get("nonce_prefix")?,
        chunk_size: small(row, "chunk_size")?,
        total_size: uint_option(row, "total_size")?,
        sha256: row.get("sha256")?,
        path: row.get("path")?,
        state: number(row, "state", TransferState::from_number)?,
        reason: row.get("reason")?,
        synced_index: small(row, "synced_index")?,
        size: uint(row, "size")?,
        created_ms: uint(row, "created_ms")?,
        active_ms: uint(row, "active_ms")?,
    })
}
