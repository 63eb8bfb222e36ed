//! The database's epoch and the directory's revision.

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, text},
};

/// Names the database for good, unless it has a name.
///
/// # Errors
/// [`DbError`].
pub(super) async fn set_epoch_once(conn: &mut Conn, epoch: &str) -> Result<(), DbError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('epoch', $1) ON CONFLICT (name) DO NOTHING")
        .bind(epoch)
        .execute(conn)
        .await?;
    Ok(())
}

/// The database's name: a resume token of another one is stale.
///
/// # Errors
/// [`DbError`].
pub async fn epoch(conn: &mut impl Source) -> Result<String, DbError> {
    let epoch = |row: &dyn Row| text(row, "value").map(str::to_owned);
    let found = conn.row("SELECT value FROM meta WHERE name = 'epoch'", Vec::new(), epoch).await?;
    found.ok_or(DbError::Corrupt { column: "value" })
}

/// The newest revision.
///
/// # Errors
/// [`DbError`].
pub async fn revision(conn: &mut Conn) -> Result<u64, DbError> {
    let value: i64 = sqlx::query_scalar("SELECT value FROM counter WHERE name = 'directory'").fetch_one(conn).await?;
    u64::try_from(value).map_err(corrupt("counter.value"))
}

/// The newest revision of an agent whose row is gone: a watch from before it missed ends that are not told any more.
///
/// # Errors
/// [`DbError`].
pub async fn pruned_revision(conn: &mut Conn) -> Result<u64, DbError> {
    let sql = "SELECT value FROM counter WHERE name = 'directory_pruned'";
    let value: i64 = sqlx::query_scalar(sql).fetch_one(conn).await?;
    u64::try_from(value).map_err(corrupt("counter.value"))
}

/// Takes the next revision for a change in the same transaction.
///
/// # Errors
/// [`DbError`].
pub async fn next_revision(conn: &mut Conn) -> Result<u64, DbError> {
    let value: i64 =
        sqlx::query_scalar("UPDATE counter SET value = value + 1 WHERE name = 'directory' RETURNING value")
            .fetch_one(conn)
            .await?;
    u64::try_from(value).map_err(corrupt("counter.value"))
}

/// Writes more than most changes do, so that whoever finds room here has some left. See [`empty`].
///
/// # Errors
/// [`DbError`].
pub(super) async fn fill(conn: &mut Conn) -> Result<(), DbError> {
    // At random: a file system that compresses would need no room for zeros.
    let sql = "INSERT INTO meta (name, value) VALUES ('room', hex(randomblob(32768)))
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(sql).execute(conn).await?;
    Ok(())
}

/// Removes what [`fill`] wrote.
///
/// # Errors
/// [`DbError`].
pub(super) async fn empty(conn: &mut Conn) -> Result<(), DbError> {
    sqlx::query("DELETE FROM meta WHERE name = 'room'").execute(conn).await?;
    Ok(())
}
