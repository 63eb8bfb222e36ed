//! Channels on disk: a private file each.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::channel::{Channel, is_name};
use crate::identity::{create_private_dir, read_private, write_private};

const FOLDER: &str = "notify";
const EXTENSION: &str = "json";

/// The folder of the channels.
pub(super) struct ChannelFiles(PathBuf);

impl ChannelFiles {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        create_private_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Every channel that can be used; the others are told in the log, and kept.
    pub(super) fn all(&self) -> io::Result<Vec<Channel>> {
        let mut channels = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != EXTENSION) || !is_name(name) {
                continue;
            }
            match read(&path) {
                Ok(channel) if channel.name == name => channels.push(channel),
                Ok(_) => warn!("{} holds a channel of another name, which is not used", path.display()),
                Err(error) => warn!(%error, "{} holds no channel that can be used", path.display()),
            }
        }
        Ok(channels)
    }

    pub(super) fn put(&self, channel: &Channel) -> io::Result<()> {
        write_private(&self.path(&channel.name), &serde_json::to_vec_pretty(channel)?)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name).with_extension(EXTENSION)
    }
}

fn read(path: &Path) -> io::Result<Channel> {
    let bytes = read_private(path)?.unwrap_or_default();
    // What stands in the file is secret: only where it went wrong is told.
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!("line {}, column {}: not a channel", error.line(), error.column());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}
