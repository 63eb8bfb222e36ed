//! Giving a file to whoever has its link.

use std::ops::Range;

use bytes::Bytes;
use futures::{TryStreamExt as _, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore as _};

use super::{UploadError, Uploads, room::place};
use crate::{
    db::upload::{self, Upload},
    links::LinkKey,
};

/// A file that is there.
#[derive(Clone)]
pub struct Fetched {
    row: Upload,
    /// What it is saved as, of harmless characters.
    pub filename: String,
    /// A media type.
    pub content_type: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Of all of it.
    pub sha256: [u8; 32],
}

/// Bytes of a file.
pub type Part = BoxStream<'static, Result<Bytes, UploadError>>;

impl Uploads {
    /// The file of a link with the extension that it was given; `None` for one that never was, is not whole yet, or has expired.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn find(&self, key: LinkKey, extension: &str) -> Result<Option<Fetched>, UploadError> {
        let mut tx = self.db.read().await?;
        let row = upload::get(&mut tx, key).await?;
        drop(tx);
        let now_ms = self.clock.now_ms();
        let fetched = |row: Upload| {
            let sha256 = row.sha256?;
            let (filename, content_type) = (row.filename.clone(), row.content_type.clone());
            let size_bytes = row.size_bytes;
            Some(Fetched { row, filename, content_type, size_bytes, sha256 })
        };
        Ok(row.filter(|row| row.expire_ms > now_ms && row.extension == extension).and_then(fetched))
    }

    /// Some of a file's bytes, read as they are taken.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn read(&self, file: &Fetched, range: Range<u64>) -> Result<Part, UploadError> {
        if range.is_empty() {
            return Ok(Box::pin(futures::stream::empty()));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.store.get_opts(&place(file.row.key), options).await?;
        Ok(Box::pin(found.into_stream().map_err(UploadError::from)))
    }
}
