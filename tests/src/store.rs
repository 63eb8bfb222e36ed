//! What a node has on its disk, read from beside it.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::network::Node;

/// How long a reader may wait for the node's writer.
const BUSY: Duration = Duration::from_secs(10);

/// Rows of a table of a node that runs.
///
/// # Panics
/// When there is no such table.
#[must_use]
pub fn rows(node: &Node, table: &str) -> u64 {
    number(node, &format!("SELECT count(*) FROM {table}"))
}

/// What a query for one number answers.
///
/// # Panics
/// When the query is refused.
#[must_use]
pub fn number(node: &Node, sql: &str) -> u64 {
    let connection = Connection::open_with_flags(node.dir.join("store.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(BUSY).unwrap();
    let number: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    u64::try_from(number).unwrap()
}

/// Changes what a node that does not run has stored.
///
/// # Panics
/// When the statement is refused.
pub fn change(node: &Node, sql: &str) {
    Connection::open(node.dir.join("store.db")).unwrap().execute_batch(sql).unwrap();
}

/// Brings everything from the journal into the database file of a node that does not run.
///
/// # Panics
/// When the store cannot be opened.
pub fn fold_journal(node: &Node) {
    let connection = Connection::open(node.dir.join("store.db")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}
