//! Answers to calls that may be repeated.

use sqlx::Row as _;

use super::{
    Conn, DbError,
    row::{fixed, signed},
};

/// Which answer.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// Who called.
    pub caller: &'a [u8],
    /// What was called.
    pub method: &'a str,
    /// As the caller chose it.
    pub key: &'a str,
}

/// What a call with a key was answered.
#[derive(Debug)]
pub struct Answered {
    /// SHA-256 of the request.
    pub digest: [u8; 32],
    /// For the room that gave it.
    pub answer: Vec<u8>,
}

/// What was answered after `since_ms`.
///
/// # Errors
/// [`DbError`].
pub async fn get(
    conn: &mut Conn,
    Key { caller, method, key }: Key<'_>,
    since_ms: u64,
) -> Result<Option<Answered>, DbError> {
    let row = sqlx::query(
        "SELECT digest, answer FROM idempotency
         WHERE caller = $1 AND method = $2 AND key = $3 AND created_ms > $4",
    )
    .bind(caller)
    .bind(method)
    .bind(key)
    .bind(signed(since_ms))
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok(Answered { digest: fixed(&row, "digest")?, answer: row.try_get("answer")? })).transpose()
}

/// Keeps an answer in place of what the key meant before.
///
/// # Errors
/// [`DbError`].
pub async fn put(
    conn: &mut Conn,
    Key { caller, method, key }: Key<'_>,
    answered: &Answered,
    now_ms: u64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO idempotency (caller, method, key, digest, answer, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (caller, method, key)
         DO UPDATE SET digest = excluded.digest, answer = excluded.answer, created_ms = excluded.created_ms",
    )
    .bind(caller)
    .bind(method)
    .bind(key)
    .bind(answered.digest.to_vec())
    .bind(&answered.answer)
    .bind(signed(now_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what was answered up to a time.
///
/// # Errors
/// [`DbError`].
pub async fn forget(conn: &mut Conn, until_ms: u64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM idempotency WHERE created_ms <= $1").bind(signed(until_ms)).execute(conn).await?;
    Ok(())
}
