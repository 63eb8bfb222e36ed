//! Sealed copies, and under which broker id each was published.

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, MessageId},
    subject::Route,
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, small},
};

/// A sealed copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    /// Its name.
    pub env_digest: [u8; 32],
    /// The message.
    pub msg_id: MessageId,
    /// Whom it was sealed for.
    pub recipient: AgentId,
    /// Which attempt it was.
    pub seal_attempt: u32,
    /// The prekey it was sealed to.
    pub prekey_id: [u8; 8],
    /// The envelope, until nobody needs it any more.
    pub env_bytes: Option<Bytes>,
}

/// A copy on its way to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The copy.
    pub env_digest: [u8; 32],
    /// The recipient's node.
    pub route: Route,
    /// The random id by which the broker deduplicates.
    pub nats_msg_id: String,
}

/// Adds a copy.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, copy: &CopyRow) -> Result<(), StoreError> {
    let CopyRow { env_digest, msg_id, recipient, seal_attempt, prekey_id, env_bytes } = copy;
    let sql = "INSERT INTO copy (env_digest, msg_id, recipient, seal_attempt, prekey_id, env_bytes)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    tx.conn().prepare_cached(sql)?.execute(params![
        env_digest,
        msg_id.as_bytes(),
        recipient.as_bytes(),
        seal_attempt,
        prekey_id,
        env_bytes.as_deref(),
    ])?;
    Ok(())
}

/// The copy of a name.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, env_digest: &[u8; 32]) -> Result<Option<CopyRow>, StoreError> {
    let sql = "SELECT * FROM copy WHERE env_digest = ?1";
    let read = |row: &Row<'_>| {
        Ok(CopyRow {
            env_digest: row.get("env_digest")?,
            msg_id: id(row, "msg_id", MessageId::from_bytes)?,
            recipient: id(row, "recipient", AgentId::from_bytes)?,
            seal_attempt: small(row, "seal_attempt")?,
            prekey_id: row.get("prekey_id")?,
            env_bytes: row.get::<_, Option<Vec<u8>>>("env_bytes")?.map(Bytes::from),
        })
    };
    Ok(tx.conn().prepare_cached(sql)?.query_row([env_digest], read).optional()?)
}

/// The attempt of a copy that was sealed before its message was begun again: no refusal of it counts any more.
const RETIRED: u32 = u32::MAX;

/// Takes the copies of a delivery that is begun again out of the count of seals: their refusals are stale from now on, their
/// receipts are not.
///
/// # Errors
/// [`StoreError`].
pub fn retire(tx: Tx<'_>, msg_id: MessageId, recipient: AgentId) -> Result<(), StoreError> {
    let sql = "UPDATE copy SET seal_attempt = ?3 WHERE msg_id = ?1 AND recipient = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), recipient.as_bytes(), RETIRED])?;
    Ok(())
}

/// Drops the bytes of every copy of a delivery that has ended; the names stay for late acknowledgements.
///
/// # Errors
/// [`StoreError`].
pub fn drop_bytes(tx: Tx<'_>, msg_id: MessageId, recipient: AgentId) -> Result<(), StoreError> {
    let sql = "UPDATE copy SET env_bytes = NULL WHERE msg_id = ?1 AND recipient = ?2 AND env_bytes IS NOT NULL";
    tx.conn().prepare_cached(sql)?.execute(params![msg_id.as_bytes(), recipient.as_bytes()])?;
    Ok(())
}

/// Sets under which id a copy goes to a node.
///
/// # Errors
/// [`StoreError`].
pub fn save_publication(tx: Tx<'_>, publication: &Publication) -> Result<(), StoreError> {
    let Publication { env_digest, route, nats_msg_id } = publication;
    let sql = "INSERT OR REPLACE INTO publication (env_digest, route, nats_msg_id) VALUES (?1, ?2, ?3)";
    tx.conn().prepare_cached(sql)?.execute(params![env_digest, route.to_string(), nats_msg_id])?;
    Ok(())
}

/// How a copy was last published.
///
/// # Errors
/// [`StoreError`].
pub fn publication(tx: Tx<'_>, env_digest: &[u8; 32]) -> Result<Option<Publication>, StoreError> {
    let sql = "SELECT route, nats_msg_id FROM publication WHERE env_digest = ?1 ORDER BY rowid DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        let route = super::row::text(row, "route")?;
        Ok(Publication { env_digest: *env_digest, route, nats_msg_id: row.get("nats_msg_id")? })
    };
    Ok(tx.conn().prepare_cached(sql)?.query_row([env_digest], read).optional()?)
}
