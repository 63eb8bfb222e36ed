//! What a person sees of the quarantine: arrivals that could not be believed or read. Nobody's words, so nobody's inbox.

use murmur_core::limits::PAGE_SIZE_MAX;

use super::{Post, error::QueryError};
use crate::store::{
    Tx,
    quarantine::{self, QuarantineRow},
};

impl Post {
    /// The quarantine behind a number, oldest first, without bytes. At most `limit`.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub async fn list_quarantine(&self, after: u64, limit: u32) -> Result<Vec<QuarantineRow>, QueryError> {
        let limit = limit.min(PAGE_SIZE_MAX + 1);
        Ok(self.store.read(move |tx| quarantine::list(tx, after, limit)).await?)
    }

    /// One arrival with its bytes.
    ///
    /// # Errors
    /// [`QueryError::NotQuarantined`].
    pub async fn quarantined(&self, number: u64) -> Result<QuarantineRow, QueryError> {
        let found = self.store.read(move |tx| quarantine::get(tx, number)).await?;
        found.ok_or(QueryError::NotQuarantined { number })
    }

    /// Deletes one arrival.
    ///
    /// # Errors
    /// [`QueryError::NotQuarantined`].
    pub async fn drop_quarantined(&self, number: u64) -> Result<(), QueryError> {
        let work = move |tx: Tx<'_>| quarantine::remove(tx, number);
        if self.store.write(work).await? { Ok(()) } else { Err(QueryError::NotQuarantined { number }) }
    }
}
