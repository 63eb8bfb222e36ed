//! What sources of webhooks sent: to know a repeat, and to show.

use std::{fmt, str::FromStr};

use murmur_core::id::WebhookId;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{fixed, number, parsed, signed},
};

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Events were made of it.
    Accepted,
    /// It stands in logs and is not delivered: its author is on no list.
    Withheld,
    /// Nothing is made of it: not listed, or nothing to tell.
    Dropped,
    /// It is not what it says it is.
    Invalid,
}

/// A word in the database that is no outcome of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown outcome")]
pub struct UnknownOutcome;

impl Outcome {
    const ALL: [Self; 4] = [Self::Accepted, Self::Withheld, Self::Dropped, Self::Invalid];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Withheld => "withheld",
            Self::Dropped => "dropped",
            Self::Invalid => "invalid",
        }
    }

    /// Whether the same bytes are not looked at again. What was dropped is: the lists may have changed.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Accepted | Self::Withheld)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(UnknownOutcome)
    }
}

/// A delivery as stored.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Of what its signature covers.
    pub digest: [u8; 32],
    /// The sender's own id, as it says.
    pub delivery: String,
    /// The sender's own type, as it says.
    pub event: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for people.
    pub detail: String,
    /// Agents in whose logs something was written.
    pub agents: u64,
    /// Unix milliseconds.
    pub received_ms: u64,
}

impl Delivery {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            digest: fixed(row, "digest")?,
            delivery: row.try_get("delivery")?,
            event: row.try_get("event")?,
            outcome: parsed(row, "outcome")?,
            detail: row.try_get("detail")?,
            agents: number(row, "agents")?,
            received_ms: number(row, "received_ms")?,
        })
    }
}

/// What became of the same bytes since a moment.
///
/// # Errors
/// [`DbError`].
pub async fn outcome(
    conn: &mut Conn,
    id: WebhookId,
    digest: &[u8; 32],
    since_ms: u64,
) -> Result<Option<Outcome>, DbError> {
    let sql = "SELECT outcome FROM webhook_delivery WHERE webhook_id = $1 AND digest = $2 AND received_ms > $3";
    let row =
        sqlx::query(sql).bind(id.to_vec()).bind(digest.to_vec()).bind(signed(since_ms)).fetch_optional(conn).await?;
    row.as_ref().map(|row| parsed(row, "outcome")).transpose()
}

/// Writes down what became of a delivery, over what stood there for the same bytes.
///
/// # Errors
/// [`DbError`].
pub async fn put(conn: &mut Conn, id: WebhookId, delivery: &Delivery) -> Result<(), DbError> {
    sqlx::query(
        "INSERT OR REPLACE INTO webhook_delivery
             (webhook_id, digest, delivery, event, outcome, detail, agents, received_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.to_vec())
    .bind(delivery.digest.to_vec())
    .bind(&delivery.delivery)
    .bind(&delivery.event)
    .bind(delivery.outcome.as_str())
    .bind(&delivery.detail)
    .bind(signed(delivery.agents))
    .bind(signed(delivery.received_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what came in until a moment.
///
/// # Errors
/// [`DbError`].
pub async fn forget(conn: &mut Conn, until_ms: u64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM webhook_delivery WHERE received_ms <= $1").bind(signed(until_ms)).execute(conn).await?;
    Ok(())
}

/// Deliveries, newest first, from before a row number on (0: from the newest), each with its own.
///
/// # Errors
/// [`DbError`].
pub async fn page(conn: &mut Conn, id: WebhookId, before: u64, limit: u32) -> Result<Vec<(u64, Delivery)>, DbError> {
    // A row that is replaced gets a new number at the end, so that numbers are the order of arrival.
    let sql = "SELECT rowid AS number, * FROM webhook_delivery
               WHERE webhook_id = $1 AND ($2 = 0 OR rowid < $2) ORDER BY rowid DESC LIMIT $3";
    let rows = sqlx::query(sql).bind(id.to_vec()).bind(signed(before)).bind(limit).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((number(row, "number")?, Delivery::from_row(row)?))).collect()
}
