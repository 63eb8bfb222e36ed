//! Taking a file in: its row, its bytes, its digest, and only then its link.

use std::sync::Arc;

use bytes::Bytes;
use murmur_proto::v1;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};

use super::{UploadError, Uploads, name, room::place};
use crate::{
    agents::Who,
    db::{
        agent_run,
        upload::{self, Upload},
    },
    invalid::{Invalid, fixed},
    links::LinkKey,
    tokens::Principal,
};

/// A file that does not come whole within this time is given up.
const INTAKE_MS: u64 = 3600 * 1000;
/// Files of one account at one time, of whatever size.
const ACCOUNT_FILES_MAX: u64 = 1000;
/// Parts that are written at once.
const WRITES_MAX: usize = 2;

/// A file that is coming in. Dropping it gives it up.
pub struct Intake {
    uploads: Arc<Uploads>,
    row: Upload,
    writer: WriteMultipart,
    digest: Sha256,
    received: u64,
}

/// A file that is there.
pub struct Uploaded {
    /// Where it can be fetched.
    pub url: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Of all of it.
    pub sha256: [u8; 32],
    /// Unix milliseconds.
    pub expire_ms: u64,
}

impl Uploads {
    /// Begins a file.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn begin(
        self: &Arc<Self>,
        principal: &Principal,
        header: v1::UploadHeader,
    ) -> Result<Intake, UploadError> {
        let v1::UploadHeader { filename, content_type, size_bytes } = header;
        if size_bytes > self.config.bytes_max {
            return Err(UploadError::TooLarge { size_bytes, max: self.config.bytes_max });
        }
        let filename = name::clean(&filename);
        let content_type = name::content_type(&content_type)?;
        let mut tx = self.db.write().await?;
        let who = Who::of(&mut tx, principal).await?;
        let account = who.account.as_ref().map(ToString::to_string).unwrap_or_default();
        let used = upload::usage(&mut tx, who.workspace_id, &account).await?;
        if used.count >= ACCOUNT_FILES_MAX || used.size_bytes + size_bytes > self.config.account_bytes_max {
            return Err(UploadError::Limit(format!("{} files of {} bytes here", used.count, used.size_bytes)));
        }
        let row = Upload {
            key: LinkKey::new()?,
            workspace_id: who.workspace_id,
            account,
            agent_id: who.agent.as_ref().map(|run| run.agent_id),
            extension: name::extension(&filename),
            filename,
            content_type,
            size_bytes,
            sha256: None,
            expire_ms: self.clock.now_ms() + INTAKE_MS,
        };
        upload::insert(&mut tx, &row).await?;
        tx.commit().await?;
        self.due.send_replace(());
        let writer = WriteMultipart::new(self.store.put_multipart(&place(row.key)).await?);
        Ok(Intake { uploads: Arc::clone(self), row, writer, digest: Sha256::new(), received: 0 })
    }
}

impl Intake {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`UploadError`] when there are more than were announced, or they cannot be written.
    pub async fn write(&mut self, data: Bytes) -> Result<(), UploadError> {
        self.received += data.len() as u64;
        if self.received > self.row.size_bytes {
            return Err(Invalid::new("data", format!("must be the {} bytes of size_bytes", self.row.size_bytes)).into());
        }
        self.digest.update(&data);
        self.writer.wait_for_capacity(WRITES_MAX).await?;
        self.writer.put(data);
        Ok(())
    }

    /// All of it came.
    ///
    /// # Errors
    /// [`UploadError`] when it is not what was announced, or is not on the disk.
    pub async fn finish(self, sha256: &[u8]) -> Result<Uploaded, UploadError> {
        let Self { uploads, row, writer, digest, received } = self;
        let sha256: [u8; 32] = fixed("sha256", sha256)?;
        if received != row.size_bytes {
            let rule = format!("must be the {} bytes of size_bytes, got {received}", row.size_bytes);
            return Err(Invalid::new("data", rule).into());
        }
        if digest.finalize().as_slice() != sha256 {
            return Err(Invalid::new("sha256", "must be the digest of the bytes that came").into());
        }
        writer.finish().await?;
        let mut work = uploads.agents.begin().await?;
        let expire_ms = work.now_ms() + uploads.config.life_ms;
        if !upload::complete(&mut work, row.key, &sha256, expire_ms).await? {
            return Err(Invalid::new("data", "must come whole within an hour").into());
        }
        if let Some(id) = row.agent_id
            && let Some(run) = agent_run::get(&mut work, row.workspace_id, id).await?
        {
            let (text, now_ms) = (format!("{} ({} bytes)", row.filename, row.size_bytes), work.now_ms());
            work.note(&run, v1::TimelineKind::Upload, now_ms, &text).await?;
        }
        uploads.agents.commit(work).await?;
        uploads.due.send_replace(());
        let url = uploads.public.upload(row.key, &row.extension);
        Ok(Uploaded { url, size_bytes: row.size_bytes, sha256, expire_ms })
    }
}
