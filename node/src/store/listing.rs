//! Sent messages as a person asks for them: what waits, and what was given up, of every agent that the asker may speak for.

use murmur_core::{
    id::{AgentId, MessageId},
    outbox::StateName,
    slug::Slug,
};
use rusqlite::{Row, params};

use super::{
    StoreError, Tx,
    delivery::{DeliveryRow, delivery_columns, delivery_row},
    inbox::MessageKind,
    row::{number, text, uint, uint_option},
};

/// Whose messages are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// One agent's.
    Agent(AgentId),
    /// Those of every agent that needs no token to be spoken for, live or ended.
    Interactive,
}

/// A place in a list: behind this delivery.
pub type Place = (MessageId, AgentId);

/// One recipient's share of a sent message, with what a list shows beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The delivery.
    pub row: DeliveryRow,
    /// The sender's slug.
    pub from: Slug,
    /// What the message is for.
    pub kind: MessageKind,
    /// Bytes of the inner message.
    pub bytes: u64,
    /// Set while it is a dead letter.
    pub letter: Option<Letter>,
}

/// Why and when a message was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// A code of the protocol, or what the broker said.
    pub reason: String,
    /// When.
    pub at_ms: u64,
}

/// `?1` is the agent, or null for [`Whose::Interactive`]; a kind of 1 is `murmur.v1.AGENT_KIND_INTERACTIVE`.
const SELECT: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    ", a.slug AS from_slug, o.kind AS kind, length(o.inner) AS bytes, l.reason AS letter_reason,
        l.at_ms AS letter_at_ms
    FROM delivery d
    JOIN local_agent a ON a.agent_id = d.sender_agent AND (d.sender_agent = ?1 OR (?1 IS NULL AND a.kind = 1))
    JOIN outbox o ON o.sender_agent = d.sender_agent AND o.msg_id = d.msg_id"
);

impl Whose {
    fn key(self) -> Option<Vec<u8>> {
        match self {
            Self::Agent(agent) => Some(agent.to_vec()),
            Self::Interactive => None,
        }
    }
}

/// Open deliveries behind a place, in the order in which the messages were accepted; of one state only, when it is named.
///
/// # Errors
/// [`StoreError`].
pub fn open(
    tx: Tx<'_>,
    whose: Whose,
    state: Option<StateName>,
    after: Option<Place>,
    limit: u32,
) -> Result<Vec<Listed>, StoreError> {
    let sql = format!(
        "{SELECT} LEFT JOIN dead_letter l ON l.msg_id = d.msg_id AND l.recipient = d.recipient
        WHERE d.open = 1 AND (d.msg_id, d.recipient) IN (
            SELECT msg_id, recipient FROM delivery INDEXED BY delivery_lane
            WHERE open = 1 AND (msg_id, recipient) > (?2, ?3) AND (?4 IS NULL OR state = ?4)
                AND sender_agent IN (SELECT agent_id FROM local_agent WHERE agent_id = ?1 OR (?1 IS NULL AND kind = 1))
            ORDER BY msg_id, recipient LIMIT ?5)
        ORDER BY d.msg_id, d.recipient"
    );
    let (msg_id, recipient) = bytes(after);
    let mut statement = tx.conn().prepare_cached(&sql)?;
    let values = params![whose.key(), msg_id, recipient, state.map(StateName::as_str), limit];
    let rows = statement.query_map(values, listed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every delivery of a message, open or closed.
///
/// # Errors
/// [`StoreError`].
pub fn of_message(tx: Tx<'_>, whose: Whose, msg_id: MessageId) -> Result<Vec<Listed>, StoreError> {
    let sql = format!(
        "{SELECT} LEFT JOIN dead_letter l ON l.msg_id = d.msg_id AND l.recipient = d.recipient
        WHERE d.msg_id = ?2 ORDER BY d.recipient"
    );
    let mut statement = tx.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![whose.key(), msg_id.as_bytes()], listed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Dead letters behind a place, in the order in which the messages were accepted.
///
/// # Errors
/// [`StoreError`].
pub fn dead(tx: Tx<'_>, whose: Whose, after: Option<Place>, limit: u32) -> Result<Vec<Listed>, StoreError> {
    let sql = format!(
        "{SELECT} JOIN dead_letter l ON l.msg_id = d.msg_id AND l.recipient = d.recipient
        WHERE (l.msg_id, l.recipient) > (?2, ?3) ORDER BY l.msg_id, l.recipient LIMIT ?4"
    );
    let (msg_id, recipient) = bytes(after);
    let mut statement = tx.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![whose.key(), msg_id, recipient, limit], listed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An empty blob sorts before every id.
fn bytes(place: Option<Place>) -> (Vec<u8>, Vec<u8>) {
    place.map(|(msg_id, recipient)| (msg_id.to_vec(), recipient.to_vec())).unwrap_or_default()
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let reason: Option<String> = row.get("letter_reason")?;
    let at_ms = uint_option(row, "letter_at_ms")?;
    Ok(Listed {
        row: delivery_row(row)?,
        from: text(row, "from_slug")?,
        kind: number(row, "kind", MessageKind::from_number)?,
        bytes: uint(row, "bytes")?,
        letter: reason.zip(at_ms).map(|(reason, at_ms)| Letter { reason, at_ms }),
    })
}
