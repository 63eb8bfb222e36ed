//! Received messages: one row per (sender, message, recipient), in order of arrival.

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, ConversationId, MessageId, StreamId},
    slug::Slug,
    subject::Route,
    tier::Tier,
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, number, text, uint, uint_option},
    transfer::{self, FileInfo, forgotten},
};

/// What [`message_row`] reads of `inbox`, in its order.
macro_rules! message_columns {
    () => {
        "msg_id, conversation_id, kind, from_slug, sender_agent, to_slug, tier, content_type, body, in_reply_to, created_ms, received_ms,
            sequence, cursor, pushed_ms, read_ms, traceparent, deadline_ms, stream_id, gap"
    };
}
pub(super) use message_columns;

/// The highest cursor that was ever given; 0 before the first. No cursor is given twice, also when its row is gone.
macro_rules! last_cursor {
    () => {
        "max(0, coalesce((SELECT max(cursor) FROM inbox), 0), coalesce((SELECT value FROM meta WHERE key = 'inbox_last'), 0))"
    };
}
pub(super) use last_cursor;

/// Cursors of the agent `?1`, of which a condition holds: one index has those of unread messages, another those of what was read. Each half
/// ends with `$tail`.
macro_rules! cursors {
    ($condition:literal, $tail:literal) => {
        concat!(
            "SELECT cursor FROM (SELECT cursor FROM inbox WHERE recipient = ?1 AND ",
            $condition,
            " AND read_ms IS NULL ",
            $tail,
            ")
            UNION ALL SELECT cursor FROM (SELECT cursor FROM inbox WHERE recipient = ?1 AND ",
            $condition,
            " AND read_ms IS NOT NULL ",
            $tail,
            ")"
        )
    };
}
pub(super) use cursors;

/// What a message is for, as far as agents see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MessageKind {
    /// Says something.
    Message = 1,
    /// Its sender waits for a reply.
    Request = 2,
    /// Answers a message.
    Reply = 3,
}

impl MessageKind {
    /// The kind of a number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Message),
            2 => Some(Self::Request),
            3 => Some(Self::Reply),
            _ => None,
        }
    }
}

/// A message as an agent sees it (`murmur.node.v1.Message`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxMessage {
    /// The message.
    pub msg_id: MessageId,
    /// The conversation of the two agents.
    pub conversation_id: ConversationId,
    /// What it is for.
    pub kind: MessageKind,
    /// The verified sender's slug.
    pub from: Slug,
    /// The verified sender.
    pub from_agent_id: AgentId,
    /// The recipient's slug.
    pub to: Slug,
    /// How the sender's root came to be trusted.
    pub tier: Tier,
    /// As the sender said; never empty.
    pub content_type: String,
    /// What the sender said.
    pub body: Bytes,
    /// The message it answers.
    pub in_reply_to: Option<MessageId>,
    /// When the sender made it.
    pub created_ms: u64,
    /// When this node stored it.
    pub received_ms: u64,
    /// Position among the sender's messages of this conversation, from 1.
    pub sequence: u64,
    /// Position in the inbox, ascending; 0 for a message that was sent.
    pub cursor: u64,
    /// It was shown before.
    pub redelivered: bool,
    /// W3C trace context of the receiving span; empty when there is none.
    pub traceparent: String,
    /// For a request: until when its sender waits.
    pub deadline_ms: Option<u64>,
    /// The file that comes with it.
    pub file: Option<Box<FileInfo>>,
    /// Messages that the sender sent before it are missing, and were waited for.
    pub gap: bool,
}

impl InboxMessage {
    /// What holds the message back from sessions: its own id, while a file belongs to it that is not here yet.
    #[must_use]
    pub fn awaits_file(&self) -> Option<MessageId> {
        self.has_file_to_come().then_some(self.msg_id)
    }

    /// Whether a file belongs to it that is not here yet.
    #[must_use]
    pub fn has_file_to_come(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.state.is_open())
    }
}

/// A message to store, with what only the store and the acknowledgements need.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// What the agent will see; its `cursor` is not yet known.
    pub message: InboxMessage,
    /// The local agent it is for.
    pub recipient: AgentId,
    /// Names the sealed copy.
    pub env_digest: [u8; 32],
    /// Names the content, whatever copy it came in.
    pub inner_digest: [u8; 32],
    /// The sender's sequence epoch.
    pub sequence_epoch: u64,
    /// Where acknowledgements go, as the sender said.
    pub reply_route: Option<Route>,
}

/// How a message is kept that is not shown yet (PROTOCOL §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// A negative position: it gets its place in the inbox when it is shown.
    pub cursor: i64,
    /// It is not shown before this.
    pub not_before_ms: u64,
    /// Until when it waits for messages that were sent before it.
    pub patience_ms: u64,
}

/// What is known of a message that came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Position in the inbox.
    pub cursor: u64,
    /// The copy that was stored.
    pub env_digest: [u8; 32],
    /// The content that was stored.
    pub inner_digest: [u8; 32],
    /// When the agent read it.
    pub read_ms: Option<u64>,
    /// It was given back to its sender unread, since its agent had moved to another node.
    pub given_back: bool,
}

/// A message that was just marked as read: what its receipt needs.
#[derive(Debug, Clone)]
pub struct ReadRow {
    /// The sender, who gets the receipt.
    pub sender: AgentId,
    /// The message.
    pub msg_id: MessageId,
    /// The copy that was stored.
    pub env_digest: [u8; 32],
    /// Where the receipt goes.
    pub reply_route: Option<Route>,
}

/// Looks for an earlier arrival of the same message.
///
/// # Errors
/// [`StoreError`].
pub fn known(tx: Tx<'_>, sender: AgentId, msg_id: MessageId, recipient: AgentId) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT cursor, env_digest, inner_digest, read_ms, given_back FROM inbox
        WHERE sender_agent = ?1 AND msg_id = ?2 AND recipient = ?3";
    let read = |row: &Row<'_>| {
        Ok(Known {
            cursor: uint(row, "cursor")?,
            env_digest: row.get("env_digest")?,
            inner_digest: row.get("inner_digest")?,
            read_ms: uint_option(row, "read_ms")?,
            given_back: row.get("given_back")?,
        })
    };
    let key = params![sender.as_bytes(), msg_id.as_bytes(), recipient.as_bytes()];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, read).optional()?)
}

/// Stores a message and says its position; what is held has none yet, and 0 is said.
///
/// # Errors
/// [`StoreError`]; a second row for the same message is one, so ask [`known`] in the same transaction.
pub fn insert(tx: Tx<'_>, arrival: &Arrival, hold: Option<Hold>) -> Result<u64, StoreError> {
    let Arrival { message, recipient, env_digest, inner_digest, sequence_epoch, reply_route } = arrival;
    let sql = concat!(
        "INSERT OR FAIL INTO inbox (sender_agent, msg_id, recipient, env_digest, inner_digest, conversation_id,
            sequence_epoch, sequence, kind, from_slug, to_slug, tier, content_type, body, in_reply_to, deadline_ms,
            traceparent, reply_route, created_ms, received_ms, stream_id, cursor, not_before_ms, patience_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
            coalesce(?22, 1 + ",
        last_cursor!(),
        "), ?23, ?24)"
    );
    tx.conn().prepare_cached(sql)?.execute(params![
        message.from_agent_id.as_bytes(),
        message.msg_id.as_bytes(),
        recipient.as_bytes(),
        env_digest,
        inner_digest,
        message.conversation_id.as_bytes(),
        int(*sequence_epoch),
        int(message.sequence),
        message.kind as u32,
        message.from.as_str(),
        message.to.as_str(),
        message.tier.as_str(),
        message.content_type,
        &message.body[..],
        message.in_reply_to.map(MessageId::to_vec),
        message.deadline_ms.map(int),
        message.traceparent,
        reply_route.as_ref().map(Route::to_string),
        int(message.created_ms),
        int(message.received_ms),
        message.file.as_ref().map(|file| file.stream_id.to_vec()),
        hold.map(|hold| hold.cursor),
        hold.map(|hold| int(hold.not_before_ms)),
        hold.map(|hold| int(hold.patience_ms)),
    ])?;
    Ok(u64::try_from(tx.conn().last_insert_rowid()).unwrap_or(0))
}

/// Names of one message that are remembered beside that of the copy that was stored. An honest sender seals a few times.
const NAMES_MAX: i64 = 16;

/// Remembers that a stored message was acknowledged under the name of another copy of it.
///
/// # Errors
/// [`StoreError`].
pub fn add_name(tx: Tx<'_>, arrival: &Arrival) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO inbox_name (sender_agent, msg_id, recipient, env_digest) SELECT ?1, ?2, ?3, ?4
        WHERE (SELECT count(*) FROM inbox_name WHERE sender_agent = ?1 AND msg_id = ?2 AND recipient = ?3) < ?5";
    let Arrival { message, recipient, env_digest, .. } = arrival;
    let (sender, msg_id) = (message.from_agent_id, message.msg_id);
    let values = params![sender.as_bytes(), msg_id.as_bytes(), recipient.as_bytes(), env_digest, NAMES_MAX];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The further names of a message.
///
/// # Errors
/// [`StoreError`].
pub fn names(tx: Tx<'_>, sender: AgentId, msg_id: MessageId, recipient: AgentId) -> Result<Vec<[u8; 32]>, StoreError> {
    let sql = "SELECT env_digest FROM inbox_name WHERE sender_agent = ?1 AND msg_id = ?2 AND recipient = ?3";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let key = params![sender.as_bytes(), msg_id.as_bytes(), recipient.as_bytes()];
    let names = statement.query_map(key, |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

/// Which rows of an inbox to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only behind this position.
    pub after: u64,
    /// Unread ones only.
    pub unread: bool,
    /// Only from this sender.
    pub from: Option<AgentId>,
}

/// Lists an inbox in order of arrival.
///
/// # Errors
/// [`StoreError`].
pub fn list(tx: Tx<'_>, agent: AgentId, filter: &Filter, limit: u32) -> Result<Vec<InboxMessage>, StoreError> {
    let Filter { after, unread, from } = filter;
    let sql = if *unread {
        concat!(
            "SELECT ",
            message_columns!(),
            " FROM inbox WHERE recipient = ?1 AND cursor > ?2 AND read_ms IS NULL
            AND (?3 IS NULL OR sender_agent = ?3) ORDER BY cursor LIMIT ?4"
        )
    } else {
        concat!(
            "SELECT ",
            message_columns!(),
            " FROM inbox WHERE cursor IN (",
            cursors!("cursor > ?2 AND (?3 IS NULL OR sender_agent = ?3)", "ORDER BY cursor LIMIT ?4"),
            ") ORDER BY cursor LIMIT ?4"
        )
    };
    let mut statement = tx.conn().prepare_cached(sql)?;
    let from = from.map(AgentId::to_vec);
    let rows = statement.query_map(params![agent.as_bytes(), int(*after), from, limit], message_row)?;
    described(tx, rows.collect::<Result<_, _>>()?)
}

/// Unread rows behind a position, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn unread_after(tx: Tx<'_>, agent: AgentId, after: u64, limit: u32) -> Result<Vec<InboxMessage>, StoreError> {
    let sql = concat!(
        "SELECT ",
        message_columns!(),
        " FROM inbox WHERE recipient = ?1 AND read_ms IS NULL AND cursor > ?2 ORDER BY cursor LIMIT ?3"
    );
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), int(after), limit], message_row)?;
    described(tx, rows.collect::<Result<_, _>>()?)
}

/// One row by its position, while it is unread.
///
/// # Errors
/// [`StoreError`].
pub fn unread_at(tx: Tx<'_>, cursor: u64) -> Result<Option<InboxMessage>, StoreError> {
    let sql = concat!("SELECT ", message_columns!(), " FROM inbox WHERE cursor = ?1 AND read_ms IS NULL");
    let found = tx.conn().prepare_cached(sql)?.query_row([int(cursor)], message_row).optional()?;
    Ok(described(tx, found.into_iter().collect())?.pop())
}

/// The newest rows of an inbox, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn newest(tx: Tx<'_>, agent: AgentId, limit: u32) -> Result<Vec<InboxMessage>, StoreError> {
    let sql = concat!(
        "SELECT ",
        message_columns!(),
        " FROM inbox WHERE cursor IN (",
        cursors!("cursor > 0", "ORDER BY cursor DESC LIMIT ?2"),
        ") ORDER BY cursor DESC LIMIT ?2"
    );
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), limit], message_row)?;
    let mut messages = rows.collect::<Result<Vec<_>, _>>()?;
    messages.reverse();
    described(tx, messages)
}

/// One row by its position.
///
/// # Errors
/// [`StoreError`].
pub fn at(tx: Tx<'_>, cursor: u64) -> Result<Option<InboxMessage>, StoreError> {
    let sql = concat!("SELECT ", message_columns!(), " FROM inbox WHERE cursor = ?1");
    let found = tx.conn().prepare_cached(sql)?.query_row([int(cursor)], message_row).optional()?;
    Ok(described(tx, found.into_iter().collect())?.pop())
}

/// The row of a message in an agent's inbox, whoever sent it.
///
/// # Errors
/// [`StoreError`].
pub fn find(tx: Tx<'_>, agent: AgentId, msg_id: MessageId) -> Result<Option<InboxMessage>, StoreError> {
    let sql = concat!(
        "SELECT ",
        message_columns!(),
        " FROM inbox WHERE recipient = ?1 AND msg_id = ?2 AND cursor > 0 ORDER BY cursor LIMIT 1"
    );
    let key = params![agent.as_bytes(), msg_id.as_bytes()];
    let found = tx.conn().prepare_cached(sql)?.query_row(key, message_row).optional()?;
    Ok(described(tx, found.into_iter().collect())?.pop())
}

/// Of these positions, those of unread messages of the agent whose file, if they have one, is not still coming.
///
/// # Errors
/// [`StoreError`].
pub fn readable(tx: Tx<'_>, agent: AgentId, cursors: &[u64]) -> Result<Vec<u64>, StoreError> {
    let sql = "SELECT cursor FROM inbox WHERE cursor = ?1 AND cursor > 0 AND recipient = ?2 AND read_ms IS NULL
        AND NOT EXISTS (SELECT 1 FROM stream_in WHERE stream_in.stream_id = inbox.stream_id AND state <= 3)";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let mut found = Vec::new();
    for cursor in cursors {
        let read = |row: &Row<'_>| uint(row, "cursor");
        found.extend(statement.query_row(params![int(*cursor), agent.as_bytes()], read).optional()?);
    }
    Ok(found)
}

/// Marks rows as pushed, keeping the first time.
///
/// # Errors
/// [`StoreError`].
pub fn mark_pushed(tx: Tx<'_>, cursors: &[u64], now_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE inbox SET pushed_ms = ?2 WHERE cursor = ?1 AND pushed_ms IS NULL";
    let mut statement = tx.conn().prepare_cached(sql)?;
    for cursor in cursors {
        statement.execute(params![int(*cursor), int(now_ms)])?;
    }
    Ok(())
}

/// Marks rows as read and returns those that were not before.
///
/// # Errors
/// [`StoreError`].
pub fn mark_read(tx: Tx<'_>, cursors: &[u64], now_ms: u64) -> Result<Vec<ReadRow>, StoreError> {
    let sql = "UPDATE inbox SET read_ms = ?2 WHERE cursor = ?1 AND read_ms IS NULL
        RETURNING sender_agent, msg_id, env_digest, reply_route";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let mut read = Vec::new();
    for cursor in cursors {
        read.extend(statement.query_row(params![int(*cursor), int(now_ms)], read_row).optional()?);
    }
    Ok(read)
}

/// Gives back unread rows without a file, held ones too, at most so many, oldest first: they count as dealt with.
///
/// # Errors
/// [`StoreError`].
pub fn give_back(tx: Tx<'_>, agent: AgentId, now_ms: u64, limit: u32) -> Result<Vec<ReadRow>, StoreError> {
    let sql = "UPDATE inbox SET read_ms = ?2, given_back = 1 WHERE cursor IN
        (SELECT cursor FROM inbox WHERE recipient = ?1 AND read_ms IS NULL AND stream_id IS NULL
            ORDER BY sequence_epoch, sequence LIMIT ?3)
        RETURNING sender_agent, msg_id, env_digest, reply_route";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![agent.as_bytes(), int(now_ms), limit], read_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Gives back unread rows with a file, at most so many. They stay unread: whether the file can be sent again only its sender knows.
/// Also says by which stream each came.
///
/// # Errors
/// [`StoreError`].
pub fn give_back_files(tx: Tx<'_>, agent: AgentId, limit: u32) -> Result<Vec<(ReadRow, StreamId)>, StoreError> {
    let sql = "UPDATE inbox SET given_back = 1 WHERE cursor IN
        (SELECT cursor FROM inbox WHERE recipient = ?1 AND read_ms IS NULL AND stream_id IS NOT NULL AND given_back = 0
            ORDER BY sequence_epoch, sequence LIMIT ?2)
        RETURNING sender_agent, msg_id, env_digest, reply_route, stream_id";
    let mut statement = tx.conn().prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((read_row(row)?, id(row, "stream_id", StreamId::from_bytes)?));
    let rows = statement.query_map(params![agent.as_bytes(), limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets a message that was given back and comes again, since its agent lives here again. A file that had come stays on the disk.
///
/// # Errors
/// [`StoreError`].
pub fn forget(tx: Tx<'_>, sender: AgentId, msg_id: MessageId, recipient: AgentId) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM inbox WHERE sender_agent = ?1 AND msg_id = ?2 AND recipient = ?3",
        "DELETE FROM stream_in WHERE sender_agent = ?1 AND msg_id = ?2 AND recipient = ?3 AND state > 3",
    ] {
        let key = params![sender.as_bytes(), msg_id.as_bytes(), recipient.as_bytes()];
        tx.conn().prepare_cached(sql)?.execute(key)?;
    }
    Ok(())
}

/// Deletes rows that were read and are older than `before_ms`, a bounded number at a time. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: Tx<'_>, before_ms: u64, limit: u32) -> Result<usize, StoreError> {
    let sql = "DELETE FROM inbox WHERE cursor IN
        (SELECT cursor FROM inbox WHERE cursor < ?3 AND received_ms < ?1 AND read_ms IS NOT NULL LIMIT ?2)";
    let end = first_since(tx, before_ms)?;
    Ok(tx.conn().prepare_cached(sql)?.execute(params![int(before_ms), limit, end])?)
}

/// The cursor from which on everything came at this time or later, as far as cursors ascend with time: a message that was held got its
/// cursor after others that came later, and a clock may have been set. Whoever goes by it looks at the time of each message as well.
///
/// # Errors
/// [`StoreError`].
pub(super) fn first_since(tx: Tx<'_>, since_ms: u64) -> Result<i64, StoreError> {
    let last = concat!("SELECT ", last_cursor!());
    let last: i64 = tx.conn().prepare_cached(last)?.query_row([], |row| row.get(0))?;
    let sql = "SELECT cursor, received_ms FROM inbox WHERE cursor >= ?1 ORDER BY cursor LIMIT 1";
    let mut probe = tx.conn().prepare_cached(sql)?;
    let (mut first, mut end) = (1, last + 1);
    while first < end {
        let middle = first + (end - first) / 2;
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, uint(row, 1)?));
        match probe.query_row([middle], read).optional()? {
            Some((cursor, received_ms)) if received_ms < since_ms => first = cursor + 1,
            _ => end = middle,
        }
    }
    Ok(first)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<ReadRow> {
    Ok(ReadRow {
        sender: id(row, "sender_agent", AgentId::from_bytes)?,
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        env_digest: row.get("env_digest")?,
        reply_route: route(row)?,
    })
}

fn route(row: &Row<'_>) -> rusqlite::Result<Option<Route>> {
    Ok(row.get::<_, Option<String>>("reply_route")?.and_then(|text| text.parse().ok()))
}

/// With how their files stand.
pub(super) fn described(tx: Tx<'_>, mut messages: Vec<InboxMessage>) -> Result<Vec<InboxMessage>, StoreError> {
    transfer::describe(tx, &mut messages)?;
    Ok(messages)
}

/// Reads a row of [`message_columns`].
pub(super) fn message_row(row: &Row<'_>) -> rusqlite::Result<InboxMessage> {
    Ok(InboxMessage {
        msg_id: id(row, 0, MessageId::from_bytes)?,
        conversation_id: id(row, 1, ConversationId::from_bytes)?,
        kind: number(row, 2, MessageKind::from_number)?,
        from: text(row, 3)?,
        from_agent_id: id(row, 4, AgentId::from_bytes)?,
        to: text(row, 5)?,
        tier: text(row, 6)?,
        content_type: row.get(7)?,
        body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
        in_reply_to: row.get::<_, Option<[u8; 16]>>(9)?.map(MessageId::from_bytes),
        created_ms: uint(row, 10)?,
        received_ms: uint(row, 11)?,
        sequence: uint(row, 12)?,
        cursor: uint(row, 13)?,
        redelivered: row.get::<_, Option<i64>>(14)?.is_some() || row.get::<_, Option<i64>>(15)?.is_some(),
        traceparent: row.get(16)?,
        deadline_ms: uint_option(row, 17)?,
        file: row.get::<_, Option<[u8; 16]>>(18)?.map(|id| Box::new(forgotten(StreamId::from_bytes(id)))),
        gap: row.get(19)?,
    })
}
