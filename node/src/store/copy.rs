//! Sealed copies, each with the broker id under which it goes to the recipient's node.

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, MessageId},
    subject::Route,
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    delivery::DeliveryRow,
    row::{id, small, text},
};

/// The copies of the delivery `?2` of the message `?1`: its first by its number `?3`, which another may have got when it was gone, later
/// ones by their index.
macro_rules! of_delivery {
    () => {
        "(msg_id = ?1 AND recipient = ?2 AND id = ?3 OR msg_id = ?1 AND recipient = ?2 AND is_later = 1)"
    };
}

/// A sealed copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    /// The message.
    pub msg_id: MessageId,
    /// Whom it was sealed for.
    pub recipient: AgentId,
    /// Its name.
    pub env_digest: [u8; 32],
    /// Which attempt it was.
    pub seal_attempt: u32,
    /// The prekey it was sealed to.
    pub prekey_id: [u8; 8],
    /// The recipient's node.
    pub route: Route,
    /// The random id by which the broker deduplicates.
    pub nats_msg_id: String,
    /// The envelope, until nobody needs it any more.
    pub env_bytes: Option<Bytes>,
}

/// Adds a copy of a delivery, which the caller saves.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: Tx<'_>, row: &mut DeliveryRow, copy: &CopyRow) -> Result<(), StoreError> {
    let CopyRow { msg_id, recipient, env_digest, seal_attempt, prekey_id, route, nats_msg_id, env_bytes } = copy;
    let sql = "INSERT INTO copy (msg_id, recipient, env_digest, seal_attempt, prekey_id, route, nats_msg_id, env_bytes, is_later)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    tx.conn().prepare_cached(sql)?.execute(params![
        msg_id.as_bytes(),
        recipient.as_bytes(),
        env_digest,
        seal_attempt,
        prekey_id,
        route.to_string(),
        nats_msg_id,
        env_bytes.as_deref(),
        row.copy_id.is_some(),
    ])?;
    row.copy_id.get_or_insert_with(|| tx.conn().last_insert_rowid());
    Ok(())
}

/// The copy of that name of a delivery.
///
/// # Errors
/// [`StoreError`].
pub fn get(tx: Tx<'_>, row: &DeliveryRow, env_digest: &[u8; 32]) -> Result<Option<CopyRow>, StoreError> {
    let sql = concat!("SELECT * FROM copy WHERE ", of_delivery!(), " AND env_digest = ?4");
    let key = params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id, env_digest];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, copy_row).optional()?)
}

/// The attempt of a copy that was sealed before its message was begun again: no refusal of it counts any more.
const RETIRED: u32 = u32::MAX;

/// Takes the copies of a delivery that is begun again out of the count of seals: their refusals are stale from now on, their
/// receipts are not.
///
/// # Errors
/// [`StoreError`].
pub fn retire(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let sql = concat!("UPDATE copy SET seal_attempt = ?4 WHERE ", of_delivery!());
    let key = params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id, RETIRED];
    tx.conn().prepare_cached(sql)?.execute(key)?;
    Ok(())
}

/// Which attempt a copy was, `None` when there was no such copy.
///
/// # Errors
/// [`StoreError`].
pub fn seal_attempt(tx: Tx<'_>, row: &DeliveryRow, env_digest: &[u8; 32]) -> Result<Option<u32>, StoreError> {
    let sql = concat!("SELECT seal_attempt FROM copy WHERE ", of_delivery!(), " AND env_digest = ?4");
    let key = params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id, env_digest];
    Ok(tx.conn().prepare_cached(sql)?.query_row(key, |row| small(row, "seal_attempt")).optional()?)
}

/// Sets under which id a copy goes to its node from now on.
///
/// # Errors
/// [`StoreError`].
pub fn renew_nats_msg_id(
    tx: Tx<'_>,
    row: &DeliveryRow,
    env_digest: &[u8; 32],
    nats_msg_id: &str,
) -> Result<(), StoreError> {
    let sql = concat!("UPDATE copy SET nats_msg_id = ?5 WHERE ", of_delivery!(), " AND env_digest = ?4");
    let values = params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id, env_digest, nats_msg_id];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Tidies the copies of a delivery that arrived. The one whose name stands in the delivery goes; of earlier ones the names stay,
/// without their bytes, for late acknowledgements.
///
/// # Errors
/// [`StoreError`].
pub fn close_delivered(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let sql = concat!("DELETE FROM copy WHERE ", of_delivery!(), " AND env_digest = ?4 RETURNING id");
    let key = params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id, row.env_digest];
    let closed: Option<i64> = tx.conn().prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?;
    // What was published once and arrived as its first copy has no other.
    if row.published > 1 || closed != row.copy_id { drop_bytes(tx, row) } else { Ok(()) }
}

/// Drops the bytes of every copy of a delivery that has ended; the names stay for late acknowledgements.
///
/// # Errors
/// [`StoreError`].
pub fn drop_bytes(tx: Tx<'_>, row: &DeliveryRow) -> Result<(), StoreError> {
    let sql = concat!("UPDATE copy SET env_bytes = NULL WHERE ", of_delivery!(), " AND env_bytes IS NOT NULL");
    tx.conn().prepare_cached(sql)?.execute(params![row.msg_id.as_bytes(), row.recipient.as_bytes(), row.copy_id])?;
    Ok(())
}

fn copy_row(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    Ok(CopyRow {
        msg_id: id(row, "msg_id", MessageId::from_bytes)?,
        recipient: id(row, "recipient", AgentId::from_bytes)?,
        env_digest: row.get("env_digest")?,
        seal_attempt: small(row, "seal_attempt")?,
        prekey_id: row.get("prekey_id")?,
        route: text(row, "route")?,
        nats_msg_id: row.get("nats_msg_id")?,
        env_bytes: row.get::<_, Option<Vec<u8>>>("env_bytes")?.map(Bytes::from),
    })
}
