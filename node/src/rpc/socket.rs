//! Where the socket lies and who may reach it (DESIGN §8.14, PROTOCOL §6.3).

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use murmur_core::limits::SOCKET_PATH_BYTES_MAX;
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};

/// Set on directories that everybody may write to and nobody may clear.
const STICKY: u32 = 0o1000;

/// The path is longer than the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the socket path `{}` is {length} bytes; at most {SOCKET_PATH_BYTES_MAX} are possible: choose a shorter one with --socket", path.display())]
pub struct SocketPathTooLong {
    /// The path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: usize,
}

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is longer than the kernel takes.
    #[error(transparent)]
    TooLong(#[from] SocketPathTooLong),
    /// The directory is a symbolic link, which somebody else may turn elsewhere.
    #[error("{} is a symbolic link: the socket's directory must be a real one", .0.display())]
    Symlink(PathBuf),
    /// The directory belongs to somebody else.
    #[error("{} belongs to user {owner}: the socket's directory must be yours", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// The directory is everybody's, such as `/tmp`.
    #[error("{} is shared by everybody: name a directory of your own with --socket", .0.display())]
    Shared(PathBuf),
    /// There is something else than a socket.
    #[error("{} is there and no socket", .0.display())]
    NotASocket(PathBuf),
    /// A node answers on it.
    #[error("another node is running on {}", .0.display())]
    Taken(PathBuf),
    /// The disk or the kernel refuses.
    #[error("could not serve {}", path.display())]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A listening socket, removed when dropped.
pub struct Socket {
    path: PathBuf,
    link: Option<PathBuf>,
}

/// Refuses a path that the kernel would not take.
///
/// # Errors
/// [`SocketPathTooLong`].
pub fn check_length(path: &Path) -> Result<(), SocketPathTooLong> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Err(SocketPathTooLong { path: path.to_owned(), length });
    }
    Ok(())
}

/// Listens, in a directory that is the user's alone. A socket that nobody answers on any more is replaced.
///
/// # Errors
/// [`SocketError`].
pub async fn listen(path: &Path) -> Result<(Socket, UnixListener), SocketError> {
    check_length(path)?;
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    private_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io)?;
    Ok((Socket { path: path.to_owned(), link: None }, listener))
}

/// Makes the directory, or narrows one that is the user's to the user alone.
fn private_directory(path: &Path) -> Result<(), SocketError> {
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io);
        }
        Err(error) => return Err(io(error)),
    };
    if found.is_symlink() {
        return Err(SocketError::Symlink(path.to_owned()));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(SocketError::ForeignOwner { path: path.to_owned(), owner: found.uid() });
    }
    match found.permissions().mode() {
        mode if mode & STICKY != 0 => Err(SocketError::Shared(path.to_owned())),
        mode if mode & 0o077 != 0 => fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io),
        _ => Ok(()),
    }
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() && !found.is_symlink() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::Taken(path.to_owned())),
        Err(error) if is_nobody(&error) => fs::remove_file(path).map_err(io),
        Err(error) => Err(io(error)),
    }
}

/// Nobody listens there, or it is a link to nothing.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

impl Socket {
    /// Makes the socket known in another place too, until it is dropped. What another node serves there stays.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn link(&mut self, at: &Path) -> Result<(), SocketError> {
        let io = |source| SocketError::Io { path: at.to_owned(), source };
        private_directory(at.parent().unwrap_or(Path::new(".")))?;
        // One of an earlier run leads to the socket that this one has just bound.
        match fs::read_link(at).is_ok_and(|target| target == self.path) {
            true => fs::remove_file(at).map_err(io)?,
            false => remove_stale(at).await?,
        }
        symlink(&self.path, at).map_err(io)?;
        self.link = Some(at.to_owned());
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next start removes what is left here.
        let _ = fs::remove_file(&self.path);
        if let Some(link) = &self.link {
            let _ = fs::remove_file(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsRawFd as _, time::Duration};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn socket_and_directory_are_the_users_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/node.sock");
        let (socket, _listener) = listen(&path).await.unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_is_a_link_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("real")).unwrap();
        symlink(home.path().join("real"), home.path().join("link")).unwrap();
        let refused = listen(&home.path().join("link/node.sock")).await;
        assert!(matches!(refused, Err(SocketError::Symlink(_))));
    }

    #[tokio::test]
    async fn a_directory_that_is_everybodys_is_refused_and_not_changed() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o1777)).unwrap();
        let refused = listen(&home.path().join("node.sock")).await;
        assert!(matches!(refused, Err(SocketError::Shared(_))));
        assert_eq!(mode(home.path()), 0o777);
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
        let (_socket, _listener) = listen(&home.path().join("node.sock")).await.unwrap();
        assert_eq!(mode(home.path()), 0o700);
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_never() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.sock");
        // It never listened: one that did may live on for a moment in the child that another thread is just starting.
        let dead = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(dead.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        drop(dead);
        assert!(path.exists());
        let (_socket, _listener) = listen(&path).await.unwrap();
        assert!(matches!(listen(&path).await, Err(SocketError::Taken(_))));
    }

    /// Listens where somebody has just stopped, who may live on for a moment in the child that another thread is just starting.
    async fn listen_again(path: &Path) -> (Socket, UnixListener) {
        for _ in 0..1_000 {
            match listen(path).await {
                Err(SocketError::Taken(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                listening => return listening.unwrap(),
            }
        }
        panic!("{} stays taken", path.display());
    }

    #[tokio::test]
    async fn a_link_leads_to_it_until_it_is_gone_and_a_dead_one_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (path, at) = (home.path().join("a/node.sock"), home.path().join("b/node.sock"));
        fs::create_dir(home.path().join("b")).unwrap();
        symlink("/nowhere/node.sock", &at).unwrap();
        let (mut socket, listener) = listen(&path).await.unwrap();
        socket.link(&at).await.unwrap();
        assert!(UnixStream::connect(&at).await.is_ok());
        assert!(matches!(listen(&at).await, Err(SocketError::Taken(_))), "a second node would take it over");
        // It is killed, and comes back.
        std::mem::forget(socket);
        drop(listener);
        let (mut socket, _listener) = listen_again(&path).await;
        socket.link(&at).await.unwrap();
        assert!(UnixStream::connect(&at).await.is_ok());
        drop(socket);
        assert!(fs::symlink_metadata(&at).is_err());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.sock");
        fs::write(&path, "notes").unwrap();
        assert!(matches!(listen(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"notes");
    }

    #[tokio::test]
    async fn a_path_beyond_the_limit_is_refused_with_the_limit() {
        let path = PathBuf::from(format!("/{}", "s".repeat(107)));
        let error = listen(&path).await.err().unwrap().to_string();
        assert!(error.contains("108 bytes") && error.contains("107"), "{error}");
    }
}
