//! One recipient's share of a sent message, and where it stands.

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, MessageId, NodeId},
    outbox::{Delivery, Row, State},
    slug::Slug,
};
use rusqlite::{OptionalExtension as _, Row as SqlRow, params, types::Type};

use super::{
    StoreError, Tx,
    outbox::OutboxRow,
    row::{id, int, small, text, uint, uint_option, wrong},
};

/// What [`delivery_row`] reads of `delivery d`, in its order.
macro_rules! delivery_columns {
    () => {
        "d.msg_id, d.recipient, d.sender_agent, d.to_slug, d.sequence, d.state, d.seal_attempt, d.publish_tries, d.republish_count,
            d.backoff_prev_ms, d.since_ms, d.next_at_ms, d.dead_cause, d.dead_code, d.published, d.env_digest, d.code, d.stale_prekey,
            d.fresh_prekey, d.created_ms, d.expires_ms, d.delivered_ms, d.read_ms, d.copy_id"
    };
}
pub(super) use delivery_columns;

/// A delivery as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The message.
    pub msg_id: MessageId,
    /// The recipient.
    pub recipient: AgentId,
    /// Who speaks.
    pub sender: AgentId,
    /// The recipient's slug when the message was sent.
    pub to_slug: Slug,
    /// The message's place in its conversation.
    pub sequence: u64,
    /// Where it stands.
    pub delivery: Delivery,
    /// How often it was published, whatever the copy.
    pub published: u32,
    /// The copy that stands for it now.
    pub env_digest: Option<[u8; 32]>,
    /// The last code, by name.
    pub code: Option<String>,
    /// The recipient's key was past its fresh time.
    pub stale_prekey: bool,
    /// A prekey that the recipient asked to be used, as it came.
    pub fresh_prekey: Option<Bytes>,
    /// When it was accepted.
    pub created_ms: u64,
    /// When the recipient's node had it.
    pub delivered_ms: Option<u64>,
    /// When the recipient read it.
    pub read_ms: Option<u64>,
    /// The number of its first copy, once there was one.
    pub copy_id: Option<i64>,
}

impl DeliveryRow {
    /// Of a message that was just accepted.
    #[must_use]
    pub fn new(message: &OutboxRow, recipient: AgentId, to_slug: Slug) -> Self {
        let created_ms = message.created_ms;
        let expires_ms = created_ms.saturating_add(u64::from(message.ttl_seconds) * 1000);
        Self {
            msg_id: message.msg_id,
            recipient,
            sender: message.sender,
            to_slug,
            sequence: message.sequence,
            delivery: Delivery::new(created_ms, expires_ms),
            published: 0,
            env_digest: None,
            code: None,
            stale_prekey: false,
            fresh_prekey: None,
            created_ms,
            delivered_ms: None,
            read_ms: None,
            copy_id: None,
        }
    }
}

/// Adds a delivery.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO delivery (msg_id, recipient, state, seal_attempt, publish_tries, republish_count, backoff_prev_ms,
            since_ms, next_at_ms, dead_cause, dead_code, open, published, env_digest, code, stale_prekey, fresh_prekey,
            delivered_ms, read_ms, sender_agent, to_slug, sequence, created_ms, expires_ms, copy_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25)";
    let machine = Row::from(row.delivery.state);
    tx.conn().prepare_cached(sql)?.execute(params![
        row.msg_id.as_bytes(),
        row.recipient.as_bytes(),
        machine.state.as_str(),
        machine.seal_attempt,
        machine.publish_tries,
        machine.republish_count,
        int(machine.backoff_prev_ms),
        machine.since_ms.map(int),
        machine.next_at_ms.map(int),
        machine.dead_cause,
        machine.dead_code,
        machine.state.is_open(),
        row.published,
        row.env_digest,
        row.code,
        row.stale_prekey,
        row.fresh_prekey.as_deref(),
        row.delivered_ms.map(int),
        row.read_ms.map(int),
        row.sender.as_bytes(),
        row.to_slug.as_str(),
        int(row.sequence),
        int(row.created_ms),
        int(row.delivery.expires_ms),
        row.copy_id,
    ])?;
    Ok(())
}

/// Writes what may change of a delivery; whose it is and when it was made stays.
///
/// # Errors
/// [`StoreError`].
pub fn update(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let machine = Row::from(row.delivery.state);
    let sql = "UPDATE delivery SET state = ?3, seal_attempt = ?4, publish_tries = ?5, republish_count = ?6,
            backoff_prev_ms = ?7, since_ms = ?8, next_at_ms = ?9, dead_cause = ?10, dead_code = ?11, open = ?12, published = ?13,
            env_digest = ?14, code = ?15, stale_prekey = ?16, fresh_prekey = ?17, delivered_ms = ?18, read_ms = ?19, expires_ms = ?20,
            copy_id = ?21
        WHERE msg_id = ?1 AND recipient = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![
        row.msg_id.as_bytes(),
        row.recipient.as_bytes(),
        machine.state.as_str(),
        machine.seal_attempt,
        machine.publish_tries,
        machine.republish_count,
        int(machine.backoff_prev_ms),
        machine.since_ms.map(int),
        machine.next_at_ms.map(int),
        machine.dead_cause,
        machine.dead_code,
        machine.state.is_open(),
        row.published,
        row.env_digest,
        row.code,
        row.stale_prekey,
        row.fresh_prekey.as_deref(),
        row.delivered_ms.map(int),
        row.read_ms.map(int),
        int(row.delivery.expires_ms),
        row.copy_id,
    ])?;
    Ok(())
}

/// One delivery.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, msg_id: MessageId, recipient: AgentId) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE msg_id = ?1 AND recipient = ?2");
    let key = params![msg_id.as_bytes(), recipient.as_bytes()];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, delivery_row).optional()?)
}

/// Every delivery of a message.
///
/// # Errors
/// [`StoreError`].
pub fn of_message(tx: Tx<'_>, msg_id: MessageId) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE msg_id = ?1 ORDER BY recipient");
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([msg_id.as_bytes()], delivery_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every delivery that has not ended, in the order in which the messages were accepted.
///
/// # Errors
/// [`StoreError`].
#[cfg(test)]
pub fn open(tx: Tx<'_>) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = concat!("SELECT ", delivery_columns!(), " FROM delivery d WHERE open = 1 ORDER BY msg_id");
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([], delivery_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every pair of sender and recipient between whom something is open.
///
/// # Errors
/// [`StoreError`].
pub fn open_lanes(tx: Tx<'_>) -> Result<Vec<(AgentId, AgentId)>, StoreError> {
    let sql = "SELECT DISTINCT sender_agent, recipient FROM delivery WHERE open = 1";
    let read = |row: &SqlRow<'_>| {
        Ok((id(row, "sender_agent", AgentId::from_bytes)?, id(row, "recipient", AgentId::from_bytes)?))
    };
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What is open between two agents behind a sequence and message, in their order.
///
/// # Errors
/// [`StoreError`].
pub fn open_behind(
    tx: Tx<'_>,
    sender: AgentId,
    recipient: AgentId,
    (sequence, msg_id): (u64, MessageId),
    limit: u32,
) -> Result<Vec<(u64, MessageId)>, StoreError> {
    let sql = "SELECT sequence, msg_id FROM delivery
        WHERE open = 1 AND sender_agent = ?1 AND recipient = ?2 AND (sequence, msg_id) > (?3, ?4)
        ORDER BY sequence, msg_id LIMIT ?5";
    let values = params![sender.as_bytes(), recipient.as_bytes(), int(sequence), msg_id.as_bytes(), limit];
    let read = |row: &SqlRow<'_>| Ok((uint(row, "sequence")?, id(row, "msg_id", MessageId::from_bytes)?));
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(values, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Open deliveries whose time is over.
///
/// # Errors
/// [`StoreError`].
pub fn overdue(tx: Tx<'_>, now_ms: u64, limit: u32) -> Result<Vec<(MessageId, AgentId)>, StoreError> {
    let sql = "SELECT msg_id, recipient FROM delivery WHERE open = 1 AND expires_ms <= ?1 LIMIT ?2";
    let read =
        |row: &SqlRow<'_>| Ok((id(row, "msg_id", MessageId::from_bytes)?, id(row, "recipient", AgentId::from_bytes)?));
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![int(now_ms), limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What the broker has for a node, as far as this one knows: deliveries that are stored there under a route of it.
///
/// # Errors
/// [`StoreError`].
pub fn stored_for(tx: Tx<'_>, node: NodeId) -> Result<Vec<(MessageId, AgentId)>, StoreError> {
    let sql = "SELECT d.msg_id, d.recipient FROM delivery d
        WHERE d.open = 1 AND d.state = 'STORED'
          AND EXISTS (SELECT 1 FROM copy c WHERE c.msg_id = d.msg_id AND c.recipient = d.recipient
                      AND c.env_digest = d.env_digest AND c.route LIKE '%.' || ?1)";
    let read =
        |row: &SqlRow<'_>| Ok((id(row, "msg_id", MessageId::from_bytes)?, id(row, "recipient", AgentId::from_bytes)?));
    let mut statement = tx.conn().prepare_cached(sql)?;
    let rows = statement.query_map([node.hex()], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the first of the open deliveries expires.
///
/// # Errors
/// [`StoreError`].
pub fn earliest_expiry(tx: Tx<'_>) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT min(expires_ms) AS expires_ms FROM delivery WHERE open = 1";
    Ok(tx.conn().prepare_cached(sql)?.query_row([], |row| uint_option(row, "expires_ms"))?)
}

/// How many deliveries are open, by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// On this node's disk only.
    pub queued: u64,
    /// Sealed and not yet with the broker.
    pub sealed: u64,
    /// With the broker.
    pub stored: u64,
    /// When the oldest of them was accepted.
    pub oldest_ms: Option<u64>,
}

/// Counts what has not ended.
///
/// # Errors
/// [`StoreError`].
pub fn open_counts(tx: Tx<'_>) -> Result<OpenCounts, StoreError> {
    let sql =
        "SELECT count(*) FILTER (WHERE state = 'QUEUED') AS queued, count(*) FILTER (WHERE state = 'SEALED') AS sealed,
            count(*) FILTER (WHERE state = 'STORED') AS stored, min(created_ms) AS oldest_ms
        FROM delivery WHERE open = 1";
    let read = |row: &SqlRow<'_>| {
        Ok(OpenCounts {
            queued: uint(row, "queued")?,
            sealed: uint(row, "sealed")?,
            stored: uint(row, "stored")?,
            oldest_ms: uint_option(row, "oldest_ms")?,
        })
    };
    Ok(tx.conn().prepare_cached(sql)?.query_row([], read)?)
}

/// Reads a row that begins with [`delivery_columns`].
pub(super) fn delivery_row(row: &SqlRow<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        msg_id: id(row, 0, MessageId::from_bytes)?,
        recipient: id(row, 1, AgentId::from_bytes)?,
        sender: id(row, 2, AgentId::from_bytes)?,
        to_slug: text(row, 3)?,
        sequence: uint(row, 4)?,
        delivery: Delivery { expires_ms: uint(row, 20)?, state: state(row)? },
        published: small(row, 14)?,
        env_digest: row.get(15)?,
        code: row.get(16)?,
        stale_prekey: row.get(17)?,
        fresh_prekey: row.get::<_, Option<Vec<u8>>>(18)?.map(Bytes::from),
        created_ms: uint(row, 19)?,
        delivered_ms: uint_option(row, 21)?,
        read_ms: uint_option(row, 22)?,
        copy_id: row.get(23)?,
    })
}

fn state(row: &SqlRow<'_>) -> rusqlite::Result<State> {
    let machine = Row {
        state: text(row, 5)?,
        seal_attempt: small(row, 6)?,
        publish_tries: small(row, 7)?,
        republish_count: small(row, 8)?,
        backoff_prev_ms: uint(row, 9)?,
        since_ms: uint_option(row, 10)?,
        next_at_ms: uint_option(row, 11)?,
        dead_cause: row.get(12)?,
        dead_code: row.get(13)?,
    };
    State::try_from(machine).map_err(|error| wrong(Type::Text, error))
}
