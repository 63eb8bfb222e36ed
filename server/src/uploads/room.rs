//! What the functions of this room share.

use std::{fs, io, path::Path, sync::Arc};

use object_store::{ObjectStore, local::LocalFileSystem};
use tokio::sync::watch;

use crate::{
    agents::Agents,
    clock::Clock,
    db::Db,
    files::make_private_dir,
    links::{LinkKey, PublicUrl},
};

/// What can be set.
#[derive(Debug, Clone, Copy)]
pub struct UploadsConfig {
    /// Of one file.
    pub bytes_max: u64,
    /// Of all files of one account.
    pub account_bytes_max: u64,
    /// How long a link answers.
    pub life_ms: u64,
}

/// The files of this control plane.
pub struct Uploads {
    pub(super) db: Db,
    pub(super) clock: Clock,
    /// Who note it in their timelines.
    pub(super) agents: Arc<Agents>,
    pub(super) public: PublicUrl,
    pub(super) config: UploadsConfig,
    pub(super) store: Arc<dyn ObjectStore>,
    /// Wakes the keeper.
    pub(super) due: watch::Sender<()>,
}

impl Uploads {
    /// The room over a directory, which is made.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(
        dir: &Path,
        (db, clock): (Db, Clock),
        agents: Arc<Agents>,
        public: PublicUrl,
        config: UploadsConfig,
    ) -> io::Result<Self> {
        make_private_dir(dir)?;
        drop_torn(dir)?;
        // A link that was given out must answer after a power failure, too.
        let store = LocalFileSystem::new_with_prefix(dir).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self { db, clock, agents, public, config, store: Arc::new(store), due: watch::Sender::new(()) })
    }
}

/// Where the bytes of a file are.
pub(super) fn place(key: LinkKey) -> object_store::path::Path {
    object_store::path::Path::from(key.to_string())
}

/// What was being written when an earlier process was killed. The library marks it so.
fn drop_torn(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains('#') {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
