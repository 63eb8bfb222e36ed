//! The process: what it may leak, who owns the data directory, and when it ends.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::identity::create_private_dir;

/// Narrows what this process may leak: new files belong to the user alone, and in release builds no debugger of the same user and
/// no core dump sees its keys (PROTOCOL §6.10). A debug build may be looked into, unless it is told `MURMUR_HARDEN=1`.
///
/// # Errors
/// [`io::Error`] when the kernel refuses.
pub fn harden() -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    if !cfg!(debug_assertions) || std::env::var_os("MURMUR_HARDEN").is_some_and(|value| value == "1") {
        use nix::sys::{prctl, resource};
        prctl::set_dumpable(false)?;
        resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0)?;
    }
    Ok(())
}

/// The data directory, held for this process alone.
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The disk refuses.
    #[error("could not use the data directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another node has it.
    #[error("another node is running on the data directory {}", .0.display())]
    Taken(PathBuf),
}

impl DataDir {
    /// Makes the directory as needed, narrows it to its owner and locks it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        create_private_dir(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(path.join("node.lock")).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DataDirError::Taken(path.to_owned())),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A token that is cancelled by the first SIGTERM or SIGINT. The second one ends the process at once.
///
/// # Errors
/// [`io::Error`] when no signal handler can be installed.
pub fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} };
        next().await;
        info!("going down: sessions are told, calls may end");
        cancelled.cancel();
        next().await;
        warn!("ended at once by a second signal");
        std::process::exit(130);
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn two_nodes_never_share_a_data_directory() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Taken(_))));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_data_directory_is_its_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dir = DataDir::open(home.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
