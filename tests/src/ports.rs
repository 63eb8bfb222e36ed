//! Ports that no other test takes: below the range from which the kernel picks, each held by a file lock while it is leased.

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    path::PathBuf,
};

use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 20_000;
const LAST: u16 = 29_999;

/// A port of 127.0.0.1, ours until dropped, even across restarts of whoever listens on it.
pub struct PortLease {
    /// The port.
    pub port: u16,
    _lock: Flock<File>,
}

impl PortLease {
    /// Leases a free port.
    ///
    /// # Panics
    /// When ten thousand ports are taken.
    #[must_use]
    pub fn take() -> Self {
        let folder = lock_folder();
        let span = LAST - FIRST + 1;
        let offset = u16::try_from(std::process::id() * 37 % u32::from(span)).unwrap();
        (0..span)
            .map(|step| FIRST + (offset + step) % span)
            .find_map(|port| lease(&folder, port))
            .expect("a free port between 20000 and 29999")
    }
}

fn lock_folder() -> PathBuf {
    let folder = std::env::temp_dir().join("murmur-test-ports");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn lease(folder: &std::path::Path, port: u16) -> Option<PortLease> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(port.to_string())).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    Some(PortLease { port, _lock: lock })
}
